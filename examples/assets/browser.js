// This browser: whether notifications are on, and what the server was given for them.
import { renew, sendTest, state, subscribe, unsubscribe } from "./web-push/client.js";
import { byId } from "./dom.js";
import { scheduled } from "./scheduled.js";
import { afterEach, onClick, onCopy, say, showAll } from "./status.js";

/** What the server was told last, and the id that it gave. @type {{id: string, endpoint: string} | null} */
let told = null;
/** The id of the subscription that there is; null until the server is told of it. @type {string | null} */
let ownId = null;
/** Whether the page's first moment is over. */
let hasVisited = false;

/** Subscribes, or does so again: harmless. @param {object} [options] */
export async function enrol(options) {
  return remember(await subscribe(options));
}

/** @param {import("./web-push/client.js").Subscribed} subscribed */
function remember(subscribed) {
  const { id, created, subscription } = subscribed;
  told = { id, endpoint: subscription.endpoint };
  ownId = id;
  // Nothing is scheduled for one that the server had not known.
  if (created) scheduled.clear();
  return subscribed;
}

/** The recipient of a message to this browser. */
export function self() {
  if (ownId === null) throw new Error("This browser is not subscribed. Enable notifications first, or choose other recipients.");
  return ownId;
}

/** Whether the server knows this browser; null until the visit has found out. @returns {boolean | null} */
export function isSubscribed() {
  return ownId !== null || (hasVisited ? false : null);
}

/** What the page's first moment shows, and what each visit makes up for. */
export async function visit() {
  try {
    const { why, permission } = await refresh();
    if (why !== null) throw why;
    const renewed = await renew();
    if (renewed) remember(renewed);
    // What is only blocked for now comes back with what was scheduled.
    else if (permission === "granted") scheduled.clear();
    const enabled = (await refresh()).subscription !== null;
    say(enabled ? "Notifications are on." : "Notifications are off.", enabled ? "ok" : "info");
  } catch (error) {
    say(error.message, "error");
  } finally {
    hasVisited = true;
  }
  await showAll();
}

const TEXTS = {
  on: "Notifications are on. They arrive even when this page is closed.",
  off: "Enable notifications to receive messages from this server.",
};

async function refresh() {
  const now = await state();
  const { supported, why, subscription } = now;
  const enabled = subscription !== null;
  // Another tab, or the worker, may have put another one in its place.
  ownId = enabled && told?.endpoint === subscription.endpoint ? told.id : null;

  const pill = byId("browser-state");
  const [name, text] = enabled ? ["on", "On"] : !supported ? ["error", "Not supported"] : why ? ["error", "Blocked"] : ["off", "Off"];
  pill.dataset.state = name;
  pill.textContent = text;
  byId("browser-text").textContent = why?.message ?? (enabled ? TEXTS.on : TEXTS.off);

  byId("enable").hidden = enabled || !supported;
  byId("test").hidden = byId("disable").hidden = byId("credentials").hidden = !enabled;
  byId("credentials").querySelector("pre").textContent = enabled ? JSON.stringify(sent(subscription), null, 2) : "";
  byId("credentials-id").textContent = ownId ?? "Not assigned yet";
  byId("credentials-service").textContent = enabled ? new URL(subscription.endpoint).host : "";
  return now;
}

/** What the client posts of a subscription. @param {PushSubscription} subscription */
function sent(subscription) {
  const key = subscription.options?.applicationServerKey;
  if (!key) return subscription.toJSON();
  const text = btoa(String.fromCharCode(...new Uint8Array(key)));
  return { ...subscription.toJSON(), applicationServerKey: text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") };
}

onClick("enable", async () => {
  const { id } = await enrol();
  byId("test").hidden = false;
  byId("test").focus();
  return `Notifications are on. This browser's id is ${id}.`;
});

onClick("test", async () => {
  const { success, message } = await sendTest();
  if (!success) throw new Error(message);
  return "Sent. It should appear in a moment.";
});

onClick("disable", async () => {
  await unsubscribe();
  scheduled.clear();
  byId("enable").hidden = false;
  byId("enable").focus();
  return "Notifications are off.";
});

onCopy("credentials-copy", () => byId("credentials").querySelector("pre").textContent, "The subscription is");

// What is given or taken elsewhere, a permission or by another tab the subscription, shows here.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) showAll();
});
navigator.permissions
  ?.query({ name: "notifications" })
  .then((permission) => permission.addEventListener("change", showAll))
  .catch(() => {});

afterEach.add(refresh);
