// The examples' page: a message to many needs a confirmation with their number.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { ASSETS, load } from "./support/module.mjs";

/** The elements that the scripts use, by id, with their listeners. */
function page() {
  const elements = new Map();
  const element = () => {
    const listeners = {};
    return {
      hidden: false,
      dataset: {},
      textContent: "",
      children: [],
      elements: {},
      focused: 0,
      listeners,
      addEventListener: (type, listener) => (listeners[type] = listener),
      focus() {
        this.focused++;
      },
      closest: () => null,
      setAttribute() {},
      querySelector: element,
      querySelectorAll: () => [],
    };
  };
  const byId = (/** @type {string} */ id) => elements.get(id) ?? elements.set(id, element()).get(id);
  return { byId, element };
}

/** The confirmation and its dialog, which a test answers. */
async function confirming() {
  const { byId } = page();
  const dialog = byId("confirm");
  dialog.opened = 0;
  dialog.showModal = () => void dialog.opened++;
  dialog.close = (/** @type {string | undefined} */ value) => {
    if (value !== undefined) dialog.returnValue = value;
    dialog.listeners.close();
  };
  const module = await load("confirm.js", { globals: { Date, Set }, imports: { "./dom.js": { byId } } });
  return { byId, dialog, ...module };
}

const { question } = await confirming();

test("the question has the number, and says whether it is exact", () => {
  for (const [audience, live, name, number] of [
    [undefined, 1200, "everyone", `about ${(1200).toLocaleString()} browsers`],
    ["all", 1, "everyone", "about 1 browser"],
    ["all", 0, "everyone", "about 0 browsers"],
    [{ tag: "news" }, 1200, "the tag “news”", `at most ${(1200).toLocaleString()} browsers`],
    [{ user: "alice" }, 7, "the user “alice”", "at most 7 browsers"],
    [{ ids: ["a", "b", "a"] }, 1200, "these ids", "at most 2 browsers"],
    [{ ids: ["a"] }, 1200, "these ids", "at most 1 browser"],
  ]) {
    const asked = question({ audience, title: "Hello" }, live);
    assert.deepEqual([asked.heading, asked.button], [`Send to ${name}: ${number}?`, `Send to ${number}`]);
    assert.equal(asked.title, "Hello");
    assert.doesNotMatch(asked.text, /of that time/);
  }
});

test("the question for a later message says that the audience is that of its time", () => {
  const sendAt = "2026-11-23T08:00:00.000Z";
  const { text, title } = question({ audience: "all", sendAt }, 3);
  assert.ok(text.includes(new Date(sendAt).toLocaleString()) && text.includes("of that time"), text);
  assert.equal(title, "Custom JSON payload");
});

test("only the button confirms, each time", async () => {
  const { confirmed, byId, dialog } = await confirming();
  const asked = { heading: "Send to everyone: about 2 browsers?", title: "<b>Hello</b>", text: "Final.", button: "Send to about 2 browsers" };
  for (const [answer, wanted] of [
    [() => byId("confirm-send").listeners.click(), true],
    // The Escape key closes it without a value.
    [() => dialog.close(), false],
    [() => byId("confirm-cancel").listeners.click(), false],
  ]) {
    const answered = confirmed(asked);
    answer();
    assert.equal(await answered, wanted);
  }
  assert.equal(dialog.opened, 3);
  const shown = ["heading", "title", "text", "send"].map((part) => byId(`confirm-${part}`).textContent);
  assert.deepEqual(shown, Object.values(asked));
});

/** The form with `fields`, whose question is answered with `yes`. */
async function composing({ fields = {}, yes = true, id = "own-id", live = 1200, stats = undefined }) {
  const { byId, element } = page();
  const world = { byId, requests: [], asked: [], said: [], fields: { title: "Hello", audience: "all", ...fields } };
  const submits = new Map();
  const clicks = new Map();
  const afterEach = new Set();
  class Form extends FormData {
    constructor() {
      super();
      for (const [name, value] of Object.entries(world.fields)) this.set(name, value);
    }
  }
  const message = await load("message.js", { globals: { Date, crypto } });
  const { question } = await confirming();
  const self = () => {
    if (id === null) throw new Error("This browser is not subscribed.");
    return id;
  };
  await load("compose.js", {
    globals: { FormData: Form, URL, location: { href: "https://app.example/push/?q#h" }, setTimeout },
    imports: {
      "./broadcasts.js": { follow() {} },
      "./browser.js": { enrol: async () => (id = "own-id"), isSubscribed: () => id !== null, self },
      "./confirm.js": {
        confirmed: async (/** @type {any} */ question) => {
          world.asked.push(question);
          return yes;
        },
        question,
      },
      "./dom.js": { byId, element },
      "./message.js": { ...message },
      "./operator.js": {
        demandOperator() {},
        authorized: async (/** @type {string} */ method, /** @type {string} */ path, { body } = /** @type {any} */ ({})) => {
          if (path === "stats") return stats?.() ?? { subscriptions: { live } };
          world.requests.push({ method, path, body: JSON.parse(body) });
          return { broadcast: "b", recipients: 1 };
        },
      },
      "./preview.js": { preview() {} },
      "./status.js": {
        afterEach,
        onClick: (/** @type {string} */ id, /** @type {any} */ action) => clicks.set(id, action),
        onCopy() {},
        onSubmit: (/** @type {string} */ id, /** @type {any} */ action) => submits.set(id, action),
        say: (/** @type {string} */ text) => world.said.push(text),
      },
    },
  });
  const shown = async () => {
    for (const work of afterEach) await work();
    return !byId("notify-unsubscribed").hidden;
  };
  const form = byId("notify");
  form.querySelector = (/** @type {string} */ selector) => byId(selector);
  return Object.assign(world, { clicks, shown, send: () => submits.get("notify")(new Form()) });
}

