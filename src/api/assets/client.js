// @ts-check
/**
 * Web Push in the page, for a server that mounts tower-web-push.
 *
 *     import { renew, subscribe } from "/web-push/client.js";
 *     renew().catch(show);                                       // at each visit; shows no prompt
 *     button.addEventListener("click", () => subscribe().catch(show));
 *
 * Every address is relative to this file's own, so it works under any mount. A call that fails throws a
 * {@link WebPushError}: its `message` can be shown to the user, its `code` can be compared. Every call can be
 * repeated, in any number of tabs: after a failure the server still has the subscription that it had before.
 */

/**
 * @typedef {object} Options
 * @property {ServiceWorkerRegistration} [registration]
 *   Your own service worker, if it imports service-worker.js. Default: service-worker.js, in the mount's own scope.
 */

/** @typedef {"mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun"} Weekday */

/** @typedef {"DAILY_CHECK" | "DIRECT_NOTIFICATION"} NotifyType */

/**
 * @typedef {object} Wanted
 * @property {string[]} [tags] Tags to set, of the server's public ones. Default: unchanged.
 * @property {{hour: number, minute?: number, zone: string, weekdays?: Weekday[]} | {utcHour: number, minute?: number}} [notifyTime]
 *   The time of the daily notification: by the wall clock of an IANA zone, on these days (default: every day), or every
 *   day in UTC. Default of `minute`: 0. The visitor's zone is `Intl.DateTimeFormat().resolvedOptions().timeZone`. A server
 *   without zones accepts UTC only: the problem's code is `zones_unsupported`.
 * @property {NotifyType} [notifyType] Default: `DAILY_CHECK`. Needs a `notifyTime`, and replaces the
 *   daily notification of the same type.
 * @property {string} [message] The daily notification's text, at most 100 characters. Needs a `notifyTime`.
 */

/** @typedef {Wanted & Options} SubscribeOptions */

/**
 * @typedef {object} Subscribed
 * @property {string} id The subscription's id on the server, with which it can be removed.
 * @property {boolean} created Whether the subscription is new on the server.
 * @property {PushSubscription} subscription
 */

/**
 * @typedef {object} State
 * @property {boolean} supported Whether this browser, on this page, can receive notifications.
 * @property {WebPushError | null} why The reason if it cannot: not supported, or blocked by the user.
 * @property {NotificationPermission} permission `default` means that the user has not been asked.
 * @property {PushSubscription | null} subscription
 */

/**
 * @typedef {object} Arrival
 * @property {string} title
 * @property {NotificationOptions} options
 * @property {number} at When it arrived, in milliseconds since 1970.
 */

/**
 * @typedef {object} Click
 * @property {string} action The action of the button, or empty for the notification itself.
 * @property {string | null} url The address that is opened.
 * @property {unknown} data The notification's `data`, as the server sent it.
 * @property {number} at
 */

/**
 * @typedef {"unsupported" | "insecure" | "needs_home_screen" | "no_service_worker" | "permission_denied"
 *   | "permission_dismissed" | "worker_failed" | "push_service_failed" | "not_subscribed" | "no_token" | "offline" | "refused"} Code
 *   `no_service_worker` usually means a private window. `no_token`: the source of {@link useToken} failed. `refused` has
 *   the server's `status` and `problem`.
 */

/** An error with a message for the user. */
export class WebPushError extends Error {
  /**
   * @param {Code} code
   * @param {string} message
   * @param {{cause?: unknown, status?: number, problem?: any}} [details]
   */
  constructor(code, message, { cause, status, problem } = {}) {
    super(message, { cause });
    this.name = "WebPushError";
    /** @type {Code} */
    this.code = code;
    /** The server's status, if the code is `refused`. */
    this.status = status;
    /** The server's problem details (RFC 9457), if the code is `refused`. Their `code` is a stable word. */
    this.problem = problem;
  }
}

/** Where the server is mounted: the folder of this file. */
const mount = new URL(".", import.meta.url);

/** The name of database, messages and locks, shared with service-worker.js. */
const NAME = "tower-web-push";

