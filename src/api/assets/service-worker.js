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
 * Imported or not, it adds listeners and nothing else: no global, no caching, no `skipWaiting`, no `claim`.
 * A listener of the importing worker that was added before can keep an event to itself with
 * `stopImmediatePropagation()`; clicks on notifications that others showed are ignored.
 */
(() => {
  "use strict";

  const worker = /** @type {ServiceWorkerGlobalScope & {webPush?: {mount?: string}}} */ (/** @type {any} */ (self));

  /** Where `vapid` and `renew` are: next to this file, unless it is imported from elsewhere. */
  const mount = new URL(worker.webPush?.mount ?? ".", worker.location.href);

  /** Marks what we put into a notification's `data`, so that clicks on others are left alone. */
  const MARK = "tower-web-push";

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
    const data = event.notification.data;
    if (data?.from !== MARK) return;
    event.notification.close();
    event.waitUntil(open(data.actions[event.action] ?? data.url));
  });

  worker.addEventListener("pushsubscriptionchange", (event) => {
    // Older typings know the event without its two members.
    event.waitUntil(changed(/** @type {any} */ (event)));
  });

  worker.addEventListener("message", (event) => {
    if (event.data?.type === `${MARK}:subscribed`) event.waitUntil(remember());
    if (event.data?.type === `${MARK}:unsubscribed`) event.waitUntil(forget());
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
    await Promise.allSettled([tellPages(title, options), setBadge(appBadge), renewIfChanged()]);
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
      from: MARK,
      url: httpUrl(value("navigate")) ?? httpUrl(value("url")),
      actions: Object.fromEntries(actions.map(({ action, url }) => [action, url])),
      data: value("data") ?? null,
    };
    const title = value("title");
    return {
      title: typeof title === "string" && title !== "" ? title : worker.location.hostname,
      options,
      // The Push API has it at the top, WebKit inside the notification.
      appBadge: payload.app_badge ?? declared?.app_badge,
    };
  }

  /**
   * @param {PushMessageData | null} data
   * @returns {Record<string, any>}
   */
  function parse(data) {
    if (data === null) return { body: "You have a new notification." };
    const text = data.text();
    try {
      const value = JSON.parse(text);
      if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
      if (typeof value === "string") return { body: value };
    } catch {
      // Not JSON: shown as it is.
    }
    return { body: text };
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
   * @param {string} title
   * @param {NotificationOptions} options
   */
  async function tellPages(title, options) {
    const at = Date.now();
    for (const page of await openPages()) page.postMessage({ type: `${MARK}:push`, title, options, at });
  }

  /** @param {unknown} count 0 clears. */
  async function setBadge(count) {
    const { setAppBadge } = /** @type {any} */ (worker.navigator);
    if (setAppBadge && Number.isSafeInteger(count)) await setAppBadge.call(worker.navigator, count);
  }

  // ---- Clicking

  /**
   * Brings the tab that shows `url` to the front, or opens one. Without an address any tab of ours will do.
   *
   * @param {string | null} url
   */
  async function open(url) {
    const pages = await openPages();
    const page = url === null ? pages[0] : pages.find((candidate) => candidate.url === url);
    if (page) await page.focus();
    else await worker.clients.openWindow(url ?? worker.location.origin);
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
   * proof that the old one was ours.
   *
   * @param {{oldSubscription?: PushSubscription | null, newSubscription?: PushSubscription | null}} event
   */
  async function changed({ oldSubscription, newSubscription }) {
    if (oldSubscription && !(await recall())) await store(identity(oldSubscription));
    if (!newSubscription) {
      await worker.registration.pushManager.subscribe({
        userVisibleOnly: true,
        applicationServerKey: await applicationServerKey(oldSubscription),
      });
    }
    await renewIfChanged();
  }

  /** The server's present key; when it cannot be reached, the one that the old subscription had. */
  async function applicationServerKey(/** @type {PushSubscription | null | undefined} */ old) {
    try {
      const response = await fetch(new URL("vapid", mount), { cache: "no-store" });
      return fromBase64url((await response.json()).vapidKey);
    } catch (error) {
      const key = old?.options.applicationServerKey;
      if (!key) throw error;
      return key;
    }
  }

  /**
   * Tells the server about a subscription that it has not heard of. A failure is made up for at the next
   * push, since what is remembered changes only on success.
   */
  async function renewIfChanged() {
    const [subscription, known] = [await worker.registration.pushManager.getSubscription(), await recall()];
    if (!subscription || known?.endpoint === subscription.endpoint) return;
    // Nothing remembered: the page subscribed and tells the server itself.
    if (!known) return remember();
    const key = subscription.options.applicationServerKey;
    const response = await fetch(new URL("renew", mount), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        oldEndpoint: known.endpoint,
        oldAuth: known.auth,
        subscription: { ...subscription.toJSON(), applicationServerKey: key ? toBase64url(key) : undefined },
      }),
    });
    if (response.ok) await remember();
  }

  /** Not every browser tells the old subscription when it is replaced, so we keep what proves it. */
  async function remember() {
    const subscription = await worker.registration.pushManager.getSubscription();
    if (subscription) await store(identity(subscription));
  }

  /** @param {PushSubscription} subscription */
  function identity(subscription) {
    return { endpoint: subscription.endpoint, auth: subscription.toJSON().keys?.auth };
  }

  // ---- Remembering: one record for each scope

  /** @returns {Promise<{endpoint: string, auth?: string} | undefined>} */
  function recall() {
    return inDatabase("readonly", (table) => table.get(worker.registration.scope));
  }

  /** @param {{endpoint: string, auth?: string}} record */
  function store(record) {
    return inDatabase("readwrite", (table) => table.put(record, worker.registration.scope));
  }

  function forget() {
    return inDatabase("readwrite", (table) => table.delete(worker.registration.scope));
  }

  /**
   * @param {IDBTransactionMode} mode
   * @param {(table: IDBObjectStore) => IDBRequest} work
   * @returns {Promise<any>}
   */
  async function inDatabase(mode, work) {
    const opening = indexedDB.open(MARK, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("subscriptions");
    const database = await result(opening);
    try {
      return await result(work(database.transaction("subscriptions", mode).objectStore("subscriptions")));
    } finally {
      database.close();
    }
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
