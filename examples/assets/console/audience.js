// Who is subscribed: search, the devices of one user, removal, and a file of all.
import { byId, element, reconcile } from "../dom.js";
import { onClick, onSubmit, run } from "../status.js";
import { compose } from "./compose.js";
import { confirmed } from "./confirm.js";
import { authorized, file } from "./session.js";
import { open, refresh, view } from "./views.js";
import { PUSH_SERVICES, RETIRED, counted, failure, moment, number, word } from "./words.js";

const PAGE = 25;
/** The most pages that are read for one: of a filter that few rows match, pages can be empty. */
const PAGES = 20;
const STATES = { live: ["on", "Live"], stale: ["scheduled", "Stale"], retired: ["error", "Gone"] };

const form = byId("find");
/** What is shown: the search that was submitted last. */
let search = new FormData(form);
/** What was found of it. @type {any[]} */
let rows = [];
/** Where the next page begins; null at the end. @type {string | null} */
let next = null;
/** Whether it has to be read from the start. */
let isOld = true;
/** How often it was read from the start, or overtaken by another search. */
let turn = 0;

/** Begins another search. @param {FormData} values */
function begin(values) {
  search = values;
  isOld = true;
  turn++;
  // The server makes files of lists, and one subscription is no list.
  byId("audience-file").hidden = ["id", "endpoint"].includes(String(search.get("by"))) && String(search.get("text")).trim() !== "";
}

/** Returns false if what is shown was read before. */
async function load() {
  const reads = isOld;
  if (reads) {
    // Cleared first: a search that begins meanwhile has to be read, too.
    isOld = false;
    [rows, next] = [[], null];
    byId("audience-more").hidden = true;
    const mine = ++turn;
    try {
      await read();
    } catch (error) {
      isOld = true;
      throw error;
    }
    if (turn !== mine) return false;
  }
  // Buttons are for the user: a browser that another user has taken over is another entry.
  reconcile(byId("audience-list"), rows, ({ id, user }) => `${id} ${user ?? ""}`, row);
  byId("audience-empty").hidden = rows.length > 0 || next !== null;
  byId("audience-more").hidden = next === null;
  const [by, text] = ["by", "text"].map((name) => String(search.get(name)).trim());
  const what = by === "user" && text ? counted(rows.length, `device of ${text}`, `devices of ${text}`) : counted(rows.length, "subscription");
  const line = next === null ? `${what}.` : `${what} so far, and there may be more.`;
  // Screen readers read it out each time that it is written.
  if (byId("audience-count").textContent !== line) byId("audience-count").textContent = line;
  return reads;
}

/** Reads about one page more. What arrives after another search has begun is left out. */
async function read() {
  const mine = turn;
  const text = String(search.get("text")).trim();
  if (search.get("by") === "endpoint" && text) {
    const { subscriptions } = await authorized("POST", "subscriptions/search", { body: JSON.stringify({ endpoint: text }) });
    if (turn === mine) rows = subscriptions;
    return;
  }
  const enough = rows.length + PAGE;
  for (let pages = 0; pages < PAGES && rows.length < enough; pages++) {
    const query = filter();
    query.set("limit", String(PAGE));
    if (next !== null) query.set("after", next);
    const answer = await authorized("GET", `subscriptions?${query}`);
    if (turn !== mine) return;
    rows.push(...answer.subscriptions);
    next = answer.next;
    if (next === null) return;
  }
}

/** The query of the search. */
function filter() {
  const query = new URLSearchParams();
  const [by, text] = ["by", "text"].map((name) => String(search.get(name)).trim());
  if (text && by !== "endpoint") query.set(by, text);
  for (const name of ["state", "pushService"]) if (search.get(name)) query.set(name, String(search.get(name)));
  return query;
}

/** Shows the subscriptions of a user, a tag or an id. @param {string} by @param {string} text */
export function find(by, text) {
  form.reset();
  form.elements.by.value = by;
  form.elements.text.value = text;
  begin(new FormData(form));
  open("audience");
  return refresh();
}

