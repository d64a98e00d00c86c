// The routes that the client and the worker call, with the rules that matter to them: a row moves to a new endpoint with
// the old one's secret, else the request is a plain subscribe.
const MOUNT = "https://app.example/web-push/";

export class Server {
  /** endpoint -> {id, auth, key, tags} */
  rows = new Map();
  key = key(1);
  requests = [];
  /** Called before each answer: may throw (no connection), or return an answer. */
  intercept = () => undefined;
  /** Called after the request was processed: may throw, so that the answer is lost. */
  lose = () => {};
  #ids = 0;

  rotate(number = 2) {
    this.key = key(number);
  }

  /** Returns the bodies posted to `path`. */
  posted(path) {
    return this.requests.filter((request) => request.path === path && request.method === "POST").map(({ body }) => body);
  }

  async fetch(url, { method = "GET", body, headers = {}, cache, signal } = {}) {
    if (!url.startsWith(MOUNT)) throw new Error(`${url} is not the server's`);
    if (method === "GET" && cache !== "no-store") throw new Error("a key from the cache is no present one");
    const path = url.slice(MOUNT.length);
    const parsed = body === undefined ? undefined : JSON.parse(body);
    if (method === "POST" && headers["content-type"] !== "application/json") return problem(415, "unsupported_media_type");
    this.requests.push({ method, path, body: parsed, authorization: headers.authorization });
    await new Promise(setImmediate);
    const answer = await Promise.race([this.intercept(path, parsed) ?? this.#answer(method, path, parsed), aborted(signal)]);
    this.lose(path);
    return answer;
  }

  #answer(method, path, body) {
    switch (`${method} ${path}`) {
      case "GET vapid":
        return json({ vapidKey: this.key, public_key: this.key, keyId: "k" });
      case "POST subscribe":
        return this.#upsert(body);
      case "POST renew": {
        const old = this.rows.get(body.oldEndpoint);
        const knows = old && old.auth === body.oldAuth;
        if (knows) this.rows.delete(body.oldEndpoint);
        return this.#upsert(body.subscription, knows ? old : undefined);
      }
      case "POST unsubscribe":
        if (body.notifyType === undefined) this.rows.delete(body.endpoint);
        return json({ success: true, message: "Subscription deleted successfully" });
      case "POST send-test":
        return this.rows.has(body.endpoint) ? json({ success: true, message: "sent" }) : problem(404, "unknown_subscription");
      default:
        return problem(404, "not_found");
    }
  }

  #upsert({ endpoint, keys, expirationTime, applicationServerKey, tags }, old) {
    if (typeof expirationTime === "number" && expirationTime <= Date.now()) return problem(400, "subscription_expired");
    const before = this.rows.get(endpoint) ?? old;
    const row = {
      id: before?.id ?? `id${++this.#ids}`,
      auth: keys.auth,
      key: applicationServerKey ?? before?.key ?? this.key,
      tags: tags ?? before?.tags ?? [],
    };
    this.rows.set(endpoint, row);
    const isUnknown = before?.isStale === true && applicationServerKey === undefined;
    return json({ success: true, id: row.id, created: !before, staleKey: isUnknown || row.key !== this.key });
  }
}

/** Rejects when the signal aborts; never without one. */
function aborted(signal) {
  return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
}

export function problem(status, code, detail = code) {
  return Response.json({ status, code, detail, success: false, message: detail }, { status });
}

function json(value) {
  return Response.json(value);
}

/** Makes a key of 65 octets, the length of a point. */
function key(number) {
  return Buffer.alloc(65, number).toString("base64url");
}
