// What was scheduled from this page, by type. The server has no route that lists it, so the page remembers.
import { keyed } from "./stored.js";

const KEY = keyed("daily");

/** Where nothing can be stored, it is remembered until the page is closed. @type {Record<string, any>} */
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
  /** Without an entry the type is left out. @param {string} notifyType @param {object | undefined} entry */
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
      // Remembered above.
    }
  },
};
