// The views of the console, one at a time, by the address after `#`. The one that is shown is kept up to date.
import { byId, time } from "../dom.js";
import { afterEach } from "../status.js";
import { isUnlocked, onLock } from "./session.js";

const FIRST = "overview";

/**
 * @typedef {object} View
 * @property {number} every The time between two updates, in milliseconds.
 * @property {() => Promise<unknown>} load Reads and shows what the server has. Returns false if it has read nothing.
 * @property {() => void} [opened] Called when the view appears.
 */

/** @type {Map<string, View & {loading: Promise<void> | null, again: boolean, at: number, tried: number}>} */
const views = new Map();
/** @type {string | null} */
let shown = null;

/** Registers the view of the section `view-NAME`: with the name as id, browsers would scroll to it. @param {string} name @param {View} view */
export function view(name, view) {
  views.set(name, { ...view, loading: null, again: false, at: 0, tried: 0 });
}

/** Shows another view. @param {string} name */
export function open(name) {
  if (name === shown) byId(`${name}-heading`).focus();
  else location.hash = name;
}

/** Updates the shown view now. A call during an update makes another one after it. */
export async function refresh() {
  const one = shown === null ? undefined : views.get(shown);
  if (!one || !isUnlocked()) return;
  if (one.loading) {
    one.again = true;
    return one.loading;
  }
  one.loading = load(/** @type {string} */ (shown), one);
  await one.loading;
  one.loading = null;
  if (one.again) {
    one.again = false;
    await refresh();
  }
}

/** @param {string} name @param {View & {at: number, tried: number}} one */
async function load(name, one) {
  const note = byId(`${name}-as-of`);
  one.tried = performance.now();
  try {
    if ((await one.load()) === false) return;
    one.at = Date.now();
    note.replaceChildren("As of ", time(one.at));
    delete note.dataset.kind;
  } catch (error) {
    // The figures of before stay, with their time.
    note.replaceChildren(...(one.at ? ["As of ", time(one.at), ". Not updated since: "] : ["Not loaded: "]), error.message);
    note.dataset.kind = "error";
  }
}

/** Shows the view of the address. @param {boolean} moves Whether to move the focus to its heading. */
function follow(moves) {
  const name = location.hash.slice(1);
  if (!views.has(name) && shown !== null) return;
  shown = views.has(name) ? name : FIRST;
  for (const other of views.keys()) {
    byId(`view-${other}`).hidden = other !== shown;
    const link = byId(`nav-${other}`);
    if (other === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const heading = byId(`${shown}-heading`);
  document.title = `${heading.textContent} · Web Push console`;
  if (moves) {
    scrollTo(0, 0);
    heading.focus({ preventScroll: true });
  }
  views.get(shown)?.opened?.();
  refresh();
}

/** Shows the first view, once all are registered. */
export function start() {
  addEventListener("hashchange", () => follow(true));
  onLock.add(() => {
    if (isUnlocked()) follow(true);
  });
  // An action may have changed what is shown.
  afterEach.add(refresh);
  setInterval(() => {
    const one = shown === null ? undefined : views.get(shown);
    if (one && !document.hidden && !one.loading && performance.now() - one.tried >= one.every) refresh();
  }, 1_000);
  follow(false);
}
