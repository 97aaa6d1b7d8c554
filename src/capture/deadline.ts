/**
 * Time-outs and cancellation for asynchronous calls, in one place.
 */
import { AbortedError, OptionError } from "../erlang/errors";
import { MAX_TIMER_MS } from "../erlang/dist/deadline";

/** Options of every call that goes to the node. */
export interface CallOptions {
  /** Milliseconds until the call rejects with `BT_TIMEOUT`. What was begun on the node is not undone by that. */
  readonly timeoutMs?: number;
  /** Rejects the call with `BT_ABORTED`. */
  readonly signal?: AbortSignal;
}

/** Throws `BT_ABORTED` when the signal has fired already. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortedError("BT_ABORTED", "the call was aborted", { cause: signal.reason });
}

/**
 * The time limit, or undefined when there is none: also where it is longer than a timer can run, which no caller waits for.
 * @throws OptionError `BT_OPTION_INVALID` for what is no number
 */
export function timeLimit({ timeoutMs }: CallOptions): number | undefined {
  if (timeoutMs === undefined) return undefined;
  if (typeof timeoutMs !== "number" || Number.isNaN(timeoutMs))
    throw new OptionError(
      "BT_OPTION_INVALID",
      "timeoutMs",
      `must be a number of milliseconds, not ${String(timeoutMs)}`,
    );
  return timeoutMs > MAX_TIMER_MS ? undefined : Math.max(0, timeoutMs);
}

/** The promise's outcome, unless the time is up or the signal fires first. `what` names what was waited for. */
export async function withDeadline<T>(promise: Promise<T>, options: CallOptions, what: string): Promise<T> {
  const { signal } = options;
  const timeoutMs = timeLimit(options);
  // What nobody waits for any more may still fail.
  promise.catch(() => undefined);
  throwIfAborted(signal);
  if (timeoutMs === undefined && signal === undefined) return promise;
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    if (timeoutMs !== undefined) {
      timer = setTimeout(
        () =>
          reject(
            new AbortedError(
              "BT_TIMEOUT",
              `no ${what} within ${timeoutMs} ms; the node may be overloaded, or the limit too short`,
            ),
          ),
        timeoutMs,
      );
    }
    if (signal !== undefined) {
      onAbort = () =>
        reject(new AbortedError("BT_ABORTED", `waiting for ${what} was aborted`, { cause: signal.reason }));
      signal.addEventListener("abort", onAbort, { once: true });
    }
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
    if (onAbort !== undefined) signal?.removeEventListener("abort", onAbort);
  }
}
