// The offer to take back a broadcast in the seconds before it is sent.
import { byId } from "../dom.js";
import { run, say } from "../status.js";
import { authorized } from "./session.js";

/** How long it is offered, in seconds. */
export const SECONDS = 5;
/** What the broadcast is scheduled later than that, for the way of the requests and a clock in whole seconds. */
export const MARGIN = 1.5;

/** Ends the current offer without an answer. */
let end = () => {};

/**
 * Shows the offer. It disappears when the time is over or the broadcast was taken back.
 *
 * @param {string} id The broadcast.
 * @param {string} to Its recipients in words.
 */
export function offer(id, to) {
  end();
  const until = performance.now() + SECONDS * 1000;
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    byId("undo-left").textContent = `${left} s`;
    if (left > 0) return;
    end();
    say(`Sending to ${to}.`, "ok");
  };
  const timer = setInterval(tick, 200);
  byId("undo-text").textContent = `Goes to ${to} in ${SECONDS} seconds.`;
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
}

/** @param {string} id */
async function undo(id) {
  const { counts } = await authorized("DELETE", `broadcasts/${id}`);
  end();
  const { pending, cancelled, ...begun } = counts;
  const sent = Object.values(begun).reduce((sum, count) => sum + count, 0);
  if (sent > 0) throw new Error(`Too late for ${sent} of them: they were sent. The others are cancelled.`);
  return "Undone: nothing was sent.";
}
