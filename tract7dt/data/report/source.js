// One source: what was measured, its spectral energy distribution, its cutouts.
class SourcePanel {
  constructor(sources) {
    this.sources = sources;
    this.node = el("div", { class: "source", id: "source", "aria-live": "polite" },
      el("p", { class: "about" }, "Click a source, or find one by its ID."));
    this.pictures = el("div", { class: "cutout" }); // below sky and spectrum: a column a band needs the whole width
  }
  magnitude(i, b) {
    const { mag, err } = this.sources, n = T7.bands.length, code = T7.code, at = i * n + b;
    if (mag[at] === code.nothing) return null;
    const value = code.mag_zero + mag[at] * code.mag_step;
    if (err[at] === code.limit) return { value, limit: true };
    return { value, error: 10 ** (err[at] / code.error_steps * code.error_decades - code.error_decades), limit: false };
  }
  quantity(name, i, step, digits, unit = "") {
    const value = this.sources[name][i];
    return value === T7.code.nothing ? "–" : fixed(value * step, digits, unit);
  }
  flags(i) {
    return this.sources.text.flags.filter((_, bit) => this.sources.flags[i] >> bit & 1);
  }
  show(i) {
    const s = this.sources, kind = s.text.kinds[s.kind[i]] || "unknown type", flags = this.flags(i);
    const issues = flags.filter((name) => name !== "gaia" && name !== "unreliable");
    const galaxy = ["exp", "dev", "sersic"].includes(kind);
    const rows = [
      ["RA, DEC", `${fixed(s.ra[i], 6, "°")}, ${fixed(s.dec[i], 6, "°")}`],
      ["x, y", `${fixed(s.x[i], 2)}, ${fixed(s.y[i], 2)} pix`],
      ["fit", flags.includes("unreliable") ? "not reliable" : "reliable"],
      ["issues", issues.length ? issues.join(", ") : "none"],
      ["median χ²", this.quantity("chi2", i, 0.001, 2)],
    ];
    if (galaxy) rows.push(["half-light radius", this.quantity("re", i, 0.01, 2, " pix")],
      ["axis ratio, angle", `${this.quantity("ab", i, 0.001, 2)}, ${this.quantity("phi", i, 0.01, 1, "°")}`],
      ["Sérsic index", this.quantity("n", i, 0.001, 2)]);
    this.node.replaceChildren();
    fill(this.node, {}, [
      el("h3", {}, `${s.text.id[i]} `, el("span", { class: `badge ${flags.includes("unreliable") ? "failed" : "done"}` }, kind),
        flags.includes("gaia") ? [" ", el("span", { class: "badge" }, "Gaia")] : null),
      table(null, rows), this.spectrum(i)]);
    this.pictures.replaceChildren(this.cutout(i));
    this.node.dataset.source = s.text.id[i];
  }
  spectrum(i) {
    const points = T7.bands.map((band, b) => ({ band, b, m: this.magnitude(i, b) })).filter((p) => p.m);
    const known = T7.bands.every((band) => isNumber(band.nm));
    const place = (p) => (known ? p.band.nm : p.b);
    const ends = T7.bands.map((band, b) => (known ? [band.low ?? band.nm, band.high ?? band.nm] : [b - 0.4, b + 0.4])).flat();
    const pad = known ? 12 : 0.2;
    const values = points.flatMap((p) => (p.m.limit ? [p.m.value, p.m.value + 0.6] : [p.m.value - p.m.error, p.m.value + p.m.error]));
    const low = values.length ? Math.min(...values) : 18, high = values.length ? Math.max(...values) : 22;
    const room = Math.max(0.12 * (high - low), 0.15);
    const chart = new Chart({
      width: 560, height: 300, title: "Spectral energy distribution",
      x: { label: known ? "wavelength [nm]" : "band, in catalogue order", low: Math.min(...ends) - pad, high: Math.max(...ends) + pad },
      y: { label: T7.calibrated ? "magnitude [mag AB]" : `magnitude at zp_ref ${T7.zp_ref} [mag, not calibrated]`, low: low - room, high: high + room, reverse: true },
    });
    chart.svg.setAttribute("id", "sed");
    for (const p of points) {
      const x = place(p), { value, error, limit } = p.m, color = p.band.color;
      const from = known ? p.band.low ?? x : x - 0.4, to = known ? p.band.high ?? x : x + 0.4;
      const tip = limit ? `${p.band.name}: fainter than ${fixed(value, 2)} mag (${T7.code.sigma} σ)` : `${p.band.name}: ${fixed(value, 3)} ± ${fixed(error, 3)} mag`;
      chart.segment(from, value, to, value, { stroke: color, "stroke-width": 2, opacity: limit ? 0.55 : 0.9 });
      if (!limit) chart.segment(x, value - error, x, value + error, { stroke: color, "stroke-width": 1.4 });
      chart.point(x, value, limit ? "down" : "circle", color, tip);
    }
    if (!points.length) chart.note("no flux was measured");
    const shown = known ? [] : T7.bands.map((band, b) => `${b}: ${band.name}`);
    return [chart.svg, el("p", { class: "about" },
      T7.bands.some((band) => isNumber(band.low)) ? "Bars across: filter widths at half maximum. " : "",
      `Arrows: upper limits of ${T7.code.sigma} σ.`, shown.length ? ` ${shown.join(", ")}.` : "")];
  }
  cutout(i) {
    const tag = this.sources.text.patches[this.sources.patch[i]];
    if (!tag) return el("p", {}, "Not fitted: no cutouts.");
    const name = `src_${pathName(this.sources.text.id[i])}.png`;
    const inside = document.getElementById(`cutout-${i}`);
    const src = inside ? `data:image/png;base64,${inside.textContent}`
      : T7.cutouts.folder === null ? null : `${T7.cutouts.folder}/${encodeURIComponent(tag)}/cutouts/${encodeURIComponent(name)}`;
    const none = () => el("p", {}, "Cutouts are not beside this file", src && !inside ? ` (${tag}/cutouts/${name})` : "", ".");
    if (!src) return none();
    const image = el("img", { alt: `Cutouts of ${this.sources.text.id[i]}: data, model, residual by band`, id: "cutout" });
    const shown = inside ? image : el("a", { href: src, target: "_blank", rel: "noopener", title: "Open the picture" }, image);
    image.onerror = () => shown.parentNode && shown.replaceWith(none());
    image.src = src;
    return shown;
  }
}

// As WorkDir.cutout names the file (Python's urllib.parse.quote with these left as they are); of a long name the
// beginning, and the CRC-32 of the whole.
function pathName(id) {
  const kept = /[A-Za-z0-9_.~+ ,=@-]/;
  const bytes = new TextEncoder().encode(id);
  const name = [...bytes].map((b) => (b < 128 && kept.test(String.fromCharCode(b)) ? String.fromCharCode(b)
    : `%${b.toString(16).toUpperCase().padStart(2, "0")}`)).join("");
  return name.length <= 180 ? name : `${name.slice(0, 171)}~${crc32(bytes).toString(16).padStart(8, "0")}`;
}

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
