// The VAPID keys: which is active, who uses the others, and a new one.
import { byId, element, reconcile } from "../dom.js";
import { onClick } from "../status.js";
import { confirmed } from "./confirm.js";
import { authorized } from "./session.js";
import { view } from "./views.js";
import { counted, number } from "./words.js";

/** The active key. */
let active = { keyId: "", vapidKey: "" };
/** Live subscriptions by key. @type {Record<string, number>} */
let users = {};

async function load() {
  const [key, { subscriptions, missingKeys }] = await Promise.all([authorized("GET", "vapid"), authorized("GET", "stats")]);
  active = key;
  users = subscriptions.byVapidKey;
  byId("key-public").textContent = active.vapidKey;
  const missing = new Set(missingKeys.map(({ keyId }) => keyId));
  const ids = new Set([active.keyId, ...Object.keys(users), ...missing]);
  const keys = [...ids].map((id) => ({
    id,
    count: users[id] ?? missingKeys.find(({ keyId }) => keyId === id)?.subscriptions ?? 0,
    state: missing.has(id) ? "missing" : id === active.keyId ? "active" : "old",
  }));
  reconcile(byId("keys-list"), keys, ({ id }) => id, row);
}

const STATES = {
  active: ["on", "Active", "New subscriptions are made with it."],
  old: ["unknown", "Still used", "It is deleted when no subscription uses it any more."],
  missing: ["error", "Missing", "Its subscriptions get nothing until it is restored from a backup."],
};

/** @param {{id: string}} key */
function row({ id }) {
  const pill = element("span", { className: "pill" });
  const text = element("span", {});
  const show = (/** @type {any} */ { count, state }) => {
    const [kind, name, words] = STATES[state];
    pill.dataset.state = kind;
    pill.textContent = name;
    text.textContent = `${counted(count, "live subscription")}. ${words}`;
  };
  return { node: element("li", {}, element("div", {}, element("strong", { className: "code" }, id), text), pill), show };
}

onClick("rotate", async () => {
  const used = users[active.keyId] ?? 0;
  const yes = await confirmed({
    heading: "Make a new VAPID key?",
    title: active.keyId,
    text:
      `New subscriptions are made with the new key. ${counted(used, "subscription uses", "subscriptions use")} the key that is active now: nothing is lost, it ` +
      "stays usable, and each browser changes to the new one when it next opens a page that renews its subscription. It cannot be " +
      "undone. The new private key is in the store only: make a backup afterwards.",
    yes: "Make a new key",
    no: "Keep this one",
  });
  if (!yes) return;
  const { keyId } = await authorized("POST", "regenerate-vapid");
  byId("keys-backup").hidden = false;
  byId("keys-backup").focus();
  return `The key ${keyId} is active. Back up the store now: it has the only copy of the private key. ${number(used)} subscriptions still use the old one.`;
});

view("keys", { every: 30_000, load });
