"use strict";
// One function for each chart: from the entries to draw into a figure, to nodes and [svg, marks] pairs,
// or to a sentence where there is nothing to draw.

const BACKENDS = { normkernels: "own", NumPy: "numpy", PyTorch: "torch", steps: "steps" };
const MOST_LINES = 24; // more cases than this share a line for each norm
const MOST_ROWS = 6; // of panels
const MOST_SIZES = 8; // a line through more takes the mean of each doubling

function limit(picture, x1, y1, x2, y2) {
  picture.append(svg("line", { class: "limit", x1, y1, x2, y2 }));
}

// Speed against the limit

function speed(entries, width) {
  const cold = entries.filter((entry) => entry.fraction !== null);
  if (!cold.length) return "No case here comes from memory: all tensors stay in cache.";
  const caseOf = (entry) => [entry.norm, entry.preset, entry.shape, entry.dtype].join("/");
  const each = width > 600 && grouped(cold, caseOf).size <= MOST_LINES;
  const lines = [];
  for (const [norm, own] of grouped(cold, (entry) => entry.norm)) {
    if (!each) lines.push({ label: norm, own, heading: true });
    else {
      lines.push({ label: norm, own: [], heading: true });
      for (const same of grouped(own, caseOf).values()) lines.push({ label: caseLabel(same[0]), own: same });
    }
  }
  const step = each ? 22 : 44;
  const left = Math.min(0.42 * width, 14 + 6.3 * Math.max(...lines.map((line) => line.label.length)));
  const most = Math.max(1.06, 1.04 * Math.max(...cold.map((entry) => Math.max(entry.fraction, entry.other?.fraction ?? 0))));
  const x = linear([0, most], [left, width - 14]);
  const height = 52 + step * lines.length;
  const xTicks = ticks(most, width > 600 ? 10 : 5).map((value) => [value, value.toFixed(1)]);
  const picture = frame({
    width, height, left, right: 14, top: 20, bottom: 32, x, y: () => 0, xTicks, yTicks: [],
    xLabel: "fraction of a large copy", title: "Speed against the limit",
  });
  const marks = [];
  lines.forEach(({ label, own, heading }, i) => {
    const middle = 20 + step * (i + 0.5);
    picture.append(svg("text", { class: heading ? "heading" : "name", x: heading ? 0 : 12, y: middle + 4 }, fitted(label, each && heading ? width : left)));
    if (!each && i) picture.append(svg("line", { class: "axis", x1: 0, x2: width - 14, y1: middle - step / 2, y2: middle - step / 2 }));
    const lanes = [...grouped(own, passOf)];
    for (const [kind, same] of lanes) {
      const y = middle + (lanes.length < 2 ? 0 : (kind === "forward" ? -1 : 1) * (each ? 4.5 : 9));
      for (const { other } of same) {
        if (!other) continue;
        const at = x(other.fraction);
        picture.append(svg("line", { class: `tick ${BACKENDS[other.name] ?? "other"}`, x1: at, x2: at, y1: y - 4.5, y2: y + 4.5 }));
      }
      marks.push(...same.map((entry) => mark(kind, x(entry.fraction), y, entry.tip, each ? 4 : 4.5)));
    }
  });
  limit(picture, x(1), 20, x(1), height - 32);
  picture.append(svg("text", { x: x(1), y: 13, "text-anchor": "middle" }, "large copy"));
  picture.append(...marks.map((one) => one.node));
  const others = [...new Set(cold.filter((entry) => entry.other).map((entry) => entry.other.name))];
  const keys = others.map((name) => {
    const line = svg("line", { class: `tick ${BACKENDS[name] ?? "other"}`, x1: 3, x2: 3, y1: 1, y2: 11 });
    return html("span", "", svg("svg", { width: 6, height: 12, "aria-hidden": true }, line), name);
  });
  return {
    nodes: [legend(cold, keys), picture],
    pictures: [[picture, marks]],
  };
}

