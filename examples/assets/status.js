// What the page says, and how its buttons do one thing at a time.
import { byId } from "./dom.js";

/** How long what was said stays in sight of who scrolls, in milliseconds. */
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

/** Called after each action, whatever came of it. @type {Set<() => Promise<unknown>>} */
export const afterEach = new Set();

/** Has the parts of the page show what is now so. */
export async function showAll() {
  for (const work of afterEach) await work().catch(() => {});
}

/**
 * Runs an action unless it is running already, and says in words what came of it.
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
  // A field that cannot be seen cannot be pointed at.
  form.addEventListener("invalid", ({ target }) => target.closest("details")?.setAttribute("open", ""), true);
}

/** Copies a text, and says so. @param {string} id The button's. @param {() => string} text @param {string} what */
export function onCopy(id, text, what) {
  onClick(id, async () => {
    if (!navigator.clipboard) throw new Error("Pages loaded over http cannot copy. Select the text and copy it.");
    await navigator.clipboard.writeText(text());
    return `${what} copied.`;
  });
}
