// The whole console in a small browser, with a server of few lines behind it.
import { readFile } from "node:fs/promises";
import vm from "node:vm";

import { FormValues, parse } from "./elements.mjs";
import { ASSETS } from "./module.mjs";
import { OperatorServer } from "./operator-server.mjs";

const html = await readFile(new URL("console/index.html", ASSETS), "utf8");
const sources = new Map();

async function source(url) {
  if (!sources.has(url.href)) sources.set(url.href, await readFile(url, "utf8"));
  return sources.get(url.href);
}

/** One turn of everything that is under way, several times. */
export async function settled() {
  for (let turn = 0; turn < 40; turn++) await new Promise(setImmediate);
}

/**
 * Opens the console, unlocked unless `token` is null.
 *
 * @param {{hash?: string, token?: string | null, server?: OperatorServer, subscribed?: boolean, stored?: Map<string, string>}} [given]
 */
export async function openConsole({ hash = "", token = "right", server = new OperatorServer(), subscribed = true, stored = new Map() } = {}) {
  const document = parse(html);
  if (token !== null) stored.set("/operator", `Bearer ${token}`);
  /** The time of day, which may be wrong, and the time since the start. */
  const clock = { now: server.now, passed: 0, timers: new Set() };
  class Now extends Date {
    constructor(...given) {
      super(...(given.length === 0 ? [clock.now] : given));
    }
    static now() {
      return clock.now;
    }
  }
  const subscription = subscribed ? { endpoint: "https://push.example/own", toJSON: () => ({}) } : null;
  const browser = { subscription, listeners: [] };
  const client = {
    state: async () => ({ supported: true, why: null, permission: "granted", subscription: browser.subscription }),
    renew: async () => (browser.subscription ? { id: "own-id", created: false, subscription } : null),
    subscribe: async () => {
      browser.subscription = { endpoint: "https://push.example/own", toJSON: () => ({}) };
      return { id: "own-id", created: true, subscription: browser.subscription };
    },
    unsubscribe: async () => {},
    sendTest: async () => ({ success: true }),
    onPush: (listener) => browser.listeners.push(listener),
    onClick() {},
  };
  const windowListeners = new Map();
  const location = { href: `https://app.example/console${hash}`, host: "app.example", hostname: "app.example", origin: "https://app.example", reload: () => void world.reloads++ };
  Object.defineProperty(location, "hash", {
    get: () => hash,
    set(name) {
      hash = `#${name.replace("#", "")}`;
      for (const listener of windowListeners.get("hashchange") ?? []) listener();
    },
  });
  const timer = (repeats) => (work, after = 0) => {
    const one = { at: clock.passed + after, after, work, repeats };
    // What is due at once runs in the next turn.
    if (!repeats && after === 0) setImmediate(work);
    else clock.timers.add(one);
    return one;
  };
  const timeout = (limit) => {
    const controller = new AbortController();
    timer(false)(() => controller.abort(new DOMException("", "TimeoutError")), limit);
    return controller.signal;
  };
  const globals = {
    document,
    location,
    URL: Object.assign(class extends URL {}, { createObjectURL: (blob) => ((world.files.push(blob)), "blob:1"), revokeObjectURL() {} }),
    URLSearchParams,
    FormData: FormValues,
    Date: Now,
    Intl,
    TextEncoder,
    AbortSignal: { timeout },
    crypto,
    performance: { now: () => clock.passed },
    btoa,
    navigator: { clipboard: null },
    sessionStorage: storage(stored),
    localStorage: storage(new Map()),
    fetch: (path, options = {}) => Promise.race([server.fetch(path, options), aborted(options.signal)]),
    setTimeout: timer(false),
    setInterval: timer(true),
    clearTimeout: (one) => clock.timers.delete(one),
    clearInterval: (one) => clock.timers.delete(one),
    addEventListener: (type, listener) => windowListeners.set(type, [...(windowListeners.get(type) ?? []), listener]),
    scrollTo() {},
  };
  const context = vm.createContext(globals);
  const modules = new Map();
  /** A module, once, however many import it at the same time. */
  const made = (url) => {
    if (!modules.has(url.href)) modules.set(url.href, url.href.endsWith("/web-push/client.js") ? clientModule() : read(url));
    return modules.get(url.href);
  };
  const read = async (url) => new vm.SourceTextModule(await source(url), { context, identifier: url.href });
  const clientModule = () =>
    new vm.SyntheticModule(
      Object.keys(client),
      function () {
        for (const [name, value] of Object.entries(client)) this.setExport(name, value);
      },
      { context },
    );
  const byId = (id) => {
    const found = document.getElementById(id);
    if (!found) throw new Error(`there is no #${id}`);
    return found;
  };
  const world = {
    document,
    server,
    byId,
    browser,
    stored,
    files: [],
    /** How often the page was loaded again. */
    reloads: 0,
    text: (id) => byId(id).textContent,
    rows: (id) => byId(id).children.map(({ textContent }) => textContent),
    /** The hash of the address. */
    hash: () => hash,
    async go(name) {
      location.hash = name;
      await settled();
    },
    /** Lets time pass, in milliseconds, on both sides. */
    async pass(milliseconds) {
      const end = clock.passed + milliseconds;
      const turn = (at) => {
        server.now += at - clock.passed;
        clock.now += at - clock.passed;
        clock.passed = at;
      };
      for (;;) {
        const [next] = [...clock.timers].sort((one, other) => one.at - other.at);
        if (!next || next.at > end) break;
        turn(Math.max(next.at, clock.passed));
        if (next.repeats) next.at += next.after;
        else clock.timers.delete(next);
        next.work();
        await settled();
      }
      turn(end);
      await settled();
    },
    /** Moves this browser's clock alone. */
    shift: (milliseconds) => void (clock.now += milliseconds),
    /** Clicks a button by its text, or its label. */
    async press(within, text) {
      const buttons = within.querySelectorAll("button").filter((button) => !isHidden(button));
      const button = buttons.find((one) => (one.textContent.trim() === text));
      if (!button) throw new Error(`no button ${text} among ${buttons.map(({ textContent }) => textContent)}`);
      button.click();
      await settled();
      return button;
    },
    async fill(id, fields) {
      const form = byId(id);
      for (const [name, value] of Object.entries(fields)) {
        const controls = form.querySelectorAll(`[name="${name}"]`);
        const choice = controls.find((control) => control.type === "radio" && control.value === value);
        if (choice) choice.checked = true;
        else controls[0].value = value;
      }
      form.dispatchEvent({ type: "input", target: form });
      await settled();
    },
    async submit(id) {
      byId(id).dispatchEvent({ type: "submit", submitter: null });
      await settled();
    },
    async confirm(answer) {
      if (!byId("confirm").open) throw new Error(`nothing is asked: ${byId("status").textContent}`);
      byId(`confirm-${answer}`).click();
      await settled();
    },
  };
  const main = await made(new URL("console/main.js", ASSETS));
  await main.link((specifier, from) => made(new URL(specifier, from.identifier)));
  // `watch` never ends.
  main.evaluate().catch((error) => (world.failed = error));
  await settled();
  if (world.failed) throw world.failed;
  return world;
}

/** Whether an element or one around it is hidden. */
export function isHidden(element) {
  return element?.hidden === true || (element?.parent ? isHidden(element.parent) : false);
}

/** Rejects when the signal aborts; never without one. */
function aborted(signal) {
  return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
}

function storage(values) {
  return { getItem: (key) => values.get(key) ?? null, setItem: (key, value) => values.set(key, value), removeItem: (key) => values.delete(key) };
}
