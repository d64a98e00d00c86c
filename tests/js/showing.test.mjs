// service-worker.js: the notification of each push.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Browser, MOUNT } from "./support/browser.mjs";

const DEFAULT = "You have a new notification.";

/** Returns the notification of a payload. */
async function shown(payload, { worker = new Browser().worker(), event } = {}) {
  await worker.push(typeof payload === "string" || payload === null ? payload : JSON.stringify(payload), event);
  assert.equal(worker.shown.length, 1, "exactly one notification");
  return worker.shown[0];
}

test("a flat message is shown with every option, and keeps its data", async () => {
  const options = {
    body: "Order 7",
    icon: "/icon.png",
    image: "https://app.example/van.jpg",
    badge: "/badge.png",
    tag: "order-7",
    renotify: true,
    requireInteraction: true,
    silent: false,
    vibrate: [200, 100, 200],
    timestamp: 1_700_000_000_000,
    dir: "rtl",
    lang: "he",
  };
  const actions = [
    { action: "track", title: "Track", icon: "/track.png", navigate: "/track/7" },
    { action: "hide", title: "Hide" },
  ];
  const { title, options: given } = await shown({ title: "Shipped ✓", url: "/orders/7", data: { order: 7 }, actions, ...options });
  assert.equal(title, "Shipped ✓");
  assert.deepEqual(given, {
    ...options,
    actions: [
      { action: "track", title: "Track", icon: "/track.png" },
      { action: "hide", title: "Hide", icon: undefined },
    ],
    data: {
      from: "tower-web-push",
      url: `https://app.example/orders/7`,
      actions: { track: "https://app.example/track/7", hide: null },
      data: { order: 7 },
    },
  });
});

test("the declarative part comes before the flat members around it", async () => {
  const notification = { title: "Declared", navigate: "https://shop.example/7", body: "inside", silent: true, vibrate: 5 };
  const { title, options } = await shown({ web_push: 8030, title: "flat", body: "outside", url: "/flat", tag: "t", notification });
  assert.deepEqual([title, options.body, options.data.url, options.tag], ["Declared", "inside", "https://shop.example/7", "t"]);
  assert.equal("vibrate" in options, false, "beside silent it is a type error");
});

test("a message without the declarative mark is read as a flat one", async () => {
  for (const broken of [
    { web_push: 8031, title: "flat", notification: { title: "other" } },
    { web_push: "8030", title: "flat", notification: { title: "other" } },
    { web_push: 8030, title: "flat", notification: "text" },
    { web_push: 8030, title: "flat", notification: [{ title: "other" }] },
    { web_push: 8030, title: "flat" },
  ]) {
    assert.equal((await shown(broken)).title, "flat", JSON.stringify(broken));
  }
});

test("a declarative message that the browser has parsed is shown too", async () => {
  const worker = new Browser().worker();
  const notification = { title: "Taken apart", body: "by the browser", navigate: "https://app.example/x" };
  const { title, options } = await shown(null, { worker, event: { notification, appBadge: 3 } });
  assert.deepEqual([title, options.body, options.data.url], ["Taken apart", "by the browser", "https://app.example/x"]);
  assert.equal(worker.badge, 3);
});

test("what the declarative part lacks comes from the flat members, also if the browser has parsed it", async () => {
  const worker = new Browser().worker();
  const payload = {
    web_push: 8030, title: "flat", body: "outside", tag: "order-7", icon: "/flat.svg", requireInteraction: true, lang: "de",
    actions: [{ action: "track", title: "Track" }],
    notification: { title: "Declared", navigate: "https://app.example/x", lang: "", icon: null },
  };
  const notification = {
    title: "Declared", navigate: "https://app.example/x", body: "", tag: "", icon: "", badge: "", lang: "", dir: "auto", data: null,
    silent: null, renotify: false, requireInteraction: false, actions: [],
  };
  for (const event of [{}, { notification }]) {
    const { title, options } = await shown(payload, { worker, event });
    worker.shown.length = 0;
    assert.deepEqual([title, options.body, options.tag, options.icon], ["Declared", "outside", "order-7", "/flat.svg"]);
    assert.deepEqual([options.requireInteraction, options.lang, options.actions.length], [true, "", 1]);
    assert.equal(options.data.url, "https://app.example/x");
  }
});

test("the replaced servers' payloads are shown: `message` is the text", async () => {
  const { title, options } = await shown({ title: "DAILY_CHECK", message: "Look at your tasks" });
  assert.deepEqual([title, options.body], ["DAILY_CHECK", "Look at your tasks"]);
  const both = await shown({ title: "x", body: null, url: null, message: "m" });
  assert.deepEqual([both.options.body, both.options.data.url], ["m", null]);
});

for (const [what, payload, body] of [
  ["no data, or none that is UTF-8", null, DEFAULT],
  ["an empty text", "", DEFAULT],
  ["blanks", " \n", DEFAULT],
  ["plain text", "Coffee is ready", "Coffee is ready"],
  ["half a JSON document", '{"title": "Sh', '{"title": "Sh'],
  ["a JSON string", '"Coffee"', "Coffee"],
  ["an empty JSON string", '""', DEFAULT],
  ["a JSON array", "[1, 2]", "[1, 2]"],
  ["a JSON number", "42", "42"],
  ["a JSON null", "null", "null"],
  ["octets that are no text", "\uFFFD\u0000\uFFFD", "\uFFFD\u0000\uFFFD"],
]) {
  test(`${what}: something is shown`, async () => {
    const { title, options } = await shown(payload);
    assert.equal(title, "app.example", "the host stands where a title is missing");
    assert.equal(options.body, body);
  });
}

