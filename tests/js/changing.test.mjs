// service-worker.js: the subscription ends while no page is open.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Browser, MOUNT } from "./support/browser.mjs";
import { problem } from "./support/server.mjs";

const OFFLINE = () => {
  throw new TypeError("no connection");
};

/** A visitor with a tag, whose subscription then ends. With `told` false the event has no old subscription. */
async function lost({ told = false, prepare = () => {} } = {}) {
  const browser = new Browser();
  const { client } = await browser.tab();
  const { id } = await client.subscribe({ tags: ["news"] });
  browser.server.requests = [];
  prepare(browser);
  const worker = browser.worker();
  const old = browser.loseSubscription();
  const changed = (more) => worker.dispatch("pushsubscriptionchange", { oldSubscription: told ? old : null, newSubscription: null, ...more });
  return { browser, server: browser.server, worker, client, id, old, changed };
}

function kept({ browser, server, id }) {
  const { endpoint, key } = browser.subscription;
  assert.deepEqual(Object.fromEntries(server.rows), {
    [endpoint]: { id, auth: browser.subscription.toJSON().keys.auth, key, tags: ["news"] },
  });
  assert.equal(browser.database.records.get(MOUNT).endpoint, endpoint);
}

test("the worker subscribes again with proof of the old one, which the event lacks", async () => {
  const world = await lost();
  await world.changed();
  assert.equal(world.browser.subscription.endpoint, "https://push.example/2");
  const [{ oldEndpoint, oldAuth, subscription }] = world.server.posted("renew");
  assert.deepEqual([oldEndpoint, oldAuth], ["https://push.example/1", "auth1"]);
  assert.equal(subscription.applicationServerKey, world.server.key);
  kept(world);
});

test("an event without members is enough", async () => {
  const world = await lost();
  await world.worker.dispatch("pushsubscriptionchange");
  kept(world);
});

test("a subscription that the browser made is used", async () => {
  const world = await lost();
  const newSubscription = await world.worker.dispatch("pushsubscriptionchange").then(() => world.browser.subscription);
  world.server.requests = [];
  await world.changed({ newSubscription });
  assert.deepEqual(world.server.requests, [], "nothing is left to tell");
});

test("the stored record comes before the event: the server may not have the latter", async () => {
  const world = await lost({ told: true });
  world.old.endpoint = "https://push.example/never-told";
  await world.changed();
  assert.equal(world.server.posted("renew")[0].oldEndpoint, "https://push.example/1");
  kept(world);
});

test("without a stored record the event is the proof", async () => {
  const world = await lost({ told: true, prepare: ({ database }) => database.records.clear() });
  await world.changed();
  kept(world);
});

test("without a record and an old subscription the new one is posted all the same", async () => {
  const world = await lost({ prepare: ({ database }) => database.records.clear() });
  await world.changed();
  const [{ oldEndpoint }] = world.server.posted("renew");
  assert.equal(oldEndpoint, null);
  assert.ok(world.server.rows.has("https://push.example/2"));
  assert.equal(world.browser.database.records.get(MOUNT).endpoint, "https://push.example/2");
});

test("without storage the event is still the proof", async () => {
  const world = await lost({ told: true, prepare: ({ database }) => (database.fails = true) });
  await world.changed();
  assert.deepEqual([...world.server.rows].map(([endpoint, { id, tags }]) => [endpoint, id, tags]), [
    ["https://push.example/2", world.id, ["news"]],
  ]);
});

for (const [what, intercept] of [
  ["is out of reach", (path) => path === "renew" && OFFLINE()],
  ["is down", (path) => (path === "renew" ? problem(503, "store_unavailable") : undefined)],
]) {
  test(`a server that ${what} gets the subscription once the network is back`, async () => {
    const world = await lost();
    world.server.intercept = (path) => intercept(path) || undefined;
    await assert.rejects(world.changed());
    assert.deepEqual(world.worker.synced, ["tower-web-push:renew"]);
    assert.equal(world.browser.database.records.get(MOUNT).endpoint, "https://push.example/1", "the proof is kept");
    world.server.intercept = () => undefined;
    await world.worker.dispatch("sync", { tag: "another's" });
    assert.equal(world.server.rows.has("https://push.example/2"), false);
    await world.worker.dispatch("sync", { tag: "tower-web-push:renew" });
    kept(world);
  });
}

