// The parts of IndexedDB that the client and the worker use: one table with external keys.
export class Database {
  records = new Map();
  /** Whether opening fails, as in a browser without storage. */
  fails = false;
  /** Whether commits fail. */
  isFull = false;
  /** The time of opening in milliseconds. */
  delay = 0;
  #created = false;

  open() {
    const opening = this.#request(() => {
      if (this.fails) throw new DOMException("no storage", "InvalidStateError");
      return { createObjectStore() {}, close() {}, transaction: () => this.#transaction() };
    }, this.delay);
    if (!this.#created && !this.fails) {
      this.#created = true;
      queueMicrotask(() => opening.onupgradeneeded?.());
    }
    return opening;
  }

  /** Writes on commit, or never if commits fail, as with a full disk. */
  #transaction() {
    const writes = [];
    const transaction = {
      objectStore: () => ({
        get: (key) => this.#request(() => structuredClone(this.records.get(key))),
        put: (value, key) => this.#request(() => void writes.push(() => this.records.set(key, structuredClone(value)))),
        delete: (key) => this.#request(() => void writes.push(() => this.records.delete(key))),
      }),
    };
    // After the request's success, which is a task later.
    setImmediate(() =>
      setImmediate(() => {
        if (this.isFull && writes.length > 0) {
          transaction.error = new DOMException("full", "QuotaExceededError");
          return transaction.onabort();
        }
        for (const write of writes) write();
        transaction.oncomplete();
      }),
    );
    return transaction;
  }

  #request(work, delay = 0) {
    const request = {};
    try {
      request.result = work();
    } catch (error) {
      request.error = error;
    }
    const settle = () => (request.error ? request.onerror?.() : request.onsuccess?.());
    if (delay > 0) setTimeout(settle, delay);
    else setImmediate(settle);
    return request;
  }
}