function caseLabel(entry) {
  const extras = entry.dtype === "float32" ? [] : [entry.dtype];
  return [...new Set([entry.preset, entry.shape, ...extras])].join("  ");
}

// Roofline

function roofline(entries, width, runs) {
  if (!entries.length) return "No case to draw.";
  const sizes = entries.map((entry) => entry.bytes);
  const roofs = [...grouped(entries.map((entry) => runs[entry.run]), (run) => run.machine).values()]
    .map((own) => own.reduce((best, run) => (run.copy > best.copy ? run : best)));
  const speeds = [...entries.map((entry) => entry.gbs), ...roofs.map((run) => run.copy)];
  const [from, to] = [Math.min(...sizes) / 2, Math.max(...sizes, ...roofs.map((run) => run.cache)) * 2];
  const [slow, fast] = [Math.min(...speeds) / 1.6, Math.max(...speeds) * 1.6];
  const [left, right, top, bottom, height] = [38, 14, 26, 44, Math.min(400, 240 + 0.2 * width)];
  const x = logarithmic([from, to], [left, width - right]);
  const y = logarithmic([slow, fast], [height - bottom, top]);
  const picture = frame({
    width, height, left, right, top, bottom, x, y,
    xTicks: spaced(decades(from, to, [1]), x, 58).map((value) => [value, bytes(value)]),
    yTicks: decades(slow, fast, [1, 2, 5]).map((value) => [value, short(value)]),
    xLabel: "bytes that must move", yLabel: "GB/s", title: "Roofline",
  });
  for (const run of roofs) {
    const shortest = Math.min(...runs.filter((other) => other.machine === run.machine).map((other) => other.shortest)); // whatever the filters show
    const start = Math.max(from, slow * 1e9 * shortest);
    const knee = run.copy * 1e9 * shortest;
    const points = knee > start ? [[start, start / shortest / 1e9], [knee, run.copy]] : [[from, run.copy]];
    points.push([to, run.copy]);
    picture.append(svg("polyline", { class: "roof", points: points.map(([size, gbs]) => `${x(size)},${y(gbs)}`).join(" ") }));
    const whose = roofs.length > 1 ? `, ${run.machine}` : "";
    picture.append(svg("text", { class: "name halo", x: width - right, y: y(run.copy) - 7, "text-anchor": "end" }, fitted(`large copy, ${run.copy.toFixed(1)} GB/s${whose}`, width)));
    if (knee > start) {
      const middle = Math.sqrt(start * knee);
      picture.append(svg("text", { class: "name halo", x: x(middle) + 10, y: y(middle / shortest / 1e9) + 4 }, `shortest call, ${short(shortest * 1e6)} µs`));
    }
    const cache = x(run.cache);
    picture.append(svg("line", { class: "cache", x1: cache, x2: cache, y1: top, y2: height - bottom }));
    const beside = cache > width / 2 ? { x: cache - 5, "text-anchor": "end" } : { x: cache + 5 };
    picture.append(svg("text", { class: "halo", ...beside, y: height - bottom - 8 }, fitted(`last-level cache, ${bytes(run.cache)}${whose}`, width / 2)));
  }
  const marks = entries.map((entry) => mark(passOf(entry), x(entry.bytes), y(entry.gbs), entry.tip));
  picture.append(...marks.map((one) => one.node));
  return { nodes: [legend(entries), picture], pictures: [[picture, marks]] };
}

// Lines in small panels

function panels(width, all, draw) {
  const columns = Math.max(1, Math.min(all.length, Math.floor((width + 22) / 320)));
  const groups = all.slice(0, columns * MOST_ROWS);
  const each = Math.min(560, Math.floor((width - 22 * (columns - 1)) / columns));
  const pictures = groups.map((group) => draw(group, each));
  const nodes = pictures.map(([picture]) => picture);
  const more = all.length - groups.length;
  if (more) nodes.push(html("p", "more", `${more} more with fewer points: filter to see them.`));
  return { nodes, pictures, columns };
}

