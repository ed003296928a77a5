// The map: all points drawn into the pixels of one canvas, and what pointers do on it.
"use strict";
import { $, css, get, make, result, shade, state } from "./shared.js";

// Above FEW items a part is drawn while the map moves; above RIMS mistakes rims would hide the map.
const GRID = 192, FEW = 150000, RIMS = 1500;
const canvas = $("map"), context = canvas.getContext("2d", { alpha: false });

// -- drawing
let image = null, pixels = null, wide = 0, high = 0, dpr = 1, asked = false, moving = 0;
const resize = () => {
  const box = $("stage").getBoundingClientRect();
  dpr = Math.min(2, window.devicePixelRatio || 1);
  wide = Math.max(1, Math.round(box.width * dpr));
  high = Math.max(1, Math.round(box.height * dpr));
  canvas.width = wide;
  canvas.height = high;
  image = context.createImageData(wide, high);
  pixels = new Uint32Array(image.data.buffer);
  draw();
};
const unit = () => 0.48 * Math.min(wide, high) * state.view.scale;
const toScreen = (i) => {
  const s = unit();
  return [wide / 2 + (state.x[i] - state.view.x) * s, high / 2 - (state.y[i] - state.view.y) * s];
};
const toData = (px, py) => {
  const s = unit();
  return [state.view.x + (px - wide / 2) / s, state.view.y - (py - high / 2) / s];
};
const discs = new Map();
const disc = (radius) => {
  const key = Math.round(radius * 4);
  if (!discs.has(key)) {
    const spans = [], r = key / 4, reach = Math.floor(r);
    for (let dy = -reach; dy <= reach; dy++) {
      const half = Math.floor(Math.sqrt(Math.max(0, r * r - dy * dy)));
      spans.push(dy, half);
    }
    discs.set(key, Int32Array.from(spans));
  }
  return discs.get(key);
};
const stamp = (spans, px, py, colour) => {
  for (let k = 0; k < spans.length; k += 2) {
    const row = py + spans[k];
    if (row < 0 || row >= high) continue;
    const from = Math.max(0, px - spans[k + 1]), to = Math.min(wide - 1, px + spans[k + 1]);
    if (from <= to) pixels.fill(colour, row * wide + from, row * wide + to + 1);
  }
};
const radius = () => {
  const base = state.n > 20000 ? 1.2 : state.n > 3000 ? 2 : 3.2;
  return dpr * Math.min(6, base * Math.pow(state.view.scale, 0.35));
};
const render = () => {
  asked = false;
  if (!image || !state.n) return;
  const begun = performance.now();
  pixels.fill(state.paper);
  const { x, y, order, visible, wrong, view } = state;
  const s = unit(), cx = wide / 2 - view.x * s, cy = high / 2 + view.y * s;
  const r = radius(), small = disc(Math.max(1, r - 0.5)), normal = disc(r), rim = disc(r + dpr);
  const n = performance.now() < moving && state.n > FEW ? FEW : state.n;
  const reach = r + 2 * dpr, few = state.bad <= RIMS || view.scale >= 4;
  const marked = few && state.scene.task !== "regression" && state.colour !== result();
  const filtered = state.shown < state.n;
  const pass = (wanted, body) => {
    for (let k = 0; k < n; k++) {
      const i = order[k];
      if (visible[i] !== wanted) continue;
      const px = cx + x[i] * s, py = cy - y[i] * s;
      if (px < -reach || py < -reach || px > wide + reach || py > high + reach) continue;
      body(i, px | 0, py | 0);
    }
  };
  if (filtered) pass(0, (i, px, py) => stamp(small, px, py, state.faint));
  pass(1, (i, px, py) => { if (!(marked && wrong[i] > 0)) stamp(normal, px, py, shade(i)); });
  if (marked) pass(1, (i, px, py) => {
    if (wrong[i] > 0) { stamp(rim, px, py, state.ink); stamp(normal, px, py, shade(i)); }
  });
  context.putImageData(image, 0, 0);
  for (const i of [state.open, state.hover]) if (i >= 0) {
    const [px, py] = toScreen(i);
    context.strokeStyle = css(i === state.open ? "--accent" : "--ink");
    context.lineWidth = 2.5 * dpr;
    context.beginPath();
    context.arc(px, py, r + 4 * dpr, 0, 7);
    context.stroke();
  }
  state.frames.push(performance.now() - begun);
  if (state.frames.length > 600) state.frames.shift();
  if (n < state.n) setTimeout(draw, 200);
};
const draw = () => {
  if (!asked) { asked = true; requestAnimationFrame(render); }
};

