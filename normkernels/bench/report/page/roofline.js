// Roofline: bytes that must move against GB/s.

function roofline(entries, width, runs) {
  entries = entries.filter((entry) => entry.gbs !== null);
  if (!entries.length) return "No case here says how many bytes it must move.";
  const shown = [...new Set(entries.map((entry) => runs[entry.run]))];
  const roofs = [...grouped(shown, (run) => run.machine).values()];
  const sizes = entries.map((entry) => entry.bytes);
  const speeds = [...entries.map((entry) => entry.gbs), ...shown.map((run) => run.copy)];
  const [from, to] = [Math.min(...sizes) / 2, 2 * Math.max(...sizes, ...shown.map((run) => run.cache))];
  const [slow, fast] = [Math.min(...speeds) / 1.6, 1.6 * Math.max(...speeds)];
  const room = { top: 26, right: 14, bottom: 44, left: 38 };
  const plot = new Plot("Roofline", width, Math.min(400, 240 + 0.2 * width), room);
  const x = logarithmic([from, to], [plot.left, plot.right]);
  plot.axes({
    x,
    y: logarithmic([slow, fast], [plot.bottom, plot.top]),
    xTicks: spaced(decades(from, to, [1]), x, 58).map((value) => [value, bytes(value)]),
    yTicks: decades(slow, fast, [1, 2, 5]).map((value) => [value, short(value)]),
    xLabel: "bytes that must move",
    yLabel: "GB/s",
  });
  for (const own of roofs) roof(plot, own, [from, to], slow, roofs.length > 1 ? `, ${own[0].machine}` : "");
  plot.add(...entries.map((entry) => mark(passOf(entry), plot.x(entry.bytes), plot.y(entry.gbs), entry.tip)));
  return { nodes: [legend(entries), plot.done().node], plots: [plot] };
}

/** What bounds the runs of one machine: the time of a call, the copy; and where its cache ends. */
function roof(plot, runs, [from, to], slow, whose) {
  const { x, y } = plot;
  const copy = Math.max(...runs.map((run) => run.copy));
  const shortest = Math.min(...runs.map((run) => run.shortest));
  const knee = copy * 1e9 * shortest; // bytes that the copy moves in the time of the shortest call
  const start = Math.max(from, slow * 1e9 * shortest);
  const left = knee > start ? [start, start / shortest / 1e9] : [from, copy];
  const points = [left, [Math.max(knee, left[0]), copy], [to, copy]];
  plot.path(
    "roof",
    points.map(([size, gbs]) => [x(size), y(gbs)]),
  );
  plot.text("name halo", plot.right, y(copy) - 7, `large copy, ${copy.toFixed(1)} GB/s${whose}`, "end");
  if (knee > 2 * start) {
    const middle = Math.sqrt(start * knee);
    const label = `shortest call, ${short(shortest * 1e6)} µs`;
    plot.text("name halo", x(middle) + 10, y(middle / shortest / 1e9) + 4, label);
  }
  const cache = x(runs[0].cache);
  const after = cache < plot.width / 2;
  plot.line("cache", cache, plot.top, cache, plot.bottom);
  const label = `last-level cache, ${bytes(runs[0].cache)}${whose}`;
  plot.text(
    "halo",
    cache + (after ? 5 : -5),
    plot.bottom - 8,
    label,
    after ? "start" : "end",
    plot.width / 2,
  );
}
