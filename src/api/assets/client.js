// @ts-check
/**
 * Web Push in the page, for a server that mounts tower-web-push.
 *
 *     import { subscribe } from "/web-push/client.js";
 *     button.addEventListener("click", () => subscribe());
 *
 * Every address is relative to this file's own, so it works under any mount. A call that fails throws a
 * {@link WebPushError}: its `message` can be shown to the user, its `code` can be compared.
 */

/**
 * @typedef {object} Options
 * @property {ServiceWorkerRegistration} [registration]
 *   Your own service worker, when it imports ours. Default: ours, in the mount's own scope.
 */

/** @typedef {"mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun"} Weekday */

/**
 * @typedef {object} SubscribeOptions
 * @property {string[]} [tags] Groups to join, of those that the server opens to anyone.
 * @property {{hour: number, minute: number, zone: string, weekdays?: Weekday[]} | {utcHour: number, minute: number}} [notifyTime]
 *   When the daily notification is sent, within that minute: by the clock of an IANA zone, on these days or on all of
 *   them; or every day in UTC. The visitor's zone is `Intl.DateTimeFormat().resolvedOptions().timeZone`. A server
 *   without zones refuses all but UTC: the problem's code is `zones_unsupported`.
 * @property {"DAILY_CHECK" | "DIRECT_NOTIFICATION"} [notifyType] `DAILY_CHECK` where nothing is said; needs a `notifyTime`,
 *   and replaces the daily notification of the same type.
 * @property {string} [message] The daily notification's text, at most 100 characters; needs a `notifyTime`.
 */

/**
 * @typedef {object} Subscribed
 * @property {string} id The subscription's id on the server; it can be used to unsubscribe.
 * @property {boolean} created Whether the server had not known the subscription before.
 * @property {PushSubscription} subscription
 */

/**
 * @typedef {object} State
 * @property {boolean} supported Whether this browser, on this page, can receive notifications.
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
 * @typedef {"unsupported" | "insecure" | "needs_home_screen" | "permission_denied" | "permission_dismissed"
 *   | "worker_failed" | "push_service_failed" | "not_subscribed" | "offline" | "refused"} Code
 */

/** What went wrong, in words for the user. */
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
    /** The server's status, when it `refused`. */
    this.status = status;
    /** The server's problem details (RFC 9457), when it `refused`; their `code` is a stable word. */
    this.problem = problem;
  }
}

/** Where the server is mounted: the folder of this file. */
const mount = new URL(".", import.meta.url);

/**
 * Registers the service worker and waits until it can receive.
 *
 * Not `navigator.serviceWorker.ready`: that waits for a worker whose scope holds this page, and ours does
 * not. Registering again is cheap and changes nothing.
 *
 * @returns {Promise<ServiceWorkerRegistration>}
 */
export async function register() {
  assertSupported();
  let registration;
  try {
    registration = await navigator.serviceWorker.register(new URL("service-worker.js", mount), {
      scope: mount.href,
    });
  } catch (cause) {
    throw workerFailed(cause);
  }
  await activated(registration);
  return registration;
}

/**
 * What the page can show before the user decides; asks the user nothing and registers nothing.
 *
 * @param {Options} [options]
 * @returns {Promise<State>}
 */
export async function state(options = {}) {
  if (whyUnsupported() !== null) {
    return { supported: false, permission: "denied", subscription: null };
  }
  const registration = await registered(options);
  const subscription = (await registration?.pushManager.getSubscription()) ?? null;
  return { supported: true, permission: Notification.permission, subscription };
}

/**
 * Asks for permission, subscribes, and tells the server. Call it from a click: browsers ignore the question
 * otherwise.
 *
 * Calling it again is harmless. A subscription under a VAPID key that the server has since replaced is
 * exchanged for a new one, which keeps its id, tags and schedules.
 *
 * @param {SubscribeOptions & Options} [options]
 * @returns {Promise<Subscribed>}
 */
export async function subscribe(options = {}) {
  assertSupported();
  await askPermission();
  const registration = options.registration ?? (await register());
  await activated(registration);
  const { vapidKey } = await request("GET", "vapid");
  const { subscription, replaced } = await pushSubscription(registration, vapidKey);

  const { tags, notifyTime, notifyType, message } = options;
  const wanted = {
    ...subscription.toJSON(),
    applicationServerKey: vapidKey,
    tags,
    notifyTime,
    notifyType,
    message,
  };
  const answer = replaced
    ? await request("POST", "renew", { ...replaced, subscription: wanted })
    : await request("POST", "subscribe", wanted);
  registration.active?.postMessage({ type: "tower-web-push:subscribed" });
  return { id: answer.id, created: answer.created, subscription };
}

/**
 * Ends the subscription, or with a `notifyType` only the schedule of that type. With the last schedule the
 * server forgets a subscription that has neither a user nor tags: to stay, {@link subscribe} again.
 *
 * The server is told first: when that fails, nothing has changed and the call can be repeated.
 *
 * @param {{notifyType?: "DAILY_CHECK" | "DIRECT_NOTIFICATION"} & Options} [options]
 * @returns {Promise<void>}
 */
