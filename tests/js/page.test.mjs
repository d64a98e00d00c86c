// The examples' page: the requests of its form, its times, and that its parts fit together.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { ASSETS, assets, load } from "./support/module.mjs";

/** The part of `crypto` that http pages have. */
const crypto = { getRandomValues: (octets) => octets.fill(0).fill(0xab, 1) };

const { actions, freshKey, message, written } = await load("console/message.js", { globals: { Date, crypto } });

/** A form with these fields and the page's defaults. */
function form(fields = {}) {
  const data = new FormData();
  const all = { title: "Hello", audience: "all", ttlUnit: "86400", body: "", url: " ", ...fields };
  for (const [name, values] of Object.entries(all)) for (const value of [values].flat()) data.append(name, value);
  return data;
}

/** Copies a value out of the module's realm. */
const asked = (fields, self = () => "own-id") => JSON.parse(JSON.stringify(message(form(fields), self)));

test("empty fields are left to the server", () => {
  assert.deepEqual(asked(), { title: "Hello" });
});

test("every field is in the request under the server's name", () => {
  const fields = {
    body: " text ",
    url: "https://shop.example/7",
    icon: "/icon.png",
    image: "/image.png",
    badge: "/badge.png",
    tag: "order-7",
    urgency: "high",
    topic: "order-7",
    requireInteraction: "on",
    renotify: "on",
    silent: "on",
    mutable: "on",
    lang: "ar",
    dir: "rtl",
    vibrate: "200, 100 200",
    timestamp: "2026-11-22T08:00",
    app_badge: "0",
    data: '{"order": 7}',
    ttl: "2",
    ttlUnit: "3600",
    sendAt: "2026-11-23T08:00",
    perSecond: "50",
    actionTitle: ["Track", "", "Hide"],
    actionName: ["track", "lost", ""],
    actionUrl: ["/track/7", "/lost", ""],
  };
  assert.deepEqual(asked(fields), {
    title: "Hello",
    body: "text",
    url: "https://shop.example/7",
    icon: "/icon.png",
    image: "/image.png",
    badge: "/badge.png",
    tag: "order-7",
    urgency: "high",
    topic: "order-7",
    requireInteraction: true,
    renotify: true,
    silent: true,
    mutable: true,
    lang: "ar",
    dir: "rtl",
    vibrate: [200, 100, 200],
    timestamp: new Date(2026, 10, 22, 8).getTime(),
    app_badge: 0,
    actions: [
      { action: "track", title: "Track", navigate: "/track/7" },
      { action: "button-3", title: "Hide" },
    ],
    data: { order: 7 },
    ttl: 7200,
    sendAt: new Date(2026, 10, 23, 8).toISOString(),
    pace: { perSecond: 50 },
  });
});

test("a custom payload is sent as typed, without members of a notification", () => {
  const typed = '{"b": 1.0,\n "a": [ ], "b": "\\u0041"}';
  const fields = { kind: "payload", payload: ` ${typed} `, tag: "left-over", silent: "on", topic: "seven", audience: "tag", audienceTag: "news" };
  for (const indent of [undefined, 2]) {
    const text = written(form(fields), () => "own-id", { indent });
    assert.ok(text.includes(typed), text);
    assert.deepEqual(JSON.parse(text), { payload: { b: "A", a: [] }, topic: "seven", audience: { tag: "news" } });
  }
  assert.equal(written(form({ kind: "payload", payload: "7" }), () => "own-id"), '{"payload":7}');
  assert.equal(written(form(), () => "own-id"), '{"title":"Hello"}');
  const sendAt = "2026-11-23T08:00:00.000Z";
  assert.equal(written(form({ kind: "payload", payload: " 1.0 " }), () => "own-id", { sendAt }), `{"payload":1.0,"sendAt":"${sendAt}"}`);
  assert.throws(() => written(form({ kind: "payload", payload: "{" }), () => "own-id"), { field: "payload" });
  assert.throws(() => written(form({ kind: "payload" }), () => "own-id"), { field: "payload" });
});

