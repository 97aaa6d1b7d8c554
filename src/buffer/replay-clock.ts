/** Gives out recorded events at the pace at which they happened, or a multiple of it. */
import { setTimeout as sleep } from "node:timers/promises";
import { AbortedError } from "../erlang/errors";
import type { EventBatch } from "./event-batch";

/** Most milliseconds between two looks at the clock. */
const MAX_SLEEP_MS = 1000;

/** Paces one replay. Its time starts with the first event. */
export class ReplayClock {
  readonly #speed: number;
  readonly #signal: AbortSignal;
  #startMs = NaN;
  #startNs = NaN;
  /** Stamps of different processes are not in order; what comes late does not turn the clock back. */
  #latest = -Infinity;

  constructor(speed: number, signal: AbortSignal) {
    this.#speed = speed;
    this.#signal = signal;
  }

  /** Emits the events of a batch as their time comes, in as few pieces as that allows. */
  async emit(
    batch: EventBatch,
    time: (batch: EventBatch, i: number) => number,
    emit: (batch: EventBatch) => void,
  ): Promise<void> {
    let done = 0;
    while (done < batch.length) {
      if (Number.isNaN(this.#startMs)) {
        this.#startMs = performance.now();
        this.#startNs = time(batch, 0);
      }
      const now = this.#startNs + (performance.now() - this.#startMs) * 1e6 * this.#speed;
      let due = done;
      while (due < batch.length && Math.max(this.#latest, time(batch, due)) <= now) {
        this.#latest = Math.max(this.#latest, time(batch, due));
        due++;
      }
      if (due > done) emit(due - done === batch.length ? batch : batch.slice(done, due));
      done = due;
      if (done < batch.length) await this.#wait((time(batch, done) - now) / 1e6 / this.#speed);
    }
  }

  async #wait(ms: number): Promise<void> {
    try {
      await sleep(Math.min(MAX_SLEEP_MS, Math.max(1, Math.ceil(ms))), undefined, { signal: this.#signal });
    } catch (cause) {
      throw new AbortedError("BT_ABORTED", "The replay was aborted", { cause });
    }
  }
}
