// The example's page. The work is done by the client that the mount serves; this only wires it to buttons.
import { onPush, sendTest, state, subscribe, unsubscribe } from "/web-push/client.js";
import { clock, minuteAhead, schedule, scheduled, words, zone } from "/daily.js";

const byId = (id) => document.getElementById(id);

/** Runs one action at a time for a button, and says in words what came of it. */
async function run(button, action) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    say(await action());
  } catch (error) {
    say(error.message, "error");
  } finally {
    button.removeAttribute("aria-disabled");
    await refresh();
  }
}

function onClick(id, action) {
  byId(id).addEventListener("click", (event) => run(event.currentTarget, action));
}

function onSubmit(id, action) {
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    run(event.submitter ?? event.target, () => action(new FormData(event.target)));
  });
}

function say(text, kind = "info") {
  byId("status").textContent = text;
  byId("status").dataset.kind = kind;
}

async function refresh() {
  const { supported, subscription } = await state();
  const enabled = subscription !== null;
  byId("enable").hidden = enabled;
  byId("test").hidden = byId("disable").hidden = byId("credentials").hidden = !enabled;
  byId("credentials").querySelector("pre").textContent = enabled ? JSON.stringify(subscription, null, 2) : "";
  if (!enabled) scheduled.clear();
  showScheduled();
  return { supported, enabled };
}

onClick("enable", async () => {
  const { id } = await subscribe();
  byId("test").hidden = false;
  byId("test").focus();
  return `Notifications are on. The server calls this browser ${id}.`;
});

onClick("test", async () => {
  const { success, message } = await sendTest();
  if (!success) throw new Error(message);
  return "Sent. It should appear in a moment.";
});

onClick("disable", async () => {
  await unsubscribe();
  byId("enable").hidden = false;
  byId("enable").focus();
  return "Notifications are off.";
});

/** Saves what the form says, at its time or at another one. */
async function daily(form, time) {
  const type = form.get("type");
  const message = form.get("message") || undefined;
  const told = await schedule(time, type, message);
  scheduled.set(type, { time: words(told), message });
  return told;
}

onSubmit("daily", async (form) => {
  const [hour, minute] = form.get("time").split(":").map(Number);
  const days = form.getAll("weekdays");
  if (days.length === 0) throw new Error("Choose a day at least.");
  const told = await daily(form, { hour, minute, weekdays: days.length < 7 ? days : undefined });
  return `Scheduled at ${words(told)}. It comes within that minute.`;
});

onClick("daily-test", async () => {
  const told = await daily(new FormData(byId("daily")), minuteAhead());
  return `The test comes at ${clock(told)}, up to 59 seconds into that minute. It is a daily time now: stop it in the list.`;
});

async function stop(notifyType) {
  await unsubscribe({ notifyType });
  scheduled.set(notifyType, undefined);
  // With its last schedule the server forgets a subscription; this page wants to stay.
  if ((await state()).subscription) await subscribe();
  byId("daily-time").focus();
  return `Stopped: ${notifyType}.`;
}

function showScheduled() {
  const entries = Object.entries(scheduled.all());
  byId("daily-none").hidden = entries.length > 0;
  byId("daily-list").replaceChildren(
    ...entries.map(([type, { time, message }]) => {
      const at = document.createElement("strong");
      at.textContent = time;
      const what = document.createElement("span");
      what.textContent = message ? `${type}: ${message}` : type;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Stop";
      button.setAttribute("aria-label", `Stop ${type} at ${time}`);
      button.addEventListener("click", () => run(button, () => stop(type)));
      const entry = document.createElement("li");
      entry.append(at, " ", what, " ", button);
      return entry;
    }),
  );
}

onSubmit("notify", async (form) => {
  const content = { title: form.get("title") };
  if (form.get("body")) content.body = form.get("body");
  if (form.get("url")) content.url = form.get("url");
  const response = await fetch("/web-push/notify", {
    method: "POST",
    headers: {
      authorization: `Bearer ${form.get("token")}`,
      "content-type": "application/json",
      prefer: "wait=5",
    },
    body: JSON.stringify(content),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? answer.message);
  return `${answer.message}.`;
});

onPush(({ title, options, at }) => {
  const time = document.createElement("time");
  time.dateTime = new Date(at).toISOString();
  time.textContent = new Date(at).toLocaleTimeString();
  const name = document.createElement("strong");
  name.textContent = title;
  const body = document.createElement("span");
  body.textContent = options.body ?? "";
  const entry = document.createElement("li");
  entry.append(time, " ", name, " ", body);
  byId("log").prepend(entry);
  byId("log-empty").hidden = true;
  if (byId("log").children.length > 50) byId("log").lastElementChild.remove();
});

byId("daily-zone").textContent = zone ?? "your time, kept as UTC";
const { supported, enabled } = await refresh();
if (!supported) say("This browser, or this connection, cannot receive notifications.", "error");
else say(enabled ? "Notifications are on." : "Notifications are off.");
