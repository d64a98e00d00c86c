// The parts of the DOM that the pages use: elements, their forms and events. Made from a page's own HTML.

const VOID = new Set(["meta", "link", "img", "input", "path"]);
/** Attributes that are properties of the same name, as texts. */
const TEXTS = ["id", "name", "type", "title", "href", "src", "placeholder", "lang", "dir", "download"];
/** Attributes that are there or not. */
const FLAGS = ["hidden", "open", "required", "autofocus"];

class Text {
  parent = null;
  constructor(data) {
    this.data = data;
  }
  get textContent() {
    return this.data;
  }
}

export class Element {
  parent = null;
  childNodes = [];
  attributes = new Map();
  listeners = new Map();
  style = {};
  /** The calls of `focus`. */
  focused = 0;
  #value;

  constructor(document, tag) {
    this.document = document;
    this.tagName = tag;
    this.dataset = new Proxy(
      {},
      {
        get: (_, name) => this.attributes.get(`data-${dashed(name)}`),
        set: (_, name, value) => (this.attributes.set(`data-${dashed(name)}`, String(value)), true),
        deleteProperty: (_, name) => (this.attributes.delete(`data-${dashed(name)}`), true),
      },
    );
    for (const name of TEXTS) this.#property(name, () => this.attributes.get(name) ?? "", (value) => this.attributes.set(name, String(value)));
    for (const name of FLAGS) this.#property(name, () => this.attributes.has(name), (value) => void (value ? this.attributes.set(name, "") : this.attributes.delete(name)));
    this.#property("className", () => this.attributes.get("class") ?? "", (value) => this.attributes.set("class", value));
    this.#property("ariaLabel", () => this.attributes.get("aria-label") ?? null, (value) => this.attributes.set("aria-label", value));
    this.#property("ariaHidden", () => this.attributes.get("aria-hidden") ?? null, (value) => this.attributes.set("aria-hidden", value));
  }

