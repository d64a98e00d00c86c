// Daily times: by the visitor's own clock, or in UTC where that cannot be.
import { enrol } from "./browser.js";

/** What the browser calls the visitor's time zone, `Europe/Berlin`; some do not say. */
export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** As `Date` counts them. */
const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/** The server knows UTC only, or has not heard of the zone yet. */
const NO_ZONE = ["zones_unsupported", "unknown_zone"];

/**
 * Schedules a daily notification at a local time; gives back the time as the server was told.
 *
 * Without `weekdays` it comes every day.
 */
export async function schedule({ hour, minute, weekdays }, notifyType, message) {
  const save = async (notifyTime) => {
    await enrol({ notifyTime, notifyType, message });
    return notifyTime;
  };
  if (zone) {
    try {
      return await save({ hour, minute, zone, weekdays });
    } catch (error) {
      if (!NO_ZONE.includes(error.problem?.code)) throw error;
    }
  }
  return save(inUtc({ hour, minute, weekdays }));
}

/** The same moment of today in UTC. When the clocks change it is off, until it is saved again. */
function inUtc({ hour, minute, weekdays }) {
  const at = new Date();
  at.setHours(hour, minute, 0, 0);
  const [utcHour, utcMinute] = [at.getUTCHours(), at.getUTCMinutes()];
  if (!weekdays) return { utcHour, minute: utcMinute };
  const shift = at.getUTCDay() - at.getDay() + DAYS.length;
  const shifted = weekdays.map((day) => DAYS[(DAYS.indexOf(day) + shift) % DAYS.length]);
  return { hour: utcHour, minute: utcMinute, zone: "UTC", weekdays: shifted };
}

/** The next full minute that is far enough away to be scheduled before it begins. */
export function minuteAhead() {
  const at = new Date(Math.ceil((Date.now() + 15_000) / 60_000) * 60_000);
  return { hour: at.getHours(), minute: at.getMinutes() };
}

/** A time of day in words, as `08:00 Europe/Berlin`. */
export function clock({ hour, utcHour, minute, zone = "UTC" }) {
  const parts = [hour ?? utcHour, minute].map((part) => String(part).padStart(2, "0"));
  return `${parts.join(":")} ${zone}`;
}

/** The same with its days, as `08:00 Europe/Berlin, mon tue`. */
export function words(time) {
  return `${clock(time)}, ${time.weekdays?.join(" ") ?? "every day"}`;
}
