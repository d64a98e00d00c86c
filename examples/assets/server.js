// The server's state in the page's head.
import { byId } from "./dom.js";

const EVERY = 15_000;
/** The time limit of a request, in milliseconds. */
const LIMIT = 10_000;
const TEXTS = { on: "Server ready", error: "Server not ready", off: "Server unreachable" };

/** Polls `/ready`, now and every few seconds while the page is visible. */
export async function watch() {
  if (!document.hidden) await look();
  setTimeout(watch, EVERY);
}

async function look() {
  const pill = byId("server");
  let state = "off";
  let version = "";
  const options = /** @type {RequestInit} */ ({ cache: "no-store", signal: AbortSignal.timeout?.(LIMIT) });
  try {
    const ready = await fetch("web-push/ready", options);
    state = ready.ok ? "on" : "error";
    const { contact } = await ready.json();
    // Servers that do not report it have one.
    byId("no-contact").hidden = contact !== false;
    const ping = await (await fetch("web-push/ping", options)).text();
    version = / version (\S+) /.exec(ping)?.[1] ?? "";
  } catch {
    // The pill shows it.
  }
  const text = version ? `${TEXTS[state]} · ${version}` : TEXTS[state];
  pill.dataset.state = state;
  if (pill.textContent !== text) pill.textContent = text;
}

addEventListener("online", look);
addEventListener("offline", look);
