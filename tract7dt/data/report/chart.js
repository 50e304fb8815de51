// A chart as SVG: axes with units, grid, and functions that draw in data coordinates.
function ticksOf(low, high, most) {
  const span = Math.max(high - low, 1e-9);
  for (let power = Math.floor(Math.log10(span)) - 2; power < 12; power++) {
    for (const factor of [1, 2, 5]) {
      const step = factor * 10 ** power;
      const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
      if (last - first + 1 <= most) {
        const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
        return Array.from({ length: Math.max(last - first + 1, 0) }, (_, i) => [(first + i) * step, digits]);
      }
    }
  }
  return [];
}

class Chart {
  // x, y: {label, low, high, reverse, log}
  constructor({ width = 640, height = 300, x, y, title }) {
    if (window.innerWidth < 600) { width = 430; height = Math.min(height, 290); } // a phone: larger letters
    Object.assign(this, { width, height, x, y });
    this.box = { left: 58, right: width - 14, top: 16, bottom: height - 42 };
    const { left, right, top, bottom } = this.box;
    this.svg = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
    const clip = `clip-${Chart.count++}`;
    this.svg.append(svg("defs", {}, svg("clipPath", { id: clip },
      svg("rect", { x: left, y: top, width: right - left, height: bottom - top }))));
    this.#axes();
    this.plot = svg("g", { "clip-path": `url(#${clip})` });
    this.svg.append(this.plot);
  }
  u(value) { return this.box.left + this.#share(this.x, value) * (this.box.right - this.box.left); }
  v(value) { return this.box.bottom - this.#share(this.y, value) * (this.box.bottom - this.box.top); }
  #share(axis, value) {
    const at = axis.log ? Math.log10(Math.max(value, axis.low)) : value;
    const low = axis.log ? Math.log10(axis.low) : axis.low, high = axis.log ? Math.log10(axis.high) : axis.high;
    const share = (at - low) / (high - low || 1);
    return axis.reverse ? 1 - share : share;
  }
  #ticks(axis, most) {
    if (!axis.log) return ticksOf(axis.low, axis.high, most).map(([v, digits]) => [v, fixed(v, digits)]);
    const found = [];
    const factors = axis.high / axis.low < 3000 ? [1, 2, 5] : [1];
    for (let p = Math.floor(Math.log10(axis.low)); p <= Math.log10(axis.high); p++)
      for (const f of factors) if (f * 10 ** p >= axis.low && f * 10 ** p <= axis.high) found.push([f * 10 ** p, whole(f * 10 ** p)]);
    return found;
  }
  #axes() {
    const { left, right, top, bottom } = this.box;
    const line = (x1, y1, x2, y2, stroke) => svg("line", { x1, y1, x2, y2, stroke });
    for (const [value, text] of this.#ticks(this.x, Math.floor((right - left) / 70))) {
      const u = this.u(value);
      this.svg.append(line(u, top, u, bottom, "#edf0f3"), line(u, bottom, u, bottom + 4, "#6c7480"),
        svg("text", { x: u, y: bottom + 16, "text-anchor": "middle" }, text));
    }
    for (const [value, text] of this.#ticks(this.y, Math.floor((bottom - top) / 34))) {
      const v = this.v(value);
      this.svg.append(line(left, v, right, v, "#edf0f3"), line(left - 4, v, left, v, "#6c7480"),
        svg("text", { x: left - 7, y: v + 4, "text-anchor": "end" }, text));
    }
    this.svg.append(
      svg("rect", { x: left, y: top, width: right - left, height: bottom - top, fill: "none", stroke: "#aab2bd" }),
      svg("text", { x: (left + right) / 2, y: this.height - 8, "text-anchor": "middle" }, this.x.label),
      svg("text", { transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, this.y.label));
  }
  line(points, attributes) {
    this.plot.append(svg("polyline", { fill: "none", ...attributes,
      points: points.map(([x, y]) => `${this.u(x).toFixed(1)},${this.v(y).toFixed(1)}`).join(" ") }));
  }
  segment(x0, y0, x1, y1, attributes) {
    this.plot.append(svg("line", { x1: this.u(x0), y1: this.v(y0), x2: this.u(x1), y2: this.v(y1), ...attributes }));
  }
  area(x0, x1, y0, y1, attributes) {
    const [u0, u1] = [this.u(x0), this.u(x1)].sort((a, b) => a - b);
    const [v0, v1] = [this.v(y0), this.v(y1)].sort((a, b) => a - b);
    this.plot.append(svg("rect", { x: u0, width: u1 - u0, y: v0, height: v1 - v0, ...attributes }));
  }
  // kind: circle, cross, diamond, down (an arrow: upper limit)
  point(x, y, kind, color, tip, size = 4) {
    const u = this.u(x), v = this.v(y);
    const path = {
      cross: `M${-size} ${-size}L${size} ${size}M${size} ${-size}L${-size} ${size}`,
      diamond: `M0 ${-size - 1}L${size} 0L0 ${size + 1}L${-size} 0Z`,
      down: `M${-size} 0H${size}M0 0V16M${-size} 11L0 17L${size} 11`,
    }[kind];
    const look = kind === "circle" ? { fill: color } : { fill: "none", stroke: color, "stroke-width": 1.6 };
    const shape = kind === "circle" ? svg("circle", { r: size, ...look }) : svg("path", { d: path, ...look });
    const group = svg("g", { transform: `translate(${u.toFixed(1)} ${v.toFixed(1)})`, class: `p-${kind}` }, shape);
    if (tip) group.append(svg("title", {}, tip));
    this.plot.append(group);
  }
  note(text) {
    const { left, right, top, bottom } = this.box;
    this.svg.append(svg("text", { x: (left + right) / 2, y: (top + bottom) / 2, "text-anchor": "middle", class: "soft" }, text));
  }
}
Chart.count = 0;
