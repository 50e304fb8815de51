// The sections of the page; each returns its element, or null where the run has nothing for it.
function section(id, title, about, ...children) {
  return el("section", { id }, el("h2", {}, title), about ? el("p", { class: "about" }, about) : null, children);
}
const seconds = (s) => (s >= 90 ? `${(s / 60).toFixed(1)} min` : `${fixed(s, 1)} s`);
const ofBand = (name) => T7.bands.find((band) => band.name === name);

function summarySection() {
  const run = T7.run, counts = run.counts || {};
  const tile = (value, label) => el("div", { class: "tile" }, el("b", {}, value), el("span", {}, label));
  const failed = Object.keys(counts.failed_patches || {}).length;
  const rows = [["started", run.started], ["finished", run.finished || "–"], ["command", run.command], ["run", run.run_id || "–"]];
  const night = (run.parameters || {}).night;
  if (night) rows.unshift(["night", night]);
  return section("summary", "Run", null,
    el("div", { class: "tiles" }, tile(whole(counts.sources), "sources"), tile(whole(counts.fitted), "fitted"),
      tile(whole(counts.reliable), "reliable"), tile(whole(counts.patches), "patches"),
      failed ? tile(failed, "patches failed") : null, tile(T7.bands.length, "bands"), tile(seconds(run.wall_s), "wall time")),
    table(null, rows),
    el("div", { class: "legend" }, T7.bands.map((band) => el("span", {}, bandMark(band), band.name,
      isNumber(band.nm) ? ` ${Math.round(band.nm)} nm` : ""))),
    failed ? [el("h3", {}, "Patches without a fit"), table(["patch", "reason"], Object.entries(counts.failed_patches))] : null);
}

function skySection(sources) {
  const panel = new SourcePanel(sources);
  const ids = new Map(sources.text.id.map((id, i) => [id, i]));
  const choose = (i, closer) => { panel.show(i); sky.show(i, closer); current = i; };
  let current = -1;
  const sky = new Sky(sources, (i) => choose(i, false));
  const find = el("input", { type: "search", placeholder: "ID", "aria-label": "Find a source by its ID", id: "find" });
  const said = el("span", { class: "about", role: "status" });
  const seek = () => {
    const wanted = find.value.trim();
    const i = ids.has(wanted) ? ids.get(wanted) : sources.text.id.findIndex((id) => wanted && id.includes(wanted));
    said.textContent = i < 0 ? "not in the catalogue" : "";
    if (i >= 0) choose(i, true);
  };
  find.addEventListener("keydown", (event) => { if (event.key === "Enter") seek(); });
  const bits = Object.fromEntries(sources.text.flags.map((name, bit) => [name, 1 << bit]));
  const filters = {
    all: () => true, none: () => false,
    reliable: (i) => !(sources.flags[i] & bits.unreliable),
    unreliable: (i) => Boolean(sources.flags[i] & bits.unreliable),
    gaia: (i) => Boolean(sources.flags[i] & bits.gaia),
  };
  for (const issue of T7.reliability.issues) if (issue.n) filters[issue.name] = (i) => Boolean(sources.flags[i] & bits[issue.name]);
  const count = el("span", { class: "about", id: "shown" });
  const select = el("select", { "aria-label": "Which sources are shown", id: "filter", onchange: () => apply() },
    Object.keys(filters).map((name) => el("option", { value: name }, name === "gaia" ? "Gaia stars" : name.replaceAll("_", " "))));
  function apply() {
    sky.filter = filters[select.value];
    let n = 0;
    for (let i = 0; i < sources.x.length; i++) n += sky.filter(i);
    count.textContent = counted(n, "source");
    sky.draw();
  }
  const step = (by) => {
    const n = sources.x.length;
    for (let k = 1, i = current; k <= n; k++) {
      i = (i + by + n) % n;
      if (sky.filter(i)) { choose(i, true); return; }
    }
  };
  const button = (label, act, name) => el("button", { type: "button", onclick: act, "aria-label": name }, label);
  const swatch = (color, text, round) => el("span", {}, svg("svg", { width: 16, height: 16 },
    round === 2 ? svg("rect", { x: 3, y: 3, width: 10, height: 10, fill: "none", stroke: color, "stroke-width": 2 })
      : svg("ellipse", { cx: 8, cy: 8, rx: round ? 6.5 : 7, ry: round ? 6.5 : 4, transform: round ? "" : "rotate(-40 8 8)", fill: "none", stroke: color, "stroke-width": 2 })), text);
  const paper = T7.symbols_on_paper;
  const node = section("sky", "Sky", "White stack with the catalogue. Wheel or pinch zooms, drag moves; a click shows a source with its cutouts and spectral energy distribution.",
    el("div", { class: "row" }, el("label", {}, "Show ", select), count, el("label", {}, "Find ", find), button("Find", seek, "Find the source"),
      button("‹", () => step(-1), "Previous source"), button("›", () => step(1), "Next source"),
      button("+", () => sky.zoomBy(1.6), "Zoom in"),
      button("−", () => sky.zoomBy(1 / 1.6), "Zoom out"),
      button("Whole field", () => sky.fit(), "Show the whole field"), said),
    el("div", { class: "two" }, el("div", {}, sky.node, el("div", { class: "legend" }, swatch(paper.star, "star", 1),
      swatch(paper.galaxy, "galaxy: exp, dev, sersic", 0), swatch(paper.unknown, "unknown type", 2))), panel.node), panel.pictures);
  apply();
  node.sky = sky;
  window.report = { sky, panel, choose };
  return node;
}