/** Time limits in milliseconds: other tabs must not wait for a call of the browser or the server that hangs. */
const LIMITS = { storage: 5_000, lookUp: 10_000, request: 30_000, pushService: 60_000, worker: 60_000 };

// ---- The functions for pages

/** @type {(() => string | Promise<string>) | null} */
let userToken = null;

/**
 * Sends a token with each request of this page, in which the application's backend names the signed-in user. For a server
 * that takes such tokens, as the example servers do with `PRINCIPAL_TOKEN_KEY`. Call it before the other functions.
 *
 * @param {(() => string | Promise<string>) | null} source Returns the token. It is called before each request, so that
 *   it can get a new one from the backend before the last one expires. If it throws, the call fails with `no_token`; only
 *   {@link unsubscribe} goes on without a token. `null`: none is sent.
 * @returns {void}
 */
export function useToken(source) {
  userToken = source;
}

/**
 * Registers the service worker and waits until it is active.
 *
 * `navigator.serviceWorker.ready` waits for a worker whose scope contains this page, which this one's does not.
 * Registering again is cheap and changes nothing.
 *
 * @returns {Promise<ServiceWorkerRegistration>}
 */
export async function register() {
  assertSupported();
  const options = { scope: mount.href };
  const registration = await started(navigator.serviceWorker.register(new URL("service-worker.js", mount), options));
  await started(activated(registration));
  return registration;
}

/**
 * Returns what a page can show before the user decides. Shows no prompt and registers nothing.
 *
 * @param {Options} [options]
 * @returns {Promise<State>}
 */
export async function state(options = {}) {
  const why = whyUnsupported();
  if (why !== null) return { supported: false, why, permission: "denied", subscription: null };
  const { permission } = Notification;
  const registration = await registered(options);
  const subscription = registration ? await current(registration) : null;
  return { supported: true, why: permission === "denied" ? blocked() : null, permission, subscription };
}

/**
 * Asks for permission, subscribes, and posts the subscription to the server. Call it from a click handler: browsers
 * ignore the request for permission otherwise.
 *
 * It can be repeated. A subscription under a VAPID key that the server has since replaced is exchanged for a new one,
 * which keeps its id, tags and schedules.
 *
 * @param {SubscribeOptions} [options]
 * @returns {Promise<Subscribed>}
 */
export async function subscribe(options = {}) {
  const registration = await permitted(options);
  return exclusively(registration.scope, () => enrol(registration, options));
}

/**
 * Exchanges the browser's subscription for a new one, which keeps its id, tags and schedules, even if it seems valid:
 * for a browser that stopped receiving. Without a subscription it is {@link subscribe}.
 *
 * @param {SubscribeOptions} [options]
 * @returns {Promise<Subscribed>}
 */
export async function resubscribe(options = {}) {
  const registration = await permitted(options);
  return exclusively(registration.scope, () => enrol(registration, options, true));
}

/**
 * Call it at each visit. It shows no prompt, and does nothing if notifications are off. Otherwise it posts the
 * subscription to the server, completes what an earlier call or the worker could not, and exchanges a subscription
 * under an old key or one that the browser lost.
 *
 * @param {Options} [options]
 * @returns {Promise<Subscribed | null>} null if notifications are off.
 */
export async function renew(options = {}) {
  if (whyUnsupported() !== null || Notification.permission !== "granted") return null;
  const scope = options.registration?.scope ?? mount.href;
  return exclusively(scope, async () => {
    const known = await recall(scope);
    const found = await registered(options);
    const subscription = found ? await current(found) : null;
    if (known?.ended) {
      await leave(scope, subscription);
      return null;
    }
    if (!known && !subscription) return null;
    // Its scope contains no page, so no visit makes the browser check for a new version.
    if (found) found.update().catch(() => {});
    const registration = found ?? (await register());
    await started(activated(registration));
    return enrol(registration);
  });
}

/**
 * Removes the subscription, or with a `notifyType` only the schedule of that type. With its last schedule the server
 * removes a subscription that has neither a user nor tags: {@link subscribe} again to keep it.
 *
 * The server comes first: if its request fails, nothing has changed and the call can be repeated.
 *
 * @param {{notifyType?: NotifyType} & Options} [options]
 * @returns {Promise<void>}
 */
