// client.js: new keys, lost answers, concurrent tabs. No tags are lost.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Browser, MOUNT } from "./support/browser.mjs";
import { problem } from "./support/server.mjs";

/** A visitor with a tag: the start of every test. */
async function visitor(prepare = () => {}) {
  const browser = new Browser();
  prepare(browser);
  const { client } = await browser.tab();
  const { id } = await client.subscribe({ tags: ["news"] });
  browser.server.requests = [];
  return { browser, server: browser.server, client, id };
}

/** Asserts that the server has one row for the browser's subscription, with its active key, the id and the tag. */
function kept({ browser, server, id }) {
  const { endpoint, key } = browser.subscription;
  assert.deepEqual(Object.fromEntries(server.rows), {
    [endpoint]: { id, auth: browser.subscription.toJSON().keys.auth, key: server.key, tags: ["news"] },
  });
  assert.equal(key, server.key);
  assert.equal(browser.database.records.get(MOUNT).endpoint, endpoint);
}

/** Breaks the connection on one route: before the request is processed, or after it. */
function broken(server, path, { after = false } = {}) {
  const cut = (asked) => {
    if (asked === path) throw new TypeError("no connection");
  };
  server[after ? "lose" : "intercept"] = cut;
}

/** A second takes a millisecond, so that time limits are short; but not those up to `kept`. */
const hurriedAbove = (kept) => ({
  globals: { setTimeout: (work, limit) => setTimeout(work, limit > kept ? limit / 1000 : limit) },
});
/** Storage keeps its limit of five seconds, since it answers. */
const hurried = hurriedAbove(5_000);

function mended(server) {
  server.intercept = () => undefined;
  server.lose = () => {};
}

test("each visit posts the subscription, and changes nothing", async () => {
  const world = await visitor();
  for (let visit = 0; visit < 3; visit++) {
    const { client } = await world.browser.tab();
    const { id, created } = await client.renew();
    assert.deepEqual([id, created], [world.id, false]);
  }
  assert.equal(world.server.posted("subscribe").length, 3);
  assert.equal(world.browser.made, 1);
  assert.equal(world.browser.registrations[0].updates, 3, "and looks for a new worker");
  kept(world);
});

test("a visit shows no prompt, and sends no request if notifications are off", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  for (browser.permission of ["default", "denied", "granted"]) assert.equal(await client.renew(), null);
  assert.deepEqual([browser.server.requests.length, browser.registrations.length], [0, 0]);
});

test("a new key of the server is followed at a visit", async () => {
  const world = await visitor();
  world.server.rotate();
  await world.client.renew();
  assert.deepEqual(
    world.server.posted("renew").map(({ oldEndpoint, oldAuth }) => [oldEndpoint, oldAuth]),
    [["https://push.example/1", "auth1"]],
  );
  kept(world);
});

test("a key that changes while the browser is subscribed shows as staleKey, and is followed at once", async () => {
  const world = await visitor();
  let asked = 0;
  world.server.intercept = (path) => {
    if (path === "subscribe" && asked++ === 0) world.server.rotate();
  };
  await world.client.renew();
  kept(world);
});

test("a visit costs one request when nothing changed", async () => {
  const world = await visitor();
  await world.client.renew();
  assert.deepEqual(
    world.server.requests.map(({ path }) => path),
    ["subscribe"],
  );
});

test("replicas with different keys cause no exchange", async () => {
  const world = await visitor();
  const old = world.server.key;
  world.server.rotate();
  world.server.intercept = (path) => (path === "vapid" ? Response.json({ vapidKey: old }) : undefined);
  assert.equal((await world.client.renew()).id, world.id);
  assert.equal(world.browser.made, 1);
  world.server.intercept = () => undefined;
  await world.client.renew();
  kept(world);
});

test("a subscription that no key fits is exchanged by a browser that does not report its key", async () => {
  const world = await visitor((browser) => (browser.tellsKey = false));
  for (const row of world.server.rows.values()) row.isStale = true;
  await world.client.renew();
  kept(world);
  assert.equal(world.browser.made, 2);
});

test("a browser that does not report its key learns it from the server", async () => {
  const world = await visitor((browser) => (browser.tellsKey = false));
  await world.client.renew();
  assert.equal(world.server.posted("subscribe")[0].applicationServerKey, undefined, "we do not know it either");
  assert.equal(world.browser.made, 1);
  world.server.rotate();
  await world.client.renew();
  kept(world);
});