/** Makes an entry of the list. @param {any} subscription */
function row({ id, user }) {
  const pill = element("span", { className: "pill" });
  const about = element("dl", { className: "facts" });
  const name = user ? `${user}, ${id}` : id;
  /** @param {string} text @param {string} label @param {() => Promise<string | void>} action */
  const button = (text, label, action) => {
    const made = element("button", { type: "button", className: "small", ariaLabel: `${label}: ${name}` }, text);
    made.addEventListener("click", () => run(made, action));
    return made;
  };
  const buttons = element(
    "div",
    { className: "buttons" },
    ...(user ? [button("All devices", "All devices of the user", () => find("user", user))] : []),
    button("Send…", "Send to this subscription", async () => compose([["audience", "ids"], ["ids", id]])),
    button("Delete", "Delete this subscription", () => remove(id)),
  );
  const title = element("strong", {});
  const node = element("li", { className: "subscription", tabIndex: -1 }, element("div", { className: "broadcast-head" }, title, pill), about, buttons);
  const show = (/** @type {any} */ subscription) => {
    const [state, text] = STATES[subscription.state] ?? ["unknown", subscription.state];
    pill.dataset.state = state;
    pill.textContent = text;
    title.textContent = subscription.user ?? "Without a user";
    about.replaceChildren(...facts(subscription).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  };
  return { node, show };
}

/** @param {any} subscription @returns {[string, string][]} */
function facts({ id, pushService, tags, keyId, createdAt, lastSeenAt, lastSuccessAt, failureStreak, lastFailure, retireReason, expirationTime, schedules }) {
  /** @type {[string, string | null][]} */
  const all = [
    ["Id", id],
    ["Push service", word(PUSH_SERVICES, pushService)],
    ["Tags", tags.join(", ") || null],
    ["Daily", schedules?.map(daily).join("; ") || null],
    ["Created", moment(createdAt)],
    ["Last seen", moment(lastSeenAt)],
    ["Last taken", lastSuccessAt ? `${moment(lastSuccessAt)} (written once a day)` : "never"],
    ["Last failure", lastFailure ? `${failure(lastFailure)}, ${moment(lastFailure.at)}` : null],
    ["Failures in a row", failureStreak ? number(failureStreak) : null],
    ["Why it is gone", retireReason ? word(RETIRED, retireReason) : null],
    ["Expires", expirationTime ? moment(expirationTime) : null],
    ["VAPID key", keyId],
  ];
  return /** @type {[string, string][]} */ (all.filter(([, value]) => value !== null));
}

/** @param {any} schedule */
function daily({ notifyTime: { hour, utcHour, minute, zone = "UTC", weekdays } }) {
  const clock = [hour ?? utcHour, minute].map((part) => String(part).padStart(2, "0")).join(":");
  return [clock, zone, weekdays?.length < 7 ? weekdays.join(" ") : ""].filter(Boolean).join(" ");
}

/** @param {string} id */
async function remove(id) {
  const yes = await confirmed({
    heading: "Delete this subscription?",
    title: id,
    text: "Its browser gets no more notifications, and its daily ones end. It can subscribe again; a page that renews subscriptions does so at the next visit.",
    yes: "Delete the subscription",
    no: "Keep it",
  });
  if (!yes) return;
  await authorized("DELETE", `subscriptions/${id}`);
  rows = rows.filter((one) => one.id !== id);
  byId("audience-heading").focus();
  return "The subscription is deleted.";
}

onSubmit("find", async (values) => begin(values));

onClick("audience-more", read);

onClick("audience-file", async () => {
  const query = filter();
  query.set("format", "csv");
  const address = URL.createObjectURL(await file(`subscriptions?${query}`));
  element("a", { href: address, download: "subscriptions.csv" }).click();
  // The browser reads it after this task.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  return "The file is ready: subscriptions.csv.";
});

view("audience", { every: 30_000, load, opened: () => void (isOld = true) });
