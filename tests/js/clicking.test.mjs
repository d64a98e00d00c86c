// service-worker.js: the address that a click opens, and those that it never opens.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Browser } from "./support/browser.mjs";

/** A page at an address, as `matchAll` returns it. */
function page(browser, url) {
  const page = { url, focused: 0, messages: [], focus: async () => void page.focused++, postMessage: (data) => page.messages.push(data) };
  browser.pages.push(page);
  return page;
}

async function shown(browser, payload) {
  const worker = browser.worker();
  await worker.push(JSON.stringify({ title: "x", ...payload }));
  return worker;
}

test("a click opens the address, and closes the notification", async () => {
  const browser = new Browser();
  const worker = await shown(browser, { url: "https://shop.example/orders/7" });
  const notification = await worker.click();
  assert.equal(notification.closed, true);
  assert.deepEqual(browser.opened, ["https://shop.example/orders/7"]);
});

test("a tab that shows the address is brought to the front, and no other one", async () => {
  const browser = new Browser();
  const other = page(browser, "https://app.example/");
  const wanted = page(browser, "https://app.example/orders/7");
  const worker = await shown(browser, { url: "/orders/7" });
  await worker.click();
  assert.deepEqual([other.focused, wanted.focused, browser.opened], [0, 1, []]);
});

test("a tab counts by the address that it shows now, not by that of its document", async () => {
  const browser = new Browser();
  const { page: elsewhere } = await browser.tab();
  elsewhere.url = "https://app.example/orders/7";
  elsewhere.show("https://app.example/orders/8");
  const worker = await shown(browser, { url: "/orders/7" });
  await worker.click();
  assert.deepEqual([elsewhere.focused, browser.opened], [0, ["https://app.example/orders/7"]]);

  const { page: wanted } = await browser.tab();
  wanted.show("https://app.example/orders/7");
  await worker.click();
  assert.deepEqual([elsewhere.focused, wanted.focused, browser.opened.length], [0, 1, 1]);
});

test("pages that do not answer count by the address of their document, and are waited for shortly", async () => {
  const browser = new Browser();
  const silent = page(browser, "https://app.example/orders/7");
  const worker = await shown(browser, { url: "/orders/7" });
  const began = performance.now();
  await worker.click();
  assert.deepEqual([silent.focused, browser.opened], [1, []]);
  assert.ok(performance.now() - began < 1000);
});

test("no page is asked for the address of another site", async () => {
  const browser = new Browser();
  const asked = [];
  page(browser, "https://app.example/").postMessage = (data) => asked.push(data.type);
  const worker = await shown(browser, { url: "https://shop.example/orders/7" });
  asked.length = 0;
  await worker.click();
  assert.deepEqual([asked, browser.opened], [["tower-web-push:click"], ["https://shop.example/orders/7"]]);
});

test("without an address any tab of the site is used, or a new one is opened", async () => {
  const browser = new Browser();
  const worker = await shown(browser, {});
  await worker.click();
  assert.deepEqual(browser.opened, ["https://app.example/"]);
  const open = page(browser, "https://app.example/anything");
  await worker.click();
  assert.deepEqual([open.focused, browser.opened.length], [1, 1]);
});

test("a page whose tab cannot be brought to the front is opened again", async () => {
  const browser = new Browser();
  page(browser, "https://app.example/orders/7").focus = async () => Promise.reject(new DOMException("", "InvalidAccessError"));
  const worker = await shown(browser, { url: "/orders/7" });
  await worker.click();
  assert.deepEqual(browser.opened, ["https://app.example/orders/7"]);
});

test("pages get a click for which the browser opens nothing", async () => {
  const browser = new Browser();
  const { page } = await browser.tab();
  const around = (self) => (self.clients.openWindow = async () => Promise.reject(new DOMException("", "InvalidAccessError")));
  const worker = browser.worker({ around });
  await worker.push(JSON.stringify({ title: "x", url: "/orders/7" }));
  page.messages = [];
  await assert.rejects(worker.click(), { name: "InvalidAccessError" });
  assert.deepEqual(page.messages.map(({ type }) => type), ["tower-web-push:click"]);
});

test("a button opens its address, or else that of the notification", async () => {
  const browser = new Browser();
  const actions = [
    { action: "track", title: "Track", navigate: "/track/7" },
    { action: "hide", title: "Hide" },
    { action: "constructor", title: "A name that objects have", url: "/named" },
  ];
  const worker = await shown(browser, { url: "/orders/7", actions });
  for (const action of ["track", "hide", "constructor", "toString", "unknown"]) await worker.click(action);
  const at = (path) => `https://app.example/${path}`;
  assert.deepEqual(browser.opened, [at("track/7"), at("orders/7"), at("named"), at("orders/7"), at("orders/7")]);
});

for (const url of [
  "javascript:alert(1)",
  " javascript:alert(1)",
  "JaVaScRiPt:alert(1)",
  "java\nscript:alert(1)",
  "data:text/html,<script>alert(1)</script>",
  "file:///etc/passwd",
  "blob:https://app.example/1",
  "chrome://settings",
  "intent://x#Intent;end",
  "ftp://app.example/",
  "mailto:a@example.com",
  "http://",
  "https://[",
]) {
  test(`${JSON.stringify(url)} is never opened`, async () => {
    const browser = new Browser();
    const actions = [{ action: "go", title: "Go", navigate: url }];
    const worker = await shown(browser, { url, actions });
    await worker.click();
    await worker.click("go");
    // Notifications of an older version of the worker, or of another script.
    await worker.click("go", { from: "tower-web-push", url, actions: { go: url }, data: null });
    assert.deepEqual(new Set(browser.opened), new Set(["https://app.example/"]));
    const declarative = { web_push: 8030, notification: { title: "x", navigate: url, actions } };
    const other = browser.worker();
    await other.push(JSON.stringify(declarative));
    await other.click("go");
    assert.deepEqual(new Set(browser.opened), new Set(["https://app.example/"]));
  });
}

test("open pages get the click, with the server's data", async () => {
  const browser = new Browser();
  const { client } = await browser.tab();
  const clicks = [];
  client.onClick((click) => clicks.push({ ...click }));
  const worker = await shown(browser, { url: "/orders/7", data: { order: 7 }, actions: [{ action: "track", title: "Track" }] });
  await worker.click("track");
  assert.equal(clicks.length, 1);
  assert.equal(typeof clicks[0].at, "number");
  delete clicks[0].at;
  assert.deepEqual(clicks, [{ action: "track", url: "https://app.example/orders/7", data: { order: 7 } }]);
});
