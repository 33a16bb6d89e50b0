// Sorting and filtering the rows that are there.

function valueOf(row, column) {
  const cell = row.cells[column];
  if (cell.classList.contains("none")) return null;
  return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
}

function compare(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

/** Sort by a column, the other way round where it is sorted so already; what has no value comes last. */
function sortBy(table, heading) {
  const column = heading.cellIndex;
  const order = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
  rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function sortable(table) {
  for (const heading of table.tHead.rows[0].cells) {
    heading.querySelector("button").addEventListener("click", () => sortBy(table, heading));
  }
}

/** Whether an entry has the words and is what the selects ask for; `run` is "" for the newest. */
function matches(entry, text, wanted) {
  const words = wanted.text.toLowerCase().split(/\s+/);
  return (
    words.every((word) => text.includes(word)) &&
    ["norm", "pass", "dtype"].every((name) => !wanted[name] || entry[name] === wanted[name])
  );
}
