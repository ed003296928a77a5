// Beside the map: filters, the legend, galleries, and single items.
"use strict";
import { draw } from "./map.js";
import { $, NONE, RAMP, colourOf, get, items, make, number, percent, result, state } from "./shared.js";

// Items that are listed at a time, values of the legend, and letters of one that fit half a line.
const PAGE = 48, LISTED = 60, SHORT = 14;

// -- which items are shown
const shownBut = (left = -1, visible = new Uint8Array(state.n)) => {
  const { n } = state;
  visible.fill(1);
  for (const [at, filter] of state.filters) {
    if (at === left) continue;
    const { data } = state.fields[at];
    if (filter.codes) {
      for (let i = 0; i < n; i++) if (!filter.codes.has(data[i])) visible[i] = 0;
    } else {
      for (let i = 0; i < n; i++) if (!(data[i] >= filter.low && data[i] <= filter.high)) visible[i] = 0;
    }
  }
  if (state.selected) for (let i = 0; i < n; i++) if (!state.selected[i]) visible[i] = 0;
  return visible;
};
const refilter = () => {
  const { n, wrong } = state, visible = shownBut(-1, state.visible);
  let shown = 0;
  state.bad = 0;
  for (let i = 0; i < n; i++) if (visible[i] && wrong[i] > 0) state.bad++;
  for (let i = 0; i < n; i++) shown += visible[i];
  state.shown = shown;
  $("status").textContent = shown === n ? items(n) : `${shown.toLocaleString("en")} of ${items(n)} shown`;
  chips();
  legend();
  relist();
  draw();
};
const described = (at, filter) => {
  const field = state.fields[at];
  if (!filter.codes) return `${field.name}: ${number(filter.low)} to ${number(filter.high)}`;
  const names = [...filter.codes].map((code) => field.values[code]);
  return `${field.name}: ${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
};
const chips = () => {
  const all = [...state.filters].map(([at, filter]) => [described(at, filter), () => state.filters.delete(at)]);
  if (state.selected) all.push(["selection", () => { state.selected = null; }]);
  $("chips").replaceChildren(...all.map(([text, remove]) => make("button", {
    type: "button", className: "chip", ariaLabel: `Remove the filter ${text}`,
    onclick: () => { remove(); refilter(); },
  }, make("bdi", { textContent: text }), " ×")));
  const at = result(), only = at >= 0 && state.filters.get(at)?.codes?.has(1);
  $("mistakes").setAttribute("aria-pressed", String(Boolean(only)));
};
const toggle = (at, code) => {
  const filter = state.filters.get(at) ?? { codes: new Set() };
  if (filter.codes.has(code)) filter.codes.delete(code); else filter.codes.add(code);
  if (filter.codes.size) state.filters.set(at, filter); else state.filters.delete(at);
  refilter();
};

// -- the legend
const legend = () => {
  const field = state.fields[state.colour];
  $("legend").hidden = !field;
  if (!field) return;
  $("legend-title").textContent = field.name.charAt(0).toUpperCase() + field.name.slice(1);
  const numbers = field.kind === "number", filter = state.filters.get(state.colour);
  $("range").hidden = !numbers;
  $("values").hidden = numbers;
  $("values-left").textContent = "";
  $("find").hidden = numbers || field.values.length <= 12;
  if (numbers) {
    const span = field.high - field.low || 1, low = filter?.low ?? field.low, high = filter?.high ?? field.high;
    $("low").value = Math.round(1000 * (low - field.low) / span);
    $("high").value = Math.round(1000 * (high - field.low) / span);
    $("low-said").value = number(low);
    $("high-said").value = number(high);
    $("ramp").style.background = `linear-gradient(to right, ${RAMP.join(", ")})`;
    return;
  }
  const counts = new Uint32Array(field.values.length), others = shownBut(state.colour);
  for (let i = 0; i < state.n; i++) if (others[i] && field.data[i] !== NONE) counts[field.data[i]]++;
  const sought = $("find").hidden ? "" : $("find").value.toLowerCase();
  const found = field.values.map((_, code) => code)
    .filter((code) => field.values[code].toLowerCase().includes(sought) || filter?.codes.has(code))
    .sort((a, b) => (field.values.length > 30 ? counts[b] - counts[a] : a - b));
  const codes = found.slice(0, LISTED), left = found.length - codes.length;
  $("values-left").textContent = left ? `and ${left.toLocaleString("en")} more: find them by name` : found.length ? "" : "No value has this in its name.";
  $("values").classList.toggle("long", codes.some((code) => field.values[code].length > SHORT));
  const focused = document.activeElement?.dataset?.code;
  $("values").replaceChildren(...codes.map((code) => {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = `rgb(${colourOf(code).join(" ")})`;
    const button = make("button", {
      type: "button", className: "value", title: field.values[code],
      onclick: () => toggle(state.colour, code),
    }, swatch, make("bdi", { textContent: field.values[code] || "(empty)" }), make("small", { textContent: counts[code].toLocaleString("en") }));
    button.dataset.code = code;
    button.setAttribute("aria-pressed", String(Boolean(filter?.codes.has(code))));
    return button;
  }));
  if (focused !== undefined) $("values").querySelector(`[data-code="${focused}"]`)?.focus();
};
const ranged = () => {
  const field = state.fields[state.colour], span = field.high - field.low;
  const [a, b] = [$("low"), $("high")].map((each) => field.low + span * each.value / 1000);
  const low = Math.min(a, b), high = Math.max(a, b);
  if (low <= field.low && high >= field.high) state.filters.delete(state.colour);
  else state.filters.set(state.colour, { low, high: Math.max(high, low) });
  refilter();
};

// -- galleries and single items
const card = (known) => {
  const button = make("button", { type: "button", className: "card", onclick: () => openItem(known.i) });
  if (state.scene.pictures) button.append(make("img", { src: `thumbnail/${known.i}`, alt: "", loading: "lazy", onerror() { this.remove(); } }));
  if (known.text) button.append(make("bdi", { className: "words", textContent: known.text }));
  if (known.label) button.append(make("bdi", { textContent: known.label }));
  const off = known.wrong > 0 && state.scene.task !== "regression";
  if (known.predicted !== undefined && (off || state.scene.task === "regression" || !known.label)) {
    const sure = state.scene.task === "classification" && known.confidence !== null ? `, ${percent(known.confidence)}` : "";
    button.append(make("span", { className: off ? "wrong" : "" }, "→ ", make("bdi", { textContent: known.predicted }), sure));
  }
  if (known.similarity !== undefined) button.append(make("span", { textContent: `cosine ${known.similarity.toFixed(3)}` }));
  button.append(make("span", { className: "name" }, `${known.split} · `, make("bdi", { textContent: known.item })));
  return make("li", {}, button);
};
const relist = () => {
  const { n, visible, wrong } = state, found = [];
  const flawed = result() >= 0 || state.scene.task === "regression";
  let bad = 0;
  for (let i = 0; i < n; i++) if (visible[i]) { found.push(i); if (wrong[i] > 0) bad++; }
  const ordered = flawed && bad > 0;
  if (ordered) found.sort((a, b) => (wrong[b] || 0) - (wrong[a] || 0) || a - b);
  state.list = found;
  const what = state.selected ? "Selected items" : state.filters.size ? "Items shown" : "Items";
  $("list-title").textContent = !ordered ? what : state.scene.task === "regression"
    ? `${what}, the largest errors first` : `${what}, mistakes first: ${bad.toLocaleString("en")} of ${found.length.toLocaleString("en")}`;
  state.listed = 0;
  $("gallery").replaceChildren();
  $("gallery").classList.toggle("words", !state.scene.pictures);
  clearTimeout(state.soon);
  state.soon = setTimeout(more, 60);
};
const more = async () => {
  const next = state.list.slice(state.listed, state.listed + PAGE), of = state.list;
  $("more").hidden = true;
  if (!next.length) return;
  state.listed += next.length;
  const known = await (await get(`items?i=${next.join(",")}`)).json();
  if (of !== state.list) return;
  $("gallery").append(...known.map(card));
  $("more").hidden = state.listed >= state.list.length;
};
const openItem = async (i) => {
  state.open = i;
  const known = await (await get(`item/${i}`)).json();
  if (state.open !== i) return;
  $("list").hidden = true;
  $("item").hidden = false;
  $("item-title").replaceChildren(make("bdi", { textContent: known.item }));
  const body = $("item-body");
  body.replaceChildren();
  if (state.scene.pictures) body.append(make("img", { src: `thumbnail/${i}`, alt: `Thumbnail of ${known.item}`, onerror() { this.remove(); } }));
  if (known.text) body.append(make("p", {}, make("bdi", { textContent: known.text })));
  const facts = [["split", known.split], ["true", known.label], ["predicted", known.predicted],
    ...(known.likeliest?.length ? [] : [["confidence", known.confidence]]), ...known.columns];
  body.append(make("dl", {}, ...facts.filter(([, value]) => value !== undefined && value !== null && value !== "").flatMap(
    ([name, value]) => [make("dt", {}, make("bdi", { textContent: name })), make("dd", {}, make("bdi", { textContent: typeof value === "number" ? number(value) : value }))])));
  if (known.likeliest?.length) body.append(make("ul", { className: "bars" }, ...known.likeliest.map(([name, value]) =>
    make("li", {}, make("bdi", { textContent: name }), make("meter", { value, ariaLabel: `probability of ${name}` }), make("span", { textContent: percent(value) })))));
  $("item-near").replaceChildren(make("p", { className: "hint", textContent: "Looking for what it is nearest to …" }));
  $("item-title").focus();
  draw();
  const near = await (await get(`near/${i}`)).json();
  if (state.open !== i) return;
  $("item-near").replaceChildren(...near.flatMap((group) => [
    make("h3", {}, make("bdi", { textContent: group.title })),
    group.items.length ? make("ul", { className: `gallery${state.scene.pictures ? "" : " words"}` }, ...group.items.map(card))
      : make("p", { className: "hint", textContent: "There are none." }),
  ]));
  state.near = i;
};
const closeItem = () => {
  if (state.open < 0) return false;
  state.open = -1;
  $("item").hidden = true;
  $("list").hidden = false;
  $("list-title").focus();
  draw();
  return true;
};
const nextMistake = () => {
  const bad = state.list.filter((i) => state.wrong[i] > 0);
  if (bad.length) openItem(bad[(bad.indexOf(state.open) + 1) % bad.length]);
};

export { closeItem, legend, more, nextMistake, openItem, ranged, refilter, toggle };
