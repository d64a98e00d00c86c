// Helpers for the page's elements. Text is only ever set as text.

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/**
 * Makes an element with properties, `data-*` in `dataset`, and children: elements or text.
 *
 * @param {string} name
 * @param {Record<string, any>} [properties]
 * @param {(Node | string)[]} children
 * @returns {any}
 */
export function element(name, { dataset = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

/** Makes one of the icons at the end of the page. @param {string} id */
export function icon(id) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(namespace, "use");
  use.setAttribute("href", `#${id}`);
  svg.append(use);
  return svg;
}

/**
 * Shows one child for each entry, in their order. Elements of known entries stay, so that they keep the focus.
 *
 * @template T
 * @param {any} parent
 * @param {T[]} entries
 * @param {(entry: T) => string} key
 * @param {(entry: T) => {node: any, show: (entry: T) => void}} make
 */
export function reconcile(parent, entries, key, make) {
  const known = rows.get(parent) ?? new Map();
  const shown = new Map();
  for (const entry of entries) shown.set(key(entry), known.get(key(entry)) ?? make(entry));
  for (const [name, { node }] of known) if (!shown.has(name)) node.remove();
  rows.set(parent, shown);
  let place = parent.firstElementChild;
  entries.forEach((entry) => {
    const row = shown.get(key(entry));
    row.show(entry);
    if (row.node === place) place = place.nextElementSibling;
    else parent.insertBefore(row.node, place);
  });
}

/** The rows of each list, by key. @type {WeakMap<any, Map<string, any>>} */
const rows = new WeakMap();

/**
 * Returns a moment in the visitor's locale.
 *
 * @param {number} at Milliseconds since 1970.
 * @param {(at: number) => string} [words]
 */
export function time(at, words = (at) => new Date(at).toLocaleTimeString()) {
  return element("time", { dateTime: new Date(at).toISOString() }, words(at));
}
