// Names of what this page stores. All pages of a host share one storage, also those of other servers behind other
// paths of the same proxy: what one server was given must not be shown or sent to another.

const folder = new URL(".", location.href).pathname;

/** A name in this page's own folder. @param {string} name */
export const keyed = (name) => `${folder}${name}`;
