// Marks that say what they are: the nearest to a pointer, or the one that the arrow keys reached.

const tip = document.getElementById("tip");
const REACH = 28; // pixels between a pointer and the mark it means

const BACKENDS = {
  normkernels: "own",
  head: "own",
  NumPy: "numpy",
  PyTorch: "torch",
  steps: "steps",
  "two phases": "phases",
};

/** The class that gives a backend its colour. */
function backend(name) {
  return Object.hasOwn(BACKENDS, name) ? BACKENDS[name] : "other";
}

/** What an entry is drawn beside: its baseline and its limit. */
function beside(entry) {
  return [entry.other, entry.limit].filter(Boolean);
}

function passOf(entry) {
  return entry.pass === "backward" ? "backward" : "forward";
}

/** Other people's functions may have no passes. */
function passName(entry) {
  return entry.pass === "" ? "call" : passOf(entry);
}

function hideTip() {
  tip.hidden = true;
  for (const node of document.querySelectorAll(".mark.on")) node.classList.remove("on");
}

function showTip(mark) {
  hideTip();
  mark.node.classList.add("on");
  tip.replaceChildren(...mark.lines.map((line) => html("div", "", line)));
  tip.hidden = false;
  placeTip(mark.node);
}

function placeTip(node) {
  const place = node.getBoundingClientRect();
  const left = Math.min(place.right + 10, window.innerWidth - tip.offsetWidth - 8);
  const above = place.top - tip.offsetHeight - 10;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 8 ? above : place.bottom + 10}px`;
}

/** A dot, a diamond for backward: not by colour alone. `lines` is the text of its tooltip, `link` what it opens. */
function mark(kind, x, y, lines, size = 4.5, link = null) {
  const shape = { class: `mark ${kind}`, role: "img", tabindex: -1, "aria-label": lines.join(", ") };
  const r = size * 1.25;
  const node =
    kind === "backward"
      ? svg("path", { ...shape, d: `M${x - r} ${y}L${x} ${y - r}L${x + r} ${y}L${x} ${y + r}Z` })
      : svg("circle", { ...shape, cx: x, cy: y, r: size });
  if (link) node.classList.add("opens");
  return { node, x, y, lines, link };
}

function openLink(mark) {
  if (mark.link) window.open(mark.link, "_blank", "noopener");
}

/** Let marks be found: by a pointer, and as one stop of the tab key with arrow keys from there. */
function findable(plots) {
  const marks = plots.flatMap((plot) => plot.marks);
  if (marks.length) marks[0].node.setAttribute("tabindex", 0);
  for (const { node: picture, marks: own } of plots) {
    const nearest = (event) => {
      const place = picture.getBoundingClientRect();
      const [x, y] = [event.clientX - place.left, event.clientY - place.top];
      const away = (one) => Math.hypot(one.x - x, one.y - y);
      const found = own.reduce((best, one) => (best && away(best) <= away(one) ? best : one), null);
      return found && away(found) < REACH ? found : null;
    };
    const point = (event) => {
      const found = nearest(event);
      if (found) showTip(found);
      else hideTip();
    };
    picture.addEventListener("click", (event) => openLink(nearest(event) ?? {}));
    picture.addEventListener("pointermove", point);
    picture.addEventListener("pointerdown", point);
    picture.addEventListener("pointerleave", hideTip);
  }
  marks.forEach((one, i) => {
    one.node.addEventListener("focus", () => showTip(one));
    one.node.addEventListener("blur", hideTip);
    one.node.addEventListener("keydown", (event) => {
      if (event.key === "Enter") openLink(one);
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const other = step && marks[i + step];
      if (!other) return;
      event.preventDefault();
      one.node.setAttribute("tabindex", -1);
      other.node.setAttribute("tabindex", 0);
      other.node.focus();
    });
  });
}

document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
// Focus may have scrolled the page to its mark, which then keeps its tooltip.
document.addEventListener(
  "scroll",
  () => (document.activeElement.matches(".mark.on") ? placeTip(document.activeElement) : hideTip()),
  { passive: true },
);

/** What the shapes and colours mean, above the pictures. */
function legend(entries, more = []) {
  const items = [...grouped(entries, passName)].map(([kind, [first]]) => {
    const shape = mark(passOf(first), 6, 6, []).node;
    const picture = svg("svg", { width: 12, height: 12, "aria-hidden": true }, shape);
    picture.firstChild.removeAttribute("tabindex");
    return html("span", "", picture, kind);
  });
  return html("div", "legend", ...items, ...more);
}
