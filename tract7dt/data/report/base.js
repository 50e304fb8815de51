// Elements, numbers, and the packed arrays.
const T7 = JSON.parse(document.getElementById("data").textContent);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined) continue;
    node.append(child instanceof Node ? child : String(child)); // text, never markup: names come from users
  }
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const fixed = (value, digits, unit = "") =>
  isNumber(value) ? value.toFixed(digits).replace("-", "−") + unit : "–";
const whole = (value) => (isNumber(value) ? value.toLocaleString("en") : "–");
const counted = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;
const bandMark = (band) => el("i", { class: "band", style: `background:${band.color}` });

function bytesOf(id) {
  const text = document.getElementById(id).textContent;
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

// A packed blob: gzip of header length, header, arrays (tract7dt/qa/report/pack.py).
async function unpack(name) {
  const stream = new Blob([bytesOf(`blob-${name}`)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const kinds = { Int8Array, Uint8Array, Uint16Array, Float32Array, Float64Array };
  const found = { text: header.text };
  for (const [key, [kind, offset, size]] of Object.entries(header.arrays)) {
    const begin = 4 + length + offset;
    found[key] = new kinds[kind](buffer.slice(begin, begin + size));
  }
  return found;
}

function table(heads, rows, numeric = []) {
  const side = (i) => (numeric.includes(i) ? "n" : null);
  return el("div", { class: "scroll" }, el("table", {},
    heads && el("thead", {}, el("tr", {}, heads.map((head, i) => el("th", { class: side(i) }, head)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => el("td", { class: side(i) }, cell)))))));
}

// Buttons of which one is chosen.
function chooser(entries, chosen, change) {
  const buttons = entries.map(([value, label]) => el("button", { type: "button", onclick: () => pick(value) }, label));
  function pick(value) {
    buttons.forEach((button, i) => {
      button.classList.toggle("on", entries[i][0] === value);
      button.setAttribute("aria-pressed", entries[i][0] === value);
    });
    change(value);
  }
  const row = el("div", { class: "row" }, buttons);
  row.pick = pick;
  queueMicrotask(() => pick(chosen));
  return row;
}
