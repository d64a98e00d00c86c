// client.js and service-worker.js: what they wait for, and what they give up, where a part of the browser or the
// server does not answer.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Browser, MOUNT } from "./support/browser.mjs";
import { problem } from "./support/server.mjs";

const NEVER = () => new Promise(() => {});
const turns = async (number) => {
  for (let turn = 0; turn < number; turn++) await new Promise(setImmediate);
};

/** Storage is given up after five seconds; every other limit is longer. */
const STORAGE = 5_000;

/** Where a second takes 10 ms, so that what never answers is given up soon. Storage keeps its time: it does answer. */
const hurried = {
  setTimeout: (work, limit) => setTimeout(work, limit > STORAGE ? limit / 100 : limit),
  // Node's own does not keep the process alive.
  AbortSignal: {
    timeout(limit) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(new DOMException("late", "TimeoutError")), limit / 100);
      return controller.signal;
    },
  },
};

/** What never answers must end by itself; without its limit a test would wait for ever. */
const limited = { timeout: 20_000 };

async function visitor(globals = hurried) {
  const browser = new Browser();
  const { client } = await browser.tab({ globals });
  const { id } = await client.subscribe({ tags: ["news"] });
  browser.server.requests = [];
  return { browser, server: browser.server, client, id };
}

/** Whether a promise is settled after the browser had its turns. */
async function isSettled(promise) {
  let settled = false;
  promise.then(
    () => (settled = true),
    () => (settled = true),
  );
  await turns(20);
  return settled;
}

test("a visit does nothing once the permission is taken away, whatever is remembered", async () => {
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

test("wishes go along when the subscription is exchanged at once", async () => {
  const { browser, server, client, id } = await visitor();
  const [old] = server.rows.keys();
  // The server does not know the old key any more, so the old subscription takes no wish along.
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

test("subscribing waits until the worker is active, ours or the application's", async () => {
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

test("a visit waits for the worker that it registers anew", async () => {
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

test("a worker that never starts is given up", limited, async () => {
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

test("a push service that never answers is given up", limited, async () => {
  const { browser, client } = await visitor();
  browser.loseSubscription();
  browser.registrations[0].pushManager.subscribe = NEVER;
  await assert.rejects(client.renew(), { code: "push_service_failed" });
});

test("a storage that never answers is done without", limited, async () => {
  const { browser, id } = await visitor();
  const { client } = await browser.tab({ globals: { setTimeout: (work, limit) => setTimeout(work, limit / 100) } });
  browser.database.open = () => ({});
  assert.equal((await client.renew()).id, id);
  assert.equal((await client.renew()).id, id, "also at the next visit");
});

test("a worker gives its turn up where a page never ends its own", limited, async () => {
  const { browser, server } = await visitor();
  const worker = browser.worker({ globals: hurried });
  const old = browser.loseSubscription();
  browser.locks.request(`tower-web-push:${MOUNT}`, NEVER);
  await assert.rejects(worker.dispatch("pushsubscriptionchange", { oldSubscription: old }), { name: "TimeoutError" });
  assert.deepEqual(server.requests, [], "nothing was done beside the page");
});

test("a worker gives a server up that does not answer", limited, async () => {
  for (const path of ["vapid", "renew"]) {
    const { browser, server } = await visitor();
    const worker = browser.worker({ globals: hurried });
    const old = browser.loseSubscription();
    server.intercept = (asked) => (asked === path ? NEVER() : undefined);
    const changed = worker.dispatch("pushsubscriptionchange", { oldSubscription: old });
    if (path === "renew") await assert.rejects(changed, { name: "TimeoutError" });
    else await changed; // The old subscription's key will do.
  }
});
