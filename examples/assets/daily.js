// Daily times: by the visitor's clock, or in UTC if the server has no zones.
import { enrol } from "./browser.js";

/** The visitor's time zone, `Europe/Berlin`; undefined in some browsers. */
export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** In the order of `Date.getDay`. */
const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/** The server supports UTC only, or does not know the zone. */
const NO_ZONE = ["zones_unsupported", "unknown_zone"];

/**
 * Schedules a daily notification at a local time. Returns the time that was posted.
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

/** Returns the time in UTC, by today's offset. After a clock change it is wrong until it is saved again. */
function inUtc({ hour, minute, weekdays }) {
  const at = new Date();
  at.setHours(hour, minute, 0, 0);
  const [utcHour, utcMinute] = [at.getUTCHours(), at.getUTCMinutes()];
  if (!weekdays) return { utcHour, minute: utcMinute };
  const shift = at.getUTCDay() - at.getDay() + DAYS.length;
  const shifted = weekdays.map((day) => DAYS[(DAYS.indexOf(day) + shift) % DAYS.length]);
  return { hour: utcHour, minute: utcMinute, zone: "UTC", weekdays: shifted };
}

/** Returns the next full minute that can be scheduled in time. */
export function minuteAhead() {
  const at = new Date(Math.ceil((Date.now() + 15_000) / 60_000) * 60_000);
  return { hour: at.getHours(), minute: at.getMinutes() };
}

/** Returns a time of day as text: `08:00 Europe/Berlin`. */
export function clock({ hour, utcHour, minute, zone = "UTC" }) {
  const parts = [hour ?? utcHour, minute].map((part) => String(part).padStart(2, "0"));
  return `${parts.join(":")} ${zone}`;
}

/** Returns a time with its days as text: `08:00 Europe/Berlin, mon tue`. */
export function words(time) {
  return `${clock(time)}, ${time.weekdays?.join(" ") ?? "every day"}`;
}
