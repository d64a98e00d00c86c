// This browser's subscription on the server.
import { renew, state, subscribe, unsubscribe } from "./web-push/client.js";
import { scheduled } from "./scheduled.js";
import { showAll } from "./status.js";

/** The subscription posted last, with its id. @type {{id: string, endpoint: string} | null} */
let told = null;
/** The id of the browser's subscription; null until it is posted to the server. @type {string | null} */
let ownId = null;
/** Whether the first visit is done. */
let hasVisited = false;
/** Whether the last subscription or visit of this page failed. */
let hasFailed = false;

/** Subscribes. It can be repeated. @param {object} [options] */
export async function enrol(options) {
  return attempt(async () => remember(await subscribe(options)));
}

/** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
async function attempt(work) {
  try {
    const done = await work();
    hasFailed = false;
    return done;
  } catch (error) {
    hasFailed = true;
    throw error;
  }
}

/** Ends the subscription. */
export async function leave() {
  await unsubscribe();
  scheduled.clear();
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

/** The id on the server; null while it is not known. */
export const id = () => ownId;

/** Whether the server may not have this browser's subscription: the page has tried to post it in vain. */
export const isUnconfirmed = () => hasFailed && ownId === null;

/** Whether the server has this browser's subscription; null until the visit is done. @returns {boolean | null} */
export function isSubscribed() {
  return ownId !== null || (hasVisited ? false : null);
}

/** Reads the browser's state. Another tab or the worker may have changed it. */
export async function look() {
  const now = await state();
  const { subscription } = now;
  ownId = subscription !== null && told?.endpoint === subscription.endpoint ? told.id : null;
  return now;
}

/** Renews the subscription, at each visit of a page. Returns whether notifications are on. */
export async function visit() {
  try {
    const { why, permission } = await look();
    if (why !== null) throw why;
    const renewed = await attempt(renew);
    if (renewed) remember(renewed);
    // Notifications that are only blocked keep their schedules.
    else if (permission === "granted") scheduled.clear();
    return (await look()).subscription !== null;
  } finally {
    hasVisited = true;
  }
}

// A permission or another tab's change shows here.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) showAll();
});
navigator.permissions
  ?.query({ name: "notifications" })
  .then((permission) => permission.addEventListener("change", showAll))
  .catch(() => {});
