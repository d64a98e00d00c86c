// The figures of the last days, and where the subscriptions are.
import { byId, time } from "../dom.js";
import { showBars, showColumns } from "./charts.js";
import { byDay, lastDates, lastDays, long, longDate, short, shortDate } from "./days.js";
import { authorized, serverNow } from "./session.js";
import { view } from "./views.js";
import { PUSH_SERVICES, counted, number, word } from "./words.js";

/** As long as the server keeps the counts of broadcasts that are over. */
const SENT_DAYS = 7;
/** The longest time that a broadcast is accepted before it is sent, in milliseconds. */
const AHEAD = 30 * 86_400_000;
const GROWTH_DAYS = 14;
/** The most pages of a list that a chart reads, and their rows. */
const [PAGES, PAGE] = [20, 100];
/** How long a chart is shown before it is read again, in milliseconds. */
const FRESH = 60_000;

async function load() {
  const stats = await authorized("GET", "stats");
  figures(stats);
  growth(stats);
  await drawn("sent-chart", () => sentByDay());
}

/** @param {any} stats */
function figures({ subscriptions, ledger, gates }) {
  const { live, stale, retired, byPushService } = subscriptions;
  byId("figure-live").textContent = number(live);
  byId("figure-lost").textContent = `${number(stale)} stale, ${number(retired)} gone`;
  byId("figure-waiting").textContent = number(ledger.depth);
  byId("figure-gates").textContent = gates.length === 0 ? "No push service is paused" : counted(gates.length, "push service is paused", "push services are paused");
  const services = Object.entries(byPushService).filter(([, count]) => count > 0);
  services.sort(([, one], [, other]) => other - one);
  byId("services-none").hidden = services.length > 0;
  showBars(byId("services-chart"), services.map(([name, count]) => ({ name: word(PUSH_SERVICES, name), count })));
}

/** When each chart was drawn. @type {Map<string, number>} */
const drawnAt = new Map();

/** Draws a chart if it is old, and shows of when it is. @param {string} id @param {() => Promise<string>} draw */
async function drawn(id, draw) {
  if (performance.now() - (drawnAt.get(id) ?? -FRESH) < FRESH) return;
  const note = byId(`${id}-note`);
  try {
    const words = await draw();
    drawnAt.set(id, performance.now());
    note.replaceChildren(words, " As of ", time(Date.now()), ".");
  } catch (error) {
    note.textContent = `Not loaded: ${error.message}`;
  }
}

/** When a broadcast was sent, or is to be. @param {{sendAt: string | null, createdAt: string}} broadcast */
const sentAt = ({ sendAt, createdAt }) => sendAt ?? createdAt;

/** @returns {Promise<string>} */
async function sentByDay() {
  const days = lastDays(SENT_DAYS, Date.now());
  const since = new Date(days[0].getTime() - AHEAD).toISOString();
  const { rows, isWhole } = await pages(`broadcasts?createdAfter=${encodeURIComponent(since)}`, "broadcasts");
  const begun = rows.filter(({ sendAt }) => sendAt === null || Date.parse(sendAt) <= serverNow());
  const sorted = byDay(begun, sentAt, days);
  const counts = sorted.map((broadcasts) => broadcasts.map(({ counts }) => split(counts)));
  const sums = counts.map((day) => day.reduce((sum, one) => ({ delivered: sum.delivered + one.delivered, failed: sum.failed + one.failed }), { delivered: 0, failed: 0 }));
  const columns = days.map((day, place) => ({
    label: short(day),
    name: long(day),
    parts: [
      { kind: "failed", count: sums[place].failed, word: "failed" },
      { kind: "delivered", count: sums[place].delivered, word: "delivered" },
    ],
  }));
  showColumns(byId("sent-chart"), columns);
  const atLeast = isWhole ? "" : "at least ";
  const total = (/** @type {"delivered" | "failed"} */ kind) => `${atLeast}${number(sums.reduce((sum, day) => sum + day[kind], 0))}`;
  byId("figure-delivered").textContent = total("delivered");
  byId("figure-failed").textContent = total("failed");
  const some = `${atLeast}${counted(sorted.flat().length, "broadcast")} in seven days, by the day of sending.`;
  return isWhole ? some : `Only the newest ${number(rows.length)} broadcasts were read: ${some}`;
}

/** @param {Record<string, number>} counts */
function split({ accepted, pending, cancelled, ...failures }) {
  return { delivered: accepted, failed: Object.values(failures).reduce((sum, count) => sum + count, 0) };
}

/** Draws the last days, and now as today. @param {any} stats */
function growth({ subscriptions, days }) {
  const known = new Map(days.map((/** @type {{day: string, live: number}} */ { day, live }) => [day, live]));
  const dates = lastDates(GROWTH_DAYS, serverNow());
  const figures = dates.map((date) => known.get(date));
  figures[GROWTH_DAYS - 1] = subscriptions.live;
  const columns = dates.map((date, place) => {
    const count = figures[place];
    const name = place === GROWTH_DAYS - 1 ? "Now" : longDate(date);
    if (count === undefined) return { label: shortDate(date), name, parts: [], words: "not recorded" };
    return { label: shortDate(date), name, parts: [{ kind: "live", count, word: "subscribed" }], isPlain: place % 4 !== 1 };
  });
  showColumns(byId("growth-chart"), columns);
  const first = figures.findIndex((count) => count !== undefined);
  const change = subscriptions.live - (figures[first] ?? 0);
  const since = `since the beginning of ${longDate(dates[first])}`;
  const words = change === 0 ? `As many as ${since}.` : `${number(Math.abs(change))} ${change > 0 ? "more" : "fewer"} ${since}.`;
  byId("growth-chart-note").textContent = `${first === GROWTH_DAYS - 1 ? "Earlier days are not recorded." : words} Days begin at midnight UTC; the last column is now.`;
}

/** Reads pages of a list. @param {string} path With a query. @param {string} name */
async function pages(path, name) {
  const rows = [];
  let after = "";
  for (let read = 0; read < PAGES; read++) {
    const answer = await authorized("GET", `${path}&limit=${PAGE}${after}`);
    rows.push(...answer[name]);
    if (answer.next === null) return { rows, isWhole: true };
    after = `&after=${encodeURIComponent(answer.next)}`;
  }
  return { rows, isWhole: false };
}

view("overview", { every: 5_000, load });
