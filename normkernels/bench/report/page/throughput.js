// Throughput against the size of a tensor, and against the batch: a line for each backend.

const MOST_SIZES = 8; // a line through more takes the mean of each doubling

function size(entries, width, runs) {
  const known = entries.filter((entry) => entry.tensor);
  const at = (entry) => entry.tensor;
  const groups = withSeveral(known, (entry) => `${title(entry)}${entry.context}`, at);
  if (!groups.length) return "No norm here was measured at two tensor sizes or more.";
  return throughput(groups, width, runs, { at, label: bytes, xLabel: "one tensor" });
}

function batch(entries, width, runs) {
  const at = (entry) => entry.rows;
  const layer = (entry) => `${title(entry)}, ${entry.layer}${entry.context}`;
  const known = entries.filter((entry) => entry.gbs !== null);
  const groups = withSeveral(known, layer, at);
  if (!groups.length) return "No layer here was measured at two batches or more.";
  return throughput(groups, width, runs, { at, label: String, xLabel: "N" });
}

function title(entry) {
  return `${entry.norm} ${entry.pass}`.trim();
}

/** A panel for each group; `at` is the size of an entry, `label` how it reads. */
function throughput(groups, width, runs, { at, label, xLabel }) {
  const copyOf = (own) => Math.max(...own.map((entry) => runs[entry.run].copy));
  const speeds = ([, own]) => [copyOf(own), ...own.flatMap((entry) => [entry.gbs, entry.other?.gbs ?? 0, entry.limit?.gbs ?? 0])];
  const most = 1.08 * Math.max(...groups.flatMap(speeds));
  return panels(width, groups, ([title, own], width) => {
    const plot = new Plot(title, width, 210, { top: 34, right: 84, bottom: 36, left: 34 });
    const sizes = [...new Set(own.map(at))].sort((a, b) => a - b);
    const x = logarithmic([sizes[0], sizes.at(-1)], [plot.left + 6, plot.right - 6]);
    plot.axes({
      x,
      y: linear([0, most], [plot.bottom, plot.top]),
      xTicks: spaced(sizes, x, 52).map((value) => [value, label(value)]),
      yTicks: ticks(most, 4).map((value) => [value, short(value)]),
      xLabel,
      yLabel: "GB/s",
    });
    plot.heading();
    plot.line("limit", plot.left, plot.y(copyOf(own)), plot.right, plot.y(copyOf(own)));
    const points = own.flatMap((entry) => [
      { name: runs[entry.run].own, size: at(entry), gbs: entry.gbs, entry },
      ...beside(entry).map((other) => ({ ...other, size: at(entry), entry })),
    ]);
    const bin = (size) => (sizes.length > MOST_SIZES ? Math.round(Math.log2(size)) : size);
    const lines = grouped(points, (point) => point.name);
    nameEnds(
      plot,
      [...lines].map(([name, same]) => [name, trend(plot, name, same, bin)]),
    );
    return plot.done();
  });
}

/** The line and the marks of one backend; returns where the line ends. */
function trend(plot, name, points, bin) {
  const line = [...grouped(points, (point) => bin(point.size)).values()]
    .map((near) => [mean(near.map((point) => point.size)), mean(near.map((point) => point.gbs))])
    .sort(([a], [b]) => a - b)
    .map(([size, gbs]) => [plot.x(size), plot.y(gbs)]);
  plot.path(`series ${backend(name)}`, line);
  for (const { size, gbs, entry } of points) {
    const lines = [`${name}: ${gbs.toFixed(1)} GB/s`, ...entry.tip];
    plot.add(mark(backend(name), plot.x(size), plot.y(gbs), lines, 3.5));
  }
  return line.at(-1)[1];
}

/** Names beside the ends of lines, 13 pixels or more apart and none below the axis. */
function nameEnds(plot, ends) {
  const labels = ends.map(([name, y]) => ({ name, y })).sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => (label.y = Math.max(label.y, i ? labels[i - 1].y + 13 : plot.top)));
  labels.reverse();
  labels.forEach((label, i) => (label.y = Math.min(label.y, i ? labels[i - 1].y - 13 : plot.bottom)));
  for (const { name, y } of labels)
    plot.text(`end ${backend(name)}`, plot.right + 4, y + 4, name, "start", 80);
}
