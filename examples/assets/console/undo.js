// The offer to take back a broadcast in the seconds before it is sent.
import { byId } from "../dom.js";
import { run, say } from "../status.js";
import { authorized, serverNow } from "./session.js";
import { counted, number } from "./words.js";

/** How long it is offered, in seconds. */
export const SECONDS = 5;
/** How long before the broadcast is due the offer ends, for the way of the request and a clock in whole seconds. */
export const MARGIN = 1.5;

/** How many waiting recipients the server cancels at once. */
const STEP = 20_000;

/** Ends the current offer without an answer. */
let end = () => {};

/**
 * Shows the offer. It disappears when the time is over or the broadcast was taken back. Returns false if the time is over.
 *
 * @param {string} id The broadcast.
 * @param {string} to Its recipients in words.
 * @param {number} sendAt When it is due, by the server's clock.
 */
export function offer(id, to, sendAt) {
  end();
  const until = performance.now() + sendAt - MARGIN * 1000 - serverNow();
  const left = () => Math.ceil((until - performance.now()) / 1000);
  if (left() <= 0) return false;
  const tick = () => {
    byId("undo-left").textContent = `${left()} s`;
    if (left() > 0) return;
    end();
    say(`Sending to ${to}.`, "ok");
  };
  const timer = setInterval(tick, 200);
  byId("undo-text").textContent = `Goes to ${to} in ${counted(left(), "second")}.`;
  byId("undo").hidden = false;
  tick();
  byId("undo-button").onclick = () => run(byId("undo-button"), () => undo(id));
  byId("undo-button").focus();
  end = () => {
    clearInterval(timer);
    end = () => {};
    // Where the sending began: the focus would be lost with the button.
    if (document.activeElement === byId("undo-button")) byId("send").focus();
    byId("undo").hidden = true;
  };
  return true;
}

/** @param {string} id */
async function undo(id) {
  const { counts } = await authorized("DELETE", `broadcasts/${id}`);
  end();
  const { pending, cancelled, ...ends } = counts;
  const sent = Object.values(ends).reduce((sum, count) => sum + count, 0);
  // A cancellation ends 20,000 recipients at once. A worker cancels the rest, and sends nothing of it.
  if (cancelled >= STEP && pending > 0) {
    if (sent > 0) throw new Error(`Too late for some: ${number(sent)} were sent, and a few may be on their way. The others are cancelled.`);
    return "Undone: nothing was sent, but a few may have been on their way.";
  }
  // What is pending still is in flight.
  const late = sent + pending;
  if (late > 0) throw new Error(`Too late for some: up to ${number(late)} were sent or are being sent. The others are cancelled.`);
  return "Undone: nothing was sent.";
}
