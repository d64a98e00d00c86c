// This browser: whether notifications are on, and its subscription on the server.
import { renew, sendTest, state, subscribe, unsubscribe } from "./web-push/client.js";
import { byId } from "./dom.js";
import { scheduled } from "./scheduled.js";
import { afterEach, onClick, onCopy, say, showAll } from "./status.js";

/** The subscription posted last, with its id. @type {{id: string, endpoint: string} | null} */
let told = null;
/** The id of the browser's subscription; null until it is posted to the server. @type {string | null} */
let ownId = null;
/** Whether the first visit is done. */
let hasVisited = false;

/** Subscribes. It can be repeated. @param {object} [options] */
export async function enrol(options) {
  return remember(await subscribe(options));
}

/** @param {import("./web-push/client.js").Subscribed} subscribed */
function remember(subscribed) {
  const { id, created, subscription } = subscribed;
  told = { id, endpoint: subscription.endpoint };
  ownId = id;
  // A subscription that is new on the server has no schedules.
  if (created) scheduled.clear();
  return subscribed;
}

/** Returns the recipient of a message to this browser. */
export function self() {
  if (ownId === null) throw new Error("This browser is not subscribed. Enable notifications first, or choose other recipients.");
  return ownId;
}

/** Whether the server has this browser's subscription; null until the visit is done. @returns {boolean | null} */
export function isSubscribed() {
  return ownId !== null || (hasVisited ? false : null);
}

/** Renews the subscription at each visit and shows the state. */
export async function visit() {
  try {
    const { why, permission } = await refresh();
    if (why !== null) throw why;
    const renewed = await renew();
    if (renewed) remember(renewed);
    // Notifications that are only blocked keep their schedules.
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
  // Another tab or the worker may have replaced it.
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

/** Returns the members of a subscription that the client posts. @param {PushSubscription} subscription */
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

// A permission or another tab's change shows here.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) showAll();
});
navigator.permissions
  ?.query({ name: "notifications" })
  .then((permission) => permission.addEventListener("change", showAll))
  .catch(() => {});

afterEach.add(refresh);
