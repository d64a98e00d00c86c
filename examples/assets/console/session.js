// The operator's secret and the requests that carry it. It is kept for this tab, and sent to this server only.
import { keyed } from "../stored.js";

const KEY = keyed("operator");
/** The time limit of a request, in milliseconds. */
const LIMIT = 30_000;
/** The characters of tokens as they are generated: hexadecimal digits, base64 and base64url. */
const TOKEN = /^[\w+/=-]+$/;
export const NOT_THE_SERVER = "What answered for the server is not the server. Look at the proxy in front of it.";

/** The Authorization header's value. @type {string | null} */
let credentials = null;
try {
  credentials = sessionStorage.getItem(KEY);
} catch {
  // Kept in memory then.
}

/** What the server's clock is ahead of this browser's, in milliseconds; null until it has answered. @type {number | null} */
let ahead = null;

/** Called when the console was unlocked or locked. @type {Set<() => void>} */
export const onLock = new Set();

export const isUnlocked = () => credentials !== null;

/** What the server's clock is ahead of this browser's, in milliseconds, up to a second wrong; null while not known. */
export const clockAhead = () => ahead;

/** The server's time, in milliseconds since 1970. */
export const serverNow = () => Date.now() + (ahead ?? 0);

/**
 * Sends a request with the operator's credentials. Returns the answer's JSON, or throws the server's message.
 *
 * @param {"GET" | "POST" | "PATCH" | "DELETE"} method
 * @param {string} path
 * @param {{body?: string, headers?: Record<string, string>}} [more]
 */
export async function authorized(method, path, more) {
  const response = await answered(method, path, more);
  try {
    return await response.json();
  } catch (cause) {
    if (Object(cause).name !== "SyntaxError") throw cause;
    // A sign-in page, for example.
    throw new Error(NOT_THE_SERVER, { cause });
  }
}

/** Returns an answer as a file. @param {string} path */
export async function file(path) {
  const response = await answered("GET", path, {}, null);
  try {
    return await response.blob();
  } catch (cause) {
    throw new Error("The file was cut off: try again.", { cause });
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{body?: string, headers?: Record<string, string>}} [more]
 * @param {number | null} [limit]
 */
async function answered(method, path, more, limit) {
  const used = credentials;
  if (used === null) throw new Error("Unlock with the admin token first.");
  const response = await ask(method, path, used, more, limit);
  if (response.ok) return response;
  // The credentials may have changed in between.
  if (response.status === 401 && credentials === used) lock();
  throw await refusal(response);
}

/** @param {Response} response */
async function refusal(response) {
  const problem = await response.json().catch(() => null);
  const text = problem?.detail ?? problem?.message ?? `The server answered with status ${response.status}.`;
  return Object.assign(new Error(text), { status: response.status, code: problem?.code });
}

/**
 * @param {string} method
 * @param {string} path
 * @param {string} authorization
 * @param {{body?: string, headers?: Record<string, string>}} [more]
 * @param {number | null} [limit] In milliseconds.
 */
async function ask(method, path, authorization, { body, headers = {} } = {}, limit = LIMIT) {
  let response;
  try {
    response = await fetch(`web-push/${path}`, {
      method,
      body,
      headers: { authorization, ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      cache: "no-store",
      // A refusal must not open the browser's own password prompt.
      credentials: "omit",
      signal: limit === null ? undefined : AbortSignal.timeout?.(limit),
    });
  } catch (cause) {
    const text = cause?.name === "TimeoutError" ? "The server did not answer in time." : "The server cannot be reached.";
    throw new Error(`${text} Check the connection, then try again.`, { cause });
  }
  // In whole seconds: on average half a second later.
  const date = Date.parse(response.headers.get("date") ?? "");
  if (!Number.isNaN(date)) ahead = date + 500 - Date.now();
  return response;
}

/**
 * Tries a secret as a token and as the replaced server's password. What it looks like is tried first, since the server's log tells
 * of each refusal.
 *
 * @param {string} secret
 */
export async function unlock(secret) {
  const octets = new TextEncoder().encode(`admin:${secret}`);
  const ways = [`Bearer ${secret}`, `Basic ${btoa(String.fromCharCode(...octets))}`];
  // A header can carry visible ASCII only.
  if (!/^[\x21-\x7e]+$/.test(secret)) ways.shift();
  else if (!TOKEN.test(secret)) ways.reverse();
  let why;
  for (const way of ways) {
    const response = await ask("GET", "stats", way);
    if (response.ok) return keep(way);
    why = response;
    if (response.status !== 401) break;
  }
  if (why?.status === 401) throw new Error("The server refused this token.");
  throw await refusal(/** @type {Response} */ (why));
}

export function lock() {
  keep(null);
}

/** @param {string | null} way */
function keep(way) {
  credentials = way;
  try {
    if (way === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, way);
  } catch {
    // Kept in memory then.
  }
  for (const changed of onLock) changed();
}