for (const [when, after] of [
  ["before the server hears of it", false],
  ["after the server obeyed", true],
]) {
  test(`a renewal that fails ${when} is made up for at the next visit`, async () => {
    const world = await visitor();
    world.server.rotate();
    broken(world.server, "renew", { after });
    await assert.rejects(world.client.subscribe(), { code: "offline" });
    assert.equal(world.browser.subscription.endpoint, "https://push.example/2");
    mended(world.server);
    const { client } = await world.browser.tab();
    await client.renew();
    kept(world);
  });

  test(`a renewal that fails ${when} and meets another new key is made up for first`, async () => {
    const world = await visitor();
    world.server.rotate(2);
    broken(world.server, "renew", { after });
    await assert.rejects(world.client.subscribe());
    mended(world.server);
    world.server.rotate(3);
    const { client } = await world.browser.tab();
    await client.subscribe();
    kept(world);
  });
}

test("an unconfirmed subscription is confirmed before it is exchanged", async () => {
  const world = await visitor();
  world.server.rotate(2);
  broken(world.server, "renew", { after: true });
  await assert.rejects(world.client.subscribe());
  // The server has the second one, which the client does not know.
  mended(world.server);
  world.server.rotate(3);
  broken(world.server, "renew");
  await assert.rejects(world.client.subscribe(), { code: "offline" });
  assert.equal(world.browser.subscription.endpoint, "https://push.example/2");
  mended(world.server);
  await world.client.renew();
  kept(world);
});

test("a subscription that the server refuses for good does not stop the next one", async () => {
  const world = await visitor();
  world.server.rotate(2);
  broken(world.server, "renew");
  await assert.rejects(world.client.subscribe());
  world.server.rotate(3);
  // The key in between was removed: no row used it.
  world.server.intercept = (path, body) =>
    path === "renew" && body.subscription.endpoint.endsWith("/2") ? problem(409, "unknown_vapid_key") : undefined;
  await world.client.subscribe();
  kept(world);
});

test("a server that lost its keys and kept its rows accepts the proof under a new key", async () => {
  const world = await visitor();
  world.browser.database.records.clear();
  world.server.rotate();
  world.server.intercept = (path, body) =>
    path === "subscribe" && body.endpoint.endsWith("/1") ? problem(409, "unknown_vapid_key") : undefined;
  await world.client.renew();
  kept(world);
});

test("after a refusal a visitor does not subscribe again at each visit", async () => {
  const world = await visitor();
  world.browser.loseSubscription();
  world.server.intercept = (path) => (path === "renew" ? problem(403, "cross_site") : undefined);
  for (let visit = 0; visit < 3; visit++) await assert.rejects(world.client.renew(), { status: 403 });
  assert.equal(world.browser.made, 2);
  world.server.intercept = () => undefined;
  await world.client.renew();
  kept(world);
});

test("a push service that fails after the old subscription ended is tried again at the next visit", async () => {
  const world = await visitor();
  world.server.rotate();
  world.browser.pushFails = "AbortError";
  await assert.rejects(world.client.renew(), { code: "push_service_failed" });
  assert.equal(world.browser.subscription, null);
  world.browser.pushFails = null;
  const { client } = await world.browser.tab();
  await client.renew();
  kept(world);
});

test("a lost subscription is replaced with id, tags and schedules", async () => {
  const world = await visitor();
  world.browser.loseSubscription();
  await world.client.renew();
  kept(world);
});

test("an unregistered worker is registered again", async () => {
  const world = await visitor();
  world.browser.loseSubscription();
  world.browser.registrations = [];
  await world.client.renew();
  assert.equal(world.browser.registrations[0].scope, MOUNT);
  kept(world);
});

test("an expired subscription is exchanged", async () => {
  const world = await visitor();
  world.browser.subscription.expirationTime = Date.now() - 1;
  await world.client.renew();
  assert.equal(world.browser.made, 2);
  kept(world);
});

test("resubscribing exchanges a valid subscription", async () => {
  const world = await visitor();
  assert.equal((await world.client.resubscribe()).id, world.id);
  assert.equal(world.browser.made, 2);
  kept(world);
});

test("unsubscribing while a renewal is unconfirmed removes both", async () => {
  const world = await visitor();
  world.server.rotate();
  broken(world.server, "renew");
  await assert.rejects(world.client.subscribe());
  mended(world.server);
  await world.client.unsubscribe();
  assert.equal(world.server.rows.size, 0);
  assert.deepEqual(
    world.server.posted("unsubscribe").map(({ endpoint }) => endpoint),
    ["https://push.example/1", "https://push.example/2"],
  );
});

