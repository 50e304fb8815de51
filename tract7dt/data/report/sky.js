// The white stack with the sources on it: wheel, drag and pinch (d3-zoom) zoom and move, a click chooses a source.
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
  // d3 counts in pixels of the page; the view is the middle of the canvas in pixels of the frame, and canvas pixels
  // a frame pixel.
  fit() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    this.whole = 0.98 * Math.min(w / this.nx, h / this.ny);
    this.zoom.scaleExtent([0.5 * this.whole, 60])
      .translateExtent([[-0.75 * this.nx, -0.75 * this.ny], [1.75 * this.nx, 1.75 * this.ny]]);
    this.#go((this.nx - 1) / 2, (this.ny - 1) / 2, this.whole);
  }
  #go(x, y, scale) {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const to = d3.zoomIdentity.translate(w / 2 - x * scale, h / 2 - (this.ny - 1 - y) * scale).scale(scale);
    d3.select(this.canvas).call(this.zoom.transform, to);
  }
  #moved({ x, y, k }) {
    const { clientWidth: w, clientHeight: h, width } = this.canvas;
    this.view = { x: (w / 2 - x) / k, y: this.ny - 1 - (h / 2 - y) / k, zoom: k * width / w };
    // While the whole field is seen one finger scrolls the page; two zoom.
    this.canvas.style.touchAction = this.closer() ? "none" : "pan-y";
    this.draw();
  }
  closer() { return this.view.zoom * this.canvas.clientWidth / this.canvas.width > 1.05 * this.whole; }
  // Frame pixels (0-based centres, y up) to canvas pixels and back.
  at(x, y) {
    const { x: cx, y: cy, zoom } = this.view;
    return [this.canvas.width / 2 + (x - cx) * zoom, this.canvas.height / 2 - (y - cy) * zoom];
  }
  from(u, v) {
    const { x, y, zoom } = this.view;
    return [x + (u - this.canvas.width / 2) / zoom, y - (v - this.canvas.height / 2) / zoom];
  }
  zoomBy(factor) { if (this.view) d3.select(this.canvas).call(this.zoom.scaleBy, factor); }
  show(i, closer = true) {
    this.chosen = i;
    if (!this.view) return;
    const { x, y } = this.sources, { width, clientWidth } = this.canvas;
    const scale = Math.max(this.view.zoom, Math.min(width / 220, 6)) * clientWidth / width;
    if (Number.isFinite(x[i]) && closer) this.#go(x[i], y[i], scale);
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
  // The longest round angle of at most so many arcseconds.
  static roundLength(most) {
    const lengths = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];
    const arcsec = lengths.filter((l) => l <= most).pop() || 0.1;
    return { arcsec, label: arcsec >= 3600 ? `${arcsec / 3600}°` : arcsec >= 60 ? `${arcsec / 60}′` : `${arcsec}″` };
  }
  #scaleBar(g, ratio) {
    if (!T7.scale) return;
    const { arcsec, label } = Sky.roundLength(0.22 * this.canvas.width / this.view.zoom * T7.scale);
    const length = arcsec / T7.scale * this.view.zoom, right = this.canvas.width - 14 * ratio, v = this.canvas.height - 16 * ratio;
    g.fillStyle = "#14171cb0"; // no source shines through the bar and the compass
    g.fillRect(right - Math.max(length, 40 * ratio) - 8 * ratio, v - 24 * ratio, Math.max(length, 40 * ratio) + 22 * ratio, 40 * ratio);
    if (T7.north) g.fillRect(this.canvas.width - 92 * ratio, 0, 92 * ratio, 92 * ratio);
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
    // While the page still scrolls, a touch cannot be kept from it: Chromium writes each attempt to the console.
    const scrolling = (event) => { if (!event.cancelable) event.preventDefault = () => {}; };
    for (const kind of ["touchstart", "touchmove"]) c.addEventListener(kind, scrolling, { capture: true, passive: true });
    this.zoom = d3.zoom().clickDistance(6).on("zoom", (event) => this.#moved(event.transform))
      .filter((event) => !event.button && (event.type !== "touchstart" || event.touches.length > 1 || this.closer()));
    d3.select(c).call(this.zoom);
    c.addEventListener("pointermove", (event) => this.view && this.#tell(...this.from(...place(event))));
    c.addEventListener("click", (event) => {
      const i = this.nearest(...place(event), 22 * (window.devicePixelRatio || 1));
      if (i >= 0) this.choose(i);
    });
    c.addEventListener("keydown", (event) => {
      const step = 60 * c.clientWidth / c.width;
      const move = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      const closer = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 }[event.key];
      const { zoom } = this.view;
      if (move) d3.select(c).call(this.zoom.translateBy, ...move.map((d) => d / (zoom * c.clientWidth / c.width)));
      else if (closer) this.zoomBy(closer);
      else return;
      event.preventDefault();
    });
  }
  #tell(x, y) { this.where.textContent = `x ${x.toFixed(1)}, y ${y.toFixed(1)} pix`; }
}
