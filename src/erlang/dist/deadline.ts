/**
 * One time limit and the caller's AbortSignal as one thing, for everything that happens while a connection is set up.
 * The owner disposes of it: then neither a timer nor a listener stays behind.
 */
import { AbortedError } from "../errors";

/** Timers can't run longer; a limit beyond it is none. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** A time limit plus the caller's signal. */
export class Deadline {
  /** What is under way, for the message: "waiting for epmd". */
  stage = "connecting";
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => {
    const reason: unknown = this.#signal?.reason;
    this.#controller.abort(new AbortedError("BT_ABORTED", `aborted while ${this.stage}`, { cause: reason }));
  };

  constructor(timeoutMs: number | undefined, signal: AbortSignal | undefined) {
    this.#signal = signal;
    if (signal?.aborted) {
      this.#onAbort();
      return;
    }
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (timeoutMs !== undefined && timeoutMs <= MAX_TIMER_MS) {
      this.#timer = setTimeout(() => {
        const error = new AbortedError("BT_TIMEOUT", `timed out after ${timeoutMs} ms while ${this.stage}`);
        this.#controller.abort(error);
      }, timeoutMs);
    }
  }

  /** Fires with an `AbortedError` (BT_TIMEOUT or BT_ABORTED) as reason. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** @throws AbortedError when the time is up or the caller has aborted */
  check(): void {
    if (this.signal.aborted) throw this.signal.reason;
  }

  /**
   * Runs an asynchronous start that reports through callbacks; it is rejected and told to clean up when the deadline strikes first.
   * `start` returns what undoes it; that is called in every case but success.
   */
  race<T>(start: (resolve: (value: T) => void, reject: (error: unknown) => void) => () => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.signal.aborted) return reject(this.signal.reason as Error);
      let settled = false;
      let undoLater = false;
      let undo: (() => void) | undefined = undefined;
      const settle = (finish: () => void, failed: boolean): void => {
        if (settled) return;
        settled = true;
        this.signal.removeEventListener("abort", onAbort);
        if (failed && undo === undefined) undoLater = true;
        else if (failed) (undo as (() => void) | undefined)?.();
        finish();
      };
      const fail = (error: unknown): void => settle(() => reject(error as Error), true);
      const onAbort = (): void => fail(this.signal.reason);
      this.signal.addEventListener("abort", onAbort, { once: true });
      undo = start((value) => settle(() => resolve(value), false), fail);
      if (undoLater) undo();
    });
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.#onAbort);
  }
}