function zeroPointSection() {
  if (!T7.zero_points.length) return null;
  let full = false, chosen = T7.zero_points[0].band;
  const plot = el("div", {}), rows = new Map();
  const draw = () => {
    rows.forEach((row, name) => row.classList.toggle("on", name === chosen));
    plot.replaceChildren(zeroPointPlot(T7.zero_points.find((zp) => zp.band === chosen), full));
  };
  const heads = ["band", "zero point", "MAD", "bright std", "median’s error", "stars", "clipped", "unreliable"];
  const body = T7.zero_points.map((zp) => {
    const cells = [fixed(zp.zp_median, 4), fixed(zp.zp_err_mad, 4), fixed(zp.zp_err_std, 4), fixed(zp.zp_err_median, 4), zp.n_kept, zp.n_clipped, zp.n_unreliable];
    const row = el("tr", { class: "pick", onclick: () => { chosen = zp.band; draw(); } },
      el("td", {}, el("button", { type: "button" }, bandMark(ofBand(zp.band)), zp.band)), cells.map((cell) => el("td", { class: "n" }, cell)));
    rows.set(zp.band, row);
    return row;
  });
  const ranges = chooser([[false, "around the zero point"], [true, "full range"]], false, (value) => { full = value; draw(); });
  return section("zero-points", "Zero points", "AB magnitude of one scaled count, from Gaia XP stars; errors in mag. Choose a band for its plot.",
    el("div", { class: "two" },
      el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((h, i) => el("th", { class: i ? "n" : null }, h)))), el("tbody", {}, body))),
      el("div", {}, ranges, plot)));
}