test("a request can be repeated from an http page too", () => {
  assert.equal(freshKey(), `00${"ab".repeat(15)}`);
});

test("a vibration is whole milliseconds", () => {
  for (const vibrate of ["on, off", "1.5", "-1"]) assert.throws(() => asked({ vibrate }), { field: "vibrate" }, vibrate);
});

test("a TTL of 0 is sent, not the default", () => {
  assert.equal(asked({ ttl: "0" }).ttl, 0);
});

test("each audience is the server's", () => {
  for (const [fields, audience] of [
    [{ audience: "self" }, { ids: ["own-id"] }],
    [{ audience: "user", user: "alice" }, { user: "alice" }],
    [{ audience: "tag", audienceTag: "news" }, { tag: "news" }],
    [{ audience: "ids", ids: "a, b\n c;d" }, { ids: ["a", "b", "c", "d"] }],
  ]) {
    assert.deepEqual(asked(fields).audience, audience);
  }
});

test("an invalid field is named", () => {
  for (const [fields, field, words] of [
    [{ title: " " }, "title", /title/],
    [{ kind: "payload", payload: " " }, "payload", /payload/],
    [{ audience: "user" }, "user", /a user/],
    [{ audience: "tag", audienceTag: " " }, "audienceTag", /a tag/],
    [{ audience: "ids" }, "ids", /at least one/],
    [{ data: "{" }, "data", /not JSON/],
  ]) {
    assert.throws(() => message(form(fields)), (error) => error.field === field && words.test(error.message));
  }
  const off = () => {
    throw new Error("off");
  };
  assert.throws(() => message(form({ audience: "self" }), off), /off/);
});

test("a form without an audience is not sent to everyone", () => {
  for (const audience of [[], "", "everyone"]) {
    assert.throws(() => message(form({ audience }), () => "own-id"), { field: "audience" }, String(audience));
  }
});

test("buttons without a text are left out", () => {
  assert.equal(actions(form()).length, 0);
  assert.equal(actions(form({ actionTitle: [" "], actionName: ["x"], actionUrl: ["/x"] })).length, 0);
});

test("a daily time is posted by the visitor's clock, and in UTC if the server has no zones", async () => {
  const told = [];
  const zones = { refuse: false };
  const enrol = async ({ notifyTime }) => {
    if (zones.refuse && notifyTime.zone && notifyTime.zone !== "UTC") {
      throw Object.assign(new Error("no zones"), { problem: { code: "zones_unsupported" } });
    }
    told.push(JSON.parse(JSON.stringify(notifyTime)));
  };
  // A clock that is five hours and three quarters ahead, as in Kathmandu.
  class There extends Date {
    setHours(hour, minute) {
      this.setTime(Date.UTC(2026, 10, 23, hour, minute) - 345 * 60_000);
    }
    getDay() {
      return 1;
    }
  }
  const Intl = { DateTimeFormat: () => ({ resolvedOptions: () => ({ timeZone: "Asia/Kathmandu" }) }) };
  const daily = await load("daily.js", { globals: { Intl, Date: There }, imports: { "./browser.js": { enrol } } });
  await daily.schedule({ hour: 5, minute: 0, weekdays: ["mon"] }, "DAILY_CHECK");
  zones.refuse = true;
  await daily.schedule({ hour: 5, minute: 0, weekdays: ["mon", "sun"] }, "DAILY_CHECK");
  await daily.schedule({ hour: 6, minute: 0 }, "DAILY_CHECK");
  assert.deepEqual(told, [
    { hour: 5, minute: 0, zone: "Asia/Kathmandu", weekdays: ["mon"] },
    { hour: 23, minute: 15, zone: "UTC", weekdays: ["sun", "sat"] },
    { utcHour: 0, minute: 15 },
  ]);
});

