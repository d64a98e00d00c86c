// As much of IndexedDB as the client and the worker use: one table, addressed from outside.
export class Database {
  records = new Map();
  /** Nothing can be opened, as where a browser stores nothing. */
  fails = false;
  /** Nothing can be committed. */
  isFull = false;
  /** Milliseconds that opening takes. */
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

  /** Written when it is committed, and not before; or not at all, as where the disk is full. */
  #transaction() {
    const writes = [];
    const transaction = {
      objectStore: () => ({
        get: (key) => this.#request(() => structuredClone(this.records.get(key))),
        put: (value, key) => this.#request(() => void writes.push(() => this.records.set(key, structuredClone(value)))),
        delete: (key) => this.#request(() => void writes.push(() => this.records.delete(key))),
      }),
    };
    // After the request's success, which is a turn later than it is made.
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