function zeroPointPlot(zp, full) {
  const stars = zp.stars, middle = zp.zp_median;
  if (!stars.length || !isNumber(middle)) return el("p", { class: "about" }, `${zp.band}: no zero point was measured.`);
  const mags = stars.map((s) => s[0]), values = stars.map((s) => s[1]);
  const half = full ? 1.08 * Math.max(0.03, ...values.map((v) => Math.abs(v - middle))) : Math.max(0.05, 8 * (zp.zp_err_mad || 0.01));
  const chart = new Chart({ width: 720, height: 320, title: `Zero point of ${zp.band}`,
    x: { label: `Gaia XP magnitude in ${zp.band} [mag AB]`, low: Math.min(...mags) - 0.3, high: Math.max(...mags) + 0.3 },
    y: { label: "zero point [mag AB]", low: middle - half, high: middle + half } });
  if (isNumber(zp.zp_err_mad)) chart.area(chart.x.low, chart.x.high, middle - zp.zp_err_mad, middle + zp.zp_err_mad, { fill: "#0b3d91", opacity: 0.12 });
  chart.segment(chart.x.low, middle, chart.x.high, middle, { stroke: "#0b3d91" });
  const paper = T7.symbols_on_paper, color = ofBand(zp.band).color;
  const look = [["circle", color], ["cross", paper.clipped], ["diamond", paper.unreliable]];
  let outside = 0;
  for (const [mag, value, error, state, id] of stars) {
    if (Math.abs(value - middle) > half) { outside++; continue; }
    if (isNumber(error)) chart.segment(mag, value - error, mag, value + error, { stroke: look[state][1], opacity: 0.45 });
    chart.point(mag, value, look[state][0], look[state][1], `Gaia ${id}: ${fixed(value, 4)} ± ${fixed(error, 4)}`, 3.5);
  }
  return el("div", {}, chart.svg, el("p", { class: "about" }, "Dots: kept. Crosses: clipped. Diamonds: unreliable fits, not used. Band: MAD.",
    outside ? ` ${counted(outside, "star")} outside of this range.` : ""));
}

