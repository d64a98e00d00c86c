// The card of this browser: whether notifications are on, and its subscription.
import { sendTest } from "./web-push/client.js";
import { enrol, id, isUnconfirmed, leave, look, visit } from "./browser.js";
import { byId } from "./dom.js";
import { afterEach, onClick, onCopy, say, showAll } from "./status.js";

const TEXTS = {
  on: "Notifications are on. They arrive even when this page is closed.",
  unconfirmed: "The server has not confirmed this browser's subscription. Until it does, nothing may arrive.",
  off: "Enable notifications to receive messages from this server.",
};

/** Renews the subscription and shows the state. */
export async function open() {
  try {
    const enabled = await visit();
    say(enabled ? "Notifications are on." : "Notifications are off.", enabled ? "ok" : "info");
  } catch (error) {
    say(error.message, "error");
  }
  await showAll();
}

async function show() {
  const { supported, why, subscription } = await look();
  const enabled = subscription !== null;
  const isOn = enabled && !isUnconfirmed();
  const pill = byId("browser-state");
  const [name, text] = isOn ? ["on", "On"] : enabled ? ["error", "Not registered yet"] : !supported ? ["error", "Not supported"] : why ? ["error", "Blocked"] : ["off", "Off"];
  pill.dataset.state = name;
  pill.textContent = text;
  byId("browser-text").textContent = why?.message ?? TEXTS[isOn ? "on" : enabled ? "unconfirmed" : "off"];
  byId("enable").hidden = isOn || !supported;
  byId("test").hidden = !isOn;
  byId("disable").hidden = !enabled;
  byId("credentials").hidden = !enabled;
  byId("credentials").querySelector("pre").textContent = enabled ? JSON.stringify(sent(subscription), null, 2) : "";
  byId("credentials-id").textContent = id() ?? "Not assigned yet";
  byId("credentials-service").textContent = enabled ? new URL(subscription.endpoint).host : "";
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
  await leave();
  byId("enable").hidden = false;
  byId("enable").focus();
  return "Notifications are off.";
});

onCopy("credentials-copy", () => byId("credentials").querySelector("pre").textContent, "The subscription is");

afterEach.add(show);