test("many tabs at once make one subscription and one renewal, in turn", async () => {
  const world = await visitor();
  world.server.rotate();
  const tabs = await Promise.all(Array.from({ length: 8 }, () => world.browser.tab()));
  const ids = await Promise.all(tabs.map(({ client }) => client.renew()));
  assert.deepEqual(new Set(ids.map(({ id }) => id)), new Set([world.id]));
  assert.equal(world.browser.locks.most, 1);
  assert.equal(world.browser.made, 2);
  assert.equal(world.server.posted("renew").length, 1);
  kept(world);
});

test("a page and the worker make one renewal together", async () => {
  const world = await visitor();
  const worker = world.browser.worker();
  const oldSubscription = world.browser.loseSubscription();
  await Promise.all([
    worker.dispatch("pushsubscriptionchange", { oldSubscription, newSubscription: null }),
    world.client.renew(),
  ]);
  assert.equal(world.browser.made, 2);
  assert.equal(world.server.posted("renew").length, 1);
  assert.equal(world.browser.locks.most, 1);
  kept(world);
});

test("without Web Locks the calls of one page still run one after the other", async () => {
  const browser = new Browser();
  const { client } = await browser.tab({ navigator: { locks: undefined } });
  let underWay = 0;
  browser.server.intercept = (path) => {
    if (path === "vapid") assert.equal(++underWay, 1);
    if (path === "subscribe") underWay--;
  };
  const all = await Promise.all([client.subscribe(), client.subscribe(), client.subscribe()]);
  assert.deepEqual(
    all.map(({ id }) => id),
    ["id1", "id1", "id1"],
  );
});

test("a failed call does not block the next one", async () => {
  const browser = new Browser();
  const { client } = await browser.tab({ navigator: { locks: undefined } });
  broken(browser.server, "vapid");
  await assert.rejects(client.subscribe());
  mended(browser.server);
  await client.subscribe();
});

test("without storage it works, and nothing is lost within the visit", async () => {
  const world = await visitor((browser) => (browser.database.fails = true));
  world.server.rotate();
  broken(world.server, "renew");
  await assert.rejects(world.client.subscribe());
  mended(world.server);
  await world.client.renew();
  assert.deepEqual([...world.server.rows.values()].map(({ id, tags }) => [id, tags]), [[world.id, ["news"]]]);
  await world.client.unsubscribe();
  assert.equal(await world.client.renew(), null);
  assert.equal(world.server.rows.size, 0);
});

test("a write without a commit does not count as stored", async () => {
  const world = await visitor();
  world.browser.database.isFull = true;
  world.server.rotate();
  await world.client.renew();
  world.server.requests = [];
  await world.client.renew();
  assert.deepEqual([world.server.posted("renew").length, world.server.posted("subscribe").length], [0, 1]);
});

test("a storage that works again is used again", async () => {
  const world = await visitor((browser) => (browser.database.fails = true));
  world.browser.database.fails = false;
  world.server.rotate();
  await world.client.renew();
  world.server.requests = [];
  await world.client.renew();
  assert.deepEqual([world.server.posted("renew").length, world.server.posted("subscribe").length], [0, 1]);
  kept(world);
});

test("a call that a browser does not answer in its first seconds is repeated", async () => {
  const world = await visitor();
  world.browser.hangs = 1;
  const { client } = await world.browser.tab(hurried);
  assert.equal((await client.renew()).id, world.id);
  world.browser.hangs = 2;
  await assert.rejects(client.state(), { code: "push_service_failed" });
});

test("a browser that never ends a subscription does not block other calls", async () => {
  const world = await visitor();
  world.server.rotate();
  const { subscription } = world.browser;
  const real = subscription.unsubscribe;
  subscription.unsubscribe = () => new Promise(() => {});
  const { client } = await world.browser.tab(hurried);
  await assert.rejects(client.renew(), { code: "push_service_failed" });
  subscription.unsubscribe = real;
  await world.client.renew();
  kept(world);
});

test("a write that exceeds its time limit is stored all the same", { timeout: 60_000 }, async () => {
  const world = await visitor();
  world.server.rotate();
  world.browser.database.delay = 100;
  const { client } = await world.browser.tab(hurriedAbove(0));
  await client.renew();
  const { endpoint } = world.browser.subscription;
  assert.equal(endpoint, "https://push.example/2");
  while (world.browser.database.records.get(MOUNT).endpoint !== endpoint) await new Promise(setImmediate);
});