test("the test of a daily notification is in the first minute that begins at least fifteen seconds later", async () => {
  let now = "";
  class Then extends Date {
    static now = () => Date.parse(now);
    getHours() {
      return this.getUTCHours();
    }
    getMinutes() {
      return this.getUTCMinutes();
    }
  }
  const daily = await load("daily.js", { globals: { Intl, Date: Then }, imports: { "./browser.js": { enrol() {} } } });
  for (const [time, hour, minute] of [
    ["10:00:00.000", 10, 1],
    ["10:00:45.000", 10, 1],
    ["10:00:45.001", 10, 2],
    ["10:58:59.000", 11, 0],
  ]) {
    now = `2026-11-23T${time}Z`;
    assert.deepEqual({ ...daily.minuteAhead() }, { hour, minute }, time);
  }
});

test("the subscription stays when one of its daily notifications is stopped, and is not made for that", async () => {
  for (const subscription of [{}, null]) {
    const [did, presses] = [[], []];
    const byId = () => ({ hidden: false, replaceChildren() {}, focus() {} });
    await load("daily-form.js", {
      globals: { addEventListener() {} },
      imports: {
        "./web-push/client.js": {
          unsubscribe: async ({ notifyType }) => did.push(`unsubscribe ${notifyType}`),
          state: async () => ({ subscription }),
        },
        "./browser.js": { enrol: async () => did.push("enrol") },
        "./daily.js": { clock() {}, minuteAhead() {}, schedule() {}, words() {}, zone: "UTC" },
        "./dom.js": { byId, element: () => ({ addEventListener: (_, press) => presses.push(press) }) },
        "./scheduled.js": { scheduled: { all: () => ({ DAILY_CHECK: { time: "08:00" } }), set: (type) => did.push(`forget ${type}`) } },
        "./status.js": { afterEach: new Set(), onClick() {}, onSubmit() {}, run: (_, action) => action() },
      },
    });
    assert.match(await presses[0](), /^Stopped: /);
    // With its last schedule the server removes a subscription.
    const expected = ["unsubscribe DAILY_CHECK", "forget DAILY_CHECK", ...(subscription ? ["enrol"] : [])];
    assert.deepEqual(did, expected);
  }
});

test("a page that nobody sees does not ask for the server's state", async () => {
  const [asked, timers] = [[], []];
  const document = { hidden: true };
  const { watch } = await load("server.js", {
    globals: {
      document,
      AbortSignal,
      addEventListener() {},
      setTimeout: (work, after) => timers.push({ work, after }),
      fetch: async (path) => {
        asked.push(path);
        throw new TypeError("no connection");
      },
    },
    imports: { "./dom.js": { byId: () => ({ dataset: {} }) } },
  });
  await watch();
  assert.deepEqual(asked, []);
  document.hidden = false;
  await timers[0].work();
  assert.deepEqual(asked, ["web-push/ready"]);
  assert.deepEqual(timers.map(({ after }) => after), [15_000, 15_000]);
});

test("an action that is running is not begun again by the same button, and one that failed is", async () => {
  const [attributes, line] = [new Map(), { dataset: {} }];
  const button = {
    getAttribute: (name) => attributes.get(name) ?? null,
    setAttribute: (name, value) => attributes.set(name, value),
    removeAttribute: (name) => attributes.delete(name),
  };
  const { run } = await load("status.js", { globals: { setTimeout() {}, clearTimeout() {} }, imports: { "./dom.js": { byId: () => line } } });
  let begun = 0;
  let fail;
  const action = () => {
    begun++;
    return new Promise((_, reject) => void (fail = reject));
  };
  const first = run(button, action);
  run(button, action);
  assert.equal(begun, 1);
  fail(new Error("the server is busy"));
  await first;
  assert.deepEqual([line.textContent, line.dataset.kind], ["the server is busy", "error"]);
  await run(button, async () => `begun ${++begun} times`);
  assert.deepEqual([line.textContent, line.dataset.kind], ["begun 2 times", "ok"]);
});

