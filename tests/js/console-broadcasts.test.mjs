// The console's list of broadcasts.
import assert from "node:assert/strict";
import { test } from "node:test";

import { isHidden, openConsole } from "./support/console.mjs";
import { OperatorServer } from "./support/operator-server.mjs";

const buttons = (entry) => entry.querySelectorAll("button").filter((button) => !isHidden(button)).map(({ textContent }) => textContent);

async function listed(...broadcasts) {
  const server = new OperatorServer();
  for (const broadcast of broadcasts) server.add(broadcast);
  const page = await openConsole({ hash: "#broadcasts", server });
  return Object.assign(page, { entries: () => page.byId("broadcasts-list").children, only: () => page.byId("broadcasts-list").children[0] });
}

test("each has its progress, its pace and its outcomes in words", async () => {
  const page = await listed({ state: "sending", recipients: 1200, pace: { perSecond: 50 }, counts: { pending: 700, accepted: 480, key_mismatch: 20 } });
  const entry = page.only();
  assert.match(entry.textContent, new RegExp(`500 of ${(1200).toLocaleString()}\\. At most 50 messages a second\\.`));
  assert.match(entry.textContent, /480 taken by the push service20 subscribed under another key/);
  const bar = entry.querySelector("progress");
  assert.deepEqual([bar.max, bar.value, bar.hidden], [1200, 500, false]);
  assert.deepEqual(buttons(entry), ["Pause", "Cancel"]);
});

test("one without recipients has no bar that looks like a success", async () => {
  const page = await listed({ state: "done", recipients: 0 });
  const entry = page.only();
  assert.equal(entry.querySelector("progress").hidden, true);
  assert.equal(entry.querySelector(".pill").textContent, "No recipient");
  assert.equal(entry.querySelector(".pill").dataset.state, "unmatched");
  assert.match(entry.textContent, /No recipients: nothing was sent\./);
});

test("one that reached nobody has no green bar", async () => {
  const page = await listed({ state: "done", counts: { failed: 3, gone: 1 } });
  assert.equal(page.only().querySelector(".pill").textContent, "Failed");
  assert.equal(page.only().dataset.state, "failed");
  const other = await listed({ state: "done", counts: { failed: 3, accepted: 1 } });
  assert.equal(other.only().dataset.state, "done");
});

test("one is paused, goes on and is cancelled after a question", async () => {
  const page = await listed({ state: "sending", counts: { pending: 3, accepted: 1 } });
  const { server } = page;
  const button = await page.press(page.only(), "Pause");
  assert.equal(server.broadcasts[0].state, "paused");
  assert.deepEqual(buttons(page.only()), ["Resume", "Cancel"]);
  assert.match(page.only().textContent, /is not sent any more/);
  assert.ok(isHidden(button));
  await page.press(page.only(), "Resume");
  assert.equal(server.broadcasts[0].state, "sending");
  await page.press(page.only(), "Cancel");
  assert.equal(page.text("confirm-heading"), "Cancel this broadcast?");
  await page.confirm("no");
  assert.equal(server.broadcasts[0].state, "sending");
  await page.press(page.only(), "Cancel");
  await page.confirm("yes");
  assert.equal(server.broadcasts[0].state, "cancelled");
  assert.deepEqual(buttons(page.only()), []);
  assert.match(page.only().textContent, /3 cancelled/);
});

test("one that is cancelled and has messages in flight cannot be changed any more", async () => {
  const page = await listed({ state: "cancelled", counts: { accepted: 1, pending: 3, cancelled: 5 } });
  assert.deepEqual(buttons(page.only()), []);
});

test("a scheduled one has its time and can be cancelled", async () => {
  const page = await listed({ state: "scheduled", recipients: 5, sendAt: "2026-11-29T08:00:00Z", counts: { pending: 0 } });
  assert.match(page.only().textContent, /Will be sent on /);
  assert.equal(page.only().querySelector("progress").hidden, true);
  assert.deepEqual(buttons(page.only()), ["Pause", "Cancel"]);
});

test("the keyboard's focus stays while the list is updated, and moves on if its button disappears", async () => {
  const page = await listed({ state: "sending", counts: { pending: 3 } }, { state: "done", counts: { accepted: 1 } });
  const pause = page.entries()[1].querySelectorAll("button").find(({ textContent }) => textContent === "Pause");
  pause.focus();
  page.server.add({ state: "sending", counts: { pending: 9 } });
  await page.pass(4_000);
  assert.equal(page.entries().length, 3);
  assert.equal(page.document.activeElement, pause);
  page.server.broadcasts.at(-1).state = "paused";
  await page.pass(4_000);
  assert.equal(page.document.activeElement.textContent, "Resume");
  Object.assign(page.server.broadcasts.at(-1), { state: "done", counts: { ...page.server.broadcasts.at(-1).counts, pending: 0, accepted: 3 } });
  await page.pass(4_000);
  assert.equal(page.document.activeElement, page.entries()[2]);
});