export async function unsubscribe(options = {}) {
  const { notifyType } = options;
  const registration = await registered(options);
  const scope = registration?.scope ?? mount.href;
  await exclusively(scope, async () => {
    const subscription = registration ? await current(registration) : null;
    const known = await recall(scope);
    // Two if the server does not know the newer one.
    for (const endpoint of new Set([known?.endpoint, subscription?.endpoint])) {
      // The endpoint is enough, also for a user who has signed out.
      if (endpoint) await request("POST", "unsubscribe", { endpoint, notifyType }, true);
    }
    if (notifyType !== undefined) return;
    // If the browser fails now, the next visit continues here instead of subscribing again.
    await remember(scope, { endpoint: null, ended: true });
    await leave(scope, subscription);
  });
}

/**
 * Makes the server send one notification to this browser. It allows one every ten seconds.
 *
 * @param {{title?: string, message?: string} & Options} [options]
 * @returns {Promise<{success: boolean, message: string}>} `success` is false if the push service did not
 *   accept it.
 */
export async function sendTest(options = {}) {
  const { subscription } = await state(options);
  if (!subscription) {
    throw new WebPushError("not_subscribed", "Notifications are not enabled in this browser.");
  }
  const { endpoint, keys } = subscription.toJSON();
  const { title, message } = options;
  return request("POST", "send-test", { endpoint, keys, title, message });
}

/**
 * Calls a listener for each push that the worker shows while this page is open.
 *
 * @param {(arrival: Arrival) => void} listener
 * @returns {() => void} Ends it.
 */
export function onPush(listener) {
  return onMessage("push", ({ title, options, at }) => listener({ title, options, at }));
}

/**
 * Calls a listener for each click on a notification while this page is open, also if the click brings this page to
 * the front.
 *
 * @param {(click: Click) => void} listener
 * @returns {() => void} Ends it.
 */
export function onClick(listener) {
  return onMessage("click", ({ action, url, data, at }) => listener({ action, url, data, at }));
}

/**
 * @param {string} type
 * @param {(message: any) => void} listener
 */
function onMessage(type, listener) {
  /** @param {MessageEvent} event */
  const handler = ({ data }) => {
    if (data?.type === `${NAME}:${type}`) listener(data);
  };
  const container = navigator.serviceWorker;
  if (!container) return () => {};
  container.addEventListener("message", handler);
  container.startMessages();
  return () => container.removeEventListener("message", handler);
}

/** Answers the worker, which cannot see the address that a page has set with `history.pushState`. */
function tellAddress() {
  try {
    navigator.serviceWorker?.addEventListener("message", ({ data, ports }) => {
      if (data?.type === `${NAME}:address`) ports[0]?.postMessage(location.href);
    });
  } catch {
    // Not in a page that may have workers: a sandboxed frame, or a server that renders it.
  }
}

tellAddress();

// ---- Why it cannot work in this browser

/** @returns {WebPushError | null} */
function whyUnsupported() {
  if (!window.isSecureContext) {
    return new WebPushError("insecure", "Notifications need a secure connection. Open this page over https.");
  }
  const hasWorkers = "serviceWorker" in navigator;
  if (hasWorkers && "PushManager" in window && "Notification" in window) return null;
  if (isTabOnIos()) {
    return new WebPushError(
      "needs_home_screen",
      "On this device notifications work from the Home Screen. Choose Share, then Add to Home Screen, and open it there.",
    );
  }
  if (!hasWorkers) {
    return new WebPushError(
      "no_service_worker",
      "This window cannot receive notifications. If it is a private one, open the page in a normal window.",
    );
  }
  return new WebPushError("unsupported", "This browser cannot receive notifications. A current version of it may.");
}

/** On iOS push is only for pages on the Home Screen. An iPad reports a Mac, which has no touch screen. */
function isTabOnIos() {
  const { standalone, userAgent, maxTouchPoints } = /** @type {any} */ (navigator);
  if (standalone === true) return false;
  return standalone === false || /iPhone|iPad|iPod/.test(userAgent) || (/Macintosh/.test(userAgent) && maxTouchPoints > 1);
}

