// The filters, and what follows them: rows, charts and the line that sums up.

const report = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("cases");
const rowOf = new Map([...table.tBodies[0].rows].map((row, i) => [report.entries[i], row]));
const textOf = new Map([...rowOf].map(([entry, row]) => [entry, row.textContent.toLowerCase()]));
const filters = document.querySelector(".filters");

function wantedNow() {
  const value = (name) => document.getElementById(name)?.value ?? "";
  return Object.fromEntries(["text", "norm", "pass", "dtype", "run"].map((name) => [name, value(name)]));
}

function draw(name, entries) {
  const figure = document.getElementById(name);
  const drawn = CHARTS[name](entries, figure.clientWidth, report.runs);
  figure.className = drawn.columns ? `panels ${name}` : name;
  figure.style.gridTemplateColumns = drawn.columns ? `repeat(${drawn.columns}, minmax(0, 1fr))` : "";
  if (typeof drawn === "string") figure.replaceChildren(html("p", "", drawn));
  else {
    figure.replaceChildren(...drawn.nodes);
    findable(drawn.plots);
  }
}

function summary(shown, all) {
  const count = (entries) => grouped(entries, (entry) => entry.id).size;
  const parts = [`${count(shown)} of ${count(all)} cases`];
  for (const [kind, own] of grouped(shown, passName)) {
    const cold = own.filter((entry) => entry.fraction !== null);
    if (cold.length) parts.push(`${kind} ${mean(cold.map((entry) => entry.fraction)).toFixed(2)} of copy`);
  }
  const compared = shown.filter((entry) => entry.other);
  for (const [name, own] of grouped(compared, (entry) => entry.other.name)) {
    parts.push(`${times(mean(own.map((entry) => entry.other.ratio)))} ${name}`);
  }
  return parts.length > 1 ? `${parts.join(" · ")} (geometric means)` : parts[0];
}

function update() {
  hideTip();
  const wanted = wantedNow();
  const matching = report.entries.filter((entry) => matches(entry, textOf.get(entry), wanted));
  const ofRun = (entry) => (wanted.run === "" ? entry.newest : entry.run === Number(wanted.run));
  const shown = matching.filter(ofRun);
  const visible = new Set(shown);
  for (const [entry, row] of rowOf) row.hidden = !visible.has(entry);
  document.getElementById("summary").textContent = summary(shown, report.entries.filter(ofRun));
  for (const name of Object.keys(CHARTS)) draw(name, name === "history" ? matching : shown);
}

for (const cell of table.querySelectorAll(".bar")) {
  cell.style.setProperty("--f", Math.min(1, Number(cell.dataset.sort)));
}
sortable(table);
document.getElementById("text").addEventListener("input", update);
filters.addEventListener("change", update);
filters.addEventListener("submit", (event) => event.preventDefault());
let width = document.documentElement.clientWidth;
window.addEventListener("resize", () => {
  if (width === document.documentElement.clientWidth) return; // a phone's address bar came or went
  width = document.documentElement.clientWidth;
  update();
});
update();
