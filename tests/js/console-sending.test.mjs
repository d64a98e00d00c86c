// The console's Compose: what goes to many is counted, asked for and can be undone.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { isHidden, openConsole, settled } from "./support/console.mjs";
import { ASSETS } from "./support/module.mjs";
import { OperatorServer, problem } from "./support/operator-server.mjs";

/** A server with three subscriptions, one of them this browser's. */
function three() {
  const server = new OperatorServer();
  server.subscribe({ id: "own-id" });
  server.subscribe({ user: "alice", tags: ["news"] });
  server.subscribe({ user: "alice" });
  return server;
}

/** The form of the console, filled in. */
async function composing(fields = {}, given = {}) {
  const page = await openConsole({ hash: "#compose", server: three(), ...given });
  await page.fill("notify", { title: "Hello", audience: "all", ...fields });
  return page;
}

const posted = ({ server }) => server.sent("POST", "notify");

test("the form begins with empty fields, and with this browser chosen", async () => {
  const html = await readFile(new URL("console/index.html", ASSETS), "utf8");
  const form = html.slice(html.indexOf('<form id="notify"'), html.indexOf("</form>", html.indexOf('<form id="notify"')));
  const fields = [...form.matchAll(/<(?:input|textarea)[^>]*name="([^"]+)"[^>]*>(?:([^<]*)<\/textarea>)?/g)];
  assert.ok(fields.length > 25, `${fields.length} fields`);
  for (const [field, name, text = ""] of fields) {
    if (/type="(?:radio|checkbox)"/.test(field)) continue;
    assert.doesNotMatch(field, / value=/, name);
    assert.equal(text, "", name);
  }
  const chosen = fields.filter(([field, name]) => name === "audience" && / checked/.test(field));
  assert.equal(chosen.length, 1);
  assert.match(chosen[0][0], /value="self"/);
});

test("a message to others is sent only after a confirmation that names the exact number", async () => {
  for (const [fields, name, number, audience] of [
    [{ audience: "all" }, "everyone", "3 browsers", undefined],
    [{ audience: "tag", audienceTag: "news" }, "the tag “news”", "1 browser", { tag: "news" }],
    [{ audience: "user", user: "alice" }, "the user “alice”", "2 browsers", { user: "alice" }],
    [{ audience: "ids", ids: "own-id unknown" }, "these ids", "1 browser", { ids: ["own-id", "unknown"] }],
  ]) {
    const page = await composing(fields);
    await page.submit("notify");
    assert.equal(page.text("confirm-heading"), `Send to ${name}: ${number}?`);
    assert.equal(page.text("confirm-title"), "Hello");
    assert.match(page.text("confirm-text"), /after 5 seconds, in which you can undo it/);
    assert.equal(page.text("confirm-yes"), `Send to ${number}`);
    await page.confirm("no");
    assert.deepEqual([posted(page), page.text("status")], [[], "Not sent."], fields.audience);
    await page.submit("notify");
    await page.confirm("yes");
    assert.equal(posted(page).length, 1);
    assert.deepEqual(posted(page)[0].audience, audience);
  }
});

test("the estimate is beside the form before anything is asked, and of the audience alone", async () => {
  const page = await composing({ title: "", audience: "user", user: "alice" });
  await page.pass(1_000);
  assert.equal(page.text("notify-estimate"), "Goes to 2 browsers.");
  assert.match(page.text("compose-as-of"), /^As of /);
  await page.fill("notify", { user: "bob" });
  await page.pass(1_000);
  assert.equal(page.text("notify-estimate"), "No recipient: no subscription matches.");
  await page.fill("notify", { user: "" });
  await page.pass(1_000);
  assert.equal(page.text("notify-estimate"), "No recipient is chosen yet.");
  await page.fill("notify", { audience: "self" });
  assert.ok(isHidden(page.byId("notify-estimate")));
});

test("a message to nobody is not asked for and not sent", async () => {
  const page = await composing({ audience: "user", user: "bob" });
  await page.submit("notify");
  assert.equal(page.byId("confirm").open, false);
  assert.equal(page.text("status"), "No subscription matches: nothing was sent.");
  assert.deepEqual(posted(page), []);
});

