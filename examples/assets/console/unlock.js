// The form for the operator's secret, and the button that forgets it.
import { byId } from "../dom.js";
import { onSubmit } from "../status.js";
import { forget } from "./sent.js";
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
  forget();
  // The views have texts and users still, though they are hidden.
  location.reload();
});

onLock.add(show);
show();
// There is nothing else to do, and "Lock" has loaded the page again.
if (!isUnlocked()) byId("operator-token").focus();
