// The server's names in words, and figures and times as text.

/** Outcomes of messages. */
export const OUTCOMES = {
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

/** States of broadcasts, and what is done without a success. */
export const STATES = {
  scheduled: "Scheduled",
  expanding: "Resolving",
  sending: "Sending",
  paused: "Paused",
  done: "Done",
  cancelled: "Cancelled",
  unmatched: "No recipient",
  failed: "Failed",
};

export const PUSH_SERVICES = {
  fcm: "Google (FCM)",
  mozilla: "Mozilla",
  apple: "Apple",
  wns: "Microsoft (WNS)",
  meta: "Meta",
  other: "Others",
};

/** Why a push service gets no requests. */
export const PAUSES = {
  rate_limited: "It asked for fewer requests.",
  unreachable: "It did not answer.",
  sender_fault: "It refused this server's VAPID key or contact.",
};

/** Why a subscription was retired. */
export const RETIRED = {
  gone: "the push service says that it is gone",
  host_not_found: "the host of its endpoint does not exist",
  bad_request: "the push service does not understand its endpoint",
};

/** Steps of the worker that can fail. */
export const STEPS = {
  pauses: "Reading the pauses of push services",
  expand: "Resolving the recipients of broadcasts",
  outbox: "Reading the outbox",
  claim: "Reading due messages",
  settle: "Writing outcomes",
  record: "Writing to the store",
  keys: "Reading the VAPID keys",
  schedules: "Sending daily notifications",
  expire: "Ending messages that are too late",
  purge: "Deleting what is too old",
  report: "Reading broadcasts that are over",
};

/** @param {Record<string, string>} words @param {string} name */
export const word = (words, name) => words[name] ?? name.replaceAll("_", " ");

/**
 * A failure: `403 BadJwtToken: refused for a fault of this server`.
 *
 * @param {{outcome?: string, status: number | null, reason: string | null}} failure
 */
export function failure({ outcome, status, reason }) {
  const answer = [status, reason].filter(Boolean).join(" ");
  return [answer, outcome && word(OUTCOMES, outcome)].filter(Boolean).join(": ") || "no answer";
}

/** @param {number} value */
export const number = (value) => value.toLocaleString();

/** @param {number} count @param {string} one @param {string} [many] */
export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** Date and time. @param {string | number} at */
export const moment = (at) => new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** A time span: `3 minutes`. @param {number} milliseconds */
export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return counted(seconds, "second");
  if (seconds < 7_200) return counted(Math.round(seconds / 60), "minute");
  if (seconds < 172_800) return counted(Math.round(seconds / 3_600), "hour");
  return counted(Math.round(seconds / 86_400), "day");
}
