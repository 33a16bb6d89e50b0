// A picture with axes, and pictures in columns.

const MOST_ROWS = 6; // of small plots

class Plot {
  constructor(title, width, height, { top, right, bottom, left }) {
    Object.assign(this, { title, width, height, top, left, right: width - right, bottom: height - bottom });
    const viewBox = `0 0 ${width} ${height}`;
    this.node = svg("svg", { width, height, viewBox, role: "group", "aria-label": title });
    this.marks = [];
  }

  line(className, x1, y1, x2, y2) {
    this.node.append(svg("line", { class: className, x1, y1, x2, y2 }));
  }

  path(className, points) {
    this.node.append(svg("polyline", { class: className, points: points.map((p) => p.join(",")).join(" ") }));
  }

  /** `anchor` is start, middle or end; text that is longer than `room` pixels is cut. */
  text(className, x, y, text, anchor = "start", room = this.width) {
    this.node.append(svg("text", { class: className, x, y, "text-anchor": anchor }, fitted(text, room)));
  }

  heading() {
    this.text("title", 0, 12, this.title, "start", 0.88 * this.width);
  }

  /** `x` and `y` are scales to pixels, a tick is a value and the lines of its label. */
  axes({ x, y, xTicks, yTicks = [], xLabel = "", yLabel = "" }) {
    Object.assign(this, { x, y });
    for (const [value, label] of yTicks) {
      this.line("grid", this.left, y(value), this.right, y(value));
      this.text("", this.left - 6, y(value) + 4, label, "end");
    }
    for (const [value, ...labels] of xTicks) {
      this.line("grid", x(value), this.top, x(value), this.bottom);
      labels.forEach((label, i) => this.text("", x(value), this.bottom + 15 + 13 * i, label, "middle", 90));
    }
    this.line("axis", this.left, this.bottom, this.right, this.bottom);
    this.text("", this.right, this.height - 3, xLabel, "end");
    this.text("", 0, this.top - 9, yLabel);
  }

  add(...marks) {
    this.marks.push(...marks);
  }

  /** Put the marks above all else. */
  done() {
    this.node.append(...this.marks.map((one) => one.node));
    return this;
  }
}

/** A plot for each of the groups, in columns that fit; `draw` makes one of a group and a width. */
function panels(width, groups, draw) {
  const columns = Math.max(1, Math.min(groups.length, Math.floor((width + 22) / 320)));
  const each = Math.min(560, Math.floor((width - 22 * (columns - 1)) / columns));
  const plots = groups.slice(0, columns * MOST_ROWS).map((group) => draw(group, each));
  const more = groups.length - plots.length;
  const note = more ? [html("p", "", `${more} more: filter to see them.`)] : [];
  return { nodes: [...plots.map((plot) => plot.node), ...note], plots, columns };
}
