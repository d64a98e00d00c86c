// Figures by day, by the visitor's calendar, or by the server's, which is that of UTC.

/** The beginnings of the last days, the oldest first. @param {number} count @param {number} now */
export function lastDays(count, now) {
  const days = [];
  for (let back = count - 1; back >= 0; back--) {
    const day = new Date(now);
    day.setHours(0, 0, 0, 0);
    day.setDate(day.getDate() - back);
    days.push(day);
  }
  return days;
}

/**
 * Sorts entries into days. Entries of before the first day are left out.
 *
 * @template T
 * @param {T[]} entries
 * @param {(entry: T) => string} at When it was.
 * @param {Date[]} days
 * @returns {T[][]}
 */
export function byDay(entries, at, days) {
  /** @type {T[][]} */
  const sorted = days.map(() => []);
  for (const entry of entries) {
    const moment = new Date(at(entry));
    const place = days.filter((day) => day <= moment).length - 1;
    if (place >= 0) sorted[place].push(entry);
  }
  return sorted;
}

/** @param {Date} day */
export const short = (day) => day.toLocaleDateString(undefined, { weekday: "short" });

/** @param {Date} day */
export const long = (day) => day.toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long" });

/** The last days in UTC, as the server writes them, the oldest first. @param {number} count @param {number} now */
export function lastDates(count, now) {
  return Array.from({ length: count }, (_, place) => new Date(now - (count - 1 - place) * 86_400_000).toISOString().slice(0, 10));
}

/** @param {string} date */
export const shortDate = (date) => new Date(date).toLocaleDateString(undefined, { weekday: "short", timeZone: "UTC" });

/** @param {string} date */
export const longDate = (date) => new Date(date).toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long", timeZone: "UTC" });
