// Names of stored values. All pages of a host share one storage, also those of other servers behind other paths of
// the same proxy: the values of one server must not be shown or sent to another.

const folder = new URL(".", location.href).pathname;

/** Returns a name within this page's folder. @param {string} name */
export const keyed = (name) => `${folder}${name}`;
