// The daily notifications scheduled from this page, by type. There is no public route that lists them.
import { keyed } from "./stored.js";

const KEY = keyed("daily");

/** Used until the page is closed if nothing can be stored. @type {Record<string, any>} */
let remembered = {};

export const scheduled = {
  /** @returns {Record<string, {time: string, message?: string}>} */
  all() {
    try {
      return JSON.parse(localStorage.getItem(KEY) ?? "{}");
    } catch {
      return remembered;
    }
  },
  /** Sets the entry of a type, or removes it. @param {string} notifyType @param {object | undefined} entry */
  set(notifyType, entry) {
    const { [notifyType]: _, ...others } = this.all();
    this.replace(entry === undefined ? others : { ...others, [notifyType]: entry });
  },
  clear() {
    this.replace({});
  },
  /** @param {Record<string, any>} entries */
  replace(entries) {
    remembered = entries;
    try {
      localStorage.setItem(KEY, JSON.stringify(entries));
    } catch {
      // Kept in memory above.
    }
  },
};
