// The form that composes and sends a message.
import { follow } from "./broadcasts.js";
import { enrol, isSubscribed, self } from "./browser.js";
import { confirmed, question } from "./confirm.js";
import { byId, element } from "./dom.js";
import { FieldError, freshKey, isDocument, message, written } from "./message.js";
import { authorized, demandOperator } from "./operator.js";
import { preview } from "./preview.js";
import { afterEach, onClick, onCopy, onSubmit, say } from "./status.js";

const MOST_ACTIONS = 3;
const LABELS = {
  all: "Send to everyone",
  self: "Send to this browser",
  user: "Send to the user",
  tag: "Send to the tag",
  ids: "Send to these",
};

const form = byId("notify");

/** A request whose answer was lost is repeated under the same key, so that it is sent once. */
let unanswered = { body: "", key: "" };

onSubmit("notify", async (values) => {
  demandOperator();
  const content = read(values);
  const body = written(values, self);
  if (!(await allowed(values, content))) return say("Not sent.");
  if (unanswered.body !== body) unanswered = { body, key: freshKey() };
  const answer = await authorized("POST", "notify", { body, headers: { "idempotency-key": unanswered.key } });
  unanswered = { body: "", key: "" };
  follow(answer.broadcast, content.title ?? "Custom JSON payload");
  return result(answer.recipients, content.sendAt);
});

/** Asks for confirmation unless the message is for this browser only. @param {FormData} values @param {any} content */
async function allowed(values, content) {
  if (values.get("audience") === "self") return true;
  // Counted now: the page may show a number that is some seconds old.
  const { subscriptions } = await authorized("GET", "stats");
  return confirmed(question(content, subscriptions.live));
}

/** @param {number} recipients @param {string} [sendAt] */
function result(recipients, sendAt) {
  // The audience is resolved then.
  if (sendAt) return `Will be sent ${new Date(sendAt).toLocaleString()}.`;
  if (recipients === 0) return "The audience has no subscriptions: nothing was sent.";
  return `Sending to ${recipients === 1 ? "one browser" : `${recipients.toLocaleString()} browsers`}.`;
}

/** Reads the form. The first invalid field gets the focus. @param {FormData} values */
function read(values) {
  try {
    return message(values, self);
  } catch (error) {
    if (error instanceof FieldError) {
      const field = form.querySelector(`[name="${error.field}"]`);
      field.closest("details")?.setAttribute("open", "");
      field.setAttribute("aria-invalid", "true");
      field.focus();
    } else {
      byId("notify-enable").focus();
    }
    throw error;
  }
}

/** Adds a row for a button. */
function addAction() {
  const rows = byId("actions");
  const number = rows.children.length + 1;
  const field = (name, label, placeholder) =>
    element("input", { name, placeholder, ariaLabel: `${label} of button ${number}`, autocomplete: "off" });
  const remove = element("button", { type: "button", className: "small quiet", ariaLabel: `Remove button ${number}` }, "Remove");
  const row = element(
    "div",
    { className: "action" },
    field("actionTitle", "Text", "Text"),
    field("actionUrl", "Address", "https:// or /path"),
    field("actionName", "Name", "name"),
    remove,
  );
  remove.addEventListener("click", () => {
    row.remove();
    byId("actions-add").focus();
    show();
  });
  rows.append(row);
  row.firstElementChild.focus();
  show();
}

/** Updates everything that depends on the form. */
function show() {
  const values = new FormData(form);
  const audience = String(values.get("audience"));
  byId("send-label").textContent = LABELS[audience];
  const kind = isDocument(values) ? "payload" : "notification";
  for (const part of form.querySelectorAll("[data-of]")) part.hidden = part.dataset.of !== kind;
  for (const field of form.querySelectorAll("[data-audience]")) field.hidden = field.dataset.audience !== audience;
  byId("notify-unsubscribed").hidden = audience !== "self" || isSubscribed() !== false;
  byId("actions-add").hidden = byId("actions").children.length >= MOST_ACTIONS;
  preview(values);
  const { text, isRequest } = command(values);
  byId("request").querySelector("pre").textContent = text;
  byId("request-copy").hidden = !isRequest;
}

/** Returns the request as a curl command, or what it lacks. @param {FormData} values */
function command(values) {
  let body;
  try {
    body = written(values, self, 2);
  } catch (error) {
    return { text: error.message, isRequest: false };
  }
  const quoted = body.replaceAll("'", "'\\''");
  const lines = [
    `curl ${new URL("web-push/notify", location.href)} \\`,
    `  -H "Authorization: Bearer $ADMIN_TOKEN" \\`,
    `  --json '${quoted}'`,
  ];
  return { text: lines.join("\n"), isRequest: true };
}

onClick("notify-enable", async () => {
  await enrol();
  byId("send").focus();
  return "Notifications are on in this browser.";
});

byId("actions-add").addEventListener("click", addAction);
onCopy("request-copy", () => byId("request").querySelector("pre").textContent, "The request is");
form.addEventListener("input", (event) => {
  event.target.removeAttribute("aria-invalid");
  show();
});
form.addEventListener("reset", () => {
  byId("actions").replaceChildren();
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  // The fields are empty only after this event.
  setTimeout(show);
});
// The state of this browser may have changed.
afterEach.add(async () => show());
show();
