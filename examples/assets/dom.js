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

/** Returns a moment in the visitor's locale. @param {number} at Milliseconds since 1970. */
export function time(at) {
  const moment = new Date(at);
  return element("time", { dateTime: moment.toISOString() }, moment.toLocaleTimeString());
}
