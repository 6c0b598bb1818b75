/** Elements, made without markup in strings: a text among the children is never read as HTML. */
import { TEXT } from "./words.js";

const BELL = "M6 16v-5a6 6 0 1 1 12 0v5l1.5 2h-15zM10 21h4";
const ICONS = {
  fraud_protection: "M12 3l7 3v5c0 4.6-2.9 8.3-7 10-4.1-1.7-7-5.4-7-10V6zM9 11.8l2.2 2.2 4-4",
  spending_threshold: "M4 18a9 9 0 1 1 16 0M12 15l3.5-4.5M12 15h.1",
  location_based: "M12 21c4-4.4 6-7.8 6-10.6a6 6 0 1 0-12 0c0 2.8 2 6.2 6 10.6zM12 12.6a2 2 0 1 0 0-4 2 2 0 0 0 0 4z",
  subscription_monitoring: "M5 11a7 7 0 0 1 12.4-3.6L19 9m0-4v4h-4m4 4a7 7 0 0 1-12.4 3.6L5 15m0 4v-4h4",
  merchant_monitoring: "M5 12v7h14v-7M5.5 5h13L20 9.5a2.6 2.6 0 0 1-5.3 0 2.7 2.7 0 0 1-5.4 0 2.6 2.6 0 0 1-5.3 0zM10 19v-4h4v4",
};

/** Give an element its attributes, listeners (`onclick`) and children. */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") node.toggleAttribute(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

export const button = (attributes, ...children) => el("button", { type: "button", ...attributes }, ...children);

export const iconOf = (category) => svg("svg", { viewBox: "0 0 24 24" }, svg("path", { d: ICONS[category] ?? BELL }));

/** A place for an error, hidden until `showProblem`. */
export const problemBox = () => el("div", { class: "problem", role: "alert", hidden: true });

export function showProblem(box, error, retry) {
  box.replaceChildren(el("p", {}, error.message), button({ onclick: retry }, TEXT.retry));
  box.hidden = false;
}
