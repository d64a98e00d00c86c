// Whether messages can go out, and what keeps them.
import { byId, element, reconcile } from "../dom.js";
import { run } from "../status.js";
import { confirmed } from "./confirm.js";
import { NOT_THE_SERVER, authorized, clockAhead } from "./session.js";
import { view } from "./views.js";
import { PAUSES, STEPS, counted, moment, number, span, word } from "./words.js";

/** A message that waits longer than this is late, in milliseconds: as the alert `WebPushMessagesLate` has it. */
const LATE = 300_000;
/** The time limit of `/ready`, in milliseconds. */
const LIMIT = 10_000;
/** A difference of clocks that the visitor should know of, in milliseconds. */
const APART = 5_000;

async function load() {
  const [ready, stats] = await Promise.all([readiness(), authorized("GET", "stats")]);
  reconcile(byId("health-checks"), checks(ready, stats, Date.now() + (clockAhead() ?? 0)), ({ name }) => name, check);
  const found = problems(stats);
  reconcile(byId("health-problems"), found, ({ text }) => text, problem);
  byId("health-none").hidden = found.length > 0;
  byId("gates-none").hidden = stats.gates.length > 0;
  reconcile(byId("gates"), stats.gates, ({ origin }) => origin, gate);
  byId("flow-none").hidden = stats.origins.length > 0;
  reconcile(byId("flow"), stats.origins, ({ origin }) => origin, flow);
}

/** The answer of `/ready`, also while it is not. */
async function readiness() {
  // A refusal, of a proxy, must not open the browser's own password prompt.
  const options = /** @type {RequestInit} */ ({ cache: "no-store", credentials: "omit", signal: AbortSignal.timeout?.(LIMIT) });
  try {
    const response = await fetch("web-push/ready", options);
    return await response.json();
  } catch (cause) {
    throw new Error(unreadable(cause), { cause });
  }
}

/** @param {any} cause */
function unreadable({ name }) {
  if (name === "TimeoutError") return "The server did not answer in time.";
  if (name === "SyntaxError") return NOT_THE_SERVER;
  return "The server cannot be reached.";
}

/**
 * @param {Record<string, boolean>} ready
 * @param {any} stats
 * @param {number} now The server's time.
 * @returns {{name: string, isGood: boolean, text: string}[]}
 */
export function checks(ready, { ledger, outbox }, now) {
  const age = ledger.oldestDue === null ? 0 : now - Date.parse(ledger.oldestDue);
  const apart = clockAhead();
  /** @type {[string, boolean, string, string][]} */
  const list = [
    ["Contact", ready.contact !== false, "Push services know whom to write to.", "VAPID_SUBJECT is not set: nothing is sent, and no browser can subscribe."],
    ["Store", ready.store, "It answers and can be written to.", "It does not answer, or cannot be written to. Messages wait."],
    ["Worker", ready.worker, "A worker sends what is due.", "No worker runs: nothing is sent, and new messages are refused."],
    ["Scheduler", ready.scheduler, "Due work was looked for a moment ago.", "No worker has looked for due work for a while."],
    ["Clock", ready.clock, `It agrees with the store's.${difference(apart)}`, `It disagrees with the store's or has jumped: nothing is sent until they agree.${difference(apart)}`],
    ["Queue", age < LATE, queue(ledger, age), `${queue(ledger, age)} The push services below may say why.`],
  ];
  if (outbox) {
    const waiting = `${number(outbox.waiting)} waiting`;
    list.push(["Outbox", outbox.refused === 0, `${waiting}.`, `${waiting}, and ${number(outbox.refused)} refused: these are not sent until an application retries or drops them.`]);
  }
  return list.map(([name, isGood, good, bad]) => ({ name, isGood, text: isGood ? good : bad }));
}

/** @param {number | null} apart */
function difference(apart) {
  if (apart === null || Math.abs(apart) < APART) return "";
  return ` This browser's is ${span(Math.abs(apart))} ${apart > 0 ? "behind" : "ahead"}.`;
}

