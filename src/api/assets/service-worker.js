// @ts-check
/// <reference lib="webworker" />
/**
 * Shows the notifications that a server with tower-web-push sends.
 *
 * Served at `<mount>/service-worker.js`, it registers in the mount's own scope and does not affect an application's
 * own worker. An application can also import this file into its own worker:
 *
 *     self.webPush = { mount: "/web-push/" };
 *     importScripts("/web-push/service-worker.js");
 *
 * and pass its registration to the functions of `client.js`. This file only adds listeners: no globals, no caching, no
 * `fetch`, no `skipWaiting`, no `claim`. A listener that the importing worker added before can stop an event with
 * `stopImmediatePropagation()`. Clicks on notifications of other scripts are ignored.
 */
(() => {
  "use strict";

  /**
   * @typedef {object} Settings
   * @property {string} [mount] The folder of `vapid` and `renew`. Default: the folder of the worker.
   * @property {string} [title] The title of a message without one. Default: the host's name.
   * @property {string} [body] The text of a message that is empty or cannot be decoded.
   */

  const worker = /** @type {ServiceWorkerGlobalScope & {webPush?: Settings}} */ (/** @type {any} */ (self));
  const settings = worker.webPush ?? {};
  // With or without the slash at its end, which a folder needs.
  const mount = new URL(`${settings.mount ?? "."}/`.replace(/\/+$/, "/"), worker.location.href);

  /**
   * The folder of the site's pages: the worker's own scope, or the folder around it if the scope is the mount's, which
   * has no pages. Not the host's root: behind a path of a proxy that is another site.
   */
  const { scope } = worker.registration;
  const home = new URL(scope === mount.href ? ".." : ".", scope).href;

  /** The name of database, messages and locks, and a mark in the `data` of notifications: clicks on others are ignored. */
  const NAME = "tower-web-push";

  /** Time limits in milliseconds, shorter than a browser's limit for an event. */
  const LIMITS = { request: 15_000, turn: 15_000, page: 200 };

  /** The options that are passed on unchanged if they have the right type. */
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
    // Older typings lack the event's two members.
    event.waitUntil(changed(/** @type {any} */ (event)));
  });

  // Background Sync, if the browser has it: the network is back.
  worker.addEventListener("sync", (/** @type {any} */ event) => {
    if (event.tag === `${NAME}:renew`) event.waitUntil(inTurn(() => renewIfChanged()));
  });

  // ---- Notifications

  /** @param {PushEvent} event */
  async function received(event) {
    const { title, options, appBadge } = read(event);
    // Browsers revoke the subscription after pushes without a notification, so refused options are left out.
    try {
      await worker.registration.showNotification(title, options);
    } catch {
      await worker.registration.showNotification(title, { body: options.body, data: options.data });
    }
    const rest = [tellPages("push", { title, options }), setBadge(appBadge), inTurn(() => renewIfChanged(), true)];
    await Promise.allSettled(rest);
  }

  /**
   * Reads a message: a declarative one (`web_push` is 8030), flat members, plain text, or an empty one.
   *
   * @param {PushEvent} event
   */
  function read(event) {
    const payload = parse(event.data);
    const written = payload.web_push === 8030 && isObject(payload.notification) ? payload.notification : null;
    // A browser with declarative messages has parsed a mutable one already.
    const declared = /** @type {any} */ (event).notification ?? written;
    /** The declarative part comes first. Null is the same as absent. @param {string} name */
    const value = (name) => {
      // What the browser has parsed has empty texts and lists where the message has nothing.
      const isAbsent = written !== null && (written[name] ?? null) === null;
      return (isAbsent ? null : declared?.[name]) ?? payload[name];
    };

    /** @type {any} */
    const options = {};
    for (const [type, names] of Object.entries(OPTIONS)) {
      for (const name of names) if (typeof value(name) === type) options[name] = value(name);
    }
    if (options.body === undefined && typeof value("message") === "string") options.body = value("message");
    if (Array.isArray(value("vibrate"))) options.vibrate = value("vibrate");
    // Both combinations are type errors, which would lose the notification.
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
   * @param {PushMessageData | null} data Null for a push without content; in some browsers also if it is not UTF-8.
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
      // Not JSON: shown as text.
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
   * Posts a message to the open pages, for `onPush` and `onClick` of client.js.
   *
   * @param {"push" | "click"} type
   * @param {object} message
   */
  async function tellPages(type, message) {
    const at = Date.now();
    for (const page of await openPages()) page.postMessage({ type: `${NAME}:${type}`, at, ...message });
  }

  /**
   * Sets the number on the application's icon. 0 clears it; true is a mark without a number.
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

  // ---- Clicks

  /**
   * @param {string} action The action of the button, or empty.
   * @param {{url: unknown, actions?: Record<string, unknown>, data?: unknown}} shown
   */
  async function clicked(action, { url: own, actions = {}, data }) {
    const url = httpUrl(actions[action]) ?? httpUrl(own);
    try {
      // First, since the browser allows this only shortly after the click.
      await open(url);
    } finally {
      await tellPages("click", { action, url, data });
    }
  }

  /**
   * Brings the tab that shows `url` to the front, or opens one. Without an address any tab of the site is used.
   *
   * @param {string | null} url
   */
  async function open(url) {
    const page = await shows(url);
    try {
      if (page) return void (await page.focus());
    } catch {
      // Closed in between, or not allowed for this worker.
    }
    await worker.clients.openWindow(url ?? home);
  }

  /** @param {string | null} url */
  async function shows(url) {
    const pages = await openPages();
    if (url === null) return pages.find((page) => page.url.startsWith(home));
    // A worker sees pages of its own origin only.
    if (new URL(url).origin !== worker.location.origin) return undefined;
    const addresses = await Promise.all(pages.map(address));
    return pages.find((_, number) => addresses[number] === url);
  }

  /**
   * Asks a page for its address. Its `url` is that of its document, which `history.pushState` leaves: a page that shows
   * another view by now must not count as the one that was clicked. Pages without client.js do not answer.
   *
   * @param {WindowClient} page
   * @returns {Promise<unknown>}
   */
  function address(page) {
    const { port1, port2 } = new MessageChannel();
    return new Promise((resolve) => {
      port1.onmessage = ({ data }) => resolve(data);
      setTimeout(() => resolve(page.url), LIMITS.page);
      page.postMessage({ type: `${NAME}:address` }, [port2]);
    }).finally(() => port1.close());
  }

  /** Includes pages outside the scope, which this worker does not control. */
  function openPages() {
    return worker.clients.matchAll({ type: "window", includeUncontrolled: true });
  }

  /**
   * Returns an absolute http(s) address, or null: a click must never run `javascript:` or open a file.
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

  // ---- Renewal

  /**
   * Replaces a subscription that the push service or the browser has ended, and posts the new one to the server with
   * the old one's secret as proof. Not every browser passes the old one, so the stored one comes first.
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

  /** An existing subscription is used even if the server's key is another one. */
  async function resubscribe(/** @type {PushSubscription | null | undefined} */ old) {
    const { pushManager } = worker.registration;
    const applicationServerKey = await serverKey(old);
    try {
      await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey });
    } catch (error) {
      if (!(await pushManager.getSubscription())) throw error;
    }
  }

  /** Returns the server's active key, or the old subscription's if the server cannot be reached. */
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
   * Posts a subscription that the server does not have. The stored record changes only when the server has accepted
   * it: after a failure this is repeated when the network is back, at the next push, or at the next visit of a page
   * that calls `renew()`.
   *
   * @param {Known} [proof] Used if the browser cannot store the record.
   */
  async function renewIfChanged(proof) {
    const subscription = await worker.registration.pushManager.getSubscription();
    const known = (await recall()) ?? proof;
    if (!subscription || known?.ended || known?.endpoint === subscription.endpoint) return;
    // No record, but pushes arrive: another page has posted it.
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
   * Runs the calls of pages and the worker one after the other, so that no two of them renew at once.
   *
   * @param {() => Promise<void>} work
   * @param {boolean} [orNever] Whether to skip the call if another one is running.
   */
  async function inTurn(work, orNever = false) {
    const { locks } = worker.navigator;
    if (!locks) return work();
    const name = `${NAME}:${worker.registration.scope}`;
    if (orNever) return locks.request(name, { ifAvailable: true }, async (lock) => (lock ? work() : undefined));
    return locks.request(name, { signal: AbortSignal.timeout?.(LIMITS.turn) }, work);
  }

  // ---- Storage: one record for each scope, in the same database as client.js

  /**
   * The subscription that the server last confirmed. `endpoint` is null if it may have none; `ended` if the server has
   * removed it, and the browser not yet.
   *
   * @typedef {{endpoint: string | null, auth?: string, ended?: boolean}} Known
   */

  /** @returns {Promise<Known | undefined>} */
  function recall() {
    return inDatabase("readonly", (table) => table.get(worker.registration.scope)).catch(() => undefined);
  }

  /** @param {Known} known */
  async function remember(known) {
    // If it cannot be stored, the page posts the subscription at its next visit.
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
      // A write is done once it is committed.
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

  // ---- Encoding

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
