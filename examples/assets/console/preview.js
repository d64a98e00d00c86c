// A message as a browser may show it.
import { byId, element } from "../dom.js";
import { actions, isDocument, payload } from "./message.js";

const NOTE = "Approximate: browsers differ.";

const OWN = "As the server's own service worker shows it; another worker may differ.";

/** @param {FormData} form */
export function preview(form) {
  show(isDocument(form) ? asForm(form) : form, isDocument(form) ? OWN : NOTE);
}

/** Reads a custom payload as the service worker does. @param {FormData} form */
function asForm(form) {
  const shown = new FormData();
  let members;
  try {
    members = payload(form);
  } catch {
    return shown;
  }
  const said = members?.notification ?? members;
  if (typeof said !== "object" || said === null) {
    shown.set("body", typeof said === "string" ? said : "");
    return shown;
  }
  const texts = { title: said.title, body: said.body ?? said.message, icon: said.icon, image: said.image, tag: said.tag };
  for (const [name, text] of Object.entries(texts)) if (typeof text === "string") shown.set(name, text);
  for (const name of ["requireInteraction", "silent", "renotify"]) if (said[name] === true) shown.set(name, "on");
  return shown;
}

/** @param {FormData} form @param {string} about */
function show(form, about) {
  const text = (name) => String(form.get(name) ?? "").trim();
  byId("preview-origin").textContent = location.host;
  byId("preview-title").textContent = text("title") || location.hostname;
  byId("preview-body").textContent = text("body");
  byId("preview-body").lang = text("lang");
  for (const part of ["preview-title", "preview-body"]) byId(part).dir = text("dir") || "auto";

  picture(byId("preview-icon"), text("icon"), "icon.svg");
  const shown = picture(byId("preview-image"), text("image"), null);
  const elsewhere = [text("icon"), text("image")].map(outside).filter(Boolean);
  byId("preview-elsewhere").hidden = elsewhere.length === 0;
  byId("preview-elsewhere").textContent = `The receiving browser loads ${elsewhere.length > 1 ? "pictures" : "a picture"} from ${[...new Set(elsewhere)].join(" and ")}.`;
  byId("preview-image").hidden = !shown;

  const buttons = actions(form).slice(0, 2);
  byId("preview-actions").hidden = buttons.length === 0;
  byId("preview-actions").replaceChildren(...buttons.map(({ title }) => element("span", {}, title)));

  const notes = [];
  if (form.has("requireInteraction")) notes.push("Stays until it is closed.");
  if (form.has("silent")) notes.push("Makes no sound.");
  if (text("tag")) notes.push(`Replaces the notification tagged ${text("tag")}.`);
  if (form.has("renotify") && !text("tag")) notes.push("Alerting again needs a tag.");
  byId("preview-notes").textContent = [about, ...notes].join(" ");
}

/** Shows a picture of this server. This page loads none from other hosts. */
function picture(image, address, otherwise) {
  const own = address && outside(address) === null ? address : otherwise;
  if (own === null) image.removeAttribute("src");
  else if (image.getAttribute("src") !== own) image.src = own;
  return own !== null;
}

/** Returns the host of an address on another server. @param {string} address */
function outside(address) {
  if (!address) return null;
  try {
    const url = new URL(address, location.href);
    return url.origin === location.origin ? null : url.host || url.protocol;
  } catch {
    return null;
  }
}
