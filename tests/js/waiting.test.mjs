// client.js and service-worker.js: waits and time limits, if a part of the browser or the server does not answer.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Browser, MOUNT } from "./support/browser.mjs";
import { problem } from "./support/server.mjs";

const NEVER = () => new Promise(() => {});
const turns = async (number) => {
  for (let turn = 0; turn < number; turn++) await new Promise(setImmediate);
};

/** The limit of storage is five seconds; all others are longer. */
const STORAGE = 5_000;

/** A second takes 10 ms, so that time limits are short. Storage keeps its limit, since it answers. */
const hurried = {
  setTimeout: (work, limit) => setTimeout(work, limit > STORAGE ? limit / 100 : limit),
  // Node's timer does not keep the process alive.
  AbortSignal: {
    timeout(limit) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(new DOMException("late", "TimeoutError")), limit / 100);
      return controller.signal;
    },
  },
};

/** The limit of a test: without the limit under test it would wait for ever. */
const limited = { timeout: 20_000 };

async function visitor(globals = hurried) {
  const browser = new Browser();
  const { client } = await browser.tab({ globals });
  const { id } = await client.subscribe({ tags: ["news"] });
  browser.server.requests = [];
  return { browser, server: browser.server, client, id };
}

/** Whether a promise is settled after some tasks of the browser. */
async function isSettled(promise) {
  let settled = false;
  promise.then(
    () => (settled = true),
    () => (settled = true),
  );
  await turns(20);
  return settled;
}

test("a visit does nothing once the permission is revoked, with any stored record", async () => {
  const { browser, server, client } = await visitor();
  const { subscription } = browser;
  for (browser.permission of ["denied", "default"]) {
    for (browser.subscription of [subscription, null]) {
      assert.equal(await client.renew(), null);
      assert.deepEqual(server.requests, [], "the server hears nothing");
    }
  }
  assert.equal(browser.made, 1, "and nothing is subscribed");
});

test("options are kept if the subscription is exchanged at once", async () => {
  const { browser, server, client, id } = await visitor();
  const [old] = server.rows.keys();
  // The server has lost the old key, so the old subscription cannot be posted with the options.
  server.intercept = (path, body) => {
    if (path === "subscribe" && body.endpoint === old) return problem(409, "unknown_vapid_key");
  };
  server.rotate();
  const notifyTime = { utcHour: 8, minute: 30 };
  await client.subscribe({ tags: ["sports"], notifyTime, message: "Hello" });
  const row = server.rows.get(browser.subscription.endpoint);
  assert.deepEqual([row.id, row.tags], [id, ["sports"]]);
  const { subscription } = server.posted("renew").at(-1);
  assert.deepEqual([subscription.notifyTime, subscription.message], [notifyTime, "Hello"]);
});

test("registering waits until the worker is active", async () => {
  const browser = new Browser();
  browser.holdsWorker = true;
  const { client } = await browser.tab();
  const registered = client.register();
  assert.equal(await isSettled(registered), false);
  browser.activate();
  assert.equal((await registered).active.state, "activated");
});

test("subscribing waits until the worker is active, the crate's or the application's", async () => {
  for (const own of [false, true]) {
    const browser = new Browser();
    browser.holdsWorker = true;
    const { client } = await browser.tab();
    const options = {};
    if (own) {
      const registering = client.register();
      await turns(1);
      [options.registration] = browser.registrations;
      registering.catch(() => {});
    }
    const subscribed = client.subscribe(options);
    assert.equal(await isSettled(subscribed), false);
    assert.equal(browser.made, 0);
    browser.activate();
    await subscribed;
    assert.equal(browser.made, 1);
  }
});

test("a visit waits for the worker that it registers again", async () => {
  const { browser, client, id } = await visitor({});
  browser.registrations = [];
  browser.loseSubscription();
  browser.holdsWorker = true;
  const renewed = client.renew();
  assert.equal(await isSettled(renewed), false);
  browser.activate();
  assert.equal((await renewed).id, id);
});

test("a visit waits for a worker that is registered and not active yet", async () => {
  const browser = new Browser();
  browser.holdsWorker = true;
  browser.database.records.set(MOUNT, { endpoint: "https://push.example/0", auth: "auth0" });
  const { client } = await browser.tab();
  client.register().catch(() => {});
  await turns(1);
  const renewed = client.renew();
  assert.equal(await isSettled(renewed), false);
  browser.activate();
  await renewed;
  assert.equal(browser.made, 1);
});

test("a worker that never starts is an error", limited, async () => {
  const { client } = await new Browser().tab({
    globals: hurried,
    navigator: { serviceWorker: { register: NEVER, getRegistration: async () => undefined } },
  });
  await assert.rejects(client.register(), { code: "worker_failed" });
});

for (const [path, call] of [
  ["vapid", (client) => client.subscribe()],
  ["subscribe", (client) => client.renew()],
  ["unsubscribe", (client) => client.unsubscribe()],
  ["send-test", (client) => client.sendTest()],
]) {
  test(`a server that does not answer ${path} is given up, and keeps no other call waiting`, limited, async () => {
    const world = await visitor();
    if (path === "vapid") world.browser.loseSubscription();
    world.server.intercept = (asked) => (asked === path ? NEVER() : undefined);
    await assert.rejects(call(world.client), { code: "offline" });
    world.server.intercept = () => undefined;
    await call(world.client);
  });
}

test("a push service that never answers is an error", limited, async () => {
  const { browser, client } = await visitor();
  browser.loseSubscription();
  browser.registrations[0].pushManager.subscribe = NEVER;
  await assert.rejects(client.renew(), { code: "push_service_failed" });
});

test("a storage that never answers is not used", limited, async () => {
  const { browser, id } = await visitor();
  const { client } = await browser.tab({ globals: { setTimeout: (work, limit) => setTimeout(work, limit / 100) } });
  browser.database.open = () => ({});
  assert.equal((await client.renew()).id, id);
  assert.equal((await client.renew()).id, id, "also at the next visit");
});

test("a worker stops waiting for a page that never ends its call", limited, async () => {
  const { browser, server } = await visitor();
  const worker = browser.worker({ globals: hurried });
  const old = browser.loseSubscription();
  browser.locks.request(`tower-web-push:${MOUNT}`, NEVER);
  await assert.rejects(worker.dispatch("pushsubscriptionchange", { oldSubscription: old }), { name: "TimeoutError" });
  assert.deepEqual(server.requests, [], "nothing was done beside the page");
});

test("a worker stops waiting for a server that does not answer", limited, async () => {
  for (const path of ["vapid", "renew"]) {
    const { browser, server } = await visitor();
    const worker = browser.worker({ globals: hurried });
    const old = browser.loseSubscription();
    server.intercept = (asked) => (asked === path ? NEVER() : undefined);
    const changed = worker.dispatch("pushsubscriptionchange", { oldSubscription: old });
    if (path === "renew") await assert.rejects(changed, { name: "TimeoutError" });
    else await changed; // The old subscription's key is used.
  }
});
