// A message as a browser may show it.
import { byId, element } from "/dom.js";
import { actions } from "/message.js";

const NOTE = "About as a browser shows it; each has ways of its own.";

/** @param {FormData} form */
export function preview(form) {
  const text = (name) => String(form.get(name) ?? "").trim();
  byId("preview-origin").textContent = location.host;
  byId("preview-title").textContent = text("title") || location.hostname;
  byId("preview-body").textContent = text("body");

  picture(byId("preview-icon"), text("icon"), "/icon.svg");
  const shown = picture(byId("preview-image"), text("image"), null);
  const elsewhere = [text("icon"), text("image")].map(outside).filter(Boolean);
  byId("preview-elsewhere").hidden = elsewhere.length === 0;
  byId("preview-elsewhere").textContent = `The receiving browser gets ${elsewhere.length > 1 ? "pictures" : "a picture"} from ${[...new Set(elsewhere)].join(" and ")}.`;
  byId("preview-image").hidden = !shown;

  const buttons = actions(form).slice(0, 2);
  byId("preview-actions").hidden = buttons.length === 0;
  byId("preview-actions").replaceChildren(...buttons.map(({ title }) => element("span", {}, title)));

  const notes = [];
  if (form.has("requireInteraction")) notes.push("Stays until somebody closes it.");
  if (form.has("silent")) notes.push("Makes no sound.");
  if (text("tag")) notes.push(`Takes the place of what is tagged ${text("tag")}.`);
  if (form.has("renotify") && !text("tag")) notes.push("Announcing again needs a tag.");
  byId("preview-notes").textContent = [NOTE, ...notes].join(" ");
}

/** Shows a picture of this server; this page asks no other one. */
function picture(image, address, otherwise) {
  const own = address && outside(address) === null ? address : otherwise;
  if (own === null) image.removeAttribute("src");
  else if (image.getAttribute("src") !== own) image.src = own;
  return own !== null;
}

/** The host of an address that is not this server's. @param {string} address */
function outside(address) {
  if (!address) return null;
  try {
    const url = new URL(address, location.href);
    return url.origin === location.origin ? null : url.host || url.protocol;
  } catch {
    return null;
  }
}
