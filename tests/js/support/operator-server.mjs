// The admin routes that the console calls, in the shapes of the contract.
const MOUNT = "web-push/";
const START = Date.parse("2026-11-25T12:00:00Z");
const NONE = { pending: 0, accepted: 0, gone: 0, key_mismatch: 0, sender_fault: 0, too_large: 0, bad_request: 0, refused: 0, expired: 0, failed: 0, cancelled: 0 };

export class OperatorServer {
  now = START;
  token = "right";
  broadcasts = [];
  subscriptions = [];
  gates = [];
  keyId = "key-1";
  ready = { ready: true, store: true, scheduler: true, worker: true, clock: true, contact: true };
  ledger = { depth: 0, leased: 0, oldestDue: null };
  days = [];
  more = {};
  requests = [];
  /** Called before each answer: may throw, or return another one. */
  intercept = () => undefined;
  #ids = 0;

  /** Adds a broadcast. */
  add({ counts = {}, ...members } = {}) {
    const id = members.id ?? `b${String(++this.#ids).padStart(7, "0")}-0000`;
    const at = new Date(this.now).toISOString();
    const one = { id, state: "done", recipients: 0, createdAt: at, sendAt: null, deadline: at, pace: null, counts: { ...NONE, ...counts }, failures: [], ...members };
    if (members.recipients === undefined) one.recipients = Object.values(one.counts).reduce((sum, count) => sum + count, 0);
    this.broadcasts.unshift(one);
    return one;
  }

  /** Adds a subscription. */
  subscribe(members = {}) {
    const at = new Date(this.now - 86_400_000).toISOString();
    const one = {
      id: `s${++this.#ids}`, state: "live", pushService: "mozilla", user: null, tags: [], keyId: this.keyId, createdAt: at, lastSeenAt: at,
      lastSuccessAt: null, failureStreak: 0, lastFailure: null, retireReason: null, expirationTime: null, schedules: [], ...members,
    };
    this.subscriptions.push(one);
    return one;
  }

  /** The bodies sent to a path. */
  sent(method, path) {
    return this.requests.filter((request) => request.method === method && request.path === path).map(({ body }) => body);
  }

  async fetch(url, { method = "GET", body, headers = {}, credentials } = {}) {
    if (!url.startsWith(MOUNT)) throw new Error(`${url} is not the server's`);
    const path = url.slice(MOUNT.length);
    const parsed = body === undefined ? undefined : JSON.parse(body);
    if (body !== undefined && headers["content-type"] !== "application/json") return problem(415, "unsupported_media_type", "Not JSON.");
    this.requests.push({ method, path, body: parsed, headers, credentials });
    await new Promise(setImmediate);
    const answer = (await this.intercept(method, path, parsed)) ?? this.#answer(method, path, parsed, headers.authorization);
    answer.headers.set("date", new Date(this.now).toUTCString());
    return answer;
  }

