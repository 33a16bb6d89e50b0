// Elements, scales and numbers. Text enters the page as text nodes and attributes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function html(name, className, ...children) {
  const node = document.createElement(name);
  node.className = className;
  node.append(...children);
  return node;
}

function linear([from, to], [start, end]) {
  return (value) => start + ((value - from) / (to - from || 1)) * (end - start);
}

function logarithmic([from, to], range) {
  const scale = linear([Math.log(from), Math.log(to)], range);
  return (value) => scale(Math.log(value));
}

/** How many times faster, with two digits where it is slower. */
function times(ratio) {
  return `${ratio >= 1 ? ratio.toFixed(1) : ratio.toPrecision(2)}×`;
}

/** Round values from 0 to `most`, about `count` of them. */
function ticks(most, count) {
  const raw = most / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw * 0.999);
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => i * step);
}

/** `steps` times powers of ten between two values. */
function decades(from, to, steps) {
  const found = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power++) {
    found.push(...steps.map((n) => n * 10 ** power));
  }
  return found.filter((value) => value >= from * 0.999 && value <= to * 1.001);
}

function short(value) {
  return String(Number(value.toPrecision(3)));
}

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(value) / 3 + 1e-9)));
  return `${short(value / 1000 ** power)} ${units[power]}`;
}

function mean(values) {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

/** Text, or as much of its start as has room. */
function fitted(text, room) {
  const most = Math.max(4, Math.floor(room / 6.6));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** Things by what `key` says of them, in order of first appearance. */
function grouped(things, key) {
  const groups = new Map();
  for (const thing of things) {
    const name = key(thing);
    if (groups.has(name)) groups.get(name).push(thing);
    else groups.set(name, [thing]);
  }
  return groups;
}

/** Groups in which `at` takes two values or more, those with most of them first. */
function withSeveral(entries, key, at) {
  const sizes = ([, own]) => new Set(own.map(at)).size;
  return [...grouped(entries, key)].filter((group) => sizes(group) > 1).sort((a, b) => sizes(b) - sizes(a));
}

/** As many of the values as have room, among them the first and the last. */
function spaced(values, scale, room) {
  const kept = values.slice(0, 1);
  const last = values.at(-1);
  for (const value of values.slice(1, -1)) {
    if (scale(value) - scale(kept.at(-1)) >= room && scale(last) - scale(value) >= room) kept.push(value);
  }
  return kept[0] === last ? kept : [...kept, last];
}