function assertSupported() {
  const why = whyUnsupported();
  if (why !== null) throw why;
}

/** @param {unknown} [cause] */
function blocked(cause) {
  return new WebPushError(
    "permission_denied",
    "Notifications are blocked for this site. Allow them in the browser's site settings, then try again. Private windows cannot receive any.",
    { cause },
  );
}

/** @param {unknown} [cause] */
function workerFailed(cause) {
  return new WebPushError("worker_failed", "The service worker could not be started. Reload the page, then try again.", { cause });
}

/** @param {unknown} [cause] */
function pushServiceFailed(cause) {
  return new WebPushError(
    "push_service_failed",
    "The browser could not reach its push service. Check the connection, and that push is not switched off in the browser's settings.",
    { cause },
  );
}

/**
 * Asks the user for permission and waits for the worker.
 *
 * @param {Options} options
 */
async function permitted(options) {
  assertSupported();
  const permission = await Notification.requestPermission();
  if (permission === "denied") throw blocked();
  if (permission !== "granted") {
    throw new WebPushError("permission_dismissed", "Notifications stay off until you allow them. Try again.");
  }
  const registration = options.registration ?? (await register());
  await activated(registration);
  return registration;
}

// ---- The worker

/**
 * @param {Options} options
 * @returns {Promise<ServiceWorkerRegistration | undefined>}
 */
async function registered({ registration }) {
  if (registration) return registration;
  const found = await started(navigator.serviceWorker?.getRegistration(mount.href));
  // Without a registration of this scope, the browser returns the one of a scope around it.
  return found?.scope === mount.href ? found : undefined;
}

/**
 * @param {ServiceWorkerRegistration} registration
 * @returns {Promise<void>}
 */
function activated(registration) {
  const worker = registration.active ?? registration.waiting ?? registration.installing;
  return new Promise((resolve, reject) => {
    const check = () => {
      if (!worker || worker.state === "redundant") reject(workerFailed());
      else if (worker.state === "activated") resolve();
      else return;
      worker?.removeEventListener("statechange", check);
    };
    worker?.addEventListener("statechange", check);
    check();
  });
}

/**
 * @template T
 * @param {Promise<T>} starting
 * @returns {Promise<T>}
 */
async function started(starting) {
  try {
    return await within(LIMITS.worker, starting);
  } catch (cause) {
    throw cause instanceof WebPushError ? cause : workerFailed(cause);
  }
}

// ---- The subscription. These functions run in one tab at a time.

/**
 * The subscription that the server last confirmed: the proof by which a newer subscription replaces it. It changes
 * only when the server has accepted a request, so a failed call is completed later.
 *
 * `endpoint` is null if the server may have none; `ended` if the server has removed it, and the browser not yet.
 *
 * @typedef {{endpoint: string | null, auth?: string, ended?: boolean}} Known
 */

/** The server's codes for a subscription that must be exchanged. */
const USELESS = ["unknown_vapid_key", "subscription_expired"];

/**
 * Makes browser and server agree on a subscription under the server's active key.
 *
 * @param {ServiceWorkerRegistration} registration
 * @param {Wanted} [wanted]
 * @param {boolean} [anew] Whether to exchange an existing subscription.
 * @returns {Promise<Subscribed>}
 */
async function enrol(registration, wanted = {}, anew = false) {
  const existing = await current(registration);
  if (!existing) return begin(registration, wanted);
  const key = keyOf(existing);
  let told;
  try {
    // First, so that the server knows it, and a new one can replace it.
    told = await tell(registration, existing, key, wanted);
    if (!told.staleKey && !anew) return told;
  } catch (error) {
    if (!(error instanceof WebPushError) || !USELESS.includes(error.problem?.code)) throw error;
  }
  const vapidKey = await presentKey();
  // Not all of the server's replicas have the new key yet: they will at the next visit.
  if (told && !anew && key === vapidKey) return told;
  return exchange(registration, existing, vapidKey, wanted);
}

/**
 * @param {ServiceWorkerRegistration} registration
 * @param {Wanted} wanted
 */
