// The form that composes and sends a message.
import { enrol, isSubscribed, look, self, visit } from "../browser.js";
import { byId, element } from "../dom.js";
import { afterEach, onClick, onCopy, onSubmit, say } from "../status.js";
import { confirmed } from "./confirm.js";
import { FieldError, audience, freshKey, isDocument, message, written } from "./message.js";
import { preview } from "./preview.js";
import { browsers, estimate, question } from "./recipients.js";
import { remember } from "./sent.js";
import { authorized, serverNow } from "./session.js";
import { MARGIN, SECONDS, offer } from "./undo.js";
import { open, refresh, view } from "./views.js";
import { moment } from "./words.js";

const NO_RECIPIENT = "No subscription matches: nothing was sent.";
const MOST_ACTIONS = 3;
const LABELS = {
  all: "Send to everyone…",
  self: "Send to this browser",
  user: "Send to the user…",
  tag: "Send to the tag…",
  ids: "Send to these…",
};
/** The pause after which a changed audience is counted, in milliseconds. */
const QUIET = 400;

const form = byId("notify");

const NONE = { form: "", body: "", key: "", sendAt: 0 };
/** A request whose answer was lost is repeated as it was, under the same key, so that it is sent once. */
let unanswered = NONE;
/** Whether the form has a message that was changed and not sent. */
let isDraft = false;

export const hasDraft = () => isDraft;

/** Gives up what is in the form. */
export function discard() {
  isDraft = false;
}

onSubmit("notify", async (values) => {
  const content = read(values);
  const asked = written(values, self);
  const isForOthers = values.get("audience") !== "self";
  const isRepeated = unanswered.form === asked;
  if (isForOthers) {
    // Counted now: the page may show a number that is some seconds old.
    const estimated = await estimate(content.audience);
    if (estimated === 0 && !content.sendAt) throw new Error(NO_RECIPIENT);
    // The time of a repeated request is that of the first one: it is over, or is over soon.
    const undo = isRepeated ? 0 : SECONDS;
    if (!(await confirmed(question(content, estimated, undo)))) return say("Not sent.");
  }
  const canUndo = isForOthers && !content.sendAt;
  if (!isRepeated) {
    const sendAt = serverNow() + (SECONDS + MARGIN) * 1000;
    const later = { sendAt: new Date(sendAt).toISOString() };
    unanswered = { form: asked, body: canUndo ? written(values, self, later) : asked, key: freshKey(), sendAt };
  }
  const { body, key, sendAt } = unanswered;
  let broadcast;
  let recipients;
  try {
    ({ broadcast, recipients } = await authorized("POST", "notify", { body, headers: { "idempotency-key": key } }));
  } catch (error) {
    // Of a repeated request only the repetition was refused: the first one may have been accepted.
    if (!isRepeated && isRefusal(error)) unanswered = NONE;
    throw error;
  }
  unanswered = NONE;
  discard();
  remember({ id: broadcast, title: content.title ?? "Custom JSON payload", fields: texts(values) });
  if (content.sendAt) return `Will be sent on ${moment(content.sendAt)}.`;
  // It may be fewer than were estimated, or this browser's subscription was deleted.
  if (recipients === 0) throw new Error(NO_RECIPIENT);
  if (canUndo && offer(broadcast, browsers(recipients), sendAt)) return;
  return isForOthers ? `Sending to ${browsers(recipients)}.` : "Sent to this browser.";
});

/** Whether nothing was accepted for certain. @param {{status?: number, code?: string}} error */
function isRefusal({ status = 0, code }) {
  return (status >= 400 && status < 500) || code === "no_worker";
}

/** The form's fields that have a text. @param {FormData} values @returns {[string, string][]} */
function texts(values) {
  return [...values].map(([name, value]) => /** @type {[string, string]} */ ([name, String(value)]));
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

/** Opens the form with these fields, to be checked and sent. @param {[string, string][]} fields */
export function compose(fields) {
  form.reset();
  const places = new Map();
  for (const [name, value] of fields) {
    // It is over.
    if (name === "sendAt") continue;
    const place = places.get(name) ?? 0;
    places.set(name, place + 1);
    if (name === "actionTitle") addAction();
    const found = [...form.querySelectorAll(`[name="${name}"]`)];
    const choice = found.find((field) => ["radio", "checkbox"].includes(field.type) && field.value === value);
    if (choice) choice.checked = true;
    else if (found[place]) found[place].value = value;
  }
  isDraft = true;
  show();
  open("compose");
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
  return row;
}

/** Updates everything that depends on the form. */
function show() {
  const values = new FormData(form);
  const to = String(values.get("audience"));
  byId("send-label").textContent = LABELS[to];
  const kind = isDocument(values) ? "payload" : "notification";
  for (const part of form.querySelectorAll("[data-of]")) part.hidden = part.dataset.of !== kind;
  for (const field of form.querySelectorAll("[data-audience]")) field.hidden = field.dataset.audience !== to;
  byId("notify-unsubscribed").hidden = to !== "self" || isSubscribed() !== false;
  byId("notify-estimate").hidden = to === "self";
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
    body = written(values, self, { indent: 2 });
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

/** Shows the number of recipients, if the form names an audience. */
async function count() {
  const values = new FormData(form);
  const line = byId("notify-estimate");
  if (values.get("audience") === "self") return;
  let to;
  try {
    to = audience(values, self);
  } catch {
    line.textContent = "No recipient is chosen yet.";
    return;
  }
  const recipients = await estimate(to);
  const text = recipients === 0 ? "No recipient: no subscription matches." : `Goes to ${browsers(recipients)}.`;
  if (line.textContent !== text) line.textContent = text;
  line.dataset.state = recipients === 0 ? "none" : "some";
}

let pause = 0;

onClick("notify-enable", async () => {
  await enrol();
  byId("send").focus();
  return "Notifications are on in this browser.";
});

byId("actions-add").addEventListener("click", () => {
  addAction().firstElementChild.focus();
  show();
});
onCopy("request-copy", () => byId("request").querySelector("pre").textContent, "The request is");
form.addEventListener("input", (event) => {
  isDraft = true;
  event.target.removeAttribute("aria-invalid");
  show();
  clearTimeout(pause);
  pause = setTimeout(refresh, QUIET);
});
form.addEventListener("reset", () => {
  discard();
  byId("actions").replaceChildren();
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  // The fields are empty only after this event.
  setTimeout(show);
});
// The state of this browser may have changed.
afterEach.add(async () => {
  await look();
  show();
});
view("compose", { every: 10_000, load: count });
show();
// The page works without: messages to this browser are refused then.
visit().then(show, show);