function epsfSection(stamps) {
  if (!T7.cells.length) return null;
  const place = el("div", {}), side = T7.stamp_side;
  const paint = (number) => {
    const canvas = el("canvas", { width: side, height: side });
    const image = new ImageData(side, side), data = stamps.stamps;
    for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {
      const [r, g, b] = T7.signed[data[(number * side + side - 1 - y) * side + x]];
      image.data.set([r, g, b, 255], 4 * (y * side + x));
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };
  const show = (name) => {
    const cells = T7.cells.filter((cell) => cell.band === name);
    const figures = cells.map((cell) => el("figure", {}, cell.stamp === null ? el("canvas", { width: 1, height: 1 }) : paint(cell.stamp),
      el("figcaption", {}, cell.cell, el("br"), cell.stamp === null ? cell.reason || cell.status
        : `${cell.kind}, ${isNumber(cell.n_stars) ? counted(cell.n_stars, "star") : "–"}, FWHM ${fixed(cell.fwhm_pix, 2)} pix, e ${fixed(cell.ellipticity, 3)}`)));
    place.replaceChildren(el("h3", {}, "Stamps, asinh scale: row and column of the cell, stars, width, ellipticity"), el("div", { class: "gallery" }, figures),
      el("div", { class: "fields" }, cellMap(cells, "fwhm_pix", "FWHM [pix]", 2), cellMap(cells, "ellipticity", "ellipticity, with its direction", 3)));
  };
  const rows = T7.bands.map((band) => {
    const mine = T7.cells.filter((cell) => cell.band === band.name && isNumber(cell.fwhm_pix));
    const middle = (key) => { const v = mine.map((c) => c[key]).filter(isNumber).sort((a, b) => a - b); return v.length ? v[v.length >> 1] : NaN; };
    return [[bandMark(band), band.name], mine.length, fixed(middle("fwhm_pix"), 2), T7.scale ? fixed(middle("fwhm_pix") * T7.scale, 2) : "–", fixed(middle("ellipticity"), 3)];
  });
  return section("epsf", "PSF", "Empirical PSFs by band and cell.",
    table(["band", "cells", "FWHM [pix]", "FWHM [″]", "ellipticity"], rows, [1, 2, 3, 4]),
    chooser(T7.bands.map((band) => [band.name, [bandMark(band), band.name]]), T7.bands[0].name, show), place);
}

// A quantity over the cells of the field, as coloured squares with its value; ellipticity with whiskers.
function cellMap(cells, key, label, digits) {
  const rows = Math.max(...cells.map((c) => c.row)) + 1, columns = Math.max(...cells.map((c) => c.col)) + 1;
  const values = cells.map((c) => c[key]).filter(isNumber), low = Math.min(...values), high = Math.max(...values);
  const w = Math.min(420 / columns, 120, 380 / rows), h = w, top = 24, height = top + rows * h, width = Math.max(columns * w, 260);
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height + 2}`, style: `max-width:${1.25 * width}px`, role: "img", "aria-label": label });
  for (const cell of cells) {
    const value = cell[key], x = cell.col * w, y = height - (cell.row + 1) * h;
    const share = isNumber(value) ? (high > low ? (value - low) / (high - low) : 0.5) : null;
    const fill = share === null ? "#eceff2" : `rgb(${Math.round(236 - 190 * share)},${Math.round(243 - 130 * share)},${Math.round(250 - 66 * share)})`;
    chart.append(svg("rect", { x: x + 1, y: y + 1, width: w - 2, height: h - 2, rx: 2, fill }));
    if (key === "ellipticity" && isNumber(value) && isNumber(cell.theta_deg)) {
      const a = cell.theta_deg * Math.PI / 180, l = Math.min(w, h) * Math.min(0.12 + 2.2 * value, 0.46), u = x + w / 2, v = y + h / 2;
      chart.append(svg("line", { x1: u - l * Math.cos(a), y1: v + l * Math.sin(a), x2: u + l * Math.cos(a), y2: v - l * Math.sin(a), stroke: "#b3119f", "stroke-width": 2 }));
    }
    if (w > 34) chart.append(svg("text", { x: x + w / 2, y: key === "ellipticity" ? y + h - 5 : y + h / 2 + 4, "text-anchor": "middle", style: share > 0.6 ? "fill:#fff" : null }, fixed(value, digits)));
  }
  chart.append(svg("text", { x: 1, y: 14 }, `${label}: ${fixed(low, digits)} … ${fixed(high, digits)}`));
  return chart;
}

function reliabilitySection() {
  const r = T7.reliability, most = Math.max(1, ...r.issues.map((issue) => issue.n));
  const rows = r.issues.map((issue) => [issue.name.replaceAll("_", " "), issue.hard ? "not reliable" : "remark", whole(issue.n),
    el("div", { class: "bar" }, el("i", { style: `width:${100 * issue.n / most}%;background:${issue.hard ? "#c0281d" : "#b86200"}` })), issue.text]);
  return section("reliability", "Reliability", `${whole(r.reliable)} of ${whole(r.n)} catalogue rows have a reliable fit (${fixed(100 * r.reliable / Math.max(r.n, 1), 1)} %). A row can have several issues.`,
    el("div", { class: "issues" }, table(["issue", "", "rows", "", ""], rows, [2])));
}

// Below a small map, so that it hides nothing: scale bar, and north and east.
function mapStrip(pixels) {
  if (!T7.scale) return null;
  const { arcsec, label } = Sky.roundLength(0.4 * pixels * T7.scale);
  const arrows = [];
  if (T7.north) {
    for (const [name, [dx, dy]] of [[T7.north.names[0], T7.north.north], [T7.north.names[1], T7.north.east]]) {
      arrows.push(svg("line", { x1: 20, y1: 20, x2: 20 + 11 * dx, y2: 20 - 11 * dy }),
        svg("text", { x: 20 + 16 * dx, y: 23.5 - 16 * dy, "text-anchor": "middle" }, name));
    }
  }
  return el("div", { class: "strip" }, el("div", { class: "length", style: `width:${100 * arcsec / (T7.scale * pixels)}%` }, label),
    svg("svg", { viewBox: "0 -3 40 40", width: 40, height: 40, role: "img", "aria-label": "Compass" }, arrows));
}

function residualSection(maps) {
  if (!maps.maps) return null;
  const [n, ny, nx] = T7.maps.shape, step = T7.maps.step, per = T7.maps.per_sigma, none = -128;
  const blue = [1, 3, 5].map((k) => parseInt(T7.no_data.slice(k, k + 2), 16));
  const paint = (number) => {
    const image = new ImageData(nx, ny);
    for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++) {
      const value = maps.maps[(number * ny + ny - 1 - y) * nx + x];
      const color = value === none ? blue : T7.signed[Math.round(127.5 + 127.5 * Math.max(-1, Math.min(1, value / per / 5)))];
      image.data.set([...color, 255], 4 * (y * nx + x));
    }
    const canvas = el("canvas", { width: nx, height: ny });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };
  const figures = Array.from({ length: n }, (_, k) => el("figure", {},
    el("figcaption", {}, k ? [bandMark(T7.bands[k - 1]), T7.bands[k - 1].name, ` · scatter ${fixed(T7.maps.scatter[k - 1], 2)} σ`] : el("b", {}, "all bands")), paint(k), mapStrip(nx * step)));
  const stops = [0, 64, 128, 191, 255].map((i) => `rgb(${T7.signed[i].join(",")})`).join(",");
  return section("residuals", "Residual maps", `Data − model, mean over blocks of ${step} × ${step} pixels in units of its own noise: 1 σ is what noise alone gives. Dark blue: no data.`,
    el("p", { class: "about" }, "−5 σ", el("span", { class: "scale", style: `background:linear-gradient(90deg,${stops})` }), "+5 σ"), el("div", { class: "maps" }, figures));
}

function countsSection() {
  const c = T7.counts;
  if (!c.edges.length) return null;
  let which = "all";
  const place = el("div", {});
  const draw = () => {
    const most = Math.max(1, ...T7.bands.flatMap((band) => c[which][band.name]));
    const chart = new Chart({ width: 760, height: 340, title: "Number counts",
      x: { label: T7.calibrated ? "magnitude [mag AB]" : "magnitude [mag, not calibrated]", low: c.edges[0], high: c.edges.at(-1) },
      y: { label: `sources per ${fixed(c.edges[1] - c.edges[0], 1)} mag`, low: 0.7, high: 1.5 * most, log: true } });
    for (const band of T7.bands) {
      const points = c[which][band.name].flatMap((n, i) => [[c.edges[i], Math.max(n, 0.7)], [c.edges[i + 1], Math.max(n, 0.7)]]);
      chart.line(points, { stroke: band.color, "stroke-width": 1.8 });
    }
    place.replaceChildren(chart.svg);
  };
  return section("counts", "Number counts", `Sources detected at ${T7.code.sigma} σ or more, by magnitude.`,
    chooser([["all", "all"], ["reliable", "reliable fits"]], "all", (value) => { which = value; draw(); }), place,
    el("div", { class: "legend" }, T7.bands.map((band) => el("span", {}, bandMark(band), band.name))));
}

function stagesSection() {
  const stages = T7.run.stages, most = Math.max(0.001, ...stages.map((s) => s.wall_s));
  const rows = stages.map((s) => [s.name.replaceAll("_", " "), el("span", { class: `badge ${s.status}` }, s.status), seconds(s.wall_s),
    el("div", { class: "bar" }, el("i", { style: `width:${100 * s.wall_s / most}%` })), seconds(s.cpu_s), whole(Math.round(s.peak_rss_mb)),
    (s.detail || {}).reason || ((s.detail || {}).workers ? counted(s.detail.workers, "worker") : "")]);
  return section("stages", "Time and memory", "CPU time includes the workers; memory is the peak of the largest process.",
    table(["stage", "status", "wall", "", "CPU", "memory [MiB]", ""], rows, [2, 4, 5]));
}

function inputsSection() {
  const run = T7.run;
  const show = (value) => el("span", { class: "mono" }, JSON.stringify(value));
  return section("inputs", "Inputs, versions, configuration", null,
    el("details", { open: run.inputs.length < 12 }, el("summary", {}, counted(run.inputs.length, "input")),
      table(["file", "SHA-256"], run.inputs.map((file) => [el("span", { class: "mono" }, file.path), el("span", { class: "mono" }, file.sha256)]))),
    el("h3", {}, "Configuration: what differs from the defaults"),
    table(["key", "value", "default"], run.differences.map(([key, value, standard]) => [el("span", { class: "mono" }, key), show(value), show(standard)])),
    el("h3", {}, "Versions"), table(null, Object.entries(run.versions)),
    el("p", { class: "about mono" }, `configuration ${run.configuration_sha256}`));
}

function warningsSection() {
  const list = T7.run.warnings;
  return section("warnings", "Warnings", list.length ? `${counted(list.length, "different warning")} in the log of the run.` : "The log of the run has no warning.",
    list.length ? el("ul", { class: "warnings" }, list.map((text) => el("li", {}, text))) : null);
}
