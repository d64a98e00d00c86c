// The operator's secret: kept for this tab, sent to this server only.
import { byId, element } from "./dom.js";
import { onSubmit, say } from "./status.js";
import { keyed } from "./stored.js";

const KEY = keyed("operator");
const EVERY = 5_000;

/** The Authorization header's value. @type {string | null} */
let credentials = null;
try {
  credentials = sessionStorage.getItem(KEY);
} catch {
  // Kept in memory then.
}

/**
 * Sends a request with the operator's credentials. Returns the answer's JSON, or throws the server's message.
 *
 * @param {"GET" | "POST" | "DELETE"} method
 * @param {string} path
 * @param {{body?: string, headers?: Record<string, string>}} [more]
 */
export async function authorized(method, path, { body, headers = {} } = {}) {
  const used = credentials;
  if (used === null) throw new Error("Unlock with the admin token first.");
  const answer = await ask(method, path, used, { body, headers });
  // The credentials may have changed in between.
  if (answer.status === 401 && credentials === used) lock();
  if (answer.ok) return answer.json;
  const text = answer.json?.detail ?? answer.json?.message ?? `The server answered with status ${answer.status}.`;
  throw Object.assign(new Error(text), { status: answer.status });
}

/** Opens the form for the admin token if it is missing. */
export function demandOperator() {
  if (credentials !== null) return;
  byId("operator-token").focus();
  throw new Error("Unlock with the admin token first.");
}

/**
 * @param {string} method
 * @param {string} path
 * @param {string} authorization
 * @param {{body?: string, headers?: Record<string, string>}} [more]
 */
async function ask(method, path, authorization, { body, headers = {} } = {}) {
  let response;
  try {
    response = await fetch(`web-push/${path}`, {
      method,
      body,
      headers: { authorization, ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      cache: "no-store",
      // A refusal must not open the browser's own password prompt.
      credentials: "omit",
    });
  } catch (cause) {
    throw new Error("The server cannot be reached. Check the connection, then try again.", { cause });
  }
  return { ok: response.ok, status: response.status, json: await response.json().catch(() => null) };
}

/** Tries a secret as a token, then as the replaced server's password. @param {string} secret */
async function unlock(secret) {
  const octets = new TextEncoder().encode(`admin:${secret}`);
  const ways = [`Bearer ${secret}`, `Basic ${btoa(String.fromCharCode(...octets))}`];
  // A header can carry visible ASCII only.
  if (!/^[\x21-\x7e]+$/.test(secret)) ways.shift();
  let answer;
  for (const way of ways) {
    answer = await ask("GET", "stats", way);
    if (answer.ok) {
      keep(way);
      return answer.json;
    }
    if (answer.status !== 401) break;
  }
  const why = answer.status === 401 ? "The server refused this token." : answer.json?.detail;
  throw new Error(why ?? `The server answered with status ${answer.status}.`);
}

function keep(way) {
  credentials = way;
  try {
    if (way === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, way);
  } catch {
    // Kept in memory then.
  }
}

function lock() {
  keep(null);
  show(null);
}

/** @param {any} stats The answer of `/stats`; null while locked. */
function show(stats) {
  byId("operator").hidden = stats !== null;
  byId("operator-stats").hidden = byId("operator-lock").hidden = stats === null;
  if (stats === null) return;
  const { subscriptions, ledger, gates } = stats;
  const number = (value) => value.toLocaleString();
  byId("stats-live").textContent = number(subscriptions.live);
  byId("stats-depth").textContent = number(ledger.depth);
  byId("stats-lost").textContent = number(subscriptions.stale + subscriptions.retired);
  byId("stats-gates").textContent = number(gates.length);
  byId("stats-paused").replaceChildren(
    ...gates.map(({ origin, until, reason }) => {
      const text = `${reason}, until ${new Date(until).toLocaleTimeString()}`;
      return element("li", {}, element("div", {}, element("strong", {}, origin), " ", element("span", {}, text)));
    }),
  );
}

/** Shows statistics, now and every few seconds while the page is visible. */
export async function refreshStats() {
  const used = credentials;
  if (used === null) return;
  try {
    const stats = await authorized("GET", "stats");
    // Skipped if it was locked in between.
    if (credentials === used) show(stats);
  } catch {
    // Locked by a 401. The page's head shows an unreachable server.
  }
}

onSubmit("operator", async (form) => {
  show(await unlock(String(form.get("token")).trim()));
  byId("operator").reset();
  byId("notify-title").focus();
  return "Unlocked for this tab.";
});

byId("operator-lock").addEventListener("click", () => {
  lock();
  byId("operator-token").focus();
  say("Locked.");
});

setInterval(() => {
  if (!document.hidden) refreshStats();
}, EVERY);
refreshStats();
