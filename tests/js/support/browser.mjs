// The parts of a browser that the client and the worker use: tabs and one worker share its subscription, its locks and
// its database. Each tab and the worker run in a context of their own.
import { readFile } from "node:fs/promises";
import vm from "node:vm";

import { Database } from "./database.mjs";
import { Locks } from "./locks.mjs";
import { Server } from "./server.mjs";

const ASSETS = new URL("../../../src/api/assets/", import.meta.url);
const [CLIENT, WORKER] = await Promise.all(
  ["client.js", "service-worker.js"].map((name) => readFile(new URL(name, ASSETS), "utf8")),
);

export const MOUNT = "https://app.example/web-push/";

/** The globals of Node in contexts. */
const NODE = { URL, Response, DOMException, AbortSignal, MessageChannel, atob, btoa, setTimeout, clearTimeout };

export class Browser {
  server = new Server();
  database = new Database();
  locks = new Locks();
  permission = "granted";
  answerToPrompt = "granted";
  /** The error of the push service. */
  pushFails = null;
  /** Whether the browser reports the key of a subscription. */
  tellsKey = true;
  /** The number of unanswered calls of `getSubscription`, as in Firefox's first seconds. */
  hangs = 0;
  /** Whether a new worker stays in `installing` until {@link activate}. */
  holdsWorker = false;
  subscription = null;
  registrations = [];
  made = 0;
  pages = [];
  opened = [];
  #held = [];

  /** Opens a tab with the client. Members of `globals` or `navigator` that are undefined are missing. */
  async tab({ globals = {}, navigator = {} } = {}) {
    const listeners = [];
    const serviceWorker = {
      register: async (url, { scope }) => this.#register(String(url), scope),
      getRegistration: async (url) => this.registrations.find(({ scope }) => url.startsWith(scope)),
      addEventListener: (_, listener) => listeners.push(listener),
      removeEventListener: (_, listener) => listeners.splice(listeners.indexOf(listener), 1),
      startMessages() {},
    };
    const browser = this;
    const Notification = {
      get permission() {
        return browser.permission;
      },
      async requestPermission() {
        if (browser.permission === "default") browser.permission = browser.answerToPrompt;
        return browser.permission;
      },
    };
    const context = vm.createContext(present({
      ...NODE,
      isSecureContext: true,
      PushManager: class {},
      Notification,
      indexedDB: this.database,
      fetch: (url, init) => this.server.fetch(String(url), init),
      navigator: present({ serviceWorker, locks: this.locks, userAgent: "", maxTouchPoints: 0, ...navigator }),
      location: { href: "https://app.example/" },
      ...globals,
    }));
    context.window = context;
    const module = new vm.SourceTextModule(CLIENT, {
      context,
      identifier: "client.js",
      initializeImportMeta: (meta) => {
        meta.url = `${MOUNT}client.js`;
      },
    });
    await module.link(() => {
      throw new Error("the client depends on nothing");
    });
    await module.evaluate();
    const page = {
      url: "https://app.example/",
      focused: 0,
      messages: [],
      focus: async () => void page.focused++,
      // Those with a port are questions.
      postMessage(data, ports = []) {
        if (ports.length === 0) page.messages.push(data);
        for (const listener of [...listeners]) listener({ data: structuredClone(data), ports });
      },
      /** As `history.pushState`. */
      show: (href) => void (context.location.href = href),
    };
    this.pages.push(page);
    return { client: module.namespace, page };
  }

