// Web Locks: one holder for each name, the others wait in their order.
export class Locks {
  #held = new Map();
  /** The most work that was under way at once. */
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

/** Rejects when the waiting is given up; never, without a signal. */
function aborted(signal) {
  return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
}