test("samples of failures say what the push service answered", async () => {
  const failure = { at: "2026-11-25T11:00:00Z", outcome: "sender_fault", status: 403, reason: "BadJwtToken", pushService: "apple", subscription: "s-1" };
  const page = await listed({ counts: { accepted: 1, sender_fault: 40 }, failures: [failure, { ...failure, status: null, reason: null, outcome: "expired", subscription: null }] });
  const details = page.only().querySelector("details");
  assert.equal(details.querySelector("summary").textContent, "Why 40 messages failed");
  assert.deepEqual(page.server.requests.filter(({ path }) => path.startsWith("broadcasts/")), [], "read when it is opened");
  details.open = true;
  details.dispatchEvent({ type: "toggle" });
  await page.pass(0);
  assert.match(details.textContent, /403 BadJwtToken: refused for a fault of this server Apple, s-1/);
  assert.match(details.textContent, /not sent in time/);
  assert.match(details.textContent, /2 samples of 40/);
  assert.equal(details.querySelectorAll("button").length, 1, "one of them was deleted");
  await page.press(details, "Show the subscription");
  assert.equal(page.hash(), "#audience");
  assert.ok(page.server.requests.some(({ path }) => path.startsWith("subscriptions?id=s-1")));
});

test("samples are read again when there are more failures, and not with each update of the list", async () => {
  const page = await listed({ state: "sending", counts: { accepted: 1, sender_fault: 4, pending: 9 }, failures: [] });
  const reads = () => page.server.requests.filter(({ method, path }) => method === "GET" && path.startsWith("broadcasts/")).length;
  const details = page.only().querySelector("details");
  details.open = true;
  details.dispatchEvent({ type: "toggle" });
  await page.pass(20_000);
  assert.equal(reads(), 1);
  page.server.broadcasts[0].counts.sender_fault = 5;
  await page.pass(20_000);
  assert.equal(details.querySelector("summary").textContent, "Why 5 messages failed");
  assert.equal(reads(), 2);
});

test("one that went well has nothing to explain", async () => {
  const page = await listed({ counts: { accepted: 3, cancelled: 2 } });
  assert.equal(page.only().querySelector("details").hidden, true);
});

test("what this tab sent has its title, and can be repeated after a look at it", async () => {
  const server = new OperatorServer();
  server.subscribe({ tags: ["news"] });
  const page = await openConsole({ hash: "#compose", server });
  page.byId("actions-add").click();
  await page.fill("notify", { title: "Issue 42", body: "is out", audience: "tag", audienceTag: "news", actionTitle: "Read", ttl: "2" });
  await page.submit("notify");
  await page.confirm("yes");
  await page.pass(6_000);
  server.add({ counts: { accepted: 1 } });
  await page.go("broadcasts");
  const [other, own] = page.byId("broadcasts-list").children;
  assert.match(other.textContent, /^Broadcast b/);
  assert.ok(!buttons(other).includes("Repeat…"));
  assert.match(own.textContent, /^Issue 42/);
  await page.go("compose");
  await page.fill("notify", { title: "Something else", audience: "all" });
  await page.go("broadcasts");
  await page.press(own, "Repeat…");
  assert.equal(page.hash(), "#compose");
  assert.equal(server.sent("POST", "notify").length, 1, "it is not sent yet");
  const { title, body, audienceTag, ttl, actionTitle } = page.byId("notify").elements;
  assert.deepEqual([title.value, body.value, audienceTag.value, ttl.value, actionTitle.value], ["Issue 42", "is out", "news", "2", "Read"]);
  await page.submit("notify");
  await page.confirm("yes");
  const [first, second] = server.sent("POST", "notify").map(({ sendAt, ...rest }) => rest);
  assert.deepEqual(first, second);
});

test("a repetition has no time, which is over", async () => {
  const page = await openConsole({ hash: "#compose" });
  await page.fill("notify", { title: "Later", audience: "all", sendAt: "2026-11-29T08:00" });
  await page.submit("notify");
  await page.confirm("yes");
  await page.go("broadcasts");
  await page.press(page.byId("broadcasts-list").children[0], "Repeat…");
  const { title, sendAt } = page.byId("notify").elements;
  assert.deepEqual([title.value, sendAt.value], ["Later", ""]);
});

test("long lists are read a page at a time, and by state", async () => {
  const page = await listed(...Array.from({ length: 45 }, (_, place) => ({ id: `b-${place}`, state: place === 3 ? "scheduled" : "done", sendAt: "2026-11-29T08:00:00Z", counts: { accepted: 1 } })));
  assert.equal(page.entries().length, 20);
  assert.equal(isHidden(page.byId("broadcasts-newer")), true);
  page.byId("broadcasts-older").click();
  await page.pass(0);
  page.byId("broadcasts-older").click();
  await page.pass(0);
  assert.equal(page.entries().length, 5);
  assert.equal(isHidden(page.byId("broadcasts-older")), true);
  assert.equal(page.document.activeElement.id, "broadcasts-heading");
  page.byId("broadcasts-newer").click();
  await page.pass(0);
  assert.equal(page.entries().length, 20);
  page.byId("broadcasts-state").value = "scheduled";
  page.byId("broadcasts-state").dispatchEvent({ type: "change" });
  await page.pass(0);
  assert.equal(page.entries().length, 1);
  assert.equal(isHidden(page.byId("broadcasts-newer")), true);
});

test("an empty list says so", async () => {
  const page = await listed();
  assert.equal(page.byId("broadcasts-empty").hidden, false);
  assert.match(page.text("broadcasts-empty-text"), /Nothing was sent/);
});