test("a message to others is sent only after a confirmation", async () => {
  for (const fields of [{ audience: "all" }, { audience: "tag", audienceTag: "news" }, { audience: "user", user: "alice" }, { audience: "ids", ids: "a b" }]) {
    const no = await composing({ fields, yes: false });
    await no.send();
    assert.deepEqual([no.asked.length, no.requests, no.said], [1, [], ["Not sent."]], fields.audience);
    const yes = await composing({ fields });
    await yes.send();
    assert.equal(yes.asked.length, 1);
    assert.equal(yes.asked[0].title, "Hello");
    assert.deepEqual(yes.requests.map(({ path }) => path), ["notify"]);
  }
});

test("without a number nothing is asked or sent", async () => {
  const world = await composing({
    stats: () => {
      throw new Error("The server cannot be reached.");
    },
  });
  await assert.rejects(world.send(), { message: "The server cannot be reached." });
  assert.deepEqual([world.asked, world.requests], [[], []]);
});

test("the confirmed message is sent, even if the form has changed", async () => {
  const world = await composing({ fields: { audience: "tag", audienceTag: "news" } });
  const sending = world.send();
  world.fields = { title: "Other", audience: "all" };
  await sending;
  assert.deepEqual(world.requests[0].body, { title: "Hello", audience: { tag: "news" } });
});

test("a message to this browser needs no confirmation, and goes to no other", async () => {
  const on = await composing({ fields: { audience: "self" } });
  await on.send();
  assert.deepEqual(on.asked, []);
  assert.deepEqual(on.requests[0].body, { title: "Hello", audience: { ids: ["own-id"] } });
  const off = await composing({ fields: { audience: "self" }, id: null });
  assert.equal(await off.shown(), true);
  await assert.rejects(off.send(), { message: "This browser is not subscribed." });
  assert.deepEqual([off.asked, off.requests], [[], []]);
  assert.equal(off.byId("notify-enable").focused, 1);
  await off.clicks.get("notify-enable")();
  assert.equal(await off.shown(), false);
  await off.send();
  assert.deepEqual(off.requests[0].body.audience, { ids: ["own-id"] });
});

test("an empty form sends nothing, and shows what is missing", async () => {
  for (const [fields, words] of [[{ title: " " }, /Enter a title/], [{ kind: "payload", payload: "" }, /Enter a payload/]]) {
    const world = await composing({ fields });
    await assert.rejects(world.send(), words);
    assert.deepEqual([world.asked, world.requests], [[], []]);
  }
});

test("only a complete request can be copied, with the address of the page", async () => {
  const lacking = await composing({ fields: { title: "" } });
  assert.equal(lacking.byId("request-copy").hidden, true);
  const whole = await composing({});
  const pre = (whole.byId("request").querySelector = () => whole.byId("pre"));
  await whole.shown();
  assert.equal(whole.byId("request-copy").hidden, false);
  assert.match(pre().textContent, /^curl https:\/\/app\.example\/push\/web-push\/notify /);
});

test("the form begins with empty fields, and with this browser chosen", async () => {
  const html = await readFile(new URL("index.html", ASSETS), "utf8");
  const fields = [...html.matchAll(/<(?:input|textarea)[^>]*name="([^"]+)"[^>]*>(?:([^<]*)<\/textarea>)?/g)];
  assert.ok(fields.length > 30, `${fields.length} fields`);
  for (const [field, name, text = ""] of fields) {
    if (/type="(?:radio|checkbox|time)"/.test(field)) continue;
    assert.doesNotMatch(field, / value=/, name);
    assert.equal(text, "", name);
  }
  const chosen = fields.filter(([field, name]) => name === "audience" && / checked/.test(field));
  assert.equal(chosen.length, 1);
  assert.match(chosen[0][0], /value="self"/);
});
