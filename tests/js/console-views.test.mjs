// The console's frame: its lock, its views, and what they say of the age of their figures.
import assert from "node:assert/strict";
import { test } from "node:test";

import { isHidden, openConsole, settled } from "./support/console.mjs";
import { OperatorServer, problem } from "./support/operator-server.mjs";

const VIEWS = ["overview", "broadcasts", "compose", "audience", "health", "keys"];
const shownViews = ({ byId }) => VIEWS.filter((name) => !isHidden(byId(`view-${name}`)));

test("nothing is read or shown before it is unlocked", async () => {
  const page = await openConsole({ token: null });
  assert.deepEqual(shownViews(page), []);
  assert.equal(isHidden(page.byId("nav")), true);
  assert.equal(isHidden(page.byId("operator-token")), false);
  await page.pass(60_000);
  assert.deepEqual([...new Set(page.server.requests.map(({ path }) => path))].sort(), ["ping", "ready"]);
});

test("a token unlocks it, and is kept for this tab only", async () => {
  const page = await openConsole({ token: null });
  page.byId("operator-token").value = "wrong";
  await page.submit("operator");
  assert.equal(page.text("status"), "The server refused this token.");
  assert.deepEqual(shownViews(page), []);
  page.byId("operator-token").value = "right";
  await page.submit("operator");
  assert.deepEqual(shownViews(page), ["overview"]);
  assert.equal(page.byId("operator-token").value, "");
  assert.deepEqual([...page.stored], [["/operator", "Bearer right"]]);
  page.byId("lock").click();
  assert.deepEqual(shownViews(page), []);
  assert.equal(page.document.activeElement.id, "operator-token");
  assert.deepEqual([...page.stored], []);
  assert.equal(page.reloads, 1);
  const asked = page.server.requests.length;
  await page.pass(10_000);
  assert.deepEqual(page.server.requests.slice(asked).filter(({ path }) => path === "stats"), []);
});

test("what a secret looks like is tried first: a server's log tells of each refusal", async () => {
  for (const [secret, expected] of [
    ["s3cure!Passphrase", ["Basic", "Bearer"]],
    ["correct horse battery", ["Basic"]],
    ["h9Jm3pXq7vTz2LkB", ["Bearer", "Basic"]],
    ["qXV4Yv1RHMbKn0gTzCZ2PjBdW8EJ_Ut3hsOl5r-Qa7k", ["Bearer", "Basic"]],
    ["ab+/cd==ef012345", ["Bearer", "Basic"]],
  ]) {
    const page = await openConsole({ token: null });
    page.byId("operator-token").value = secret;
    await page.submit("operator");
    assert.equal(page.text("status"), "The server refused this token.");
    const tried = page.server.requests.filter(({ path }) => path === "stats").map(({ headers }) => headers.authorization.split(" ")[0]);
    assert.deepEqual(tried, expected, secret);
  }
});

test("a proxy's page in place of an answer is said in words", async () => {
  const page = await openConsole();
  page.server.intercept = (_, path) => (path === "ready" ? undefined : new Response("<h1>Sign in</h1>"));
  for (const name of VIEWS.filter((name) => name !== "compose")) {
    await page.go(name);
    await page.pass(6_000);
    const said = page.byId(`view-${name}`).textContent;
    assert.match(said, /What answered for the server is not the server\. Look at the proxy in front of it\./, name);
    assert.doesNotMatch(said, /destructure|null|undefined/, name);
  }
});

test("nothing of what was sent or shown stays behind the lock", async () => {
  const server = new OperatorServer();
  server.subscribe({ user: "alice" });
  const page = await openConsole({ hash: "#compose", server });
  await page.fill("notify", { title: "A secret", audience: "user", user: "alice" });
  await page.submit("notify");
  await page.confirm("yes");
  assert.match([...page.stored.values()].join(), /A secret.*alice/);
  page.byId("lock").click();
  assert.deepEqual([[...page.stored], page.reloads], [[], 1], "a new page has empty fields and lists");
  const next = await openConsole({ hash: "#broadcasts", token: null, server, stored: page.stored });
  assert.equal(next.document.activeElement.id, "operator-token");
  next.byId("operator-token").value = "right";
  await next.submit("operator");
  assert.equal(next.byId("broadcasts-list").children.length, 1);
  assert.doesNotMatch(next.document.root.textContent, /A secret|alice/);
});

test("a token that the server no longer accepts locks it", async () => {
  const page = await openConsole();
  page.server.token = "another";
  await page.pass(6_000);
  assert.deepEqual(shownViews(page), []);
  assert.deepEqual([...page.stored], []);
});

