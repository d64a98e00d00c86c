// The example's page. The work is done by the client that the mount serves; this only wires it to buttons.
import { onPush, sendTest, state, subscribe, unsubscribe } from "/web-push/client.js";

const byId = (id) => document.getElementById(id);
const DAILY = "DIRECT_NOTIFICATION";

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

onSubmit("daily", async (form) => {
  const [hour, minute] = form.get("time").split(":").map(Number);
  const local = new Date();
  local.setHours(hour, minute, 0, 0);
  const notifyTime = { utcHour: local.getUTCHours(), minute: local.getUTCMinutes() };
  await subscribe({ notifyTime, notifyType: DAILY, message: form.get("message") });
  return `A notification will arrive every day at ${form.get("time")}.`;
});

onClick("daily-stop", async () => {
  await unsubscribe({ notifyType: DAILY });
  // With its last schedule the server forgets a subscription; this page wants to stay.
  if ((await state()).subscription) await subscribe();
  return "No daily notification.";
});

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

const { supported, enabled } = await refresh();
if (!supported) say("This browser, or this connection, cannot receive notifications.", "error");
else say(enabled ? "Notifications are on." : "Notifications are off.");