export async function unsubscribe(options = {}) {
  const { notifyType } = options;
  const registration = await registered(options);
  const subscription = await registration?.pushManager.getSubscription();
  if (!subscription) return;
  await request("POST", "unsubscribe", { endpoint: subscription.endpoint, notifyType });
  if (notifyType !== undefined) return;
  await subscription.unsubscribe();
  registration?.active?.postMessage({ type: "tower-web-push:unsubscribed" });
}

/**
 * Has the server send one notification to this browser; it allows one every ten seconds.
 *
 * @param {{title?: string, message?: string} & Options} [options]
 * @returns {Promise<{success: boolean, message: string}>} `success` is false when the push service did not
 *   take it.
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
 * Calls back for each push that the worker shows while this page is open.
 *
 * @param {(arrival: Arrival) => void} listener
 * @returns {() => void} Ends it.
 */
export function onPush(listener) {
  /** @param {MessageEvent} event */
  const handler = ({ data }) => {
    if (data?.type !== "tower-web-push:push") return;
    listener({ title: data.title, options: data.options, at: data.at });
  };
  const container = navigator.serviceWorker;
  if (!container) return () => {};
  container.addEventListener("message", handler);
  container.startMessages();
  return () => container.removeEventListener("message", handler);
}

/** @returns {WebPushError | null} */
function whyUnsupported() {
  if (!window.isSecureContext) {
    return new WebPushError("insecure", "Notifications need a secure connection: open this page by https.");
  }
  if ("serviceWorker" in navigator && "PushManager" in window && "Notification" in window) return null;
  // Safari on iOS has push only for pages on the Home Screen, where `standalone` is true.
  if (/** @type {any} */ (navigator).standalone === false) {
    return new WebPushError(
      "needs_home_screen",
      "On this device, add the page to the Home Screen first and open it from there.",
    );
  }
  return new WebPushError("unsupported", "This browser cannot receive notifications.");
}

function assertSupported() {
  const why = whyUnsupported();
  if (why !== null) throw why;
}

async function askPermission() {
  const permission = await Notification.requestPermission();
  if (permission === "granted") return;
  if (permission === "denied") {
    throw new WebPushError(
      "permission_denied",
      "Notifications are blocked for this site. Allow them in the browser's site settings, then try again.",
    );
  }
  throw new WebPushError("permission_dismissed", "Notifications stay off until you allow them. Try again.");
}

/**
 * @param {Options} options
 * @returns {Promise<ServiceWorkerRegistration | undefined>}
 */
async function registered({ registration }) {
  if (registration) return registration;
  const found = await navigator.serviceWorker?.getRegistration(mount.href);
  // Without one of its own scope, the browser answers with that of a scope around it: not ours.
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

/** @param {unknown} [cause] */
function workerFailed(cause) {
  return new WebPushError("worker_failed", "The part that shows notifications could not be started.", { cause });
}

/**
 * The subscription under the server's present key; `replaced` tells what it stands in for.
 *
 * @param {ServiceWorkerRegistration} registration
 * @param {string} vapidKey
 * @returns {Promise<{subscription: PushSubscription, replaced: {oldEndpoint: string, oldAuth?: string} | null}>}
 */
async function pushSubscription({ pushManager }, vapidKey) {
  const existing = await pushManager.getSubscription();
  let replaced = null;
  if (existing) {
    const key = existing.options.applicationServerKey;
    // A browser that does not tell the key: the server compares what it stored.
    if (!key || toBase64url(key) === vapidKey) return { subscription: existing, replaced };
    // A browser holds one subscription for each worker, and refuses a second key while it does.
    replaced = { oldEndpoint: existing.endpoint, oldAuth: existing.toJSON().keys?.auth };
    await existing.unsubscribe();
  }
  try {
    const subscription = await pushManager.subscribe({
      userVisibleOnly: true,
      applicationServerKey: fromBase64url(vapidKey),
    });
    return { subscription, replaced };
  } catch (cause) {
    const denied = /** @type {any} */ (cause)?.name === "NotAllowedError";
    throw denied
      ? new WebPushError("permission_denied", "This browser does not allow notifications for this site.", { cause })
      : new WebPushError(
          "push_service_failed",
          "The browser could not reach its push service. Check that push is not switched off, then try again.",
          { cause },
        );
  }
}

/**
 * @param {"GET" | "POST"} method
 * @param {string} path Relative to the mount.
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
async function request(method, path, body) {
  let response;
  try {
    response = await fetch(new URL(path, mount), {
      method,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
  } catch (cause) {
    throw new WebPushError("offline", "The server cannot be reached. Check the connection, then try again.", { cause });
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const message = answer?.detail ?? answer?.message ?? `The server answered with status ${response.status}.`;
  throw new WebPushError("refused", message, { status: response.status, problem: answer });
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
