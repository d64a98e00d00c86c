// The form and the list of daily notifications.
import { state, unsubscribe } from "./web-push/client.js";
import { enrol } from "./browser.js";
import { clock, minuteAhead, schedule, words, zone } from "./daily.js";
import { byId, element } from "./dom.js";
import { scheduled } from "./scheduled.js";
import { afterEach, onClick, onSubmit, run } from "./status.js";

/** The names of the two types for users. */
const NAMES = { DIRECT_NOTIFICATION: "Reminder", DAILY_CHECK: "Daily check" };

/** Saves the form, at its time or at another one. */
async function daily(form, time) {
  const type = form.get("type");
  const message = form.get("message") || undefined;
  const told = await schedule(time, type, message);
  scheduled.set(type, { time: words(told), message });
  return told;
}

onSubmit("daily", async (form) => {
  const [hour, minute] = String(form.get("time")).split(":").map(Number);
  const days = form.getAll("weekdays");
  if (days.length === 0) throw new Error("Choose at least one day.");
  const told = await daily(form, { hour, minute, weekdays: days.length < 7 ? days : undefined });
  return `Scheduled at ${words(told)}. It is sent within that minute.`;
});

onClick("daily-test", async () => {
  const told = await daily(new FormData(byId("daily")), minuteAhead());
  return `The test is sent at ${clock(told)}, up to 59 seconds into that minute. It repeats daily: stop it in the list.`;
});

async function stop(notifyType) {
  await unsubscribe({ notifyType });
  scheduled.set(notifyType, undefined);
  // With its last schedule the server removes a subscription; this page keeps it.
  if ((await state()).subscription) await enrol();
  byId("daily-time").focus();
  return `Stopped: ${NAMES[notifyType] ?? notifyType}.`;
}

async function show() {
  const entries = Object.entries(scheduled.all());
  byId("daily-none").hidden = entries.length > 0;
  byId("daily-list").replaceChildren(
    ...entries.map(([type, { time, message }]) => {
      const name = NAMES[type] ?? type;
      const button = element("button", { type: "button", className: "small", ariaLabel: `Stop ${name} at ${time}` }, "Stop");
      button.addEventListener("click", () => run(button, () => stop(type)));
      const text = element("div", {}, element("strong", {}, time), " ", element("span", {}, message ? `${name}: ${message}` : name));
      return element("li", {}, text, " ", button);
    }),
  );
}

byId("daily-zone").textContent = zone ? `Time zone: ${zone}` : "Local time, stored as UTC";
afterEach.add(show);
// Another tab has changed the schedules.
addEventListener("storage", show);
show();
