// Answers of a server with many subscriptions, for screenshots.
const real = window.fetch;
const day = (back, hour = 8) => {
  const at = new Date();
  at.setHours(hour, 0, 0, 0);
  at.setDate(at.getDate() - back);
  return at.toISOString();
};
const none = { pending: 0, accepted: 0, gone: 0, key_mismatch: 0, sender_fault: 0, too_large: 0, bad_request: 0, refused: 0, expired: 0, failed: 0, cancelled: 0 };
const broadcast = (number, members, counts) => ({
  id: `${number}f0c7a3e-51d2-4b8e-9c3a-7d2f6b1e8a90`,
  state: "done",
  createdAt: day(0),
  sendAt: null,
  deadline: day(-1),
  pace: null,
  ...members,
  counts: { ...none, ...counts },
  recipients: Object.values(counts).reduce((sum, count) => sum + count, 0),
});
const answers = {
  stats: {
    subscriptions: {
      total: 1_920, live: 1_842, stale: 17, retired: 61,
      byPushService: { fcm: 1_127, mozilla: 318, apple: 289, wns: 104, meta: 0, other: 4 },
      byVapidKey: { "9k3fXq2LmB0": 1_790, "Zt81aPw7Rc4": 52 },
    },
    days: [1_102, 1_131, 1_188, 1_240, 1_236, 1_259, 1_322, 1_390, 1_455, 1_501, 1_498, 1_604, 1_733, 1_790].map((live, place) => ({
      day: new Date(Date.now() - (13 - place) * 86_400_000).toISOString().slice(0, 10),
      live,
    })),
    ledger: { depth: 742, leased: 64, oldestDue: new Date().toISOString() },
    gates: [{ origin: "https://web.push.apple.com", until: day(-1, 9), reason: "rate_limited", closures: 1 }],
    origins: [
      { origin: "https://fcm.googleapis.com", inFlight: 48, limit: 96 },
      { origin: "https://updates.push.services.mozilla.com", inFlight: 16, limit: 32 },
    ],
    retiringStopped: [],
    worker: { failing: [], parked: 0, parkedBroadcasts: [], unreadable: 0 },
    missingKeys: [],
  },
  vapid: { vapidKey: "BK3f…", keyId: "9k3fXq2LmB0" },
  "broadcasts/estimate": { recipients: 1_842 },
  broadcasts: {
    next: null,
    broadcasts: [
      broadcast(1, { state: "sending", pace: { perSecond: 200 } }, { pending: 742, accepted: 1_088, gone: 9, failed: 3 }),
      broadcast(2, { state: "scheduled", sendAt: day(-1, 18) }, { pending: 0 }),
      broadcast(3, { createdAt: day(1) }, { accepted: 1_802, gone: 14, failed: 6 }),
      broadcast(4, { createdAt: day(1, 17) }, {}),
      broadcast(5, { createdAt: day(2) }, { accepted: 1_640, gone: 8 }),
      broadcast(6, { createdAt: day(3) }, { accepted: 940, expired: 210 }),
      broadcast(7, { createdAt: day(5) }, { accepted: 1_210, gone: 22 }),
      broadcast(8, { createdAt: day(6) }, { accepted: 1_480, gone: 4, failed: 2 }),
    ],
  },
  subscriptions: {
    next: null,
    subscriptions: Array.from({ length: 50 }, (_, place) => ({
      id: `${(place + 4096).toString(16)}f1de-7a54-4f0e-8f67-0d3a5b9e2c11`,
      state: place === 2 ? "retired" : "live",
      pushService: ["fcm", "mozilla", "apple"][place % 3],
      user: place % 4 === 3 ? null : ["alice", "bob", "carol"][place % 3],
      tags: place % 2 ? ["news"] : ["news", "orders"],
      keyId: "9k3fXq2LmB0",
      createdAt: day(40),
      lastSeenAt: day(0),
      lastSuccessAt: place === 2 ? null : day(0),
      failureStreak: place === 2 ? 3 : 0,
      lastFailure: place === 2 ? { at: day(0), status: 410, reason: "Unregistered" } : null,
      retireReason: place === 2 ? "gone" : null,
      expirationTime: null,
      schedules: [],
    })),
  },
};
window.fetch = async (to, init) => {
  const { pathname, searchParams } = new URL(String(to), location.href);
  const name = pathname.replace("/web-push/", "");
  if (!answers[name]) return real(to, init);
  if (name !== "subscriptions") return Response.json(answers[name]);
  const [from, limit] = [Number(searchParams.get("after") ?? 0), Number(searchParams.get("limit"))];
  const all = answers.subscriptions.subscriptions;
  return Response.json({ subscriptions: all.slice(from, from + limit), next: from + limit < all.length ? String(from + limit) : null });
};
const shows = {
  overview: () => document.getElementById("figure-live").textContent === "1,842" && document.getElementById("growth-chart").children.length > 0,
  broadcasts: () => document.getElementById("broadcasts-list").children.length > 1,
  compose: () => document.getElementById("notify-estimate").textContent.includes("1,842"),
  audience: () => document.getElementById("audience-list").children.length > 1,
  health: () => document.getElementById("gates").children.length > 0,
  keys: () => document.getElementById("keys-list").children.length > 1,
};
window.isShown = (view) => shows[view]();
