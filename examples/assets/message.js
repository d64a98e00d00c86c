// From what the form says to what `/notify` takes. Nothing of the page is touched here.

const TEXTS = ["body", "url", "icon", "image", "badge", "tag", "urgency", "topic"];
const FLAGS = ["requireInteraction", "renotify", "silent"];

/** What is wrong with a field, in words. */
export class FieldError extends Error {
  /** @param {string} field Its name in the form. @param {string} text @param {ErrorOptions} [options] */
  constructor(field, text, options) {
    super(text, options);
    this.field = field;
  }
}

/**
 * The request's body. What is empty is left out: the server has its own defaults.
 *
 * @param {FormData} form
 * @param {() => string} self This browser's id.
 * @returns {Record<string, any>}
 */
export function message(form, self) {
  /** @type {Record<string, any>} */
  const body = { title: text(form, "title") };
  for (const name of TEXTS) if (text(form, name)) body[name] = text(form, name);
  for (const name of FLAGS) if (form.has(name)) body[name] = true;
  if (text(form, "app_badge")) body.app_badge = Number(text(form, "app_badge"));
  const buttons = actions(form);
  if (buttons.length > 0) body.actions = buttons;
  if (text(form, "data")) body.data = data(text(form, "data"));
  if (text(form, "ttl")) body.ttl = Number(text(form, "ttl")) * Number(form.get("ttlUnit"));
  // The field has no zone: it is the visitor's clock.
  if (text(form, "sendAt")) body.sendAt = new Date(text(form, "sendAt")).toISOString();
  const to = audience(form, self);
  if (to !== "all") body.audience = to;
  return body;
}

/** The buttons that have a text; without a name they are called by their place. @param {FormData} form */
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

/** @param {FormData} form @param {() => string} self */
function audience(form, self) {
  switch (form.get("audience")) {
    case "self":
      return { ids: [self()] };
    case "user":
      return { user: wanted(form, "user", "Say which user.") };
    case "tag":
      return { tag: wanted(form, "audienceTag", "Say which tag.") };
    case "ids":
      return { ids: wanted(form, "ids", "Say at least one id.").split(/[\s,;]+/).filter(Boolean) };
    default:
      return "all";
  }
}

/** @param {string} json */
function data(json) {
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new FieldError("data", "The data is not JSON. Text needs quotes around it.", { cause });
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
