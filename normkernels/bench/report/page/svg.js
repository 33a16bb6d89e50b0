"use strict";
// Elements, scales and axes. Text enters the page as text nodes and attributes only, never as markup.

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
  const units = ["B", "KB", "MB", "GB", "TB"];
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

/** An empty picture with grid and axes; x and y are scales, and so are in pixels what they return. */
function frame({ width, height, left, right, top, bottom, x, y, xTicks, yTicks, xLabel, yLabel, title }) {
  const node = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title });
  const [plotRight, plotBottom] = [width - right, height - bottom];
  for (const [value, label] of yTicks) {
    node.append(svg("line", { class: "grid", x1: left, x2: plotRight, y1: y(value), y2: y(value) }));
    node.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, label));
  }
  for (const [value, ...labels] of xTicks) {
    node.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: plotBottom }));
    labels.forEach((label, i) => {
      node.append(svg("text", { x: x(value), y: plotBottom + 15 + 13 * i, "text-anchor": "middle" }, fitted(label, 90)));
    });
  }
  node.append(svg("line", { class: "axis", x1: left, x2: plotRight, y1: plotBottom, y2: plotBottom }));
  if (xLabel) node.append(svg("text", { x: plotRight, y: height - 3, "text-anchor": "end" }, xLabel));
  if (yLabel) node.append(svg("text", { x: 0, y: top - 9 }, yLabel));
  return node;
}