/** Throughput by some size, one line for each backend; `at` is the size of an entry, `label` how it reads. */
function throughput(groups, { at, label, xLabel }, runs) {
  const most = 1.08 * Math.max(...groups.flatMap(([, own]) => own.flatMap((entry) => [entry.gbs, entry.other?.gbs ?? 0, runs[entry.run].copy])));
  return ([title, own], width) => {
    const [left, right, top, bottom, height] = [34, 84, 34, 36, 210];
    const sizes = [...new Set(own.map(at))].sort((a, b) => a - b);
    const x = logarithmic([sizes[0], sizes.at(-1)], [left + 6, width - right - 6]);
    const y = linear([0, most], [height - bottom, top]);
    const picture = frame({
      width, height, left, right, top, bottom, x, y, title, xLabel,
      xTicks: spaced(sizes, x, 52).map((value) => [value, label(value)]),
      yTicks: ticks(most, 4).map((value) => [value, short(value)]),
    });
    picture.append(svg("text", { class: "title", x: 0, y: 12 }, fitted(title, 0.88 * width)));
    picture.append(svg("text", { x: 0, y: 26 }, "GB/s"));
    const copy = y(Math.max(...own.map((entry) => runs[entry.run].copy)));
    limit(picture, left, copy, width - right, copy);
    const points = own.flatMap((entry) => [
      { backend: "normkernels", size: at(entry), gbs: entry.gbs, entry },
      ...(entry.other ? [{ backend: entry.other.name, size: at(entry), gbs: entry.other.gbs, entry }] : []),
    ]);
    const bin = (value) => (sizes.length > MOST_SIZES ? Math.round(Math.log2(value)) : value);
    const [marks, ends] = [[], []];
    for (const [backend, same] of grouped(points, (point) => point.backend)) {
      const kind = BACKENDS[backend] ?? "other";
      const line = [...grouped(same, (point) => bin(point.size)).values()]
        .map((near) => [x(mean(near.map((point) => point.size))), y(mean(near.map((point) => point.gbs)))])
        .sort(([a], [b]) => a - b);
      picture.append(svg("polyline", { class: `series ${kind}`, points: line.map((pair) => pair.join(",")).join(" ") }));
      marks.push(...same.map((point) => mark(kind, x(point.size), y(point.gbs), [`${backend}: ${point.gbs.toFixed(1)} GB/s`, ...point.entry.tip], 3.5)));
      ends.push({ name: backend, kind, y: line.at(-1)[1] });
    }
    picture.append(...marks.map((one) => one.node));
    apart(ends, top, height - bottom);
    for (const end of ends) {
      picture.append(svg("text", { class: `end ${end.kind}`, x: width - right + 4, y: end.y + 4 }, fitted(end.name, right)));
    }
    return [picture, marks];
  };
}

/** Move labels that would lie on each other: each 13 pixels or more below the one above, none below `bottom`. */
function apart(labels, top, bottom) {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => (label.y = Math.max(label.y, i ? labels[i - 1].y + 13 : top)));
  labels.reverse().forEach((label, i) => (label.y = Math.min(label.y, i ? labels[i - 1].y - 13 : bottom)));
}

/** As many of the values as have room, among them the first and the last. */
function spaced(values, scale, room) {
  const kept = values.slice(0, 1);
  const last = values.at(-1);
  for (const value of values.slice(1, -1)) {
    if (scale(value) - scale(kept.at(-1)) >= room && scale(last) - scale(value) >= room) kept.push(value);
  }
  return kept[0] !== last ? [...kept, last] : kept;
}

/** Groups with two sizes or more, those with most of them first. */
function withSeveral(entries, key, at) {
  const sizes = ([, own]) => new Set(own.map(at)).size;
  return [...grouped(entries, key)].filter((group) => sizes(group) > 1).sort((a, b) => sizes(b) - sizes(a));
}

