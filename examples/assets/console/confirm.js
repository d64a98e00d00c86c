// The question before what cannot be taken back.
import { byId } from "../dom.js";

/**
 * @typedef {object} Question
 * @property {string} heading
 * @property {string} title What it is about, quoted: the title of a message, the id of a subscription.
 * @property {string} text What follows from it.
 * @property {string} yes The text of the button that does it.
 * @property {string} no The text of the button that does nothing.
 */

/**
 * Shows the question in the page, with the focus on the button that does nothing. The browser keeps the focus inside
 * and restores it afterwards.
 *
 * @param {Question} question
 * @returns {Promise<boolean>} Whether to do it; false also after the Escape key.
 */
export function confirmed(question) {
  const dialog = byId("confirm");
  for (const [part, text] of Object.entries(question)) byId(`confirm-${part}`).textContent = text;
  // The previous answer would count if the dialog is closed without one.
  dialog.returnValue = "";
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}

byId("confirm-yes").addEventListener("click", () => byId("confirm").close("yes"));
byId("confirm-no").addEventListener("click", () => byId("confirm").close());
