/**
 * Signals that end a command. What is under way and cleans up after itself, such as a file being written, is let end first, and nothing new
 * is begun. Then the signal does what it does to any program. A second one does so at once.
 */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

const never = new Promise<never>(() => undefined);

/** Listens for signals while a command runs. Who makes it disposes of it. */
export class Interruption implements Disposable {
  private readonly underWay = new Set<Promise<unknown>>();
  private readonly onEnd: () => Promise<void>;
  private ending = false;

  /** @param onEnd - what else is to be ended, once nothing is under way. */
  constructor(onEnd: () => Promise<void>) {
    this.onEnd = onEnd;
    for (const signal of SIGNALS) process.once(signal, this.end);
  }

  /** Does something that a signal must not cut in half. After a signal it isn't begun, and the promise stays open. */
  async whole<T>(work: () => Promise<T>): Promise<T> {
    if (this.ending) return never;
    const begun = work();
    this.underWay.add(begun);
    try {
      return await begun;
    } finally {
      this.underWay.delete(begun);
    }
  }

  [Symbol.dispose](): void {
    for (const signal of SIGNALS) process.off(signal, this.end);
  }

  private readonly end = (signal: NodeJS.Signals): void => {
    this.ending = true;
    this[Symbol.dispose]();
    void Promise.allSettled(this.underWay)
      .then(() => this.onEnd())
      .finally(() => process.kill(process.pid, signal));
  };
}