test("a token that is no longer accepted leaves nothing of what was sent or shown, except a draft", async () => {
  const server = new OperatorServer();
  const page = await openConsole({ hash: "#compose", server });
  await page.fill("notify", { title: "A secret", audience: "all" });
  server.subscribe();
  await page.submit("notify");
  await page.confirm("yes");
  assert.match([...page.stored.values()].join(), /A secret/);
  server.token = "another";
  await page.pass(11_000);
  assert.deepEqual([[...page.stored], page.reloads], [[], 1]);

  server.token = "right";
  const draft = await openConsole({ hash: "#compose", server });
  await draft.fill("notify", { title: "Half a sentence" });
  server.token = "another";
  await draft.go("health");
  assert.deepEqual([shownViews(draft), [...draft.stored], draft.reloads], [[], [], 0]);
  assert.equal(draft.byId("notify").querySelector('[name="title"]').value, "Half a sentence");
  server.token = "right";
  draft.byId("operator-token").value = "right";
  await draft.submit("operator");
  draft.byId("lock").click();
  assert.equal(draft.reloads, 1, "who locks it wants nothing to stay");
});

test("a refusal of earlier credentials does not lock the console with newer ones", async () => {
  const page = await openConsole();
  let release;
  const late = new Promise((resolve) => (release = resolve));
  page.server.intercept = async (_, path, body) => {
    if (path !== "stats" || page.server.token === "second") return undefined;
    await late;
    return problem(401, "wrong_credentials", "Wrong password");
  };
  await page.pass(6_000);
  page.server.token = "second";
  await page.go("broadcasts");
  assert.deepEqual(shownViews(page), [], "its refusal locks it");
  page.byId("operator-token").value = "second";
  await page.submit("operator");
  release();
  await settled();
  assert.equal(page.stored.get("/operator"), "Bearer second");
  assert.deepEqual(shownViews(page), ["broadcasts"]);
});

test("one view is shown at a time, by the address, and gets the focus and the title", async () => {
  const page = await openConsole();
  assert.deepEqual(shownViews(page), ["overview"]);
  assert.equal(page.byId("overview-heading").focused, 0, "a first visit leaves the focus where it is");
  for (const name of VIEWS.toReversed()) {
    await page.go(name);
    assert.deepEqual(shownViews(page), [name]);
    assert.equal(page.document.activeElement.id, `${name}-heading`);
    assert.match(page.document.title, new RegExp(`^${page.text(`${name}-heading`)} · `));
    const current = VIEWS.filter((other) => page.byId(`nav-${other}`).getAttribute("aria-current") === "page");
    assert.deepEqual(current, [name]);
    assert.match(page.text(`${name}-as-of`), /^As of /, name);
  }
  await page.go("keys");
  await page.go("main");
  assert.deepEqual(shownViews(page), ["keys"], "the link to the content leads away from no view");
});

test("an unknown view is the first", async () => {
  const page = await openConsole({ hash: "#nothing" });
  assert.deepEqual(shownViews(page), ["overview"]);
});

test("the view that is shown is kept up to date, and no other", async () => {
  const page = await openConsole({ hash: "#keys" });
  const since = page.server.requests.length;
  await page.pass(31_000);
  const paths = page.server.requests.slice(since).map(({ path }) => path);
  assert.deepEqual(paths.filter((path) => path === "vapid").length, 1);
  assert.deepEqual(paths.filter((path) => path.startsWith("broadcasts")), []);
  page.document.hidden = true;
  const hidden = page.server.requests.length;
  await page.pass(120_000);
  assert.deepEqual(page.server.requests.slice(hidden).filter(({ path }) => path === "vapid"), []);
});

test("figures that cannot be updated stay, with their time and the reason in words", async () => {
  const server = new OperatorServer();
  server.subscribe();
  const page = await openConsole({ server });
  assert.equal(page.text("figure-live"), "1");
  const asOf = page.text("overview-as-of");
  server.intercept = (_, path) => (path === "stats" ? problem(503, "store_unavailable", "The store is unavailable.") : undefined);
  await page.pass(60_000);
  assert.equal(page.text("figure-live"), "1");
  assert.ok(page.text("overview-as-of").endsWith("Not updated since: The store is unavailable."), page.text("overview-as-of"));
  assert.ok(page.text("overview-as-of").startsWith(asOf), "the time is that of the figures");
  server.intercept = () => undefined;
  await page.pass(6_000);
  assert.match(page.text("overview-as-of"), /^As of [^.]+$/);
});

test("figures that were never read are no zeros", async () => {
  const server = new OperatorServer();
  server.intercept = (_, path) => {
    if (path === "stats") throw new TypeError("fetch failed");
  };
  const page = await openConsole({ server });
  assert.match(page.text("overview-as-of"), /^Not loaded: The server cannot be reached/);
  assert.equal(page.text("figure-live"), "–");
});

test("no request with the token carries cookies, or lets the browser ask for a password", async () => {
  const server = new OperatorServer();
  server.subscribe();
  server.add();
  const page = await openConsole({ server });
  for (const view of VIEWS) await page.go(view);
  const signed = server.requests.filter(({ headers }) => headers.authorization);
  assert.ok(signed.length > 5, `${signed.length} requests`);
  for (const { path, credentials } of signed) assert.equal(credentials, "omit", path);
  // Without the token, but a proxy may refuse it. The pill of all pages asks, too, with the cookies of a signed-in visitor.
  const ready = server.requests.filter(({ path }) => path === "ready");
  assert.ok(ready.some(({ credentials }) => credentials === "omit"), `${ready.length} requests`);
});