test("the number is that of the answer, and none is no success", async () => {
  for (const [left, words, kind] of [
    [1, "Sending to 1 browser.", "ok"],
    [0, "No subscription matches: nothing was sent.", "error"],
  ]) {
    const page = await composing();
    await page.submit("notify");
    page.server.subscriptions.splice(left);
    await page.confirm("yes");
    assert.equal(page.byId("undo").hidden, left === 0);
    await page.pass(6_000);
    assert.deepEqual([page.text("status"), page.byId("status").dataset.kind], [words, kind]);
  }
});

test("a message to this browser whose subscription is deleted is no success", async () => {
  const page = await composing({ audience: "self" });
  page.server.subscriptions = [];
  await page.submit("notify");
  assert.deepEqual([page.text("status"), page.byId("status").dataset.kind], ["No subscription matches: nothing was sent.", "error"]);
});

test("a message for later may have nobody yet", async () => {
  const page = await composing({ audience: "user", user: "bob", sendAt: "2026-11-29T08:00" });
  await page.submit("notify");
  await page.confirm("yes");
  assert.match(page.text("status"), /^Will be sent on /);
});

test("without a number nothing is asked or sent", async () => {
  const server = three();
  server.intercept = (_, path) => {
    if (path === "broadcasts/estimate") throw new TypeError("fetch failed");
  };
  const page = await composing({}, { server });
  await page.submit("notify");
  assert.equal(page.byId("confirm").open, false);
  assert.match(page.text("status"), /cannot be reached/);
  assert.deepEqual(posted(page), []);
});

test("it can be undone for five seconds, by the server's clock", async () => {
  const server = three();
  // This browser's clock is an hour late.
  const page = await openConsole({ hash: "#compose", server });
  page.shift(-3_600_000);
  await page.fill("notify", { title: "Hello", audience: "all" });
  await page.submit("notify");
  await page.confirm("yes");
  const [{ sendAt }] = posted(page);
  const later = Date.parse(sendAt) - server.now;
  assert.ok(later >= 5_500 && later <= 7_500, `${later} ms`);
  assert.equal(server.broadcasts[0].state, "scheduled");
  assert.equal(page.byId("undo").hidden, false);
  assert.equal(page.document.activeElement.id, "undo-button");
  await page.pass(4_500);
  assert.equal(page.byId("undo").hidden, false);
  await page.press(page.byId("undo"), "Undo");
  assert.equal(page.text("status"), "Undone: nothing was sent.");
  assert.equal(server.broadcasts[0].state, "cancelled");
  assert.equal(page.byId("undo").hidden, true);
  assert.equal(page.document.activeElement.id, "send");
});

test("the offer ends by itself before the message goes out", async () => {
  const page = await composing();
  await page.submit("notify");
  await page.confirm("yes");
  await page.pass(5_000);
  assert.equal(page.byId("undo").hidden, true);
  assert.equal(page.text("status"), "Sending to 3 browsers.");
  assert.equal(page.document.activeElement.id, "send");
  assert.deepEqual(page.server.requests.filter(({ method }) => method === "DELETE"), []);
  assert.ok(Date.parse(posted(page)[0].sendAt) > page.server.now, "it could have been undone until now");
});

test("the offer for a second message has its own five seconds, and takes that one back", async () => {
  const page = await composing();
  await page.submit("notify");
  await page.confirm("yes");
  await page.pass(3_000);
  await page.fill("notify", { title: "Another one", audience: "all" });
  await page.submit("notify");
  await page.confirm("yes");
  await page.pass(3_000);
  assert.equal(page.byId("undo").hidden, false, "the first one's time is over");
  assert.notEqual(page.text("status"), "Sending to 3 browsers.");
  await page.press(page.byId("undo"), "Undo");
  assert.equal(page.text("status"), "Undone: nothing was sent.");
  assert.deepEqual(page.server.broadcasts.map(({ state }) => state), ["cancelled", "scheduled"]);
});

/** Sends, with this much time until the answer arrives, in milliseconds. */
async function slowly(page, time) {
  let answer;
  page.server.intercept = (_, path) => (path === "notify" ? new Promise((resolve) => (answer = resolve)) : undefined);
  await page.submit("notify");
  await page.confirm("yes");
  await page.pass(time);
  answer();
  await settled();
  page.server.intercept = () => undefined;
  return Date.parse(posted(page)[0].sendAt);
}