  #answer(method, path, body, authorization) {
    if (path === "ready") return Response.json(this.ready, { status: this.ready.ready ? 200 : 503 });
    if (path === "ping") return new Response("pong ... version 1.2.3 ... with latest subscription run at None");
    if (path === "vapid") return Response.json({ vapidKey: "BPublic", public_key: "BPublic", keyId: this.keyId });
    if (authorization !== `Bearer ${this.token}`) return problem(401, "wrong_credentials", "Wrong password");
    const { pathname, searchParams } = new URL(path, "https://app.example/");
    const [, name, id] = pathname.split("/");
    switch (`${method} ${name}${id ? "/x" : ""}`) {
      case "GET stats":
        return Response.json(this.#stats());
      case "POST notify":
        return this.#notify(body);
      case "POST broadcasts/x":
        return Response.json({ recipients: this.#audience(body.audience).length });
      case "GET broadcasts": {
        const states = searchParams.get("state")?.split(",");
        const after = searchParams.get("createdAfter");
        return this.#page("broadcasts", searchParams, this.broadcasts.filter(({ state, createdAt }) => (!states || states.includes(state)) && (!after || createdAt >= after)).map(({ failures, ...one }) => one));
      }
      case "GET broadcasts/x":
        return Response.json(this.#broadcast(id));
      case "PATCH broadcasts/x":
        return Response.json(Object.assign(this.#broadcast(id), { state: body.state }));
      case "DELETE broadcasts/x": {
        const one = this.#broadcast(id);
        const { pending, cancelled, ...rest } = one.counts;
        return Response.json(Object.assign(one, { state: "cancelled", counts: { ...rest, pending: 0, cancelled: cancelled + pending } }));
      }
      case "GET subscriptions": {
        const by = ["id", "user", "tag", "state", "pushService"].filter((name) => searchParams.get(name));
        const rows = this.subscriptions.filter((one) => by.every((name) => (name === "tag" ? one.tags.includes(searchParams.get(name)) : one[name] === searchParams.get(name))));
        if (searchParams.get("format") === "csv") return new Response(`id\r\n${rows.map(({ id }) => `${id}\r\n`).join("")}`, { headers: { "content-type": "text/csv" } });
        return this.#page("subscriptions", searchParams, rows);
      }
      case "POST subscriptions/x":
        return Response.json({ subscriptions: this.subscriptions.filter(({ endpoint }) => endpoint === body.endpoint), next: null });
      case "DELETE subscriptions/x":
        this.subscriptions = this.subscriptions.filter((one) => one.id !== id);
        return Response.json({ success: true });
      case "POST open-gate":
        this.gates = this.gates.filter(({ origin }) => origin !== body.origin);
        return Response.json({ success: true, message: "", origin: body.origin, wasPaused: true });
      case "POST regenerate-vapid":
        this.keyId = `key-${++this.#ids}`;
        return Response.json({ success: true, message: "", keyId: this.keyId });
      default:
        return problem(404, "not_found", "There is nothing at this path.");
    }
  }

  #broadcast(id) {
    return this.broadcasts.find((one) => one.id === id);
  }

  #audience(audience = "all") {
    const live = this.subscriptions.filter(({ state }) => state === "live");
    if (audience === "all") return live;
    if (audience.ids) return live.filter(({ id }) => audience.ids.includes(id));
    return live.filter(({ user, tags }) => (audience.user === undefined ? tags.includes(audience.tag) : user === audience.user));
  }

  #notify(body) {
    const recipients = this.#audience(body.audience).length;
    const state = body.sendAt && Date.parse(body.sendAt) > this.now ? "scheduled" : "sending";
    const one = this.add({ state, recipients, sendAt: body.sendAt ?? null, pace: body.pace ?? null, counts: { pending: recipients } });
    return Response.json({ success: true, message: "", broadcast: one.id, recipients }, { status: 202 });
  }

  #page(name, query, rows) {
    const limit = Number(query.get("limit") ?? 50);
    const from = Number(query.get("after") ?? 0);
    const next = from + limit < rows.length ? String(from + limit) : null;
    return Response.json({ [name]: rows.slice(from, from + limit), next });
  }

  #stats() {
    const of = (state) => this.subscriptions.filter((one) => one.state === state);
    const count = (name) => Object.fromEntries(Object.entries(grouped(of("live"), name)).map(([key, rows]) => [key, rows.length]));
    return {
      subscriptions: {
        total: this.subscriptions.length, live: of("live").length, stale: of("stale").length, retired: of("retired").length,
        byPushService: { fcm: 0, mozilla: 0, apple: 0, ...count("pushService") },
        byVapidKey: count("keyId"),
      },
      days: this.days,
      ledger: this.ledger,
      gates: this.gates,
      origins: [],
      retiringStopped: [],
      worker: { failing: [], parked: 0, parkedBroadcasts: [], unreadable: 0 },
      missingKeys: [],
      ...this.more,
    };
  }
}

function grouped(rows, name) {
  const groups = {};
  for (const row of rows) (groups[row[name]] ??= []).push(row);
  return groups;
}

export function problem(status, code, detail) {
  return Response.json({ status, code, detail, success: false, message: detail }, { status });
}
