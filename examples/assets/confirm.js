// The confirmation before a message goes to many: it cannot be taken back.
import { byId } from "./dom.js";

/**
 * @typedef {object} Question
 * @property {string} heading The recipients and their number.
 * @property {string} title The title of the message.
 * @property {string} text Whether it can be cancelled.
 * @property {string} button
 */

const FINAL = "A notification that a push service has accepted cannot be taken back.";

/**
 * Makes the question. The number is an upper bound: the server counts all subscriptions, and a tag or a user has at
 * most as many.
 *
 * @param {{audience?: any, sendAt?: string, title?: string}} body The body of the request.
 * @param {number} live The number of live subscriptions, from `stats`.
 * @returns {Question}
 */
export function question({ audience = "all", sendAt, title = "Custom JSON payload" }, live) {
  const [name, number] = counted(audience, live);
  const later = sendAt && `It is sent on ${new Date(sendAt).toLocaleString()}, to the subscriptions of that time.`;
  return {
    heading: `Send to ${name}: ${number}?`,
    title,
    text: [later, FINAL].filter(Boolean).join(" "),
    button: `Send to ${number}`,
  };
}

/** @param {any} audience @param {number} live @returns {[name: string, number: string]} */
function counted(audience, live) {
  if (audience === "all") return ["everyone", browsers("about", live)];
  if (audience.ids) return ["these ids", browsers("at most", new Set(audience.ids).size)];
  const name = audience.user === undefined ? `the tag “${audience.tag}”` : `the user “${audience.user}”`;
  return [name, browsers("at most", live)];
}

/** @param {string} how @param {number} count */
function browsers(how, count) {
  return `${how} ${count.toLocaleString()} ${count === 1 ? "browser" : "browsers"}`;
}

/**
 * Shows the question in the page, with the focus on the button that sends nothing. The browser keeps the focus inside
 * and restores it afterwards.
 *
 * @param {Question} question
 * @returns {Promise<boolean>} Whether to send; false also after the Escape key.
 */
export function confirmed({ heading, title, text, button }) {
  const dialog = byId("confirm");
  byId("confirm-heading").textContent = heading;
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-send").textContent = button;
  // The previous answer would count if the dialog is closed without one.
  dialog.returnValue = "";
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "send"), { once: true });
    dialog.showModal();
  });
}

byId("confirm-send").addEventListener("click", () => byId("confirm").close("send"));
byId("confirm-cancel").addEventListener("click", () => byId("confirm").close());
