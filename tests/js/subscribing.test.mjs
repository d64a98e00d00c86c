// client.js: subscribing with its messages for users, and unsubscribing.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Browser, MOUNT } from "./support/browser.mjs";
import { problem } from "./support/server.mjs";

/** Returns the error of a call. */
async function failure(promise) {
  const error = await promise.then(
    () => assert.fail("it did not fail"),
    (error) => error,
  );
  assert.equal(error.name, "WebPushError", error.stack);
  return error;
}

test("subscribing registers the worker in the mount's own scope and posts the browser's JSON", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  const { id, created, subscription } = await client.subscribe({ tags: ["news"] });
  assert.deepEqual([id, created, subscription.endpoint], ["id1", true, "https://push.example/1"]);
  assert.deepEqual(
    browser.registrations.map(({ scope, script }) => [scope, script]),
    [[MOUNT, `${MOUNT}service-worker.js`]],
  );
  assert.deepEqual(browser.server.posted("subscribe"), [
    {
      endpoint: "https://push.example/1",
      expirationTime: null,
      keys: { p256dh: "p1", auth: "auth1" },
      applicationServerKey: browser.server.key,
      tags: ["news"],
    },
  ]);
  const again = await client.subscribe();
  assert.deepEqual([again.id, again.created, browser.made], ["id1", false, 1]);
});

test("a daily time is posted unchanged", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  const notifyTime = { hour: 6, minute: 30, zone: "Asia/Kathmandu", weekdays: ["mon"] };
  await client.subscribe({ notifyTime, notifyType: "DIRECT_NOTIFICATION", message: "Good morning" });
  const [posted] = browser.server.posted("subscribe");
  assert.deepEqual(posted.notifyTime, notifyTime);
  assert.equal(posted.notifyType, "DIRECT_NOTIFICATION");
  assert.equal(posted.message, "Good morning");
});

test("an application's own worker is subscribed instead, and the crate's is not registered", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  const other = await (await browser.tab()).client.register();
  browser.registrations = [];
  const own = { ...other, scope: "https://app.example/" };
  await client.subscribe({ registration: own });
  assert.deepEqual(browser.registrations, []);
  assert.deepEqual([...browser.database.records.keys()], ["https://app.example/"]);
  assert.equal((await client.state({ registration: own })).subscription.endpoint, "https://push.example/1");
});

test("a worker of a scope around the mount is not used", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  browser.registrations.push({ scope: "https://app.example/", pushManager: null });
  assert.equal((await client.state()).subscription, null);
});

test("the state is returned without a prompt or a registration", async () => {
  const browser = new Browser();
  browser.permission = "default";
  const { client } = await browser.tab();
  const state = await client.state();
  assert.deepEqual({ ...state }, { supported: true, why: null, permission: "default", subscription: null });
  assert.deepEqual([browser.registrations.length, browser.server.requests.length], [0, 0]);
  browser.permission = "denied";
  const blocked = await client.state();
  assert.equal(blocked.supported, true);
  assert.equal(blocked.why.code, "permission_denied");
});

for (const [what, code, words, setting] of [
  ["a page by http", "insecure", /https/, { globals: { isSecureContext: false } }],
  ["a private window", "no_service_worker", /private/, { navigator: { serviceWorker: undefined } }],
  ["a browser without push", "unsupported", /browser cannot/, { globals: { PushManager: undefined } }],
  ["Safari in a tab on iOS", "needs_home_screen", /Home Screen/, { globals: { PushManager: undefined }, navigator: { standalone: false } }],
  [
    "another browser on iOS",
    "needs_home_screen",
    /Home Screen/,
    { globals: { PushManager: undefined }, navigator: { userAgent: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) CriOS/130.0" } },
  ],
  [
    "an old iOS, from the Home Screen",
    "unsupported",
    /browser cannot/,
    { globals: { PushManager: undefined }, navigator: { standalone: true, userAgent: "Mozilla/5.0 (iPhone; CPU iPhone OS 15_0)" } },
  ],
  [
    "an iPad, which calls itself a Mac",
    "needs_home_screen",
    /Home Screen/,
    { globals: { PushManager: undefined }, navigator: { userAgent: "Mozilla/5.0 (Macintosh)", maxTouchPoints: 5 } },
  ],
]) {
  test(`${what} has the code ${code}`, async () => {
    const browser = new Browser();
    const { client } = await browser.tab(setting);
    const error = await failure(client.subscribe());
    assert.equal(error.code, code);
    assert.match(error.message, words);
    const state = await client.state();
    assert.deepEqual([state.supported, state.why.code], [false, code]);
    assert.equal(await client.renew(), null);
    await client.unsubscribe().catch(() => assert.fail("leaving is always possible"));
  });
}

test("a refused permission says where to allow it, and a dismissed prompt that it can be repeated", async () => {
  for (const [answer, code, words] of [
    ["denied", "permission_denied", /blocked.*settings/],
    ["default", "permission_dismissed", /Try again/],
  ]) {
    const browser = new Browser();
    browser.permission = "default";
    browser.answerToPrompt = answer;
    const { client } = await browser.tab();
    const error = await failure(client.subscribe());
    assert.equal(error.code, code);
    assert.match(error.message, words);
    assert.equal(browser.registrations.length, 0);
  }
});

test("failures of the push service and of the worker have different codes", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  browser.pushFails = "AbortError";
  const failed = await failure(client.subscribe());
  assert.equal(failed.code, "push_service_failed");
  assert.equal(failed.cause.name, "AbortError");
  browser.pushFails = "NotAllowedError";
  assert.equal((await failure(client.subscribe())).code, "permission_denied");
  const broken = await browser.tab({
    navigator: { serviceWorker: { register: async () => Promise.reject(new TypeError("404")) } },
  });
  assert.equal((await failure(broken.client.subscribe())).code, "worker_failed");
  const refused = await browser.tab({
    navigator: { serviceWorker: { getRegistration: async () => Promise.reject(new DOMException("", "SecurityError")) } },
  });
  assert.equal((await failure(refused.client.state())).code, "worker_failed", "where the browser stores nothing for the site");
});

