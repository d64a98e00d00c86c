// A broadcast in the list: its progress, its outcomes, and what can be done with it.
import { element, time } from "../dom.js";
import { run } from "../status.js";
import { compose } from "./compose.js";
import { confirmed } from "./confirm.js";
import { failureList } from "./failures.js";
import { recall } from "./sent.js";
import { authorized } from "./session.js";
import { OUTCOMES, STATES, counted, moment, number, word } from "./words.js";

/** Makes an entry of the list. @param {{id: string}} status */
export function card({ id }) {
  const sent = recall(id);
  const title = sent?.title ?? `Broadcast ${id.slice(0, 8)}`;
  /** @param {string} text @param {() => Promise<string | void>} action */
  const button = (text, action) => {
    const made = element("button", { type: "button", className: "small", ariaLabel: `${text} ${title}` }, text);
    made.addEventListener("click", () => run(made, action));
    return made;
  };
  /** @param {string} state */
  const change = (state) => authorized("PATCH", `broadcasts/${id}`, { body: JSON.stringify({ state }) });
  const parts = {
    state: element("span", { className: "pill" }),
    bar: element("progress", { max: 1, value: 0, ariaLabel: `Progress of ${title}` }),
    summary: element("p", { className: "hint" }),
    counts: element("ul", { className: "chips", ariaLabel: "Outcomes" }),
    pause: button("Pause", async () => {
      await change("paused");
      return `Paused: ${title}. Messages in flight are still sent.`;
    }),
    resume: button("Resume", async () => {
      await change("sending");
      return `Resumed: ${title}.`;
    }),
    cancel: button("Cancel", async () => {
      const yes = await confirmed({
        heading: "Cancel this broadcast?",
        title,
        text: "What is not in flight is not sent, and cannot be sent later. A notification that a push service has accepted cannot be taken back.",
        yes: "Cancel the broadcast",
        no: "Go on",
      });
      if (!yes) return;
      await authorized("DELETE", `broadcasts/${id}`);
      return `Cancelled: ${title}.`;
    }),
    repeat: button("Repeat…", async () => sent && compose(sent.fields)),
    failed: failureList(id),
  };
  parts.repeat.hidden = sent === undefined;
  const head = element("div", { className: "broadcast-head" }, element("strong", { title: id }, title), parts.state);
  const buttons = element("div", { className: "buttons" }, parts.pause, parts.resume, parts.cancel, parts.repeat);
  const foot = element("div", { className: "broadcast-foot" }, parts.summary, buttons);
  const node = element("li", { className: "broadcast", tabIndex: -1 }, head, parts.bar, parts.counts, foot, parts.failed.node);
  return { node, show: (/** @type {any} */ status) => show(node, parts, status) };
}

/** @param {any} node @param {Record<string, any>} parts @param {any} status */
function show(node, { state, bar, summary, counts, pause, resume, cancel, failed }, status) {
  const { pending, ...finished } = status.counts;
  const done = sum(finished);
  const isOver = ["done", "cancelled"].includes(status.state) && pending === 0;
  const isDone = status.state === "done" && pending === 0;
  // Neither is a success.
  const shown = isDone && status.recipients === 0 ? "unmatched" : isDone && finished.accepted === 0 ? "failed" : status.state;
  node.dataset.state = state.dataset.state = shown;
  state.textContent = word(STATES, shown);
  // Without recipients the bar would be full.
  bar.hidden = status.recipients === 0 || status.state === "scheduled";
  bar.max = Math.max(status.recipients, 1);
  bar.value = done;
  summary.replaceChildren(...words(status, done), " Created ", time(Date.parse(status.createdAt), moment), ".");
  counts.replaceChildren(
    ...Object.entries(status.counts)
      .filter(([, count]) => count > 0)
      .map(([name, count]) => element("li", { dataset: { outcome: name } }, element("b", {}, number(count)), ` ${word(OUTCOMES, name)}`)),
  );
  const ends = isOver || status.state === "cancelled";
  const isPaused = status.state === "paused";
  const hides = [
    [pause, ends || isPaused],
    [resume, ends || !isPaused],
    [cancel, ends],
  ];
  const had = hides.some(([button, hidden]) => hidden && document.activeElement === button);
  for (const [button, hidden] of hides) button.hidden = hidden;
  // Of one that disappears the next takes over, or the entry.
  if (had) (hides.find(([button]) => !button.hidden)?.[0] ?? node).focus();
  const { accepted, cancelled, ...failures } = finished;
  failed.show(sum(failures));
}

/** @param {Record<string, number>} counts */
const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);

/** @param {any} status @param {number} done @returns {string[]} */
function words({ state, recipients, sendAt, deadline, pace }, done) {
  const to = state === "scheduled" ? [`Will be sent on ${moment(sendAt)}.`] : recipients === 0 ? ["No recipients: nothing was sent."] : [`${number(done)} of ${number(recipients)}.`];
  if (state === "expanding") to.push(" Its recipients are being resolved.");
  if (state === "paused") to.push(` What still waits on ${moment(deadline)} is not sent any more.`);
  if (pace) to.push(` At most ${counted(pace.perSecond, "message")} a second.`);
  return to;
}
