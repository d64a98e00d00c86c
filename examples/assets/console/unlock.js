// The form for the operator's secret, and the button that forgets it.
import { byId } from "../dom.js";
import { onSubmit } from "../status.js";
import { discard, hasDraft } from "./compose.js";
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
  discard();
  lock();
});

onLock.add(show);
onLock.add(() => {
  if (isUnlocked()) return;
  forget();
  // The views have texts and users still, though they are hidden. If the server has locked the console, a draft stays in this
  // page for the operator with the new token.
  if (!hasDraft()) location.reload();
});
show();
// There is nothing else to do, and "Lock" has loaded the page again.
if (!isUnlocked()) byId("operator-token").focus();
