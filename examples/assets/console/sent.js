// Broadcasts sent from this tab: the server does not keep their titles and forgets their content when they are over.
import { keyed } from "../stored.js";

const KEY = keyed("sent");
const MOST = 50;

/**
 * @typedef {object} Sent
 * @property {string} id
 * @property {string} title
 * @property {[string, string][]} fields The form, for a repetition.
 */

/** Used until the tab is closed if nothing can be stored. @type {Sent[]} */
let remembered = [];

/** @returns {Sent[]} */
function all() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  } catch {
    return remembered;
  }
}

/** @param {Sent} sent */
export function remember(sent) {
  // The answer to a repeated request is the same broadcast.
  remembered = [...all().filter(({ id }) => id !== sent.id), sent].slice(-MOST);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(remembered));
  } catch {
    // Kept in memory above.
  }
}

export function forget() {
  remembered = [];
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Kept in memory above.
  }
}

/** @param {string} id */
export const recall = (id) => all().find((sent) => sent.id === id);
