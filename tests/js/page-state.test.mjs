// The examples' page: it shows the current state, also after changes elsewhere.
import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "./support/module.mjs";

/** The parts of a page that its scripts use: an element for each id. */
function page() {
  const elements = new Map();
  const element = () => ({
    hidden: false,
    dataset: {},
    textContent: "",
    addEventListener() {},
    focus() {},
    replaceChildren() {},
    querySelector: element,
  });
  const byId = (id) => elements.get(id) ?? elements.set(id, element()).get(id);
  return { byId, element };
}

const A = { endpoint: "https://push.example/1", toJSON: () => ({}) };
const B = { endpoint: "https://push.example/2", toJSON: () => ({}) };

/** This browser and its card. `now` is the browser's state, `renewed` the result of a visit. */
async function browser({ now, why = null, permission = "granted", renewed = null, after = now }) {
  const { byId } = page();
  const said = [];
  const cleared = [];
  const world = { now, permission, byId, said, cleared, clicks: new Map() };
  const client = {
    state: async () => ({ supported: true, why, permission: world.permission, subscription: world.now }),
    renew: async () => {
      if (world.fails) throw world.fails;
      world.now = after;
      return renewed;
    },
    subscribe: async () => {
      if (world.fails) throw world.fails;
      return { id: "id1", created: false, subscription: (world.now ??= A) };
    },
    unsubscribe: async () => void (world.now = null),
    sendTest() {},
  };
  const listeners = {};
  const afterEach = new Set();
  const status = {
    afterEach,
    onClick: (id, action) => world.clicks.set(id, action),
    onCopy() {},
    say: (text) => said.push(text),
    async showAll() {
      for (const work of afterEach) await work();
    },
  };
  const module = await load("browser.js", {
    globals: {
      navigator: {},
      document: { hidden: false, addEventListener: (type, listener) => (listeners[type] = listener) },
    },
    imports: {
      "./web-push/client.js": client,
      "./scheduled.js": { scheduled: { clear: () => cleared.push(true) } },
      "./status.js": status,
    },
  });
  const card = await load("browser-card.js", {
    globals: { URL, btoa },
    imports: { "./web-push/client.js": client, "./browser.js": { ...module }, "./dom.js": { byId }, "./status.js": status },
  });
  const { self, isSubscribed, enrol } = module;
  return Object.assign(world, { listeners, afterEach, self, isSubscribed, enrol, visit: card.open });
}

test("schedules are kept while the subscription is restored", async () => {
  const world = await browser({ now: null, after: B, renewed: { id: "id1", created: false, subscription: B } });
  await world.visit();
  assert.deepEqual(world.cleared, []);
  assert.equal(world.self(), "id1");
  assert.deepEqual(world.said, ["Notifications are on."]);
});

test("schedules are kept while the permission is not granted", async () => {
  const world = await browser({ now: null, permission: "default" });
  await world.visit();
  assert.deepEqual(world.cleared, []);
});

test("schedules are dropped with the subscription, and if it is new on the server", async () => {
  const left = await browser({ now: A, after: null });
  await left.visit();
  assert.equal(left.cleared.length, 1);
  assert.deepEqual(left.said, ["Notifications are off."], "the visit ended what was left of it");
  const unknown = await browser({ now: A, renewed: { id: "id2", created: true, subscription: A } });
  await unknown.visit();
  assert.equal(unknown.cleared.length, 1);
  const leaving = await browser({ now: A, renewed: { id: "id1", created: false, subscription: A } });
  await leaving.visit();
  await leaving.clicks.get("disable")();
  assert.equal(leaving.cleared.length, 1);
});

test("changes of another tab show when this one becomes visible", async () => {
  const world = await browser({ now: A, renewed: { id: "id1", created: false, subscription: A } });
  await world.visit();
  const seen = async () => {
    world.listeners.visibilitychange();
    await new Promise(setImmediate);
  };
  world.now = null;
  await seen();
  assert.equal(world.byId("browser-state").textContent, "Off");
  assert.throws(world.self);
  world.now = B;
  await seen();
  assert.equal(world.byId("browser-state").textContent, "On");
  assert.throws(world.self, "whose id it is not");
  await world.enrol();
  assert.equal(world.self(), "id1");
});

test("a subscription that the server has not confirmed is not shown as on, and can be repeated", async () => {
  const world = await browser({ now: A });
  const offline = Object.assign(new Error("The server cannot be reached."), { code: "offline" });
  world.fails = offline;
  await world.visit();
  const state = () => ["browser-state", "browser-text"].map((id) => world.byId(id).textContent);
  const hidden = () => ["enable", "test", "disable"].map((id) => world.byId(id).hidden);
  assert.deepEqual(world.said, ["The server cannot be reached."]);
  assert.equal(state()[0], "Not registered yet");
  assert.match(state()[1], /has not confirmed/);
  assert.deepEqual(hidden(), [false, true, false]);
  await assert.rejects(world.clicks.get("enable")(), offline);
  for (const work of world.afterEach) await work();
  assert.deepEqual(hidden(), [false, true, false]);
  world.fails = null;
  await world.clicks.get("enable")();
  for (const work of world.afterEach) await work();
  assert.equal(state()[0], "On");
  assert.deepEqual(hidden(), [true, false, false]);

  // What it was told before stays true.
  world.fails = offline;
  await world.visit();
  assert.equal(state()[0], "On");
});

test("the state of this browser is not shown before it is known", async () => {
  const world = await browser({ now: null });
  assert.equal(world.isSubscribed(), null);
  await world.visit();
  assert.equal(world.isSubscribed(), false);
  await world.enrol();
  assert.equal(world.isSubscribed(), true);
  const blocked = await browser({ now: null, why: new Error("blocked") });
  await blocked.visit();
  assert.deepEqual(blocked.said, ["blocked"]);
  assert.equal(blocked.byId("browser-text").textContent, "blocked");
  assert.equal(blocked.isSubscribed(), false);
});

test("changes of another tab reach the whole page", async () => {
  const world = await browser({ now: A, renewed: { id: "id1", created: false, subscription: A } });
  await world.visit();
  const heard = [];
  world.afterEach.add(async () => heard.push(world.isSubscribed()));
  world.now = null;
  world.listeners.visibilitychange();
  await new Promise(setImmediate);
  assert.deepEqual(heard, [false]);
});

/** The page's head after a poll of `ready`, which has this status and these members. */
async function head(status, members) {
  const { byId } = page();
  byId("no-contact").hidden = true;
  const answers = { "web-push/ready": () => Response.json(members, { status }), "web-push/ping": () => new Response("pong") };
  const { watch } = await load("server.js", {
    globals: {
      document: { hidden: false },
      AbortSignal,
      addEventListener() {},
      setTimeout() {},
      fetch: async (/** @type {string} */ path) => answers[path](),
    },
    imports: { "./dom.js": { byId } },
  });
  await watch();
  return { state: byId("server").dataset.state, isWarned: !byId("no-contact").hidden };
}

test("a server without a contact is shown to send nothing", async () => {
  assert.deepEqual(await head(503, { ready: false, contact: false }), { state: "error", isWarned: true });
});

test("a server that does not report its contact has one", async () => {
  assert.deepEqual(await head(200, { ready: true, contact: true }), { state: "on", isWarned: false });
  assert.deepEqual(await head(200, { ready: true }), { state: "on", isWarned: false });
  assert.deepEqual(await head(503, { ready: false, store: false }), { state: "error", isWarned: false });
});
