/**
 * When to try again after a connection was lost: exponential back-off with jitter.
 */
import { OptionError } from "../erlang/errors";

/** Options of re-attachment. */
export interface ReattachOptions {
  /** Attempts before the session gives up. Default: 10. */
  readonly attempts?: number;
  /** Milliseconds before the first attempt; doubled for each further one. Default: 100. */
  readonly minDelayMs?: number;
  /** Longest delay in milliseconds. Default: 10,000. */
  readonly maxDelayMs?: number;
}

/** @throws OptionError `BT_OPTION_INVALID` */
export function checkReattach(options: ReattachOptions): void {
  const { attempts = 10, minDelayMs = 100, maxDelayMs = 10_000 } = options;
  if (!(attempts >= 1)) throw new OptionError("BT_OPTION_INVALID", "reattach.attempts", "must be at least 1");
  if (!(minDelayMs >= 1))
    throw new OptionError("BT_OPTION_INVALID", "reattach.minDelayMs", "must be at least 1");
  if (!(maxDelayMs >= minDelayMs))
    throw new OptionError("BT_OPTION_INVALID", "reattach.maxDelayMs", "must not be less than minDelayMs");
}

/** The delays before each attempt, in milliseconds: between half and all of the doubled delay, so that many clients do not come back at once. */
export function* reattachDelays(options: ReattachOptions): Generator<number> {
  const { attempts = 10, minDelayMs = 100, maxDelayMs = 10_000 } = options;
  for (let i = 0; i < attempts; i += 1) {
    const full = Math.min(maxDelayMs, minDelayMs * 2 ** i);
    yield Math.round(full * (0.5 + Math.random() / 2));
  }
}