function size(entries, width, runs) {
  const key = (entry) => [`${entry.norm} ${entry.pass}`, ...(entry.dtype === "float32" ? [] : [entry.dtype])].join(", ");
  const groups = withSeveral(entries.filter((entry) => entry.tensor), key, (entry) => entry.tensor);
  if (!groups.length) return "No norm here was measured at two tensor sizes or more.";
  return panels(width, groups, throughput(groups, { at: (entry) => entry.tensor, label: bytes, xLabel: "one tensor" }, runs));
}

function batch(entries, width, runs) {
  const key = (entry) => [`${entry.norm} ${entry.pass}, ${entry.layer}`, ...(entry.dtype === "float32" ? [] : [entry.dtype])].join(", ");
  const groups = withSeveral(entries, key, (entry) => entry.rows);
  if (!groups.length) return "No layer here was measured at two batches or more.";
  return panels(width, groups, throughput(groups, { at: (entry) => entry.rows, label: String, xLabel: "N" }, runs));
}

// History

/** Speed of `entry` as a multiple of that of `first`. */
function relative(entry, first) {
  return entry.fraction && first.fraction ? entry.fraction / first.fraction : first.median / entry.median;
}

function history(entries, width, runs) {
  const lines = [...grouped(entries, (entry) => entry.id).values()].filter((own) => new Set(own.map((entry) => entry.run)).size > 1);
  if (!lines.length) return "No case here is in two results or more: give several results files for a history.";
  const used = [...new Set(lines.flat().map((entry) => entry.run))].sort((a, b) => a - b);
  const values = lines.flatMap((own) => own.map((entry) => relative(entry, own[0])));
  const span = Math.max(1.25, 1.05 * Math.max(...values.map((value) => Math.max(value, 1 / value))));
  const groups = [...grouped(lines, ([first]) => `${first.norm} ${first.pass}`)];
  const draw = ([title, own], width) => {
    const [left, right, top, bottom, height] = [34, 12, 24, 44, 200];
    const x = linear([0, used.length - 1], [left + 26, width - right - 26]);
    const y = logarithmic([1 / span, span], [height - bottom, top]);
    const picture = frame({
      width, height, left, right, top, bottom, x, y, title,
      xTicks: spaced([...used.keys()], x, 74).map((i) => [i, ...runs[used[i]].label.split(" ")]),
      yTicks: [0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10].filter((value) => value >= 1 / span && value <= span).map((value) => [value, short(value)]),
    });
    picture.append(svg("text", { class: "title", x: 0, y: 12 }, fitted(title, 0.88 * width)));
    limit(picture, left, y(1), width - right, y(1));
    const marks = [];
    for (const line of own) {
      const kind = passOf(line[0]);
      const points = line.map((entry) => [x(used.indexOf(entry.run)), y(relative(entry, line[0])), entry]);
      picture.append(svg("polyline", { class: `series ${kind}`, points: points.map(([px, py]) => `${px},${py}`).join(" ") }));
      marks.push(...points.map(([px, py, entry]) => mark(kind, px, py, [`${short(relative(entry, line[0]))} of the first, ${runs[entry.run].label}`, ...entry.tip], 3)));
    }
    picture.append(...marks.map((one) => one.node));
    const change = (line) => Math.abs(Math.log(relative(line.at(-1), line[0])));
    const furthest = own.reduce((best, line) => (change(line) > change(best) ? line : best));
    const end = furthest.at(-1);
    const value = relative(end, furthest[0]);
    const place = { x: x(used.indexOf(end.run)) + 6, y: y(value) + (value > 1 ? -7 : 15), "text-anchor": "end" };
    picture.append(svg("text", { class: "name halo", ...place }, fitted(`${end.shape} ${value.toFixed(2)}`, width)));
    return [picture, marks];
  };
  return panels(width, groups, draw);
}

const CHARTS = { speed, roofline, size, batch, history };
