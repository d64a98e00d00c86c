// The examples' page below a path of a proxy, which the server does not know: every reference is relative.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { Browser } from "./support/browser.mjs";
import { ASSETS, assets, load } from "./support/module.mjs";

/** References to the root of the host: in quotes, as in scripts, attributes and JSON, or bare in HTML and CSS. */
const OF_THE_HOST = /(?:["'`]|(?:href|src)=|url\()\s*\/(?!>)[^"'`)\s]*/g;

/** Removes comments and base64, which has slashes. @param {string} text */
const code = (text) => text.replace(/^\s*(\/\/|\/?\*).*$/gm, "").replaceAll('replaceAll("/", ', "");

test("no asset of the page refers to the root of its host", async () => {
  const names = (await assets()).filter((name) => !name.endsWith(".svg"));
  assert.ok(names.length > 30, `${names.length} assets`);
  for (const name of names) {
    const found = code(await readFile(new URL(name, ASSETS), "utf8")).match(OF_THE_HOST);
    assert.deepEqual(found, null, name);
  }
});

test("a reference to the root of the host would be found", () => {
  for (const text of ['href="/icon.svg"', "fetch('/web-push/stats')", "`/web-push/${path}`", 'import "/log.js"', '"start_url": "/"', "url(/icon.svg)"]) {
    assert.match(code(text), new RegExp(OF_THE_HOST), text);
  }
});

test("the installed page starts in the folder of its manifest", async () => {
  const manifest = JSON.parse(await readFile(new URL("manifest.webmanifest", ASSETS), "utf8"));
  const at = (/** @type {string} */ reference) => new URL(reference, "https://app.example/push/manifest.webmanifest").pathname;
  const { start_url, scope, icons } = manifest;
  assert.deepEqual([start_url, scope, icons[0].src].map(at), ["/push/", "/push/", "/push/icon.svg"]);
});

test("pages of two servers behind one host share no stored values", async () => {
  const keys = [];
  for (const path of ["/a/", "/b/", "/b/?q#h", "/", "/a/console#keys"]) {
    const { keyed } = await load("stored.js", { globals: { URL, location: { href: `https://app.example${path}` } } });
    keys.push(keyed("operator"));
  }
  assert.deepEqual(keys, ["/a/operator", "/b/operator", "/b/operator", "/operator", "/a/operator"]);
});

test("a click without an address opens the mount's site, not another one of the host", async () => {
  for (const [scope, settings, script, home] of [
    ["https://app.example/web-push/", undefined, undefined, "https://app.example/"],
    ["https://app.example/push/web-push/", undefined, "https://app.example/push/web-push/service-worker.js", "https://app.example/push/"],
    ["https://app.example/", undefined, "https://app.example/service-worker.js", "https://app.example/"],
    // Imported by an application's worker, whose scope has the pages.
    ["https://app.example/shop/", { mount: "/api/v1/push/" }, "https://app.example/shop/sw.js", "https://app.example/shop/"],
    ["https://app.example/shop/", { mount: "https://push.example/web-push/" }, "https://app.example/shop/sw.js", "https://app.example/shop/"],
  ]) {
    const browser = new Browser();
    const tab = (/** @type {string} */ url) => {
      const page = { url, focused: 0, focus: async () => void page.focused++, postMessage() {} };
      browser.pages.push(page);
      return page;
    };
    const other = tab("https://app.example.evil/");
    const worker = browser.worker({ scope, settings, script });
    await worker.push(JSON.stringify({ title: "x" }));
    await worker.click();
    assert.deepEqual([other.focused, browser.opened], [0, [home]], home);
    const ours = tab(`${home}somewhere?q`);
    await worker.click();
    assert.deepEqual([ours.focused, browser.opened.length], [1, 1], home);
  }
  const browser = new Browser();
  const neighbour = { url: "https://app.example/", focused: 0, focus: async () => void neighbour.focused++, postMessage() {} };
  browser.pages.push(neighbour);
  const worker = browser.worker({ scope: "https://app.example/push/web-push/", script: "https://app.example/push/web-push/service-worker.js" });
  await worker.push(JSON.stringify({ title: "x" }));
  await worker.click();
  assert.deepEqual([neighbour.focused, browser.opened], [0, ["https://app.example/push/"]]);
});
