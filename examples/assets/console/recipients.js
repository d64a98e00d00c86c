// Who gets a message: their number now, and the question that names it.
import { authorized } from "./session.js";
import { counted, moment } from "./words.js";

const FINAL = "A notification that a push service has accepted cannot be taken back.";

/** The number of subscriptions in an audience now. @param {any} [audience] As in `/notify`. @returns {Promise<number>} */
export async function estimate(audience = "all") {
  const { recipients } = await authorized("POST", "broadcasts/estimate", { body: JSON.stringify({ audience }) });
  return recipients;
}

/** @param {number} count */
export const browsers = (count) => counted(count, "browser");

/**
 * @param {{audience?: any, sendAt?: string, title?: string}} body The body of the request.
 * @param {number} recipients The estimate.
 * @param {number} undo The seconds in which it can be undone; 0 if it cannot be undone.
 * @returns {import("./confirm.js").Question}
 */
export function question({ audience = "all", sendAt, title = "Custom JSON payload" }, recipients, undo) {
  const when = sendAt
    ? `It is sent on ${moment(sendAt)}, to the subscriptions of that time: the number is that of now. Until then it can be cancelled.`
    : undo > 0
      ? `It is sent after ${undo} seconds, in which you can undo it.`
      : "It is sent at once.";
  return {
    heading: `Send to ${named(audience)}: ${browsers(recipients)}?`,
    title,
    text: `${when} ${FINAL}`,
    yes: `Send to ${browsers(recipients)}`,
    no: "Do not send",
  };
}

/** @param {any} audience */
function named(audience) {
  if (audience === "all") return "everyone";
  if (audience.ids) return "these ids";
  return audience.user === undefined ? `the tag “${audience.tag}”` : `the user “${audience.user}”`;
}
