// The form for the operator's secret, and the button that forgets it.
import { byId } from "../dom.js";
import { onSubmit, say } from "../status.js";
import { isUnlocked, lock, onLock, unlock } from "./session.js";

function show() {
  const locked = !isUnlocked();
  // The focus would be lost with what is hidden.
  const leaves = locked && !byId("views").hidden;
  byId("locked").hidden = !locked;
  byId("views").hidden = byId("lock").hidden = byId("nav").hidden = locked;
  if (leaves) byId("operator-token").focus();
}

onSubmit("operator", async (form) => {
  await unlock(String(form.get("token")).trim());
  byId("operator").reset();
  return "Unlocked for this tab.";
});

byId("lock").addEventListener("click", () => {
  lock();
  say("Locked.");
});

onLock.add(show);
show();