  #property(name, get, set) {
    Object.defineProperty(this, name, { get, set, configurable: true });
  }

  // ---- The tree

  get children() {
    return this.childNodes.filter((node) => node instanceof Element);
  }
  get firstElementChild() {
    return this.children[0] ?? null;
  }
  get lastElementChild() {
    return this.children.at(-1) ?? null;
  }
  get nextElementSibling() {
    const all = this.parent?.children ?? [];
    return all[all.indexOf(this) + 1] ?? null;
  }
  get isConnected() {
    return this === this.document.root || (this.parent?.isConnected ?? false);
  }
  get textContent() {
    return this.childNodes.map(({ textContent }) => textContent).join("");
  }
  set textContent(text) {
    this.replaceChildren(...(String(text) === "" ? [] : [String(text)]));
  }
  append(...nodes) {
    for (const node of nodes) this.insertBefore(node, null);
  }
  prepend(...nodes) {
    const first = this.childNodes[0] ?? null;
    for (const node of nodes) this.insertBefore(node, first);
  }
  insertBefore(node, before) {
    const one = node instanceof Element || node instanceof Text ? node : new Text(String(node));
    one.parent?.removeChild(one);
    const place = before === null ? this.childNodes.length : this.childNodes.indexOf(before);
    this.childNodes.splice(place, 0, one);
    one.parent = this;
  }
  removeChild(node) {
    this.childNodes.splice(this.childNodes.indexOf(node), 1);
    node.parent = null;
    // As in browsers, the focus goes with what had it.
    if (node instanceof Element && !this.document.activeElement?.isConnected) this.document.activeElement = null;
  }
  remove() {
    this.parent?.removeChild(this);
  }
  replaceChildren(...nodes) {
    for (const node of [...this.childNodes]) this.removeChild(node);
    this.append(...nodes);
  }
  *all() {
    for (const child of this.children) {
      yield child;
      yield* child.all();
    }
  }

  // ---- Attributes and selectors

  getAttribute(name) {
    return this.attributes.get(name) ?? null;
  }
  setAttribute(name, value) {
    this.attributes.set(name, String(value));
  }
  removeAttribute(name) {
    this.attributes.delete(name);
  }
  /** One compound selector: `tag#id.class[name="value"]`. */
  matches(selector) {
    const parts = selector.match(/^[a-z0-9]+|#[\w-]+|\.[\w-]+|\[[^\]]+\]/g);
    return parts.every((part) => {
      if (part[0] === "#") return this.id === part.slice(1);
      if (part[0] === ".") return this.className.split(" ").includes(part.slice(1));
      if (part[0] !== "[") return this.tagName === part;
      const [, name, value] = /^\[([\w-]+)(?:="?([^"]*)"?)?\]$/.exec(part);
      return value === undefined ? this.attributes.has(name) : this.attributes.get(name) === value;
    });
  }
  querySelectorAll(selector) {
    const [first, ...rest] = selector.split(" ");
    const found = [...this.all()].filter((one) => one.matches(first));
    return rest.length === 0 ? found : found.flatMap((one) => one.querySelectorAll(rest.join(" ")));
  }
  querySelector(selector) {
    return this.querySelectorAll(selector)[0] ?? null;
  }
  closest(selector) {
    return this.matches(selector) ? this : (this.parent?.closest?.(selector) ?? null);
  }

  // ---- Events

  addEventListener(type, listener, options) {
    const of = this.listeners.get(type) ?? [];
    this.listeners.set(type, [...of, { listener, once: options?.once === true }]);
  }
  dispatchEvent(event) {
    event.target ??= this;
    event.currentTarget = this;
    event.preventDefault ??= () => {};
    this[`on${event.type}`]?.(event);
    for (const one of this.listeners.get(event.type) ?? []) {
      if (one.once) this.listeners.set(event.type, this.listeners.get(event.type).filter((other) => other !== one));
      one.listener(event);
    }
    if (event.bubbles) this.parent?.dispatchEvent(event);
  }
  click() {
    this.dispatchEvent({ type: "click", bubbles: true });
    const form = this.closest("form");
    if (form && this.tagName === "button" && this.type === "submit") form.dispatchEvent({ type: "submit", submitter: this });
    if (form && this.type === "reset") form.reset();
  }
  focus() {
    this.focused++;
    this.document.activeElement = this;
  }

  // ---- Forms

  get value() {
    if (this.#value !== undefined) return this.#value;
    if (this.tagName === "textarea") return this.textContent;
    if (this.tagName !== "select") return this.attributes.get("value") ?? (["checkbox", "radio"].includes(this.type) ? "on" : "");
    const options = this.querySelectorAll("option");
    const chosen = options.find((option) => option.attributes.has("selected")) ?? options[0];
    return chosen?.getAttribute("value") ?? "";
  }
  set value(value) {
    if (["checkbox", "radio", "option"].includes(this.type || this.tagName)) this.attributes.set("value", value);
    else this.#value = value;
  }
  get checked() {
    return this.isChecked ?? this.attributes.has("checked");
  }
  set checked(is) {
    const group = this.type === "radio" && is ? this.closest("form").controls().filter(({ name }) => name === this.name) : [];
    for (const other of group) other.isChecked = false;
    this.isChecked = is;
  }
  controls() {
    return [...this.all()].filter(({ tagName, name }) => ["input", "select", "textarea"].includes(tagName) && name);
  }
  get elements() {
    return Object.fromEntries(this.controls().map((control) => [control.name, control]));
  }
  reset() {
    this.dispatchEvent({ type: "reset" });
    for (const control of this.controls()) control.forget();
  }
  forget() {
    this.#value = undefined;
    this.isChecked = undefined;
  }

  // ---- Dialogs

  showModal() {
    this.open = true;
  }
  close(value) {
    this.open = false;
    if (value !== undefined) this.returnValue = value;
    this.dispatchEvent({ type: "close" });
  }
}

/** What a form would send. */
export class FormValues extends FormData {
  constructor(form) {
    super();
    for (const control of form?.controls() ?? []) {
      if (!["checkbox", "radio"].includes(control.type) || control.checked) this.append(control.name, control.value);
    }
  }
}

/** Makes a document of HTML that is well-formed, as the pages are. */
export function parse(html) {
  const document = { activeElement: null, hidden: false, title: "", listeners: [] };
  document.createElement = (tag) => new Element(document, tag);
  document.createElementNS = (_, tag) => new Element(document, tag);
  document.addEventListener = (type, listener) => document.listeners.push({ type, listener });
  document.root = new Element(document, "root");
  let at = document.root;
  for (const [, close, tag, attributes, text] of html.replace(/<!doctype html>/, "").matchAll(/<(\/?)([a-z0-9]+)((?:\s+[\w-]+(?:="[^"]*"|='[^']*')?)*)\s*\/?>|([^<]+)/g)) {
    if (text !== undefined) at.append(text.replace(/\s+/g, " "));
    else if (close) {
      if (at.tagName !== tag) throw new Error(`</${tag}> ends <${at.tagName}>`);
      at = at.parent;
    } else {
      const made = new Element(document, tag);
      for (const [, name, one, other] of attributes.matchAll(/([\w-]+)(?:="([^"]*)"|='([^']*)')?/g)) made.setAttribute(name, one ?? other ?? "");
      at.append(made);
      if (!VOID.has(tag)) at = made;
    }
  }
  if (at !== document.root) throw new Error(`<${at.tagName}> has no end`);
  document.getElementById = (id) => [...document.root.all()].find((one) => one.id === id) ?? null;
  return document;
}

const dashed = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
