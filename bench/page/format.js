"use strict";

// An element with attributes and children; strings become text, never markup.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function drawn(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

const percent = (share) => share.percent.toFixed(2);
const interval = (share) => `[${share.low.toFixed(1)}, ${share.high.toFixed(1)}]`;
const spelled = (share) => `${percent(share)} % ${interval(share)}, n = ${share.n}`;
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
const outside = (row) => row.paper !== null && (row.paper < row.robust.low || row.paper > row.robust.high);

// Pieces that keys and manifests share stand once in the data, as {"$": index}.
function whole(content, shared) {
  const full = {};
  for (const [name, value] of Object.entries(content)) {
    const reference = value !== null && typeof value === "object" && Object.keys(value).join() === "$";
    full[name] = reference ? shared[value.$] : value;
  }
  return full;
}
