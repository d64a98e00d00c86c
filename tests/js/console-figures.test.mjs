// The console's figures: Overview, Health and Keys.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { openConsole } from "./support/console.mjs";
import { ASSETS } from "./support/module.mjs";
import { OperatorServer } from "./support/operator-server.mjs";

const ago = (server, hours) => new Date(server.now - hours * 3_600_000).toISOString();

test("the overview adds up seven days, draws them, and says the same in words", async () => {
  const server = new OperatorServer();
  server.add({ createdAt: ago(server, 1), counts: { accepted: 1200, gone: 3, failed: 2, cancelled: 9, pending: 7 } });
  server.add({ createdAt: ago(server, 25), counts: { accepted: 600 } });
  server.add({ createdAt: ago(server, 9 * 24), counts: { accepted: 5000, failed: 5000 } });
  const page = await openConsole({ server });
  assert.deepEqual([page.text("figure-delivered"), page.text("figure-failed")], [(1800).toLocaleString(), "5"]);
  const columns = page.byId("sent-chart").children;
  assert.equal(columns.length, 7);
  const spoken = columns.map((column) => column.querySelector(".spoken").textContent);
  assert.match(spoken[6], new RegExp(`: 5 failed, ${(1200).toLocaleString()} delivered$`));
  assert.match(spoken[5], /: 0 failed, 600 delivered$/);
  assert.match(spoken[0], /: 0 failed, 0 delivered$/);
  const heights = columns.map((column) => Number.parseFloat(column.querySelector(".stack").style.height));
  assert.deepEqual([heights[0], heights[6]], [0, 100]);
  assert.ok(heights[5] > 49 && heights[5] < 50, String(heights[5]));
  assert.match(page.text("sent-chart-note"), /^2 broadcasts in seven days, by the day of sending\. As of /);
});

test("what was accepted long before is counted by the day on which it was sent", async () => {
  const server = new OperatorServer();
  server.add({ createdAt: ago(server, 29 * 24), sendAt: ago(server, 49), counts: { accepted: 40 } });
  server.add({ createdAt: ago(server, 36 * 24), sendAt: ago(server, 6 * 24), counts: { accepted: 3 } });
  server.add({ createdAt: ago(server, 20 * 24), sendAt: ago(server, 8 * 24), counts: { accepted: 500 } });
  server.add({ createdAt: ago(server, 50), sendAt: ago(server, 1), counts: { accepted: 7, gone: 1 } });
  server.add({ createdAt: ago(server, 3), sendAt: ago(server, -20), state: "scheduled" });
  const page = await openConsole({ server });
  assert.deepEqual([page.text("figure-delivered"), page.text("figure-failed")], ["50", "1"]);
  const spoken = page.byId("sent-chart").children.map((column) => column.querySelector(".spoken").textContent);
  assert.deepEqual(spoken.map((words) => words.replace(/^.*: /, "")), [3, 0, 0, 0, 40, 0, 7].map((count, place) => `${place === 6 ? 1 : 0} failed, ${count} delivered`));
  assert.match(page.text("sent-chart-note"), /^3 broadcasts in seven days, by the day of sending\./);
});

test("the overview says that its figures are those of broadcasts", async () => {
  const page = await openConsole();
  for (const id of ["figure-delivered", "figure-failed"]) {
    const tile = page.byId(id).parent.textContent;
    assert.match(tile, / in seven days by broadcasts/);
    assert.match(tile, /without daily notifications/);
  }
});

test("a chart of more than it reads says so", async () => {
  const server = new OperatorServer();
  for (let number = 0; number < 2_001; number++) server.add({ counts: { accepted: 1 } });
  const page = await openConsole({ server });
  const most = (2000).toLocaleString();
  assert.match(page.text("sent-chart-note"), new RegExp(`^Only the newest ${most} broadcasts were read: at least ${most} broadcasts in seven days`));
  assert.deepEqual([page.text("figure-delivered"), page.text("figure-failed")], [`at least ${most}`, "at least 0"]);
});

test("growth is drawn from the days that the server has kept, however many subscriptions there are", async () => {
  const server = new OperatorServer();
  for (let number = 0; number < 2_500; number++) server.subscribe();
  // The server's time is noon of the 25th.
  server.days = [
    { day: "2026-10-01", live: 9_999 },
    { day: "2026-11-12", live: 1_000 },
    { day: "2026-11-20", live: 0 },
    { day: "2026-11-24", live: 2_000 },
    { day: "2026-11-25", live: 2_400 },
  ];
  const page = await openConsole({ server });
  const chart = page.byId("growth-chart");
  const spoken = () => chart.children.map((column) => column.querySelector(".spoken").textContent);
  const words = () => spoken().map((one) => one.replace(/^.*: /, ""));
  assert.equal(spoken().length, 14);
  assert.match(spoken()[0], /12/);
  assert.equal(words()[0], `${(1_000).toLocaleString()} subscribed`);
  assert.equal(words()[1], "not recorded");
  assert.equal(words()[8], "0 subscribed");
  assert.equal(words()[12], `${(2_000).toLocaleString()} subscribed`);
  assert.equal(spoken()[13], `Now: ${(2_500).toLocaleString()} subscribed`);
  const heights = chart.children.map((column) => Number.parseFloat(column.querySelector(".stack").style.height));
  assert.deepEqual([heights[0], heights[1], heights[12], heights[13]], [40, 0, 80, 100]);
  assert.match(page.text("growth-chart-note"), new RegExp(`^${(1_500).toLocaleString()} more since the beginning of .*12`));
  assert.deepEqual(server.requests.filter(({ path }) => path.startsWith("subscriptions")), []);
  server.days[1].live = 2_501;
  await page.pass(6_000);
  assert.match(page.text("growth-chart-note"), /^1 fewer since /);
  server.days[1].live = 2_500;
  await page.pass(6_000);
  assert.match(page.text("growth-chart-note"), /^As many as since /);
});

