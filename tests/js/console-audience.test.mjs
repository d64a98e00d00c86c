// The console's Audience: search, the devices of a user, removal, and the file.
import assert from "node:assert/strict";
import { test } from "node:test";

import { isHidden, openConsole } from "./support/console.mjs";
import { OperatorServer } from "./support/operator-server.mjs";

async function searching(subscriptions) {
  const server = new OperatorServer();
  for (const subscription of subscriptions) server.subscribe(subscription);
  const page = await openConsole({ hash: "#audience", server });
  return Object.assign(page, {
    entries: () => page.byId("audience-list").children,
    async search(fields) {
      await page.fill("find", fields);
      await page.submit("find");
    },
  });
}

const SOME = [
  { id: "s-1", user: "alice", tags: ["news", "sport"], pushService: "fcm" },
  { id: "s-2", user: "alice", state: "stale" },
  { id: "s-3", user: "bob", state: "retired", retireReason: "gone" },
  { id: "s-4", endpoint: "https://push.example/secret" },
];

test("subscriptions are found by user, tag, id, state and push service", async () => {
  const page = await searching(SOME);
  assert.equal(page.entries().length, 4);
  for (const [fields, count, words] of [
    [{ by: "user", text: "alice" }, 2, "2 devices of alice."],
    [{ by: "user", text: " bob " }, 1, "1 device of bob."],
    [{ by: "tag", text: "sport" }, 1, "1 subscription."],
    [{ by: "id", text: "s-3" }, 1, "1 subscription."],
    [{ by: "user", text: "", state: "stale" }, 1, "1 subscription."],
    [{ by: "user", text: "", state: "", pushService: "fcm" }, 1, "1 subscription."],
  ]) {
    await page.search(fields);
    assert.deepEqual([page.entries().length, page.text("audience-count")], [count, words], JSON.stringify(fields));
  }
  await page.search({ by: "user", text: "nobody", pushService: "" });
  assert.equal(page.byId("audience-empty").hidden, false);
});

test("an update follows a change of the user, and reads nothing out that is as before", async () => {
  const page = await searching(SOME);
  const line = page.byId("audience-count").childNodes[0];
  const nodes = [...page.entries()];
  await page.pass(31_000);
  assert.equal(page.byId("audience-count").childNodes[0], line);
  page.server.subscriptions[0].user = "dave";
  await page.go("overview");
  await page.go("audience");
  assert.match(page.entries()[0].textContent, /dave/);
  assert.deepEqual(page.entries().map((node, number) => node === nodes[number]), [false, true, true, true]);
  await page.press(page.entries()[0], "All devices");
  assert.equal(page.text("audience-count"), "1 device of dave.");
});

test("an endpoint, which is a secret, is in no address", async () => {
  const page = await searching(SOME);
  await page.search({ by: "endpoint", text: "https://push.example/secret" });
  assert.equal(page.entries().length, 1);
  assert.deepEqual(page.server.sent("POST", "subscriptions/search"), [{ endpoint: "https://push.example/secret" }]);
  assert.ok(page.server.requests.every(({ path }) => !path.includes("secret")));
});

test("an entry says in words why this user did not get it", async () => {
  const page = await searching([
    {
      id: "s-9", user: "carol", tags: ["news"], state: "retired", retireReason: "gone", failureStreak: 3, pushService: "apple",
      lastFailure: { at: "2026-11-25T10:00:00Z", status: 410, reason: "Unregistered" }, lastSuccessAt: "2026-11-20T10:00:00Z",
      schedules: [{ notifyType: "DAILY_CHECK", notifyTime: { hour: 6, minute: 5, zone: "Europe/Berlin", weekdays: ["mon"] }, message: null, nextAt: "2026-11-30T05:05:00Z" }],
    },
  ]);
  const text = page.entries()[0].textContent;
  for (const words of [/^carolGone/, /Push serviceApple/, /Last failure410 Unregistered, /, /Failures in a row3/, /the push service says that it is gone/, /Daily06:05 Europe\/Berlin mon/]) assert.match(text, words);
  const plain = await searching([{ id: "s-8" }]);
  assert.match(plain.entries()[0].textContent, /Without a user.*Last takennever/);
  assert.doesNotMatch(plain.entries()[0].textContent, /Last failure|null|undefined/);
});

test("from one device to all of its user, and to a message to it alone", async () => {
  const page = await searching(SOME);
  await page.press(page.entries()[0], "All devices");
  assert.equal(page.text("audience-count"), "2 devices of alice.");
  await page.press(page.entries()[0], "Send…");
  assert.equal(page.hash(), "#compose");
  const { ids } = page.byId("notify").elements;
  assert.equal(ids.value, "s-1");
  assert.equal(isHidden(ids), false);
});

test("a subscription is deleted after a question", async () => {
  const page = await searching(SOME);
  await page.press(page.entries()[0], "Delete");
  assert.equal(page.text("confirm-title"), "s-1");
  await page.confirm("no");
  assert.equal(page.server.subscriptions.length, 4);
  await page.press(page.entries()[0], "Delete");
  await page.confirm("yes");
  assert.deepEqual(page.server.subscriptions.map(({ id }) => id), ["s-2", "s-3", "s-4"]);
  assert.equal(page.entries().length, 3);
  assert.equal(page.document.activeElement.id, "audience-heading");
});