test("a failed renewal is completed at the next visit", async () => {
  const world = await lost();
  world.server.intercept = (path) => path === "renew" && OFFLINE();
  await assert.rejects(world.changed());
  world.server.intercept = () => undefined;
  await world.client.renew();
  kept(world);
});

test("a failed renewal is completed at the next push", async () => {
  const world = await lost();
  world.server.intercept = (path) => (path === "renew" ? problem(503, "store_unavailable") : undefined);
  await assert.rejects(world.changed());
  world.server.intercept = () => undefined;
  await world.worker.push(JSON.stringify({ title: "From somebody who knew" }));
  kept(world);
});

test("without a connection the old key makes the new subscription, which is posted later", async () => {
  const world = await lost({ told: true });
  world.server.intercept = OFFLINE;
  await assert.rejects(world.changed());
  assert.equal(world.browser.subscription.endpoint, "https://push.example/2");
  world.server.intercept = () => undefined;
  await world.worker.dispatch("sync", { tag: "tower-web-push:renew" });
  kept(world);
});

test("the event is stored until the server can be reached", async () => {
  const world = await lost({ told: true, prepare: ({ database }) => database.records.clear() });
  world.server.intercept = OFFLINE;
  await assert.rejects(world.changed());
  world.server.intercept = () => undefined;
  await world.client.renew();
  kept(world);
});

test("an existing subscription under an old key is kept and posted", async () => {
  const world = await lost();
  await world.changed();
  world.server.rotate();
  world.server.requests = [];
  world.browser.database.records.set(MOUNT, { endpoint: "https://push.example/1", auth: "auth1" });
  await world.changed();
  assert.equal(world.browser.made, 2);
  assert.equal(world.server.posted("renew").length, 1);
});

test("a user who has unsubscribed is not subscribed again", async () => {
  const world = await lost();
  world.browser.database.records.set(MOUNT, { endpoint: null, ended: true });
  await world.changed();
  assert.equal(world.browser.subscription, null);
  const browser = new Browser();
  await (await browser.tab()).client.subscribe();
  browser.database.records.set(MOUNT, { endpoint: null, ended: true });
  browser.server.requests = [];
  await browser.worker().push("A message that was on its way");
  assert.deepEqual([...world.server.requests, ...browser.server.requests], []);
});

test("a revoked permission fails and the record is kept", async () => {
  const world = await lost();
  world.browser.pushFails = "NotAllowedError";
  await assert.rejects(world.changed());
  assert.equal(world.browser.database.records.get(MOUNT).endpoint, "https://push.example/1");
  assert.deepEqual(world.server.posted("renew"), []);
});

test("a push posts nothing if nothing changed, or while a page renews", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  await client.subscribe();
  const worker = browser.worker();
  browser.server.requests = [];
  await worker.push("text");
  assert.deepEqual(browser.server.requests, []);
  browser.database.records.set(MOUNT, { endpoint: "https://push.example/0", auth: "auth0" });
  let done;
  const page = browser.locks.request(`tower-web-push:${MOUNT}`, () => new Promise((resolve) => (done = resolve)));
  await worker.push("text");
  assert.deepEqual(browser.server.requests, [], "and the push did not wait either");
  done();
  await page;
});

test("a subscription of a page without the client is stored, so that a new one can replace it", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  await client.subscribe();
  browser.database.records.clear();
  const worker = browser.worker();
  await worker.push("text");
  assert.deepEqual(browser.database.records.get(MOUNT), { endpoint: "https://push.example/1", auth: "auth1" });
});

test("a worker that imports the file uses the given mount", async () => {
  for (const mount of ["/web-push/", "/web-push", "https://app.example/web-push"]) {
    const browser = new Browser();
    const worker = browser.worker({ scope: "https://app.example/", script: "https://app.example/sw.js", settings: { mount } });
    await worker.dispatch("pushsubscriptionchange");
    assert.deepEqual(
      browser.server.requests.map(({ path }) => path),
      ["vapid", "renew"],
    );
    assert.equal(browser.database.records.has("https://app.example/"), true);
  }
});
