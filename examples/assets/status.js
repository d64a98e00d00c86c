// The page's status line, and buttons that run one action at a time.
import { byId } from "./dom.js";

/** The time that a message stays visible while scrolling, in milliseconds. */
const FRESH = 8_000;
let fading = 0;

/** @param {string} text @param {"info" | "ok" | "error"} [kind] */
export function say(text, kind = "info") {
  const status = byId("status");
  status.textContent = text;
  status.dataset.kind = kind;
  status.dataset.fresh = "";
  clearTimeout(fading);
  fading = setTimeout(() => delete status.dataset.fresh, FRESH);
}

/** Called after each action, successful or not. @type {Set<() => Promise<unknown>>} */
export const afterEach = new Set();

/** Updates all parts of the page. */
export async function showAll() {
  for (const work of afterEach) await work().catch(() => {});
}

/**
 * Runs an action unless it is running already, and shows its result.
 *
 * @param {HTMLElement} button
 * @param {() => Promise<string | void>} action
 */
export async function run(button, action) {
  // Not `disabled`: that would take the focus away.
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    const text = await action();
    if (text) say(text, "ok");
  } catch (error) {
    say(error.message, "error");
  } finally {
    button.removeAttribute("aria-disabled");
    await showAll();
  }
}

/** @param {string} id @param {() => Promise<string | void>} action */
export function onClick(id, action) {
  byId(id).addEventListener("click", (event) => run(event.currentTarget, action));
}

/** @param {string} id @param {(form: FormData) => Promise<string | void>} action */
export function onSubmit(id, action) {
  const form = byId(id);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(event.submitter ?? form.querySelector("[type=submit]"), () => action(new FormData(form)));
  });
  // A hidden field cannot show its error.
  form.addEventListener("invalid", ({ target }) => target.closest("details")?.setAttribute("open", ""), true);
}

/** Copies a text and shows that it did. @param {string} id The id of the button. @param {() => string} text @param {string} what */
export function onCopy(id, text, what) {
  onClick(id, async () => {
    if (!navigator.clipboard) throw new Error("Pages loaded over http cannot copy. Select the text and copy it.");
    await navigator.clipboard.writeText(text());
    return `${what} copied.`;
  });
}