test("schedules are remembered until the page is closed if nothing can be stored", async () => {
  const refuses = () => {
    throw new Error("no storage");
  };
  const { scheduled } = await load("scheduled.js", {
    globals: { localStorage: { getItem: refuses, setItem: refuses } },
    imports: { "./stored.js": { keyed: (name) => name } },
  });
  scheduled.set("DAILY_CHECK", { time: "08:00" });
  scheduled.set("DIRECT_NOTIFICATION", { time: "09:00" });
  scheduled.set("DAILY_CHECK", undefined);
  assert.deepEqual(Object.keys(scheduled.all()), ["DIRECT_NOTIFICATION"]);
  scheduled.clear();
  assert.deepEqual(Object.keys(scheduled.all()), []);
});

test("a bounded number of sent messages is remembered, the newest, and each once", async () => {
  const stored = new Map();
  const sessionStorage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => stored.set(key, value),
    removeItem: (key) => stored.delete(key),
  };
  const sent = await load("console/sent.js", { globals: { sessionStorage }, imports: { "../stored.js": { keyed: (name) => name } } });
  for (let number = 0; number < 60; number++) sent.remember({ id: `b-${number % 55}`, title: String(number), fields: [] });
  const known = [...stored.values()].flatMap((text) => JSON.parse(text));
  assert.equal(known.length, 50);
  assert.equal(sent.recall("b-4").title, "59");
  assert.equal(sent.recall("b-5"), undefined);
  assert.equal(sent.recall("b-10").title, "10");
});

/** The modules of a page, from the script that its HTML names. */
async function modules(html) {
  const [, first] = /<script type="module" src="([^"]+)"/.exec(html);
  const found = new Map();
  const add = async (url) => {
    if (found.has(url.href) || url.href.endsWith("/web-push/client.js")) return;
    const text = await readFile(url, "utf8");
    found.set(url.href, text);
    for (const [, from] of text.matchAll(/(?:from|import) "([^"]+)"/g)) await add(new URL(from, url));
  };
  await add(new URL(first, ASSETS));
  return found;
}

test("every id that scripts and labels of a page refer to is in it once, and every file is used", async () => {
  const used = new Set();
  for (const [name, least] of [["index.html", 20], ["console/index.html", 90]]) {
    const page = await readFile(new URL(name, ASSETS), "utf8");
    used.add(name);
    for (const [, file] of page.matchAll(/(?:href|src)="([^"#]+\.(?:css|svg|webmanifest))"/g)) used.add(file);
    const ids = [...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
    assert.deepEqual(
      ids.filter((id, place) => ids.indexOf(id) !== place),
      [],
    );
    const wanted = new Set();
    for (const [, names] of page.matchAll(/ (?:for|aria-labelledby|aria-describedby)="([^"]+)"/g)) {
      for (const name of names.split(" ")) wanted.add(name);
    }
    for (const [, before, name] of page.matchAll(/ (id="nav-[^"]+" )?href="#([^"]+)"/g)) wanted.add(before ? `view-${name}` : name);
    for (const [url, text] of await modules(page)) {
      used.add(url.slice(ASSETS.href.length));
      for (const [, name] of text.matchAll(/(?:byId|onClick|onSubmit|onCopy|icon|turns)\("([^"]+)"/g)) wanted.add(name);
    }
    assert.ok(wanted.size > least, `${wanted.size} references found`);
    assert.deepEqual(
      [...wanted].filter((name) => !ids.includes(name)),
      [],
      name,
    );
  }
  const files = await assets();
  assert.deepEqual(
    files.filter((name) => !used.has(name)),
    [],
  );
});

test("the visitor's page has no part of the operator's console", async () => {
  const page = await readFile(new URL("index.html", ASSETS), "utf8");
  const visible = page + [...(await modules(page)).values()].join("");
  assert.doesNotMatch(visible, /console\//);
  for (const word of ["operator-token", "broadcasts", "authorization", "sessionStorage"]) assert.ok(!visible.includes(word), word);
});