/** @param {any} ledger @param {number} age */
function queue({ depth, leased, oldestDue }, age) {
  if (depth === 0) return "Empty.";
  const oldest = oldestDue === null ? "" : ` The oldest due one has waited for ${span(age)}.`;
  return `${counted(depth, "message")} to be sent, ${number(leased)} of them in flight.${oldest}`;
}

/** @param {any} stats @returns {{text: string}[]} */
export function problems({ worker, missingKeys, retiringStopped }) {
  return [
    ...worker.failing.map(({ step, since, error }) => `${word(STEPS, step)} fails since ${moment(since)}: ${error}.`),
    ...worker.parkedBroadcasts.map(({ broadcast, until, error }) => `Broadcast ${broadcast} waits until ${moment(until)}: ${error}.`),
    ...(worker.parked > worker.parkedBroadcasts.length ? [`${number(worker.parked - worker.parkedBroadcasts.length)} more broadcasts wait because they cannot be read.`] : []),
    ...(worker.unreadable > 0 ? [`${counted(worker.unreadable, "message waits", "messages wait")} because the subscription cannot be read.`] : []),
    ...missingKeys.map(({ keyId, subscriptions }) => `The VAPID key ${keyId} of ${counted(subscriptions, "subscription")} is missing. They get nothing until it is back: restore it from a backup.`),
    ...retiringStopped.map(({ origin, gone, accepted }) => `${origin} said of ${number(gone)} of its last ${number(gone + accepted)} subscriptions that they are gone. None is deleted until fewer are.`),
  ].map((text) => ({ text }));
}

function check() {
  const pill = element("span", { className: "pill" });
  const name = element("strong", {});
  const text = element("span", {});
  const node = element("li", {}, element("div", {}, name, text), pill);
  const show = (/** @type {any} */ one) => {
    name.textContent = one.name;
    text.textContent = one.text;
    pill.dataset.state = one.isGood ? "on" : "error";
    pill.textContent = one.isGood ? "Fine" : "Attention";
  };
  return { node, show };
}

/** @param {{text: string}} problem */
function problem({ text }) {
  return { node: element("li", {}, text), show() {} };
}

/** @param {{origin: string}} gate */
function gate({ origin }) {
  const text = element("span", {});
  const button = element("button", { type: "button", className: "small", ariaLabel: `Open now: ${origin}` }, "Open now…");
  let words = "";
  button.addEventListener("click", () => run(button, () => openNow(origin, words)));
  const show = (/** @type {any} */ { reason, until, closures }) => {
    const again = closures > 1 ? ` This is so for ${closures} times in a row.` : "";
    words = `${word(PAUSES, reason)} It gets nothing until ${moment(until)}.${again}`;
    text.textContent = words;
  };
  return { node: element("li", {}, element("div", {}, element("strong", {}, origin), text), button), show };
}

/** @param {string} origin @param {string} words */
async function openNow(origin, words) {
  const yes = await confirmed({
    heading: "Send to this push service now?",
    title: origin,
    text: `${words} If the reason is still there, it is paused again.`,
    yes: "Open now",
    no: "Wait",
  });
  if (!yes) return;
  await authorized("POST", "open-gate", { body: JSON.stringify({ origin }) });
  byId("gates-heading").focus();
  return `${origin} gets messages again.`;
}

/** @param {{origin: string}} flow */
function flow({ origin }) {
  const text = element("span", {});
  const show = (/** @type {any} */ { inFlight, limit, perSecond }) => {
    const pace = perSecond ? `, at most ${number(perSecond)} a second` : "";
    text.textContent = `${counted(inFlight, "request")} in flight of at most ${number(limit)}${pace}`;
  };
  return { node: element("li", {}, element("div", {}, element("strong", {}, origin), text)), show };
}

view("health", { every: 5_000, load });
