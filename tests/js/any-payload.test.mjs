// service-worker.js: any payload at all. `PAYLOADS=200000 PAYLOAD_SEED=7 node --experimental-vm-modules --test
// tests/js/any-payload.test.mjs` reads more of them, and others.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Browser } from "./support/browser.mjs";

const PAYLOADS = Number(process.env.PAYLOADS ?? 1_500);
const SEED = Number(process.env.PAYLOAD_SEED ?? 8030);
/** A new browser after this number of payloads. */
const EACH = 50;

/** Numbers from 0 below 1 (mulberry32). */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let bits = Math.imul(seed ^ (seed >>> 15), seed | 1);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), bits | 61)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

const NAMES = [
  ..."title body message icon image badge tag renotify requireInteraction silent vibrate timestamp dir lang".split(" "),
  ..."url navigate data actions web_push notification app_badge".split(" "),
  ..."__proto__ constructor toString then length from".split(" "),
];
const LEAVES = [
  ..."null true false 0 -1 0.5 3 8030 1e999 -1e308 9007199254740993".split(" "),
  ...["", " ", "\u0000", "\ud800", "x", "x".repeat(3_000), "rtl", "5", "000", "\u202etxt"].map((text) => JSON.stringify(text)),
  ...["https://shop.example/7", "/orders/7", "//evil.example/", "javascript:alert(1)", "data:text/html,x"].map((text) => JSON.stringify(text)),
  ...["file:///etc/passwd", "http:", "https://[", "JaVaScRiPt:1", "\tjavascript:1", "blob:https://app.example/1"].map((text) => JSON.stringify(text)),
];

const TEXTS = LEAVES.filter((leaf) => leaf.startsWith('"'));

/** The values that a member is for. */
function fitting(name) {
  if (["renotify", "requireInteraction", "silent"].includes(name)) return ["true", "false"];
  if (["timestamp", "app_badge"].includes(name)) return ["1700000000000", "0", "7"];
  return name === "vibrate" ? ["[200,100]", "5"] : TEXTS;
}

/** Returns JSON: mostly an object with the members that a worker reads. */
function json(next, depth = 0) {
  const pick = (list) => list[Math.floor(next() * list.length)];
  const some = (most) => Array.from({ length: Math.floor(next() * (most + 1)) });
  const kind = depth === 0 ? 0 : next();
  if (depth > 4 || kind > 0.5) return pick(LEAVES);
  if (kind > 0.35) return `[${some(4).map(() => json(next, depth + 1))}]`;
  if (kind > 0.25) {
    const member = (name) => `"${name}":${next() < 0.7 ? JSON.stringify(pick(["a", "b", "", "__proto__", "constructor"])) : json(next, depth + 1)}`;
    return `[${some(3).map(() => `{${["action", "title", "icon", "navigate", "url"].filter(() => next() < 0.8).map(member)}}`)}]`;
  }
  const members = some(depth === 0 ? 16 : 6).map(() => pick(NAMES));
  return `{${members.map((name) => `"${name}":${next() < 0.4 ? pick(fitting(name)) : json(next, depth + 1)}`)}}`;
}

/** Returns the text of a payload: JSON, JSON with a few changed characters, or any characters. */
function payload(next) {
  const character = () => String.fromCodePoint(Math.floor(next() ** 3 * 0xd7ff));
  const kind = next();
  if (kind < 0.02) return null;
  if (kind < 0.07) return Array.from({ length: Math.floor(next() * 40) }, character).join("");
  const text = json(next);
  if (kind < 0.75) return text;
  const characters = [...text];
  for (let changes = 0; changes < 3; changes++) {
    const at = Math.floor(next() * characters.length);
    characters.splice(at, next() < 0.5 ? 1 : 0, next() < 0.5 ? character() : '{}[]",:\\'[Math.floor(next() * 8)]);
  }
  return characters.join("");
}

/** Whether a browser would throw a type error: Notifications API, "create a notification". */
function refuses(title, options) {
  // An undefined member is an absent one.
  const is = (type, name) => options[name] === undefined || typeof options[name] === type;
  return !(
    typeof title === "string" &&
    (!("dir" in options) || ["auto", "ltr", "rtl"].includes(options.dir)) &&
    !(options.silent && "vibrate" in options) &&
    !(options.renotify && !options.tag) &&
    ["body", "lang", "tag", "icon", "image", "badge"].every((name) => is("string", name)) &&
    (options.actions ?? []).every(({ action, title }) => typeof action === "string" && typeof title === "string")
  );
}

/** The title by a second reading of the payload. */
function titleOf(text) {
  let value = null;
  try {
    value = JSON.parse(text ?? "");
  } catch {
    // Shown as text.
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  const declared = isObject && value.web_push === 8030 ? Object(value.notification ?? {}) : {};
  const title = isObject ? (declared.title ?? value.title) : null;
  return typeof title === "string" && title.trim() !== "" ? title : "app.example";
}

const isWeb = (address) => address === null || /^https?:\/\//.test(address);

test("of any payload exactly one notification is shown, and no click leaves the web", async () => {
  const next = random(SEED);
  let worker, browser, fallbacks = 0, options = 0;
  for (let number = 0; number < PAYLOADS; number++) {
    if (number % EACH === 0) {
      browser = new Browser();
      await browser.tab();
      worker = browser.worker();
      worker.refuses = (title, given) => refuses(title, given) && ++fallbacks > 0;
    }
    const text = payload(next);
    const told = `seed ${SEED}, payload ${number}: ${text}`;
    const before = worker.shown.length;
    await assert.doesNotReject(worker.push(text), told);
    assert.equal(worker.shown.length, before + 1, told);
    const shown = worker.shown.at(-1);
    assert.equal(shown.title, titleOf(text), told);
    options += Object.keys(shown.options).length;
    const { data } = shown.options;
    assert.equal(data.from, "tower-web-push", told);
    assert.ok([data.url, ...Object.values(data.actions)].every(isWeb), told);
    for (const action of ["", "constructor", "__proto__", ...Object.keys(data.actions)]) {
      const clicked = await worker.click(action);
      assert.ok(clicked.closed, told);
    }
    assert.ok(browser.opened.every(isWeb), told);
    browser.opened.length = 0;
  }
  // The generator reaches what it is for: most notifications have options, and some are refused with them.
  assert.ok(options > 2 * PAYLOADS, `${options} options`);
  assert.ok(fallbacks > PAYLOADS / 100, `${fallbacks} fallbacks`);
});
