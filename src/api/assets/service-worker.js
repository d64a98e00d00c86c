// @ts-check
/// <reference lib="webworker" />
/**
 * Shows the notifications that a server with tower-web-push sends.
 *
 * Served at `<mount>/service-worker.js`, it registers in the mount's own scope and leaves an application's
 * own worker alone. An application that would rather use its own imports this file:
 *
 *     self.webPush = { mount: "/web-push/" };
 *     importScripts("/web-push/service-worker.js");
 *
 * and gives its registration to the functions of `client.js`. Imported or not, it adds listeners and nothing
 * else: no global, no caching, no `fetch`, no `skipWaiting`, no `claim`. A listener of the importing worker
 * that was added before can keep an event to itself with `stopImmediatePropagation()`; clicks on
 * notifications that others showed are ignored.
 */
(() => {
  "use strict";

  /**
   * @typedef {object} Settings
   * @property {string} [mount] Where `vapid` and `renew` are: next to this file, unless it is imported from elsewhere.
   * @property {string} [title] Shown where a message has none. Default: the host's name.
   * @property {string} [body] Shown for a message that is empty or cannot be read.
   */

  const worker = /** @type {ServiceWorkerGlobalScope & {webPush?: Settings}} */ (/** @type {any} */ (self));
  const settings = worker.webPush ?? {};
  // With or without the slash at its end, which makes it a folder.
  const mount = new URL(`${settings.mount ?? "."}/`.replace(/\/+$/, "/"), worker.location.href);

  /**
   * Where the site's pages are: the worker's own scope, or the folder around it if the scope is the mount's, which has
   * no pages. Not the host's root: behind a path of a proxy that is another site.
   */
  const { scope } = worker.registration;
  const home = new URL(scope === mount.href ? ".." : ".", scope).href;

  /** Database, messages and locks, and what we put into a notification's `data`: clicks on others are left alone. */
  const NAME = "tower-web-push";

  /** Milliseconds: shorter than a browser lets an event take. */
  const LIMITS = { request: 15_000, turn: 15_000 };

  /** The options that are passed on as they are, when they have the right type. */
  const OPTIONS = {
    string: ["badge", "body", "dir", "icon", "image", "lang", "tag"],
    boolean: ["renotify", "requireInteraction", "silent"],
    number: ["timestamp", "vibrate"],
  };

  worker.addEventListener("push", (event) => {
    event.waitUntil(received(event));
  });

  worker.addEventListener("notificationclick", (event) => {
    const shown = event.notification.data;
    if (shown?.from !== NAME) return;
    event.notification.close();
    event.waitUntil(clicked(event.action, shown));
  });

  worker.addEventListener("pushsubscriptionchange", (event) => {
    // Older typings know the event without its two members.
    event.waitUntil(changed(/** @type {any} */ (event)));
  });

  // Background Sync, where there is one: the network is back.
  worker.addEventListener("sync", (/** @type {any} */ event) => {
    if (event.tag === `${NAME}:renew`) event.waitUntil(inTurn(() => renewIfChanged()));
  });

  // ---- Showing

  /** @param {PushEvent} event */
  async function received(event) {
    const { title, options, appBadge } = read(event);
    // A push that shows nothing costs the subscription: what the browser refuses is shown plainly.
    try {
      await worker.registration.showNotification(title, options);
    } catch {
      await worker.registration.showNotification(title, { body: options.body, data: options.data });
    }
    const rest = [tellPages("push", { title, options }), setBadge(appBadge), inTurn(() => renewIfChanged(), true)];
    await Promise.allSettled(rest);
  }

  /**
   * Reads what arrived: a declarative message (`web_push` is 8030), flat members, plain text, or nothing.
   *
   * @param {PushEvent} event
   */
  function read(event) {
    const payload = parse(event.data);
    // A browser that knows declarative messages has taken a mutable one apart already.
    const declared =
      /** @type {any} */ (event).notification ?? (payload.web_push === 8030 ? payload.notification : null);
    /** What the declarative part says goes first; null is the same as absent. @param {string} name */
    const value = (name) => declared?.[name] ?? payload[name];

    /** @type {any} */
    const options = {};
    for (const [type, names] of Object.entries(OPTIONS)) {
      for (const name of names) if (typeof value(name) === type) options[name] = value(name);
    }
    if (options.body === undefined && typeof value("message") === "string") options.body = value("message");
    if (Array.isArray(value("vibrate"))) options.vibrate = value("vibrate");
    // Both pairs are type errors: the notification matters more than how it is announced.
    if (options.silent) delete options.vibrate;
    if (!options.tag) delete options.renotify;

    const actions = readActions(value("actions"));
    if (actions.length > 0) options.actions = actions.map(({ action, title, icon }) => ({ action, title, icon }));
    options.data = {
      from: NAME,
      url: httpUrl(value("navigate")) ?? httpUrl(value("url")),
      actions: Object.fromEntries(actions.map(({ action, url }) => [action, url])),
      data: value("data") ?? null,
    };
    const title = value("title");
    return {
      title: typeof title === "string" && title.trim() !== "" ? title : (settings.title ?? worker.location.hostname),
      options,
      // The Push API has it at the top, WebKit inside the notification.
      appBadge: payload.app_badge ?? declared?.app_badge ?? /** @type {any} */ (event).appBadge,
    };
  }

  /**
   * @param {PushMessageData | null} data Null for a push without content; some browsers also where it is no UTF-8.
   * @returns {Record<string, any>}
   */
  function parse(data) {
    let text = "";
    try {
      text = data?.text() ?? "";
      const value = JSON.parse(text);
      if (isObject(value)) return value;
      if (typeof value === "string") text = value;
    } catch {
      // Not JSON: shown as it is.
    }
    return { body: text.trim() === "" ? (settings.body ?? "You have a new notification.") : text };
  }

  /** @param {unknown} value @returns {value is Record<string, any>} */
  function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
  }

  /**
   * Actions without a string `action` or `title` are skipped, as the Push API does.
   *
   * @param {unknown} value
   */
  function readActions(value) {
    if (!Array.isArray(value)) return [];
    return value
      .filter((entry) => typeof entry?.action === "string" && typeof entry.title === "string")
      .map(({ action, title, icon, navigate, url }) => ({
        action,
        title,
        icon: typeof icon === "string" ? icon : undefined,
        url: httpUrl(navigate) ?? httpUrl(url),
      }));
  }

  /**
   * Tells the open pages, for `onPush` and `onClick` of client.js.
   *
   * @param {"push" | "click"} type
   * @param {object} message
   */
  async function tellPages(type, message) {
    const at = Date.now();
    for (const page of await openPages()) page.postMessage({ type: `${NAME}:${type}`, at, ...message });
  }

  /**
   * The number on the application's icon. 0 clears it; true is a mark without a number.
   *
   * @param {unknown} count WebKit also takes digits.
   */
  async function setBadge(count) {
    const navigator = /** @type {any} */ (worker.navigator);
    const number = typeof count === "string" && /^\d{1,9}$/.test(count) ? Number(count) : count;
    if (number === true) await navigator.setAppBadge?.();
    else if (number === false || number === 0) await navigator.clearAppBadge?.();
    else if (Number.isSafeInteger(number) && Number(number) > 0) await navigator.setAppBadge?.(number);
  }

  // ---- Clicking

  /**
   * @param {string} action The button's, or empty.
   * @param {{url: unknown, actions?: Record<string, unknown>, data?: unknown}} shown
   */
  async function clicked(action, { url: own, actions = {}, data }) {
    const url = httpUrl(actions[action]) ?? httpUrl(own);
    try {
      // The browser allows this only shortly after the click: first of all, then.
      await open(url);
    } finally {
      await tellPages("click", { action, url, data });
    }
  }

  /**
   * Brings the tab that shows `url` to the front, or opens one. Without an address any tab of the site will do.
   *
   * @param {string | null} url
   */
  async function open(url) {
    const pages = await openPages();
    const page = pages.find((candidate) => (url === null ? candidate.url.startsWith(home) : candidate.url === url));
    try {
      if (page) return void (await page.focus());
    } catch {
      // Closed in between, or not ours to bring forward.
    }
    await worker.clients.openWindow(url ?? home);
  }

  /** Pages outside the scope are not controlled by this worker, and still ours. */
  function openPages() {
    return worker.clients.matchAll({ type: "window", includeUncontrolled: true });
  }

  /**
   * An absolute http(s) address, or null: a click must never run `javascript:` or open a file.
   *
   * @param {unknown} value
   */
  function httpUrl(value) {
    if (typeof value !== "string" || value === "") return null;
    try {
      const url = new URL(value, worker.registration.scope);
      return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
    } catch {
      return null;
    }
  }

  // ---- Renewing

  /**
   * The push service or the browser ended the subscription: make a new one and hand it to the server, with
   * proof that the old one was ours. Not every browser tells the old one, so what is remembered goes first.
   *
   * @param {{oldSubscription?: PushSubscription | null, newSubscription?: PushSubscription | null}} event
   */
  function changed({ oldSubscription, newSubscription }) {
    return inTurn(async () => {
      const known = await recall();
      if (known?.ended) return;
      const proof = known ?? (oldSubscription ? identity(oldSubscription) : { endpoint: null });
      await remember(proof);
      if (!newSubscription) await resubscribe(oldSubscription);
      await renewIfChanged(proof);
    });
  }

  /** The new key may be another than the one of a subscription that is still there: that one will do. */
  async function resubscribe(/** @type {PushSubscription | null | undefined} */ old) {
    const { pushManager } = worker.registration;
    const applicationServerKey = await serverKey(old);
    try {
      await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey });
    } catch (error) {
      if (!(await pushManager.getSubscription())) throw error;
    }
  }

  /** The server's present key; when it cannot be reached, the one that the old subscription had. */
  async function serverKey(/** @type {PushSubscription | null | undefined} */ old) {
    try {
      const response = await fetch(new URL("vapid", mount), { cache: "no-store", signal: timeout() });
      return fromBase64url((await response.json()).vapidKey);
    } catch (error) {
      const key = old?.options.applicationServerKey;
      if (!key) throw error;
      return key;
    }
  }

  /**
   * Tells the server about a subscription that it has not heard of. What is remembered changes only when it
   * has said yes: a failure is made up for when the network is back, at the next push, or at the next visit
   * of a page that calls `renew()`.
   *
   * @param {Known} [proof] For a browser that stores nothing.
   */
  async function renewIfChanged(proof) {
    const subscription = await worker.registration.pushManager.getSubscription();
    const known = (await recall()) ?? proof;
    if (!subscription || known?.ended || known?.endpoint === subscription.endpoint) return;
    // Nothing remembered, and it receives: the server knows it from somebody else.
    if (!known) return remember(identity(subscription));
    const key = subscription.options.applicationServerKey;
    try {
      const response = await fetch(new URL("renew", mount), {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({
          oldEndpoint: known.endpoint,
          oldAuth: known.auth,
          subscription: { ...subscription.toJSON(), applicationServerKey: key ? toBase64url(key) : undefined },
        }),
        signal: timeout(),
      });
      if (!response.ok) throw new Error(`the server answered with status ${response.status}`);
    } catch (error) {
      await /** @type {any} */ (worker.registration).sync?.register(`${NAME}:renew`);
      throw error;
    }
    await remember(identity(subscription));
  }

  function timeout() {
    return AbortSignal.timeout?.(LIMITS.request);
  }

  /** @param {PushSubscription} subscription @returns {Known} */
  function identity(subscription) {
    return { endpoint: subscription.endpoint, auth: subscription.toJSON().keys?.auth };
  }

  /**
   * Pages and the worker take turns, so that no two of them renew at once.
   *
   * @param {() => Promise<void>} work
   * @param {boolean} [orNever] Somebody has their turn: leave it to them.
   */
  async function inTurn(work, orNever = false) {
    const { locks } = worker.navigator;
    if (!locks) return work();
    const name = `${NAME}:${worker.registration.scope}`;
    if (orNever) return locks.request(name, { ifAvailable: true }, async (lock) => (lock ? work() : undefined));
    return locks.request(name, { signal: AbortSignal.timeout?.(LIMITS.turn) }, work);
  }

  // ---- Remembering: one record for each scope, in the same database as client.js

  /**
   * What the server last confirmed that it knows. `endpoint` is null when it may know nothing; `ended` when
   * the user has left, and the browser was not told yet.
   *
   * @typedef {{endpoint: string | null, auth?: string, ended?: boolean}} Known
   */

  /** @returns {Promise<Known | undefined>} */
  function recall() {
    return inDatabase("readonly", (table) => table.get(worker.registration.scope)).catch(() => undefined);
  }

  /** @param {Known} known */
  async function remember(known) {
    // Where nothing can be stored, the page's next visit still tells the server.
    await inDatabase("readwrite", (table) => table.put(known, worker.registration.scope)).catch(() => {});
  }

  /**
   * @param {IDBTransactionMode} mode
   * @param {(table: IDBObjectStore) => IDBRequest} work
   * @returns {Promise<any>}
   */
  async function inDatabase(mode, work) {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("subscriptions");
    const database = await result(opening);
    try {
      const transaction = database.transaction("subscriptions", mode);
      const value = result(work(transaction.objectStore("subscriptions")));
      // What is written counts once it is committed.
      await Promise.all([value, committed(transaction)]);
      return await value;
    } finally {
      database.close();
    }
  }

  /** @param {IDBTransaction} transaction */
  function committed(transaction) {
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(undefined);
      transaction.onabort = () => reject(transaction.error);
    });
  }

  /**
   * @param {IDBRequest} request
   * @returns {Promise<any>}
   */
  function result(request) {
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  // ---- Small things

  /** @param {ArrayBuffer} buffer */
  function toBase64url(buffer) {
    const binary = String.fromCharCode(...new Uint8Array(buffer));
    return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  }

  /** @param {string} text */
  function fromBase64url(text) {
    const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(binary, (character) => character.charCodeAt(0));
  }
})();
