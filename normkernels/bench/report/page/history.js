// History: a line for each case over the results.

const FINE = [0.5, 0.67, 0.8, 1, 1.25, 1.5, 2];

/** Speed of `entry` as a multiple of that of `first`. */
function relative(entry, first) {
  return entry.fraction && first.fraction ? entry.fraction / first.fraction : first.median / entry.median;
}

function history(entries, width, runs) {
  const lines = withSeveral(
    entries,
    (entry) => entry.id,
    (entry) => entry.run,
  ).map(([, own]) => own);
  if (!lines.length)
    return "No case here is in two results or more: give several results files for a history.";
  const used = [...new Set(lines.flat().map((entry) => entry.run))].sort((a, b) => a - b);
  const changes = lines.flatMap((own) => own.map((entry) => Math.abs(Math.log(relative(entry, own[0])))));
  const span = Math.max(1.25, 1.05 * Math.exp(Math.max(...changes)));
  const steps = span > 2.5 ? decades(1 / span, span, [1, 2, 5]) : FINE;
  const groups = [...grouped(lines, ([first]) => `${title(first)}${first.context}`)];
  return panels(width, groups, ([title, own], width) => {
    const plot = new Plot(title, width, 200, { top: 24, right: 12, bottom: 44, left: 34 });
    const x = linear([0, used.length - 1], [plot.left + 26, plot.right - 26]);
    plot.axes({
      x,
      y: logarithmic([1 / span, span], [plot.bottom, plot.top]),
      xTicks: spaced([...used.keys()], x, 74).map((i) => [i, runs[used[i]].label, runs[used[i]].day]),
      yTicks: steps.filter((step) => step >= 1 / span && step <= span).map((step) => [step, short(step)]),
    });
    plot.heading();
    plot.line("limit", plot.left, plot.y(1), plot.right, plot.y(1));
    const ends = own.map((line) => course(plot, line, used, runs));
    nameFurthest(plot, ends);
    return plot.done();
  });
}

/** The line and the marks of one case; returns what there is to say of its end. */
function course(plot, line, used, runs) {
  const points = line.map((entry) => {
    const value = relative(entry, line[0]);
    return { entry, value, x: plot.x(used.indexOf(entry.run)), y: plot.y(value) };
  });
  const kind = passOf(line[0]);
  plot.path(
    `series ${kind}`,
    points.map(({ x, y }) => [x, y]),
  );
  for (const { entry, value, x, y } of points) {
    const { label, day, link } = runs[entry.run];
    plot.add(mark(kind, x, y, [`${value.toFixed(2)} of the first, ${label} ${day}`, ...entry.tip], 3, link));
  }
  return points.at(-1);
}

function nameFurthest(plot, ends) {
  const change = (end) => Math.abs(Math.log(end.value));
  const furthest = ends.reduce((best, end) => (change(end) > change(best) ? end : best));
  const y = furthest.y + (furthest.value > 1 ? -7 : 15);
  plot.text("name halo", furthest.x + 6, y, `${furthest.entry.shape} ${furthest.value.toFixed(2)}`, "end");
}