test("the server's refusal keeps its message, its status and its problem, and leaves nothing behind", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  browser.server.intercept = (path) => (path === "subscribe" ? problem(422, "tags_not_public", "The tag is not public") : undefined);
  const error = await failure(client.subscribe({ tags: ["staff"] }));
  assert.deepEqual([error.code, error.status, error.problem.code, error.message], ["refused", 422, "tags_not_public", "The tag is not public"]);
  assert.equal(browser.subscription, null, "the next visit would subscribe without the tag");
  browser.server.intercept = (path) => (path === "subscribe" ? new Response("<h1>", { status: 502 }) : undefined);
  assert.match((await failure(client.subscribe())).message, /502/);
  assert.notEqual(browser.subscription, null, "a server that is down for a moment costs nothing");
});

test("a refusal keeps its message if the browser fails too, and the next visit removes the subscription", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  let real;
  browser.server.intercept = (path) => {
    if (path !== "subscribe") return undefined;
    real = browser.subscription.unsubscribe;
    browser.subscription.unsubscribe = async () => Promise.reject(new DOMException("", "AbortError"));
    return problem(422, "tags_not_public");
  };
  assert.equal((await failure(client.subscribe({ tags: ["staff"] }))).problem.code, "tags_not_public");
  browser.subscription.unsubscribe = real;
  browser.server.intercept = () => undefined;
  browser.server.requests = [];
  assert.equal(await client.renew(), null);
  assert.deepEqual([browser.subscription, browser.server.requests], [null, []]);
});

test("a busy server changes nothing", async () => {
  for (const status of [408, 429]) {
    const browser = new Browser();
    const { client } = await browser.tab();
    browser.server.intercept = (path) => (path === "subscribe" ? problem(status, "later") : undefined);
    assert.equal((await failure(client.subscribe())).status, status);
    assert.notEqual(browser.subscription, null);
  }
});

test("a refused option does not end an existing subscription", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  await client.subscribe();
  browser.server.intercept = (path) => (path === "subscribe" ? problem(422, "tags_not_public") : undefined);
  await failure(client.subscribe({ tags: ["staff"] }));
  assert.equal(browser.subscription.endpoint, "https://push.example/1");
  // Nor one that the server has and this browser's database does not.
  browser.database.records.clear();
  await failure(client.subscribe({ tags: ["staff"] }));
  assert.equal(browser.subscription.endpoint, "https://push.example/1");
});

test("an unreachable server is reported, and the next visit completes the call", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  browser.server.intercept = (path) => {
    if (path === "subscribe") throw new TypeError("no connection");
  };
  const error = await failure(client.subscribe());
  assert.equal(error.code, "offline");
  assert.match(error.message, /cannot be reached/);
  const torn = new ReadableStream({ start: (controller) => controller.error(new TypeError("terminated")) });
  browser.server.intercept = (path) => (path === "subscribe" ? new Response(torn) : undefined);
  assert.equal((await failure(client.subscribe())).code, "offline", "an answer that breaks off is none");
  browser.server.intercept = () => undefined;
  const { client: next } = await browser.tab();
  assert.equal((await next.renew()).id, "id1");
  assert.equal(browser.made, 1);
});