async function begin(registration, wanted) {
  const vapidKey = await presentKey();
  const subscription = await make(registration, vapidKey);
  try {
    return await tell(registration, subscription, vapidKey, wanted);
  } catch (error) {
    // Otherwise the next visit would subscribe without the options that the server refused.
    if (isFinal(error) && !(await recall(registration.scope))) await withdraw(registration.scope, subscription);
    throw error;
  }
}

/**
 * A browser has one subscription for each worker, and refuses a second key for it: the old subscription is removed
 * before the new one is made. Its proof for the server is stored first.
 *
 * @param {ServiceWorkerRegistration} registration
 * @param {PushSubscription} old
 * @param {string} vapidKey
 * @param {Wanted} wanted
 */
async function exchange(registration, old, vapidKey, wanted) {
  const { scope } = registration;
  if (!(await recall(scope))) await remember(scope, identity(old));
  await end(old);
  const subscription = await make(registration, vapidKey);
  return tell(registration, subscription, vapidKey, wanted);
}

/** @returns {Promise<string>} */
async function presentKey() {
  return (await request("GET", "vapid")).vapidKey;
}

/**
 * Posts a subscription to the server, and then stores that the server has it.
 *
 * @param {ServiceWorkerRegistration} registration
 * @param {PushSubscription} subscription
 * @param {string | undefined} applicationServerKey
 * @param {Wanted} wanted
 * @returns {Promise<Subscribed & {staleKey: boolean}>}
 */
async function tell({ scope }, subscription, applicationServerKey, wanted) {
  const { tags, notifyTime, notifyType, message } = wanted;
  const body = { ...subscription.toJSON(), applicationServerKey, tags, notifyTime, notifyType, message };
  const known = await recall(scope);
  const moved = known && !known.ended && known.endpoint !== subscription.endpoint;
  const { id, created, staleKey } = moved
    ? await request("POST", "renew", { oldEndpoint: known.endpoint, oldAuth: known.auth, subscription: body })
    : await request("POST", "subscribe", body);
  await remember(scope, identity(subscription));
  return { id, created, subscription, staleKey };
}

/**
 * @param {string} scope
 * @param {PushSubscription | null} subscription
 */
async function leave(scope, subscription) {
  if (subscription) await end(subscription);
  await remember(scope, undefined);
}

/**
 * Removes a subscription that the server does not have or refused. If the browser fails, the next visit removes it.
 *
 * @param {string} scope
 * @param {PushSubscription} subscription
 */
async function withdraw(scope, subscription) {
  await end(subscription).catch(() => remember(scope, { endpoint: null, ended: true }));
}

/** Removes it in the browser. @param {PushSubscription} subscription */
async function end(subscription) {
  try {
    await within(LIMITS.pushService, subscription.unsubscribe());
  } catch (cause) {
    throw pushServiceFailed(cause);
  }
}

/** @param {ServiceWorkerRegistration} registration */
async function make({ pushManager }, /** @type {string} */ vapidKey) {
  const options = { userVisibleOnly: true, applicationServerKey: fromBase64url(vapidKey) };
  try {
    return await within(LIMITS.pushService, pushManager.subscribe(options));
  } catch (cause) {
    throw /** @type {any} */ (cause)?.name === "NotAllowedError" ? blocked(cause) : pushServiceFailed(cause);
  }
}

/**
 * Firefox does not answer a call in its first seconds, but a second call.
 *
 * @param {ServiceWorkerRegistration} registration
 * @returns {Promise<PushSubscription | null>}
 */
async function current({ pushManager }) {
  const ask = () => within(LIMITS.lookUp, pushManager.getSubscription());
  try {
    return await ask().catch(ask);
  } catch (cause) {
    throw pushServiceFailed(cause);
  }
}

/** Undefined in some browsers: the server compares its stored key. @param {PushSubscription} subscription */
function keyOf({ options }) {
  const key = options?.applicationServerKey;
  return key ? toBase64url(key) : undefined;
}

/** @param {PushSubscription} subscription @returns {Known} */
function identity(subscription) {
  return { endpoint: subscription.endpoint, auth: subscription.toJSON().keys?.auth };
}

/**
 * Whether a repeated request would fail in the same way.
 *
 * @param {unknown} error
 */