test("the offer ends before the message is due, however late the answer was", async () => {
  const page = await composing();
  const due = await slowly(page, 3_000);
  assert.equal(page.byId("undo").hidden, false);
  assert.equal(page.text("undo-text"), "Goes to 3 browsers in 2 seconds.");
  await page.pass(due - 1_000 - page.server.now);
  assert.equal(page.byId("undo").hidden, true);
});

test("an answer after that time comes without an offer", async () => {
  const page = await composing();
  await slowly(page, 6_000);
  assert.equal(page.byId("undo").hidden, true);
  assert.equal(page.text("status"), "Sending to 3 browsers.");
});

test("an undo that came too late says how many may have been sent", async () => {
  for (const [counts, words] of [
    [{ pending: 0, accepted: 2, cancelled: 1 }, "up to 2 were sent"],
    // A worker has claimed it: it is still sent.
    [{ pending: 1, accepted: 0, cancelled: 2 }, "up to 1 were sent"],
    [{ pending: 1, accepted: 1, gone: 1 }, "up to 3 were sent"],
  ]) {
    const page = await composing();
    await page.submit("notify");
    await page.confirm("yes");
    page.server.intercept = (method) => (method === "DELETE" ? Response.json({ ...page.server.broadcasts[0], state: "cancelled", counts }) : undefined);
    await page.press(page.byId("undo"), "Undo");
    assert.equal(page.text("status"), `Too late for some: ${words} or are being sent. The others are cancelled.`);
    assert.equal(page.byId("status").dataset.kind, "error");
    assert.equal(page.byId("undo").hidden, true);
  }
});

test("an undo does not count recipients as sent that wait for their cancellation", async () => {
  for (const [counts, words, kind] of [
    [{ pending: 180_000, accepted: 0, cancelled: 20_000 }, "Undone: nothing was sent, but a few may have been on their way.", "ok"],
    [{ pending: 180_000, accepted: 7, cancelled: 20_000 }, "Too late for some: 7 were sent, and a few may be on their way. The others are cancelled.", "error"],
    [{ pending: 0, accepted: 0, cancelled: 20_000 }, "Undone: nothing was sent.", "ok"],
  ]) {
    const page = await composing();
    await page.submit("notify");
    await page.confirm("yes");
    page.server.intercept = (method) => (method === "DELETE" ? Response.json({ ...page.server.broadcasts[0], state: "cancelled", counts }) : undefined);
    await page.press(page.byId("undo"), "Undo");
    assert.deepEqual([page.text("status"), page.byId("status").dataset.kind], [words, kind]);
  }
});

test("a message for later is sent at its time, and needs no seconds to undo", async () => {
  const page = await composing({ sendAt: "2026-11-29T08:00" });
  await page.submit("notify");
  assert.match(page.text("confirm-text"), /of that time/);
  await page.confirm("yes");
  assert.equal(posted(page)[0].sendAt, new Date(2026, 10, 29, 8).toISOString());
  assert.equal(page.byId("undo").hidden, true);
  assert.match(page.text("status"), /^Will be sent on /);
});

test("a pace goes with the message", async () => {
  const page = await composing({ perSecond: "20" });
  await page.submit("notify");
  await page.confirm("yes");
  assert.deepEqual(posted(page)[0].pace, { perSecond: 20 });
});

test("the confirmed message is sent, even if the form has changed", async () => {
  const page = await composing({ audience: "tag", audienceTag: "news" });
  await page.submit("notify");
  await page.fill("notify", { title: "Other", audience: "all" });
  await page.confirm("yes");
  const [{ title, audience }] = posted(page);
  assert.deepEqual([title, audience], ["Hello", { tag: "news" }]);
});

test("a request whose answer was lost is repeated as it was, and sent once", async () => {
  const page = await composing();
  const keys = () => page.server.requests.filter(({ path }) => path === "notify").map(({ body, headers }) => `${headers["idempotency-key"]} ${body.sendAt}`);
  page.server.intercept = (_, path) => {
    if (path === "notify") throw new TypeError("fetch failed");
  };
  await page.submit("notify");
  await page.confirm("yes");
  assert.match(page.text("status"), /cannot be reached/);
  page.server.intercept = () => undefined;
  await page.pass(20_000);
  await page.submit("notify");
  assert.match(page.text("confirm-text"), /^It is sent at once\. /);
  assert.doesNotMatch(page.text("confirm-text"), /undo/);
  await page.confirm("yes");
  assert.equal(keys().length, 2);
  assert.equal(keys()[0], keys()[1]);
  assert.equal(page.byId("undo").hidden, true, "its time is over");
  await page.submit("notify");
  await page.confirm("yes");
  assert.notEqual(keys()[2], keys()[1], "another message of the same words");
});