test("a server of today has no earlier days, and says so", async () => {
  const server = new OperatorServer();
  server.subscribe();
  const page = await openConsole({ server });
  const spoken = page.byId("growth-chart").children.map((column) => column.querySelector(".spoken").textContent);
  assert.match(spoken[12], /: not recorded$/);
  assert.equal(spoken[13], "Now: 1 subscribed");
  assert.match(page.text("growth-chart-note"), /^Earlier days are not recorded\. /);
});

test("push services are bars with their share, the largest first", async () => {
  const server = new OperatorServer();
  for (const pushService of ["mozilla", "fcm", "fcm", "fcm"]) server.subscribe({ pushService });
  server.subscribe({ state: "stale" });
  server.subscribe({ state: "retired" });
  const page = await openConsole({ server });
  assert.deepEqual(page.rows("services-chart"), ["Google (FCM)3 (75 %)", "Mozilla1 (25 %)"]);
  assert.equal(page.text("figure-live"), "4");
  assert.equal(page.text("figure-lost"), "1 stale, 1 gone");
  const empty = await openConsole();
  assert.equal(empty.byId("services-none").hidden, false);
});

test("charts are read again after a minute, figures sooner", async () => {
  const page = await openConsole();
  const read = (beginning) => page.server.requests.filter(({ path }) => path.startsWith(beginning)).length;
  await page.pass(30_000);
  assert.deepEqual([read("broadcasts"), read("stats") > 4], [1, true]);
  await page.pass(35_000);
  assert.equal(read("broadcasts"), 2);
});

test("health is green in words while all is well", async () => {
  const page = await openConsole({ hash: "#health" });
  assert.equal(page.rows("health-checks").length, 6);
  for (const row of page.rows("health-checks")) assert.match(row, /Fine$/);
  assert.equal(page.byId("gates-none").hidden, false);
  assert.equal(page.byId("health-none").hidden, false);
});

test("each fault is told in words, with its consequence", async () => {
  const server = new OperatorServer();
  server.ready = { ready: false, store: false, scheduler: false, worker: false, clock: false, contact: false };
  server.ledger = { depth: 1200, leased: 4, oldestDue: ago(server, 3) };
  server.more = {
    outbox: { waiting: 2, refused: 3 },
    worker: { failing: [{ step: "claim", since: ago(server, 1), error: "the store is unavailable" }], parked: 3, parkedBroadcasts: [{ broadcast: "b-1", until: ago(server, -1), error: "corrupt" }], unreadable: 1 },
    missingKeys: [{ keyId: "lost", subscriptions: 40 }],
    retiringStopped: [{ origin: "https://push.example", gone: 45, accepted: 55 }],
  };
  const page = await openConsole({ hash: "#health", server });
  const rows = page.rows("health-checks");
  assert.equal(rows.length, 7);
  for (const row of rows) assert.match(row, /Attention$/);
  const text = rows.join("\n");
  for (const words of [/VAPID_SUBJECT is not set/, /cannot be written to/, /No worker runs/, /No worker has looked/, /nothing is sent until they agree/, /has waited for 3 hours/, /3 refused/]) assert.match(text, words);
  const found = page.rows("health-problems").join("\n");
  for (const words of [/Reading due messages fails since .*: the store is unavailable\./, /Broadcast b-1 waits/, /2 more broadcasts wait/, /1 message waits/, /key lost of 40 subscriptions is missing/, /45 of its last 100/]) assert.match(found, words);
});

test("a server that hangs and a proxy that answers for it are told of, and the view goes on", async () => {
  const server = new OperatorServer();
  const page = await openConsole({ hash: "#health", server });
  const note = () => page.text("health-as-of");
  server.intercept = (_, path) => (path === "ready" ? new Promise(() => {}) : undefined);
  await page.pass(16_000);
  assert.match(note(), /Not updated since: The server did not answer in time\./);
  server.intercept = (_, path) => (path === "ready" ? new Response("<h1>Bad gateway</h1>", { status: 502 }) : undefined);
  await page.pass(11_000);
  assert.match(note(), /Look at the proxy in front of it\./);
  server.intercept = (_, path) => {
    if (path === "ready") throw new TypeError("failed");
  };
  await page.pass(6_000);
  assert.match(note(), /The server cannot be reached\./);
  server.intercept = () => undefined;
  await page.pass(6_000);
  assert.doesNotMatch(note(), /Not updated/);
});

