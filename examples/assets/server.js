// Whether the server is there and ready, in the page's head.
import { byId } from "/dom.js";

const EVERY = 15_000;
const TEXTS = { on: "Server ready", error: "Server not ready", off: "Server out of reach" };

/** Looks now, and every few seconds while the page is seen. */
export async function watch() {
  if (!document.hidden) await look();
  setTimeout(watch, EVERY);
}

async function look() {
  const pill = byId("server");
  let state = "off";
  let version = "";
  try {
    const ready = await fetch("/web-push/ready", { cache: "no-store" });
    state = ready.ok ? "on" : "error";
    const ping = await (await fetch("/web-push/ping", { cache: "no-store" })).text();
    version = / version (\S+) /.exec(ping)?.[1] ?? "";
  } catch {
    // Said by the pill.
  }
  const text = version ? `${TEXTS[state]} · ${version}` : TEXTS[state];
  pill.dataset.state = state;
  if (pill.textContent !== text) pill.textContent = text;
}

addEventListener("online", look);
addEventListener("offline", look);
