// From the form's values to the body of `/notify`, without access to the page.

const TEXTS = ["body", "url", "icon", "image", "badge", "tag", "lang", "dir"];
const FLAGS = ["requireInteraction", "renotify", "silent", "mutable"];

/** An invalid field, with a message for the user. */
export class FieldError extends Error {
  /** @param {string} field Its name in the form. @param {string} text @param {ErrorOptions} [options] */
  constructor(field, text, options) {
    super(text, options);
    this.field = field;
  }
}

/** Makes an idempotency key. Not with `randomUUID`, which http pages lack. */
export function freshKey() {
  const octets = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(octets, (octet) => octet.toString(16).padStart(2, "0")).join("");
}

/**
 * Returns the request's body. Empty members are left out: the server has its own defaults.
 *
 * @param {FormData} form
 * @param {() => string} self This browser's id.
 * @returns {Record<string, any>}
 */
export function message(form, self) {
  const body = isDocument(form) ? { payload: payload(form) } : notification(form);
  for (const name of ["urgency", "topic"]) if (text(form, name)) body[name] = text(form, name);
  if (text(form, "ttl")) body.ttl = Number(text(form, "ttl")) * Number(form.get("ttlUnit"));
  if (text(form, "sendAt")) body.sendAt = moment(form, "sendAt").toISOString();
  if (text(form, "perSecond")) body.pace = { perSecond: Number(text(form, "perSecond")) };
  const to = audience(form, self);
  if (to !== "all") body.audience = to;
  return body;
}

/**
 * Returns the request's body as text. A custom payload is in it as typed, since it is sent like that.
 *
 * @param {FormData} form
 * @param {() => string} self
 * @param {{indent?: number, sendAt?: string}} [more] The time replaces that of the form.
 */
export function written(form, self, { indent, ...more } = {}) {
  const { payload, ...others } = Object.assign(message(form, self), more);
  if (!isDocument(form)) return JSON.stringify(others, null, indent);
  const rest = JSON.stringify(others, null, indent).slice(1);
  return `{${indent ? "\n  " : ""}"payload":${indent ? " " : ""}${text(form, "payload")}${rest === "}" ? rest : `,${rest}`}`;
}

/** Whether the payload is custom JSON. @param {FormData} form */
export function isDocument(form) {
  return form.get("kind") === "payload";
}

/** Returns the custom JSON payload. @param {FormData} form */
export function payload(form) {
  wanted(form, "payload", "Enter a payload.");
  return json(form, "payload", "The payload is not JSON. Text needs quotes around it.");
}

/** @param {FormData} form @returns {Record<string, any>} */
function notification(form) {
  /** @type {Record<string, any>} */
  const body = { title: wanted(form, "title", "Enter a title.") };
  for (const name of TEXTS) if (text(form, name)) body[name] = text(form, name);
  for (const name of FLAGS) if (form.has(name)) body[name] = true;
  if (text(form, "app_badge")) body.app_badge = Number(text(form, "app_badge"));
  if (text(form, "vibrate")) body.vibrate = pattern(text(form, "vibrate"));
  if (text(form, "timestamp")) body.timestamp = moment(form, "timestamp").getTime();
  const buttons = actions(form);
  if (buttons.length > 0) body.actions = buttons;
  if (text(form, "data")) body.data = json(form, "data", "The data is not JSON. Text needs quotes around it.");
  return body;
}

/** Parses a time by the visitor's clock: the fields have no zone. @param {FormData} form @param {string} name */
function moment(form, name) {
  return new Date(text(form, name));
}

/** @param {string} milliseconds */
function pattern(milliseconds) {
  const numbers = milliseconds.split(/[\s,;]+/).filter(Boolean).map(Number);
  if (numbers.some((number) => !Number.isInteger(number) || number < 0)) {
    throw new FieldError("vibrate", "The vibration is whole milliseconds: on, off, on.");
  }
  return numbers;
}

/** Returns the buttons that have a text. The default name is the position. @param {FormData} form */
export function actions(form) {
  const [names, titles, links] = ["actionName", "actionTitle", "actionUrl"].map((name) => form.getAll(name).map(trimmed));
  return titles
    .map((title, place) => ({
      action: names[place] || `button-${place + 1}`,
      title,
      ...(links[place] ? { navigate: links[place] } : {}),
    }))
    .filter(({ title }) => title !== "");
}

/** Returns the recipients, as in the request. @param {FormData} form @param {() => string} self */
export function audience(form, self) {
  switch (form.get("audience")) {
    case "self":
      return { ids: [self()] };
    case "user":
      return { user: wanted(form, "user", "Enter a user.") };
    case "tag":
      return { tag: wanted(form, "audienceTag", "Enter a tag.") };
    case "ids":
      return { ids: wanted(form, "ids", "Enter at least one id.").split(/[\s,;]+/).filter(Boolean) };
    case "all":
      return "all";
    default:
      // The server sends a message without an audience to everyone.
      throw new FieldError("audience", "Choose the recipients.");
  }
}

/** @param {FormData} form @param {string} name @param {string} otherwise */
function json(form, name, otherwise) {
  try {
    return JSON.parse(text(form, name));
  } catch (cause) {
    throw new FieldError(name, otherwise, { cause });
  }
}

/** @param {FormData} form @param {string} name @param {string} otherwise */
function wanted(form, name, otherwise) {
  const value = text(form, name);
  if (!value) throw new FieldError(name, otherwise);
  return value;
}

/** @param {FormData} form @param {string} name */
function text(form, name) {
  return trimmed(form.get(name) ?? "");
}

/** @param {any} value */
function trimmed(value) {
  return String(value).trim();
}
