// What all parts of the page share: the state, small helpers, and the colours of items.
"use strict";

const $ = (id) => document.getElementById(id);
const NONE = 0xffff;
const state = {
  scene: null, n: 0, x: null, y: null, wrong: null, fields: [], colour: 0,
  filters: new Map(), selected: null, visible: null, shown: 0, palette: [], order: null,
  view: { x: 0, y: 0, scale: 1 }, hover: -1, open: -1, list: [], listed: 0, frames: [],
};
window.headstart = state;

// -- small helpers
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const get = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
};
const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
const percent = (value) => `${(100 * value).toFixed(1)}\u00a0%`;
// Where the field is that says whether a prediction is right.
const result = () => state.fields.findIndex((field) => field.result);
const items = (n) => `${n.toLocaleString("en")} ${n === 1 ? "item" : "items"}`;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const rgb = (colour) => {
  const hex = /^#(..)(..)(..)/.exec(colour);
  if (hex) return hex.slice(1, 4).map((part) => parseInt(part, 16));
  return colour.match(/[\d.]+/g).slice(0, 3).map(Number);
};
const packed = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
const mixed = (a, b, t) => a.map((part, i) => Math.round(part + (b[i] - part) * t));

// -- colours
const NAMED = ["--blue", "--vermilion", "--green", "--purple", "--orange", "--sky"];
const FURTHER = ["#8c564b", "#7f7fd5", "#9aa12b", "#c4497c", "#3f8f8f", "#a0703c", "#6a51a3", "#d6a5a5"];
const RAMP = ["#3556b8", "#7a5fc0", "#c25592", "#e5734f", "#eaa43a"];
const colourOf = (code) => {
  if (code < NAMED.length) return rgb(css(NAMED[code]));
  if (code < NAMED.length + FURTHER.length) return rgb(FURTHER[code - NAMED.length]);
  const hue = (code * 137.508) % 360, f = (k) => {
    const at = (k + hue / 30) % 12;
    return Math.round(255 * (0.55 - 0.27 * Math.max(-1, Math.min(at - 3, 9 - at, 1))));
  };
  return [f(0), f(8), f(4)];
};
const ramp = (t) => {
  const at = Math.max(0, Math.min(0.9999, t)) * (RAMP.length - 1), i = Math.floor(at);
  return mixed(rgb(RAMP[i]), rgb(RAMP[i + 1]), at - i);
};
const paint = () => {
  state.paper = packed(rgb(css("--paper")));
  state.ink = packed(rgb(css("--ink")));
  state.faint = packed(mixed(rgb(css("--paper")), rgb(css("--muted")), 0.28));
  state.plain = packed(rgb(css("--muted")));
  const field = state.fields[state.colour];
  if (!field) return;
  state.palette = field.kind === "category"
    ? Uint32Array.from(field.values, (_, code) => packed(colourOf(code)))
    : Uint32Array.from({ length: 64 }, (_, i) => packed(ramp(i / 63)));
};
const shade = (i) => {
  const field = state.fields[state.colour];
  if (!field) return state.plain;
  const value = field.data[i];
  if (field.kind === "category") return value === NONE ? state.plain : state.palette[value];
  if (Number.isNaN(value)) return state.plain;
  return state.palette[Math.round(63 * (value - field.low) / (field.high - field.low || 1))];
};

export { $, NONE, RAMP, colourOf, css, get, items, make, number, paint, percent, result, shade, state };