test("more are shown on request, also over pages that have none", async () => {
  const page = await searching(Array.from({ length: 60 }, (_, place) => ({ id: `s-${place}` })));
  assert.deepEqual([page.entries().length, page.text("audience-count")], [25, "25 subscriptions so far, and there may be more."]);
  page.byId("audience-more").click();
  await page.pass(0);
  page.byId("audience-more").click();
  await page.pass(0);
  assert.deepEqual([page.entries().length, page.text("audience-count")], [60, "60 subscriptions."]);
  assert.equal(isHidden(page.byId("audience-more")), true);
  page.server.intercept = (_, path) => {
    const query = new URLSearchParams(path.split("?")[1]);
    if (!path.startsWith("subscriptions?") || query.has("after")) return undefined;
    return Response.json({ subscriptions: [], next: "20" });
  };
  await page.search({ by: "user", text: "" });
  await page.pass(0);
  assert.equal(page.entries()[0].textContent.includes("s-20"), true);
});

test("of a filter that few rows match, a bounded number of pages is read at a time", async () => {
  const page = await searching(SOME);
  page.server.intercept = (_, path) => (path.startsWith("subscriptions?") ? Response.json({ subscriptions: [], next: "on" }) : undefined);
  const before = page.server.requests.length;
  await page.search({ by: "user", text: "rare" });
  await page.pass(0);
  assert.equal(page.server.requests.slice(before).filter(({ path }) => path.startsWith("subscriptions?")).length, 20);
  assert.equal(page.byId("audience-empty").hidden, true, "it is not known yet");
  page.server.intercept = () => undefined;
  page.server.subscribe({ id: "s-rare", user: "rare" });
  const next = page.server.requests.length;
  page.server.intercept = (_, path) => (path.includes("after=on") ? Response.json({ subscriptions: [page.server.subscriptions.at(-1)], next: null }) : undefined);
  page.byId("audience-more").click();
  await page.pass(0);
  assert.equal(page.text("audience-count"), "1 device of rare.");
  assert.ok(page.server.requests.slice(next).filter(({ path }) => path.startsWith("subscriptions?")).every(({ path }) => path.includes("after=on")), "it goes on where it was");
});

/** Holds up the answer to the first request that fits. */
function hold(page, fits) {
  const held = {};
  const released = new Promise((resolve) => (held.release = resolve));
  page.server.intercept = async (_, path) => {
    if (held.path || !fits(path)) return undefined;
    held.path = path;
    await released;
    return held.answer;
  };
  return held;
}

test("a search that is submitted while another one is read shows its own subscriptions only", async () => {
  const page = await searching([...Array.from({ length: 30 }, (_, place) => ({ id: `o-${place}`, user: "other" })), ...SOME]);
  for (const failed of [false, true]) {
    await page.search({ by: "user", text: "bob" });
    const held = hold(page, (path) => path.startsWith("subscriptions?"));
    await page.search({ by: "user", text: "" });
    await page.search({ by: "user", text: "alice" });
    assert.doesNotMatch(held.path, /alice/);
    if (failed) held.answer = Response.json({ code: "store_unavailable", detail: "The store is unavailable." }, { status: 503 });
    held.release();
    await page.pass(0);
    assert.deepEqual(page.entries().map(({ textContent }) => /Ids-\d/.exec(textContent)?.[0]), ["Ids-1", "Ids-2"]);
    assert.equal(page.text("audience-count"), "2 devices of alice.");
    assert.equal(isHidden(page.byId("audience-more")), true);
  }
});

test("a search that failed is read again", async () => {
  const page = await searching(SOME);
  const held = hold(page, (path) => path.startsWith("subscriptions?"));
  held.answer = Response.json({ code: "store_unavailable", detail: "The store is unavailable." }, { status: 503 });
  held.release();
  await page.search({ by: "user", text: "alice" });
  assert.match(page.text("audience-as-of"), /The store is unavailable/);
  await page.pass(31_000);
  assert.equal(page.text("audience-count"), "2 devices of alice.");
});

test("more that was asked for before another search is left out", async () => {
  const page = await searching([...Array.from({ length: 60 }, (_, place) => ({ id: `o-${place}`, user: "other" })), ...SOME]);
  const held = hold(page, (path) => path.includes("after="));
  page.byId("audience-more").click();
  await page.pass(0);
  await page.search({ by: "user", text: "alice" });
  held.release();
  await page.pass(0);
  assert.equal(page.entries().length, 2);
  assert.equal(page.text("audience-count"), "2 devices of alice.");
});

test("the time is that of the reading", async () => {
  const page = await searching(SOME);
  const asOf = page.text("audience-as-of");
  await page.pass(90_000);
  assert.equal(page.text("audience-as-of"), asOf);
  await page.go("keys");
  await page.go("audience");
  assert.notEqual(page.text("audience-as-of"), asOf);
});

test("the file has what the search has", async () => {
  const page = await searching(SOME);
  await page.search({ by: "user", text: "alice", state: "live" });
  page.byId("audience-file").click();
  await page.pass(0);
  assert.equal(await page.files[0].text(), "id\r\ns-1\r\n");
  assert.match(page.text("status"), /subscriptions\.csv/);
  // The store failed on the way.
  const body = new ReadableStream({ start: (stream) => stream.error(new TypeError("network error")) });
  page.server.intercept = (_, path) => (path.includes("format=csv") ? new Response(body) : undefined);
  page.byId("audience-file").click();
  await page.pass(0);
  assert.match(page.text("status"), /The file was cut off: try again\./);
});

test("a search for one subscription has no file, which would have others", async () => {
  const page = await searching(SOME);
  for (const [by, text, hidden] of [
    ["id", "s-1", true],
    ["id", " ", false],
    ["endpoint", "https://push.example/secret", true],
    ["endpoint", "", false],
    ["user", "alice", false],
    ["tag", "news", false],
  ]) {
    await page.search({ by, text });
    assert.equal(isHidden(page.byId("audience-file")), hidden, `${by} ${text}`);
  }
  await page.search({ by: "id", text: "s-1" });
  await page.press(page.entries()[0], "All devices");
  assert.equal(isHidden(page.byId("audience-file")), false);
});
