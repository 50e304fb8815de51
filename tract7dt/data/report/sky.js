// The white stack with the sources on it: wheel, drag and pinch zoom and move, a click chooses a source.
class Sky {
  constructor(sources, choose) {
    Object.assign(this, { sources, choose, chosen: -1, filter: () => true });
    [this.ny, this.nx] = T7.shape;
    this.canvas = el("canvas", { tabindex: 0, "aria-label": "White stack with sources; arrow keys move, plus and minus zoom" });
    this.where = el("div", { class: "where" });
    this.node = el("div", { class: "sky" }, this.canvas, this.where);
    this.image = new Image();
    this.image.onload = () => this.draw();
    this.image.src = T7.white.src;
    this.pointers = new Map();
    this.#listen();
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
  }
  #resize() {
    const ratio = window.devicePixelRatio || 1;
    const w = Math.round(this.canvas.clientWidth * ratio), h = Math.round(this.canvas.clientHeight * ratio);
    if (!w || !h || (w === this.canvas.width && h === this.canvas.height)) return;
    this.canvas.width = w; this.canvas.height = h;
    if (this.view) { this.draw(); return; }
    this.fit();
    if (this.chosen >= 0) this.show(this.chosen); // it was asked for before the page was laid out
  }
  fit() {
    const zoom = 0.98 * Math.min(this.canvas.width / this.nx, this.canvas.height / this.ny);
    this.least = 0.5 * zoom;
    this.view = { x: (this.nx - 1) / 2, y: (this.ny - 1) / 2, zoom };
    this.draw();
  }
  // Frame pixels (0-based centres, y up) to canvas pixels and back.
  at(x, y) {
    const { x: cx, y: cy, zoom } = this.view;
    return [this.canvas.width / 2 + (x - cx) * zoom, this.canvas.height / 2 - (y - cy) * zoom];
  }
  from(u, v) {
    const { x, y, zoom } = this.view;
    return [x + (u - this.canvas.width / 2) / zoom, y - (v - this.canvas.height / 2) / zoom];
  }
  zoomAt(u, v, factor) {
    if (!this.view) return;
    const [x, y] = this.from(u, v);
    const zoom = Math.min(Math.max(this.view.zoom * factor, this.least), 60 * (window.devicePixelRatio || 1));
    this.view = { zoom, x: x - (u - this.canvas.width / 2) / zoom, y: y + (v - this.canvas.height / 2) / zoom };
    this.draw();
  }
  show(i, closer = true) {
    this.chosen = i;
    if (!this.view) return;
    const { x, y } = this.sources;
    if (Number.isFinite(x[i]) && closer) {
      this.view = { x: x[i], y: y[i], zoom: Math.max(this.view.zoom, Math.min(this.canvas.width / 220, 6)) };
    }
    this.draw();
  }
  nearest(u, v, reach) {
    const { x, y } = this.sources;
    let best = -1, least = reach * reach;
    for (let i = 0; i < x.length; i++) {
      const [a, b] = this.at(x[i], y[i]);
      const d = (a - u) ** 2 + (b - v) ** 2;
      if (d < least && this.filter(i)) { least = d; best = i; }
    }
    return best;
  }
  draw() {
    if (this.pending || !this.view) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.#paint(); });
  }
  #paint() {
    const g = this.canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.fillStyle = "#14171c"; g.fillRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.image.complete && this.image.naturalWidth) {
      const [rows, columns] = T7.white.shape, f = T7.white.factor;
      const [left, bottom] = this.at(-0.5, -0.5);
      const w = columns * f * this.view.zoom, h = rows * f * this.view.zoom;
      g.imageSmoothingEnabled = this.view.zoom * f < 2;
      g.drawImage(this.image, left, bottom - h, w, h);
    }
    this.#marks(g, ratio);
    this.#scaleBar(g, ratio);
  }
  #marks(g, ratio) {
    const { x, y, kind } = this.sources, colors = Sky.colors();
    const size = Math.min(Math.max(this.view.zoom * 5, 1.2 * ratio), 9 * ratio);
    const dots = size < 3 * ratio, w = this.canvas.width, h = this.canvas.height;
    this.drawn = 0;
    g.lineWidth = 1.3 * ratio;
    for (let k = 0; k < colors.length; k++) {
      g.strokeStyle = g.fillStyle = colors[k];
      g.beginPath();
      for (let i = 0; i < x.length; i++) {
        if (kind[i] !== k || !this.filter(i)) continue;
        const [u, v] = this.at(x[i], y[i]);
        if (!(u > -20 && v > -20 && u < w + 20 && v < h + 20)) continue;
        this.drawn++;
        if (dots) g.rect(u - size / 2, v - size / 2, size, size);
        else Sky.outline(g, k, u, v, size);
      }
      if (dots) g.fill(); else g.stroke();
    }
    if (this.chosen >= 0 && Number.isFinite(x[this.chosen])) {
      const [u, v] = this.at(x[this.chosen], y[this.chosen]);
      g.strokeStyle = "#ffffff"; g.lineWidth = 1.6 * ratio;
      g.beginPath(); g.arc(u, v, size + 6 * ratio, 0, 7); g.stroke();
    }
  }
  static colors() {
    const s = T7.symbols;
    return [s.star, s.galaxy, s.galaxy, s.galaxy, s.unknown];
  }
  static outline(g, kind, u, v, size) {
    if (kind === 0) { g.moveTo(u + size, v); g.arc(u, v, size, 0, 7); }
    else if (kind === 4) g.rect(u - size * 0.8, v - size * 0.8, 1.6 * size, 1.6 * size);
    else { const a = -0.7; g.moveTo(u + 1.25 * size * Math.cos(a), v + 1.25 * size * Math.sin(a)); g.ellipse(u, v, 1.25 * size, 0.75 * size, a, 0, 7); }
  }
  #scaleBar(g, ratio) {
    if (!T7.scale) return;
    const most = 0.22 * this.canvas.width / this.view.zoom * T7.scale;
    const lengths = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];
    const arcsec = lengths.filter((l) => l <= most).pop() || 0.1;
    const label = arcsec >= 3600 ? `${arcsec / 3600}°` : arcsec >= 60 ? `${arcsec / 60}′` : `${arcsec}″`;
    const length = arcsec / T7.scale * this.view.zoom, right = this.canvas.width - 14 * ratio, v = this.canvas.height - 16 * ratio;
    g.strokeStyle = g.fillStyle = "#ffffff"; g.lineWidth = 2 * ratio;
    g.beginPath(); g.moveTo(right - length, v); g.lineTo(right, v); g.stroke();
    g.font = `${12 * ratio}px system-ui, sans-serif`; g.textAlign = "center";
    g.fillText(label, right - length / 2, v - 6 * ratio);
    if (T7.north) this.#compass(g, ratio);
  }
  #compass(g, ratio) {
    const u = this.canvas.width - 46 * ratio, v = 46 * ratio, l = 24 * ratio;
    for (const [name, [dx, dy]] of [[T7.north.names[0], T7.north.north], [T7.north.names[1], T7.north.east]]) {
      g.beginPath(); g.moveTo(u, v); g.lineTo(u + l * dx, v - l * dy); g.stroke();
      g.fillText(name, u + 1.5 * l * dx, v - 1.5 * l * dy + 4 * ratio);
    }
  }
  #listen() {
    const c = this.canvas;
    const place = (event) => {
      const box = c.getBoundingClientRect(), ratio = c.width / box.width;
      return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    };
    c.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomAt(...place(event), Math.exp(-event.deltaY * 0.0016));
    }, { passive: false });
    c.addEventListener("pointerdown", (event) => {
      c.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, place(event));
      this.moved = 0;
    });
    c.addEventListener("pointermove", (event) => {
      const now = place(event);
      this.#tell(...this.from(...now));
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      if (this.pointers.size === 2) {
        const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
        const gap = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
        this.zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, gap(now) / gap(before));
        this.moved = 99;
      } else {
        this.moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
        this.view.x -= (now[0] - before[0]) / this.view.zoom;
        this.view.y += (now[1] - before[1]) / this.view.zoom;
        this.draw();
      }
      this.pointers.set(event.pointerId, now);
    });
    const end = (event) => {
      const was = this.pointers.delete(event.pointerId);
      if (was && event.type === "pointerup" && this.moved < 6 * (window.devicePixelRatio || 1)) {
        const i = this.nearest(...place(event), 22 * (window.devicePixelRatio || 1));
        if (i >= 0) this.choose(i);
      }
    };
    c.addEventListener("pointerup", end);
    c.addEventListener("pointercancel", end);
    c.addEventListener("keydown", (event) => {
      const step = 60 / this.view.zoom;
      const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (move) { this.view.x += move[0]; this.view.y += move[1]; this.draw(); }
      else if (event.key === "+" || event.key === "=") this.zoomAt(c.width / 2, c.height / 2, 1.4);
      else if (event.key === "-") this.zoomAt(c.width / 2, c.height / 2, 1 / 1.4);
      else return;
      event.preventDefault();
    });
  }
  #tell(x, y) { this.where.textContent = `x ${x.toFixed(1)}, y ${y.toFixed(1)} pix`; }
}
