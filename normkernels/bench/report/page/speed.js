// Speed against the limit: a line for each case, or for each norm where cases are many.

const MOST_LINES = 24;

function speed(entries, width) {
  const cold = entries.filter((entry) => entry.fraction !== null);
  if (!cold.length) return "No case here comes from memory: all tensors stay in cache.";
  const each = width > 600 && grouped(cold, caseLabel).size <= MOST_LINES;
  const lines = [...grouped(cold, (entry) => entry.norm)].flatMap(([norm, own]) =>
    each
      ? [{ norm, own: [] }, ...[...grouped(own, caseLabel)].map(([label, same]) => ({ label, own: same }))]
      : [{ norm, own }],
  );
  const longest = Math.max(...lines.map((line) => (line.norm ?? line.label).length));
  const fractions = cold.flatMap((entry) => [entry.fraction, ...beside(entry).map(({ fraction }) => fraction)]);
  const most = 1.05 * Math.max(1, ...fractions);
  const step = each ? 22 : 44;
  const left = Math.min(0.42 * width, 14 + 6.3 * longest);
  const room = { top: 20, right: 14, bottom: 32, left };
  const plot = new Plot("Speed against the limit", width, 52 + step * lines.length, room);
  plot.axes({
    x: linear([0, most], [plot.left, plot.right]),
    xTicks: ticks(most, width > 600 ? 10 : 5).map((value) => [value, value.toFixed(1)]),
    xLabel: "fraction of a large copy",
  });
  lines.forEach(({ norm, label, own }, i) => {
    const middle = plot.top + step * (i + 0.5);
    if (norm) plot.text("heading", 0, middle + 4, norm, "start", left);
    else plot.text("name", 12, middle + 4, label, "start", left);
    if (i && !each) plot.line("axis", 0, middle - step / 2, plot.right, middle - step / 2);
    const lanes = grouped(own, passOf);
    for (const [kind, same] of lanes) {
      const side = kind === "forward" ? -1 : 1;
      lane(plot, kind, same, lanes.size > 1 ? middle + (side * step) / 4.8 : middle);
    }
  });
  plot.line("limit", plot.x(1), plot.top, plot.x(1), plot.bottom);
  plot.text("", plot.x(1) + 4, 13, "large copy", "end");
  return { nodes: [legend(cold, backends(cold)), plot.done().node], plots: [plot] };
}

function caseLabel(entry) {
  return [...new Set([entry.preset, entry.shape])].join("  ") + entry.context;
}

/** The cases of one pass in one line; a short stroke is the baseline, or the limit of two phases. */
function lane(plot, kind, entries, y) {
  for (const { name, fraction } of entries.flatMap(beside))
    plot.line(`tick ${backend(name)}`, plot.x(fraction), y - 4.5, plot.x(fraction), y + 4.5);
  plot.add(...entries.map((entry) => mark(kind, plot.x(entry.fraction), y, entry.tip)));
}

/** The baselines and the limit, for the legend. */
function backends(entries) {
  const names = new Set(entries.flatMap(beside).map(({ name }) => name));
  return [...names].map((name) => {
    const stroke = svg("line", { class: `tick ${backend(name)}`, x1: 3, x2: 3, y1: 1, y2: 11 });
    return html("span", "", svg("svg", { width: 6, height: 12, "aria-hidden": true }, stroke), name);
  });
}
