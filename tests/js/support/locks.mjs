// Web Locks: one holder for each name, the others wait in order.
export class Locks {
  #held = new Map();
  /** The most concurrent holders. */
  most = 0;
  #running = 0;

  async request(name, ...rest) {
    const work = rest.pop();
    const { ifAvailable = false, signal } = rest[0] ?? {};
    const before = this.#held.get(name);
    if (before && ifAvailable) return work(null);
    const turn = (async () => {
      await Promise.race([before ?? null, aborted(signal)]);
      this.most = Math.max(this.most, ++this.#running);
      try {
        return await work({ name });
      } finally {
        this.#running--;
      }
    })();
    const settled = turn.then(
      () => {},
      () => {},
    );
    this.#held.set(name, settled);
    settled.then(() => {
      if (this.#held.get(name) === settled) this.#held.delete(name);
    });
    return turn;
  }
}

/** Rejects when the signal aborts; never without one. */
function aborted(signal) {
  return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
}