test("a request with the token that is not answered is given up, and made again", async () => {
  const server = new OperatorServer();
  const page = await openConsole({ hash: "#health", server });
  server.intercept = (_, path) => (path === "stats" ? new Promise(() => {}) : undefined);
  await page.pass(45_000);
  assert.match(page.text("health-as-of"), /Not updated since: The server did not answer in time\./);
  server.intercept = () => undefined;
  await page.pass(45_000);
  assert.doesNotMatch(page.text("health-as-of"), /Not updated/);
});

test("where the next page begins goes back to the server as it came", async () => {
  const server = new OperatorServer();
  const next = "a+b/c&limit=1#%";
  server.intercept = (_, path) =>
    path.startsWith("broadcasts?") && !path.includes("after=") ? Response.json({ broadcasts: [], next }) : undefined;
  await openConsole({ server });
  const asked = server.requests.map(({ path }) => path).filter((path) => path.includes("after="));
  assert.ok(asked.length > 0);
  for (const path of asked) assert.equal(new URLSearchParams(path.split("?")[1]).get("after"), next);
});

test("this browser's wrong clock is told of, and does not make the queue old", async () => {
  const server = new OperatorServer();
  server.ledger = { depth: 1, leased: 0, oldestDue: ago(server, 0) };
  const page = await openConsole({ hash: "#health", server });
  page.shift(2 * 3_600_000);
  await page.pass(6_000);
  const rows = page.rows("health-checks").join("\n");
  assert.match(rows, /This browser's is 2 hours ahead/);
  assert.match(rows, /1 message to be sent.*Fine/);
});

test("a paused push service has its reason and is opened after a question", async () => {
  const server = new OperatorServer();
  server.gates = [{ origin: "https://push.example", until: ago(server, -1), reason: "rate_limited", closures: 3 }];
  const page = await openConsole({ hash: "#health", server });
  const [row] = page.byId("gates").children;
  assert.match(row.textContent, /It asked for fewer requests\. It gets nothing until .*3 times in a row/);
  await page.press(row, "Open now…");
  assert.equal(page.text("confirm-title"), "https://push.example");
  await page.confirm("no");
  assert.deepEqual(server.sent("POST", "open-gate"), []);
  await page.press(row, "Open now…");
  await page.confirm("yes");
  assert.deepEqual(server.sent("POST", "open-gate"), [{ origin: "https://push.example" }]);
  assert.equal(page.text("status"), "https://push.example gets messages again.");
  assert.equal(page.byId("gates-none").hidden, false);
  assert.equal(page.document.activeElement.id, "gates-heading");
});

test("a rotation says what it will do, and reminds of the backup", async () => {
  const server = new OperatorServer();
  server.subscribe();
  server.subscribe();
  server.subscribe({ keyId: "key-0" });
  server.more = { missingKeys: [{ keyId: "lost", subscriptions: 5 }] };
  const page = await openConsole({ hash: "#keys", server });
  assert.deepEqual(page.rows("keys-list").length, 3);
  assert.match(page.rows("keys-list")[0], /^key-12 live subscriptions\. New subscriptions are made with it\.Active$/);
  assert.match(page.rows("keys-list").find((row) => row.startsWith("lost")), /restored from a backup\.Missing$/);
  page.byId("rotate").click();
  await page.pass(0);
  assert.match(page.text("confirm-text"), /2 subscriptions use the key that is active now: nothing is lost/);
  await page.confirm("no");
  assert.equal(server.keyId, "key-1");
  page.byId("rotate").click();
  await page.pass(0);
  await page.confirm("yes");
  assert.notEqual(server.keyId, "key-1");
  assert.match(page.text("status"), /Back up the store now/);
  assert.equal(page.byId("keys-backup").hidden, false);
  assert.match(page.rows("keys-list")[0], new RegExp(`^${server.keyId}`));
});

test("the page names only commands that the servers have", async () => {
  const source = await readFile(new URL("../support/commands/mod.rs", ASSETS), "utf8");
  const [, variants] = /enum Command \{\n(.*?)\n\}/s.exec(source);
  const commands = [...variants.matchAll(/^ {4}([A-Z]\w*)/gm)].map(([, name]) => name.replace(/(?<!^)[A-Z]/g, "-$&").toLowerCase());
  assert.ok(commands.includes("erase-user"), String(commands));
  const page = await openConsole();
  const codes = page.document.root.querySelectorAll("code").map(({ textContent }) => textContent);
  const named = codes.filter((code) => !/^[A-Z_]+$/.test(code)).map((code) => code.split(" "));
  assert.ok(named.length > 0);
  for (const [program, command] of named) {
    assert.match(program, /^(axum|hyper)_server$/);
    assert.ok(commands.includes(command), `${program} ${command}`);
  }
});
