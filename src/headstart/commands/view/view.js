// The beginning: loads all points at once, and binds keys and buttons. Every text is set as text,
// never as markup; items are asked for as they are looked at.
"use strict";
import { draw, fit, index, middle, pan, resize, zoom } from "./map.js";
import { closeItem, legend, more, nextMistake, openItem, ranged, refilter, toggle } from "./panel.js";
import { $, get, make, paint, result, state } from "./shared.js";

const canvas = $("map");
state.on = { open: openItem, select: () => { closeItem(); refilter(); } };

// -- keys and buttons
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = 60 * Math.min(2, window.devicePixelRatio || 1), keys = {
    ArrowLeft: () => pan(step, 0), ArrowRight: () => pan(-step, 0), ArrowUp: () => pan(0, step), ArrowDown: () => pan(0, -step),
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), "0": fit,
    Enter: () => { const i = middle(); if (i >= 0) openItem(i); },
  };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
document.addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "m" || event.key === "M") nextMistake();
  else if (event.key === "Escape" && !closeItem() && (state.selected || state.filters.size)) {
    if (state.selected) state.selected = null; else state.filters.clear();
    refilter();
  }
});
$("in").onclick = () => zoom(1.5);
$("out").onclick = () => zoom(1 / 1.5);
$("fit").onclick = fit;
$("back").onclick = closeItem;
$("more").onclick = more;
$("low").oninput = $("high").oninput = ranged;
$("find").oninput = legend;
$("select").onclick = () => {
  const on = $("select").getAttribute("aria-pressed") !== "true";
  $("select").setAttribute("aria-pressed", String(on));
  canvas.classList.toggle("selecting", on);
};
$("mistakes").onclick = () => toggle(result(), 1);
$("colour").onchange = () => { state.colour = Number($("colour").value); $("find").value = ""; paint(); legend(); draw(); };
new ResizeObserver(resize).observe($("stage"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paint(); legend(); draw(); });

// -- beginning
const begin = async (again = false) => {
  const scene = await (await get("scene.json")).json();
  const answer = await fetch(`points.bin?of=${scene.identity}`);
  if (answer.status === 404 && !again) return begin(true);  // the items were opened in between
  if (!answer.ok) throw new Error(await answer.text());
  const buffer = await answer.arrayBuffer();
  const n = scene.count;
  let offset = 0;
  const floats = () => { const part = new Float32Array(buffer, offset, n); offset += 4 * n; return part; };
  const codes = () => { const part = new Uint16Array(buffer, offset, n); offset += 4 * Math.ceil(n / 2); return part; };
  Object.assign(state, { scene, n, x: floats(), y: floats(), wrong: floats() });
  state.fields = scene.fields.map((field) => ({ ...field, data: field.kind === "category" ? codes() : floats() }));
  state.visible = new Uint8Array(n).fill(1);
  // Drawn in an order that mixes all parts of the data, so that none lies on top as a whole.
  let step = Math.max(1, Math.round(n * 0.618));
  const gcd = (a, b) => (b ? gcd(b, a % b) : a);
  while (gcd(step, n) > 1) step++;
  state.order = Uint32Array.from({ length: n }, (_, k) => (k * step) % n);
  $("title").textContent = scene.title;
  $("subtitle").textContent = scene.subtitle;
  document.title = `${scene.title} – headstart view`;
  $("about").textContent = scene.about;
  noted(scene.notes);
  $("colour").replaceChildren(...state.fields.map((field, i) => make("option", { value: i, textContent: field.name })));
  $("mistakes").hidden = result() < 0;
  index();
  paint();
  $("waiting").hidden = true;
  refilter();
  requestAnimationFrame(() => requestAnimationFrame(() => {
    document.documentElement.dataset.ready = "yes";
    state.ready = performance.now();
  }));
  if (scene.kept) check();
};
const noted = (notes) => $("notes").replaceChildren(...notes.map((note) => make("li", { textContent: note })));
// What was kept of the page is there at once; the items are opened behind it.
const check = async () => {
  const line = $("checking");
  line.textContent = "As kept from the last look; the items are being opened.";
  line.hidden = false;
  const said = await (await get("checked")).json().catch((error) => ({ error: error.message }));
  if (said.error) { line.textContent = `The items cannot be opened, and this is what was kept of them: ${said.error}`; return; }
  if (!said.same) { location.reload(); return; }
  line.hidden = true;
  noted(said.notes);
};
begin().catch((error) => { $("waiting").textContent = `The items cannot be shown: ${error.message}`; });
