// As much of IndexedDB as the client and the worker use: one table, addressed from outside.
export class Database {
  records = new Map();
  /** Nothing can be opened, as where a browser stores nothing. */
  fails = false;
  #created = false;

  open() {
    const opening = this.#request(() => {
      if (this.fails) throw new DOMException("no storage", "InvalidStateError");
      return { createObjectStore() {}, close() {}, transaction: () => ({ objectStore: () => this.#table() }) };
    });
    if (!this.#created && !this.fails) {
      this.#created = true;
      queueMicrotask(() => opening.onupgradeneeded?.());
    }
    return opening;
  }

  #table() {
    return {
      get: (key) => this.#request(() => structuredClone(this.records.get(key))),
      put: (value, key) => this.#request(() => void this.records.set(key, structuredClone(value))),
      delete: (key) => this.#request(() => void this.records.delete(key)),
    };
  }

  #request(work) {
    const request = {};
    try {
      request.result = work();
    } catch (error) {
      request.error = error;
    }
    setImmediate(() => (request.error ? request.onerror?.() : request.onsuccess?.()));
    return request;
  }
}
