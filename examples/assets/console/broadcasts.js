// The list of broadcasts, a page at a time, newest first.
import { byId, reconcile } from "../dom.js";
import { card } from "./broadcast-card.js";
import { authorized } from "./session.js";
import { refresh, view } from "./views.js";

const PAGE = 20;

/** The cursors of the page and of those before it. @type {string[]} */
let pages = [];
/** @type {string | null} */
let next = null;

async function load() {
  const query = new URLSearchParams({ limit: String(PAGE) });
  const states = byId("broadcasts-state").value;
  if (states) query.set("state", states);
  const after = pages.at(-1);
  if (after) query.set("after", after);
  const answer = await authorized("GET", `broadcasts?${query}`);
  next = answer.next;
  reconcile(byId("broadcasts-list"), answer.broadcasts, ({ id }) => id, card);
  const isEmpty = answer.broadcasts.length === 0;
  byId("broadcasts-empty").hidden = !isEmpty;
  byId("broadcasts-empty-text").textContent = next !== null ? "None among these. Older ones may match." : states || after ? "None." : "Nothing was sent in the last seven days.";
  byId("broadcasts-newer").hidden = pages.length === 0;
  byId("broadcasts-older").hidden = next === null;
}

byId("broadcasts-state").addEventListener("change", () => {
  pages = [];
  refresh();
});

/** @param {string} id @param {() => void} turn */
function turns(id, turn) {
  byId(id).addEventListener("click", async () => {
    turn();
    await refresh();
    byId("broadcasts-heading").focus();
  });
}

turns("broadcasts-older", () => {
  if (next !== null) pages.push(next);
});
turns("broadcasts-newer", () => void pages.pop());

view("broadcasts", { every: 3_000, load });