test("unsubscribing calls the server first, and can be repeated", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  await client.subscribe();
  browser.server.intercept = () => problem(503, "store_unavailable");
  assert.equal((await failure(client.unsubscribe())).status, 503);
  assert.notEqual(browser.subscription, null);
  browser.server.intercept = () => undefined;
  await client.unsubscribe();
  assert.equal(browser.subscription, null);
  assert.equal(browser.server.rows.size, 0);
  assert.equal(browser.database.records.size, 0);
  await client.unsubscribe();
});

test("removing one type keeps the subscription", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  await client.subscribe();
  await client.unsubscribe({ notifyType: "DAILY_CHECK" });
  assert.deepEqual(browser.server.posted("unsubscribe"), [{ endpoint: "https://push.example/1", notifyType: "DAILY_CHECK" }]);
  assert.notEqual(browser.subscription, null);
});

test("a subscription that the browser fails to end is ended at the next visit, and not made again", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  await client.subscribe();
  const { subscription } = browser;
  const real = subscription.unsubscribe;
  subscription.unsubscribe = async () => Promise.reject(new DOMException("", "AbortError"));
  assert.equal((await failure(client.unsubscribe())).code, "push_service_failed");
  subscription.unsubscribe = real;
  const { client: next } = await browser.tab();
  assert.equal(await next.renew(), null);
  assert.equal(browser.subscription, null);
  assert.equal(browser.server.rows.size, 0);
  assert.equal((await next.subscribe()).created, true);
});

test("a user who returns before the browser ended it gets a new subscription", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  await client.subscribe();
  browser.subscription.unsubscribe = async () => Promise.reject(new DOMException("", "AbortError"));
  await assert.rejects(client.unsubscribe());
  browser.server.requests = [];
  assert.equal((await client.subscribe()).created, true);
  assert.deepEqual([browser.server.posted("subscribe").length, browser.server.posted("renew").length], [1, 0]);
  assert.equal(browser.database.records.get(MOUNT).ended, undefined);
});

test("a test is sent with the subscription's secrets, and not without a subscription", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  assert.equal((await failure(client.sendTest())).code, "not_subscribed");
  await client.subscribe();
  assert.equal((await client.sendTest({ title: "Hi" })).success, true);
  assert.deepEqual(browser.server.posted("send-test"), [
    { endpoint: "https://push.example/1", keys: { p256dh: "p1", auth: "auth1" }, title: "Hi" },
  ]);
});

test("a token of the application is sent with every request, and a new one is asked for each time", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  let made = 0;
  client.useToken(async () => `a.b.${++made}`);
  await client.subscribe();
  await client.unsubscribe();
  const sent = browser.server.requests.map(({ authorization }) => authorization);
  assert.ok(sent.length >= 3);
  assert.deepEqual(sent, sent.map((_, number) => `Bearer a.b.${number + 1}`));
  client.useToken(null);
  await client.subscribe();
  assert.equal(browser.server.requests.at(-1).authorization, undefined);
});

test("nothing is posted without a token that cannot be got", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  client.useToken(() => Promise.reject(new Error("signed out")));
  const error = await failure(client.subscribe());
  assert.deepEqual([error.code, error.cause.message], ["no_token", "signed out"]);
  assert.equal(browser.server.requests.length, 0);
});

test("who has signed out can switch notifications off", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  client.useToken(() => "a.b.c");
  await client.subscribe();
  browser.server.requests = [];
  for (const source of [() => Promise.reject(new Error("signed out")), () => { throw new Error("signed out"); }]) {
    client.useToken(source);
    assert.equal((await failure(client.renew())).code, "no_token");
    assert.equal((await failure(client.sendTest())).code, "no_token");
    assert.equal(browser.server.requests.length, 0);
  }
  await client.unsubscribe();
  assert.deepEqual(
    browser.server.requests.map(({ path, authorization }) => [path, authorization]),
    [["unsubscribe", undefined]],
  );
  assert.deepEqual([browser.server.rows.size, browser.subscription], [0, null]);
});

test("who has a token that is over, or none, can switch notifications off", async () => {
  for (const token of ["over", "", undefined]) {
    const browser = new Browser();
    const { client } = await browser.tab();
    await client.subscribe();
    browser.server.requests = [];
    browser.server.intercept = () => browser.server.requests.at(-1).authorization && problem(401, "invalid_token");
    client.useToken(() => token);
    assert.ok(["refused", "no_token"].includes((await failure(client.sendTest())).code));
    browser.server.requests = [];
    await client.unsubscribe();
    const sent = browser.server.requests.map(({ path, authorization }) => [path, authorization]);
    const without = ["unsubscribe", undefined];
    assert.deepEqual(sent, token ? [["unsubscribe", "Bearer over"], without] : [without]);
    assert.deepEqual([browser.server.rows.size, browser.subscription], [0, null]);
  }
});