// -- finding the item under the pointer
const index = () => {
  const { n, x, y } = state, cell = (v) => Math.max(0, Math.min(GRID - 1, Math.floor((v + 1) * GRID / 2)));
  const starts = new Uint32Array(GRID * GRID + 1), of = new Uint32Array(n);
  for (let i = 0; i < n; i++) { of[i] = cell(y[i]) * GRID + cell(x[i]); starts[of[i] + 1]++; }
  for (let c = 0; c < GRID * GRID; c++) starts[c + 1] += starts[c];
  const members = new Uint32Array(n), fill = starts.slice();
  for (let i = 0; i < n; i++) members[fill[of[i]]++] = i;
  state.cells = { starts, members, cell };
};
const within = (left, top, right, bottom, body) => {
  const [x0, y1] = toData(left, top), [x1, y0] = toData(right, bottom), { starts, members, cell } = state.cells;
  for (let cy = cell(y0); cy <= cell(y1); cy++) {
    for (let k = starts[cy * GRID + cell(x0)]; k < starts[cy * GRID + cell(x1) + 1]; k++) {
      const i = members[k];
      if (state.visible[i] && state.x[i] >= x0 && state.x[i] <= x1 && state.y[i] >= y0 && state.y[i] <= y1) body(i);
    }
  }
};
const nearest = (px, py, reach) => {
  let best = -1, least = reach * reach;
  within(px - reach, py - reach, px + reach, py + reach, (i) => {
    const [qx, qy] = toScreen(i), d = (qx - px) ** 2 + (qy - py) ** 2;
    if (d <= least) { least = d; best = i; }
  });
  return best;
};
const middle = () => {
  for (let reach = 16 * dpr; reach < 2 * (wide + high); reach *= 2) {
    const found = nearest(wide / 2, high / 2, reach);
    if (found >= 0) return found;
  }
  return -1;
};

// -- moving
const move = () => { moving = performance.now() + 150; hideTip(); draw(); };
const zoom = (factor, px = wide / 2, py = high / 2) => {
  const [dx, dy] = toData(px, py);
  state.view.scale = Math.max(0.2, Math.min(400, state.view.scale * factor));
  const [ex, ey] = toData(px, py);
  state.view.x += dx - ex;
  state.view.y += dy - ey;
  move();
};
const pan = (dx, dy) => { state.view.x -= dx / unit(); state.view.y += dy / unit(); move(); };
const fit = () => { state.view = { x: 0, y: 0, scale: 1 }; move(); };
const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * dpr, (event.clientY - box.top) * dpr];
};
const pointers = new Map();
let brush = null, travelled = 0;
const brushing = (event) => event.shiftKey || $("select").getAttribute("aria-pressed") === "true";
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, at(event));
  travelled = 0;
  if (pointers.size === 1 && brushing(event)) brush = { from: at(event), to: at(event) };
  else brush = null;
});
canvas.addEventListener("pointermove", (event) => {
  const now = at(event), before = pointers.get(event.pointerId);
  if (!before) { if (event.pointerType !== "touch") hoverAt(now); return; }
  travelled += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
  pointers.set(event.pointerId, now);
  if (brush) {
    brush.to = now;
    const [left, right] = [brush.from[0], now[0]].sort((a, b) => a - b), [top, bottom] = [brush.from[1], now[1]].sort((a, b) => a - b);
    Object.assign($("brush").style, { left: `${left / dpr}px`, top: `${top / dpr}px`, width: `${(right - left) / dpr}px`, height: `${(bottom - top) / dpr}px` });
    $("brush").hidden = false;
  } else if (pointers.size === 1) pan(now[0] - before[0], now[1] - before[1]);
  else {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const far = Math.hypot(now[0] - other[0], now[1] - other[1]), was = Math.hypot(before[0] - other[0], before[1] - other[1]);
    zoom(was > 0 ? far / was : 1, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }
});
const release = (event) => {
  const now = pointers.get(event.pointerId);
  pointers.delete(event.pointerId);
  if (!now || event.type === "pointercancel") { brush = null; $("brush").hidden = true; return; }
  if (brush && travelled > 6 * dpr) selectBetween(brush.from, brush.to);
  else if (travelled <= 6 * dpr) {
    const found = nearest(...now, (event.pointerType === "touch" ? 18 : 9) * dpr);
    if (found >= 0) state.on.open(found);
  }
  brush = null;
  $("brush").hidden = true;
};
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("pointerleave", () => { if (!pointers.size) hideTip(); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 30 : 1;
  zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) / 500), ...at(event));
}, { passive: false });
const selectBetween = ([x0, y0], [x1, y1]) => {
  const chosen = new Uint8Array(state.n);
  let count = 0;
  within(Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1), (i) => { chosen[i] = 1; count++; });
  if (!count) return;
  state.selected = chosen;
  state.on.select();
};

// -- hovering
const hideTip = () => {
  $("tip").hidden = true;
  canvas.classList.remove("over");
  if (state.hover >= 0) { state.hover = -1; draw(); }
};
const hoverAt = (now) => {
  const found = nearest(...now, 9 * dpr);
  if (found < 0) { hideTip(); return; }
  if (found === state.hover) return;
  state.hover = found;
  canvas.classList.add("over");
  draw();
  clearTimeout(state.tip);
  state.tip = setTimeout(() => showTip(found), 50);
};
const showTip = async (i) => {
  const [known] = await (await get(`items?i=${i}`)).json();
  if (state.hover !== i) return;
  const tip = $("tip"), picture = $("tip-picture");
  picture.hidden = !state.scene.pictures;
  if (state.scene.pictures) { picture.onerror = () => { picture.hidden = true; }; picture.src = `thumbnail/${i}`; }
  $("tip-text").textContent = known.text ?? "";
  const off = known.wrong > 0 || !known.label || state.scene.task === "regression";
  const guess = known.predicted !== undefined && off ? make("span", { className: known.wrong > 0 ? "wrong" : "" }, " → ", make("bdi", { textContent: known.predicted })) : "";
  $("tip-said").replaceChildren(make("bdi", { textContent: known.label }), guess);
  $("tip-name").textContent = known.item;
  tip.hidden = false;
  const [px, py] = toScreen(i).map((v) => v / dpr), box = $("stage").getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(px + 14, box.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(py + 14, box.height - tip.offsetHeight - 4))}px`;
};

export { draw, fit, index, middle, pan, resize, zoom };
