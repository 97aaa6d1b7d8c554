/**
 * Time-outs and cancellation for asynchronous calls, in one place.
 */
import { AbortedError } from "../erlang/errors";

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

/** The promise's outcome, unless the time is up or the signal fires first. `what` names what was waited for. */
export async function withDeadline<T>(promise: Promise<T>, options: CallOptions, what: string): Promise<T> {
  const { timeoutMs, signal } = options;
  throwIfAborted(signal);
  if (timeoutMs === undefined && signal === undefined) return promise;
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    if (timeoutMs !== undefined && timeoutMs !== Infinity) {
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
    promise.catch(() => undefined);
  }
}