function isFinal(error) {
  const { status = 0 } = error instanceof WebPushError ? error : {};
  return status >= 400 && status < 500 && status !== 408 && status !== 429;
}

// ---- One tab at a time

/** @type {Promise<unknown>} */
let last = Promise.resolve();

/**
 * Runs the calls of tabs and the worker one after the other; without Web Locks, at least those of this page.
 *
 * @template T
 * @param {string} scope
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
function exclusively(scope, work) {
  if (navigator.locks) return navigator.locks.request(`${NAME}:${scope}`, work);
  const turn = last.then(work);
  last = turn.catch(() => {});
  return turn;
}

/**
 * @template T
 * @param {number} limit In milliseconds.
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
function within(limit, promise) {
  /** @type {ReturnType<typeof setTimeout>} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new DOMException("no answer in time", "TimeoutError")), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// ---- Storage: one record for each scope, in a database shared with the worker

/** The record of this visit if the browser cannot store it. @type {Map<string, Known | undefined>} */
const unstored = new Map();

/** @param {string} scope @returns {Promise<Known | undefined>} */
async function recall(scope) {
  if (unstored.has(scope)) return unstored.get(scope);
  return within(LIMITS.storage, inDatabase("readonly", (table) => table.get(scope))).catch(() => undefined);
}

/** @param {string} scope @param {Known | undefined} known */
async function remember(scope, known) {
  try {
    const writing = inDatabase("readwrite", (table) => (known ? table.put(known, scope) : table.delete(scope)));
    // A slow write still completes later.
    await within(LIMITS.storage, writing);
    unstored.delete(scope);
  } catch {
    unstored.set(scope, known);
  }
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

// ---- The server

/**
 * @param {"GET" | "POST"} method
 * @param {string} path Relative to the mount.
 * @param {unknown} [body]
 * @param {boolean} [orWithoutToken] Whether to send the request without a token if there is none.
 * @returns {Promise<any>}
 */
async function request(method, path, body, orWithoutToken = false) {
  const token = await credentials(orWithoutToken);
  try {
    return await requestAs(token, method, path, body);
  } catch (error) {
    // A token that has expired is as good as none.
    const isRefused = error instanceof WebPushError && error.status === 401;
    if (!orWithoutToken || !token.authorization || !isRefused) throw error;
    return await requestAs({}, method, path, body);
  }
}

/**
 * @param {{authorization?: string}} token
 * @param {string} method
 * @param {string} path
 * @param {unknown} body
 * @returns {Promise<any>}
 */
async function requestAs(token, method, path, body) {
  /** @type {Record<string, string>} */
  const content = body === undefined ? {} : { "content-type": "application/json" };
  const headers = { ...content, ...token };
  let response, answer;
  try {
    response = await fetch(new URL(path, mount), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: AbortSignal.timeout?.(LIMITS.request),
    });
    // An answer without JSON is not from this server. One that is cut off is a network error.
    answer = await response.json().catch((error) => {
      if (error.name !== "SyntaxError") throw error;
      return null;
    });
  } catch (cause) {
    throw new WebPushError("offline", "The server cannot be reached. Check the connection, then try again.", { cause });
  }
  if (response.ok && answer !== null) return answer;
  const message = answer?.detail ?? answer?.message ?? `The server answered with status ${response.status}.`;
  throw new WebPushError("refused", message, { status: response.status, problem: answer });
}

/** @param {boolean} orNone @returns {Promise<{authorization?: string}>} */
async function credentials(orNone) {
  if (!userToken) return {};
  try {
    const token = await within(LIMITS.request, Promise.resolve(userToken()));
    if (!token) throw new Error("the token source has returned none");
    return { authorization: `Bearer ${token}` };
  } catch (cause) {
    if (orNone) return {};
    throw new WebPushError("no_token", "You are not signed in, or the site cannot be reached. Sign in, then try again.", { cause });
  }
}

/**
 * @param {ArrayBuffer} buffer
 * @returns {string} Unpadded base64url.
 */
function toBase64url(buffer) {
  const binary = String.fromCharCode(...new Uint8Array(buffer));
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/**
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>}
 */
function fromBase64url(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}