test("data that cannot be read shows something", async () => {
  const worker = new Browser().worker();
  const data = {
    text() {
      throw new TypeError("not UTF-8");
    },
  };
  await worker.dispatch("push", { data });
  assert.equal(worker.shown[0].options.body, DEFAULT);
});

test("members of a wrong type are ignored, and the rest is shown", async () => {
  const { title, options } = await shown({
    title: { not: "text" },
    body: 7,
    icon: [],
    tag: 1,
    silent: "yes",
    timestamp: "now",
    vibrate: "long",
    requireInteraction: 1,
    url: 8,
    actions: "none",
    data: 0,
  });
  assert.equal(title, "app.example");
  assert.deepEqual(options, { data: { from: "tower-web-push", url: null, actions: {}, data: 0 } });
  const actions = [null, 7, {}, { action: "a" }, { title: "b" }, { action: 1, title: "c" }, { action: "d", title: "D" }];
  const some = await shown({ title: "x", actions });
  assert.deepEqual(
    some.options.actions.map(({ action }) => action),
    ["d"],
  );
  assert.equal("renotify" in (await shown({ title: "x", renotify: true })).options, false, "without a tag it is a type error");
  assert.equal((await shown({ title: "  " })).title, "app.example");
});

test("a notification that the browser refuses is shown without its options", async () => {
  const worker = new Browser().worker();
  worker.refuses = (_, options) => "image" in options;
  const { title, options } = await shown({ title: "Picture", body: "text", image: "https://app.example/broken", url: "/x" }, { worker });
  assert.equal(title, "Picture");
  assert.deepEqual(Object.keys(options), ["body", "data"]);
  assert.equal(options.data.url, "https://app.example/x");
});

test("an application's texts are the defaults", async () => {
  const settings = { title: "Shop", body: "Something is new" };
  const { title, options } = await shown(null, { worker: new Browser().worker({ settings }) });
  assert.deepEqual([title, options.body], ["Shop", "Something is new"]);
});

test("the badge is a number, a mark, or cleared; anything else changes nothing", async () => {
  for (const [appBadge, badge] of [
    [7, 7],
    ["12", 12],
    [true, "mark"],
    [0, "clear"],
    ["0", "clear"],
    [false, "clear"],
    [-1, undefined],
    [1.5, undefined],
    ["many", undefined],
    [{}, undefined],
    [null, undefined],
  ]) {
    const worker = new Browser().worker();
    await worker.push(JSON.stringify({ title: "x", app_badge: appBadge }));
    assert.equal(worker.badge, badge, JSON.stringify(appBadge));
  }
  const worker = new Browser().worker();
  const notification = { title: "x", navigate: "https://app.example/", app_badge: 4 };
  await worker.push(JSON.stringify({ web_push: 8030, title: "x", notification }));
  assert.equal(worker.badge, 4, "where WebKit reads it");
});

test("a browser without badges, locks, storage or network still shows the message", async () => {
  const browser = new Browser();
  browser.database.fails = true;
  browser.server.intercept = () => {
    throw new TypeError("no connection");
  };
  const worker = browser.worker({ navigator: { locks: undefined, setAppBadge: undefined, clearAppBadge: undefined } });
  await worker.push(JSON.stringify({ title: "Still", app_badge: 1 }));
  assert.equal(worker.shown[0].title, "Still");
});

test("open pages get the push, and `onPush` calls its listener until it is stopped", async () => {
  const browser = new Browser();
  const { client, page } = await browser.tab();
  const arrivals = [];
  const end = client.onPush((arrival) => arrivals.push({ ...arrival }));
  const worker = browser.worker();
  const before = Date.now();
  await worker.push(JSON.stringify({ title: "One", body: "text" }));
  end();
  await worker.push(JSON.stringify({ title: "Two" }));
  assert.equal(page.messages.length, 2);
  assert.equal(arrivals.length, 1);
  const [{ title, options, at }] = arrivals;
  assert.deepEqual([title, options.body], ["One", "text"]);
  assert.ok(at >= before && at <= Date.now());
});

test("imported by another worker it only adds listeners, and earlier listeners can stop events", async () => {
  const seen = [];
  const worker = new Browser().worker({
    scope: "https://app.example/",
    script: "https://app.example/sw.js",
    settings: { mount: "/web-push/" },
    around: (self) => {
      self.addEventListener("push", (event) => {
        const ours = event.data?.text() === "ours";
        seen.push(ours);
        if (ours) event.stopImmediatePropagation();
      });
      self.addEventListener("notificationclick", () => seen.push("click"));
      for (const taken of ["skipWaiting", "importScripts"]) {
        self[taken] = () => assert.fail(`${taken} is the application's`);
      }
      self.clients.claim = () => assert.fail("claim is the application's");
    },
  });
  assert.deepEqual(worker.listens.sort(), [
    "notificationclick",
    "push",
    "pushsubscriptionchange",
    "sync",
  ]);
  assert.deepEqual(worker.added, [], "no global is added");
  await worker.push("ours");
  assert.equal(worker.shown.length, 0);
  await worker.push(JSON.stringify({ title: "theirs", url: "orders/7" }));
  assert.equal(worker.shown[0].options.data.url, "https://app.example/orders/7");
  const notification = await worker.click("", { from: "somebody else", url: "https://app.example/" });
  assert.equal(notification.closed, false);
  assert.deepEqual(seen, [true, false, "click"]);
});

test("addresses are relative to the mount's scope", async () => {
  assert.equal((await shown({ title: "x", url: "orders" })).options.data.url, `${MOUNT}orders`);
});