test("a request that was refused is not kept: the next one can be undone again", async () => {
  for (const [status, code] of [[422, "invalid_request"], [429, "too_many_requests"], [503, "no_worker"]]) {
    const page = await composing();
    page.server.intercept = (_, path) => (path === "notify" ? problem(status, code, "Refused.") : undefined);
    await page.submit("notify");
    await page.confirm("yes");
    assert.equal(page.text("status"), "Refused.");
    page.server.intercept = () => undefined;
    await page.pass(20_000);
    await page.submit("notify");
    assert.match(page.text("confirm-text"), /after 5 seconds, in which you can undo it/, code);
    await page.confirm("yes");
    const [first, second] = page.server.requests.filter(({ path }) => path === "notify");
    assert.notEqual(second.headers["idempotency-key"], first.headers["idempotency-key"], code);
    assert.ok(Date.parse(second.body.sendAt) > page.server.now, code);
    assert.equal(page.byId("undo").hidden, false, code);
  }
});

test("a request that may have been accepted is kept, also if its repetition is refused", async () => {
  const page = await composing();
  const failures = [problem(503, "store_unavailable", "Unavailable."), problem(503, "no_worker", "No worker.")];
  page.server.intercept = (_, path) => (path === "notify" ? failures.shift() : undefined);
  for (let time = 0; time < 3; time++) {
    await page.submit("notify");
    await page.confirm("yes");
    await page.pass(20_000);
  }
  const keys = page.server.requests.filter(({ path }) => path === "notify").map(({ headers }) => headers["idempotency-key"]);
  assert.deepEqual([keys.length, new Set(keys).size], [3, 1]);
});

test("a message to this browser needs no confirmation, and goes to no other", async () => {
  const on = await composing({ audience: "self" });
  await on.submit("notify");
  assert.equal(on.byId("confirm").open, false);
  assert.deepEqual(posted(on), [{ title: "Hello", audience: { ids: ["own-id"] } }]);
  const off = await composing({ audience: "self" }, { subscribed: false });
  assert.equal(isHidden(off.byId("notify-unsubscribed")), false);
  await off.submit("notify");
  assert.match(off.text("status"), /^This browser is not subscribed/);
  assert.deepEqual(posted(off), []);
  assert.equal(off.document.activeElement.id, "notify-enable");
  off.byId("notify-enable").click();
  await settled();
  assert.equal(isHidden(off.byId("notify-unsubscribed")), true);
  await off.submit("notify");
  assert.deepEqual(posted(off)[0].audience, { ids: ["own-id"] });
});

test("an empty form sends nothing, and shows what is missing", async () => {
  for (const [fields, words, field] of [
    [{ title: " " }, /Enter a title/, "notify-title"],
    [{ kind: "payload", payload: "" }, /Enter a payload/, "notify-payload"],
  ]) {
    const page = await composing(fields);
    await page.submit("notify");
    assert.match(page.text("status"), words);
    assert.equal(page.byId(field).getAttribute("aria-invalid"), "true");
    assert.equal(page.document.activeElement.id, field);
    assert.deepEqual([page.byId("confirm").open, posted(page)], [false, []]);
  }
});

test("only a complete request can be copied, with the address of the page", async () => {
  const page = await composing({ title: "" });
  assert.equal(page.byId("request-copy").hidden, true);
  await page.fill("notify", { title: "Hello" });
  assert.equal(page.byId("request-copy").hidden, false);
  assert.match(page.byId("request").textContent, /curl https:\/\/app\.example\/web-push\/notify /);
});

test("only the button confirms, each time", async () => {
  const page = await composing();
  for (const [answer, sent] of [["yes", 1], [null, 1], ["no", 1]]) {
    await page.submit("notify");
    // The Escape key closes it without a value.
    if (answer === null) page.byId("confirm").close();
    else await page.confirm(answer);
    await settled();
    assert.equal(posted(page).length, sent, String(answer));
  }
});