  /** Starts the worker in the mount's scope, or imported by `around` in a wider one. */
  worker({ scope = MOUNT, settings, around, navigator = {}, globals = {}, script = `${MOUNT}service-worker.js` } = {}) {
    const listeners = new Map();
    const shown = [];
    const worker = { shown, refuses: () => false, badge: undefined, synced: [] };
    const badge = {
      setAppBadge: async (count) => void (worker.badge = count ?? "mark"),
      clearAppBadge: async () => void (worker.badge = "clear"),
    };
    const self = {
      ...NODE,
      Object,
      location: new URL(script),
      navigator: { locks: this.locks, ...badge, ...navigator },
      indexedDB: this.database,
      fetch: (url, init) => this.server.fetch(String(url), init),
      addEventListener: (type, listener) => listeners.set(type, [...(listeners.get(type) ?? []), listener]),
      registration: {
        scope,
        pushManager: this.#pushManager(),
        sync: { register: async (tag) => void worker.synced.push(tag) },
        showNotification: async (title, options) => {
          if (worker.refuses(title, options)) throw new TypeError("refused");
          shown.push({ title, options: structuredClone(options) });
        },
      },
      clients: {
        matchAll: async (query) => (query.includeUncontrolled ? this.pages : []),
        openWindow: async (url) => void this.opened.push(url),
      },
      webPush: settings,
      ...globals,
    };
    self.self = self;
    around?.(self);
    const before = Object.keys(self);
    vm.runInContext(WORKER, vm.createContext(self), { filename: "service-worker.js" });
    worker.listens = [...listeners.keys()];
    /** Globals that were added. */
    worker.added = Object.keys(self).filter((name) => !before.includes(name));
    worker.dispatch = async (type, members = {}) => {
      const waits = [];
      let stopped = false;
      const event = {
        ...members,
        waitUntil: (promise) => waits.push(promise),
        stopImmediatePropagation: () => void (stopped = true),
      };
      for (const listener of listeners.get(type) ?? []) if (!stopped) listener(event);
      await Promise.all(waits);
    };
    /** Sends a push with this text; null for one without content. */
    worker.push = (text, members) =>
      worker.dispatch("push", { data: text === null ? null : { text: () => text }, ...members });
    /** Clicks on the last notification. */
    worker.click = async (action = "", data = shown.at(-1).options.data) => {
      const notification = { data, closed: false, close: () => void (notification.closed = true) };
      await worker.dispatch("notificationclick", { notification, action });
      return notification;
    };
    return worker;
  }

  /** Ends the subscription by the push service, without an event. */
  loseSubscription() {
    const lost = this.subscription;
    this.subscription = null;
    return lost;
  }

  /** Activates held workers. */
  activate() {
    for (const worker of this.#held.splice(0)) worker.start();
  }

  #register(script, scope) {
    let registration = this.registrations.find((known) => known.scope === scope);
    if (!registration) {
      const worker = new LifeCycle();
      registration = {
        scope,
        script,
        pushManager: this.#pushManager(() => worker),
        updates: 0,
        get active() {
          return worker.state === "activated" ? worker : null;
        },
        get installing() {
          return worker.state === "activated" ? null : worker;
        },
        async update() {
          registration.updates++;
        },
      };
      if (this.holdsWorker) this.#held.push(worker);
      else worker.start();
      this.registrations.push(registration);
    }
    return registration;
  }

  #pushManager(worker) {
    return {
      getSubscription: async () => {
        if (this.hangs > 0) {
          this.hangs--;
          return new Promise(() => {});
        }
        return this.subscription;
      },
      subscribe: async ({ userVisibleOnly, applicationServerKey }) => {
        if (!userVisibleOnly) throw new TypeError("userVisibleOnly is wanted");
        // Push API section 6: a subscription needs an active worker.
        if (worker && worker().state !== "activated") throw new DOMException("no active worker", "AbortError");
        if (this.pushFails) throw new DOMException("no", this.pushFails);
        const key = Buffer.from(applicationServerKey).toString("base64url");
        if (this.subscription && this.subscription.key !== key) throw new DOMException("", "InvalidStateError");
        return (this.subscription ??= this.#subscription(key));
      },
    };
  }

  #subscription(key) {
    const number = ++this.made;
    const endpoint = `https://push.example/${number}`;
    const bytes = Uint8Array.from(Buffer.from(key, "base64url")).buffer;
    const subscription = {
      endpoint,
      key,
      expirationTime: null,
      options: { applicationServerKey: this.tellsKey ? bytes : null },
      toJSON: () => ({ endpoint, expirationTime: subscription.expirationTime, keys: { p256dh: `p${number}`, auth: `auth${number}` } }),
      unsubscribe: async () => {
        if (this.subscription === subscription) this.subscription = null;
        return true;
      },
    };
    return subscription;
  }
}

/** A worker from its installation to its activation, one step a task. */
class LifeCycle extends EventTarget {
  state = "installing";

  async start() {
    for (const state of ["installed", "activating", "activated"]) {
      await new Promise(setImmediate);
      this.state = state;
      this.dispatchEvent(new Event("statechange"));
    }
  }

  postMessage() {}
}

/** The client tests it with `in`. */
function present(members) {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}
