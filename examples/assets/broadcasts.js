// The status of broadcasts sent from this tab, until they are over.
import { byId, element, time } from "./dom.js";
import { authorized, refreshStats } from "./operator.js";
import { run } from "./status.js";
import { keyed } from "./stored.js";

const KEY = keyed("broadcasts");
const MOST = 10;
/** The first and the longest time between two polls, in milliseconds. */
const [SOON, LATER] = [400, 3_000];

const STATES = { scheduled: "Scheduled", expanding: "Resolving", sending: "Sending", done: "Done", cancelled: "Cancelled" };

/** The server's names of outcomes, in words for users. */
const OUTCOMES = {
  pending: "waiting",
  accepted: "taken by the push service",
  gone: "no longer subscribed",
  key_mismatch: "subscribed under another key",
  sender_fault: "refused for a fault of this server",
  too_large: "too large",
  bad_request: "not understood by the push service",
  refused: "not allowed by the endpoint policy",
  expired: "not sent in time",
  failed: "failed",
  cancelled: "cancelled",
};

/** Shows a broadcast and its progress. @param {string} id @param {string} title */
export function follow(id, title, at = Date.now()) {
  const shown = new Map(stored().map((entry) => [entry.id, entry]));
  shown.set(id, { id, title, at });
  store([...shown.values()].slice(-MOST));
  // The answer to a repeated request is the same broadcast.
  document.getElementById(`broadcast-${id}`)?.remove();
  watch(card({ id, title, at }), id);
  refreshStats();
}

/** Makes an empty entry of the list. */
function card({ id, title, at }) {
  const cancel = element("button", { type: "button", className: "small", ariaLabel: `Cancel ${title}` }, "Cancel");
  /** @type {Record<string, any>} */
  const parts = {
    state: element("span", { className: "pill" }, "Queued"),
    bar: element("progress", { max: 1, value: 0, ariaLabel: `Progress of ${title}` }),
    summary: element("p", { className: "hint" }),
    counts: element("ul", { className: "chips", ariaLabel: "Responses of push services" }),
    cancel,
  };
  cancel.addEventListener("click", () => run(cancel, async () => {
    show(parts, await authorized("DELETE", `broadcasts/${id}`));
    return "Cancelled: messages that were not in flight are not sent.";
  }));
  const head = element("div", { className: "broadcast-head" }, element("strong", {}, title), parts.state);
  const foot = element("div", { className: "broadcast-foot" }, parts.summary, time(at), cancel);
  const entry = element("li", { id: `broadcast-${id}`, className: "broadcast", tabIndex: -1 }, head, parts.bar, parts.counts, foot);
  byId("broadcasts").prepend(entry);
  while (byId("broadcasts").children.length > MOST) byId("broadcasts").lastElementChild.remove();
  byId("broadcasts-empty").hidden = true;
  return Object.assign(parts, { entry });
}

/** Polls until it is over or unknown, or its entry is removed. */
async function watch(parts, id, pause = SOON) {
  try {
    const status = await authorized("GET", `broadcasts/${id}`);
    if (show(parts, status)) return refreshStats();
  } catch (error) {
    parts.summary.textContent = error.message;
    if (error.status === 404) return hide(parts.cancel, parts.entry);
  }
  const next = Math.min(pause * 1.3, LATER);
  setTimeout(() => parts.entry.isConnected && watch(parts, id, next), pause);
}

/** Shows a status. Returns whether it is over. @param {Record<string, any>} parts @param {any} status */
function show({ entry, state, bar, summary, counts, cancel }, status) {
  const { pending, ...finished } = status.counts;
  const done = Object.values(finished).reduce((sum, count) => sum + count, 0);
  const isOver = ["done", "cancelled"].includes(status.state) && pending === 0;
  entry.dataset.state = state.dataset.state = status.state;
  state.textContent = STATES[status.state] ?? status.state;
  bar.max = Math.max(status.recipients, 1);
  bar.value = isOver ? bar.max : done;
  summary.textContent = words(status, done);
  const some = Object.entries(status.counts).filter(([, count]) => count > 0);
  counts.replaceChildren(
    ...some.map(([name, count]) => {
      const words = OUTCOMES[name] ?? name.replaceAll("_", " ");
      return element("li", { dataset: { outcome: name } }, element("b", {}, count.toLocaleString()), ` ${words}`);
    }),
  );
  if (isOver || status.state === "cancelled") hide(cancel, entry);
  return isOver;
}

/** Hides a button and keeps the keyboard's focus in place. @param {HTMLElement} button @param {HTMLElement} around */
function hide(button, around) {
  if (document.activeElement === button) around.focus();
  button.hidden = true;
}

function words({ state, recipients, sendAt }, done) {
  if (state === "scheduled") return `Will be sent ${new Date(sendAt).toLocaleString()}`;
  if (state === "expanding") return "Resolving the recipients";
  if (recipients === 0) return "No recipients";
  return `${done.toLocaleString()} of ${recipients.toLocaleString()}`;
}

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  } catch {
    return [];
  }
}

function store(entries) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(entries));
  } catch {
    // It is forgotten with the page then.
  }
}

for (const entry of stored()) watch(card(entry), entry.id);
