/**
 * Limits of a trace. They are enforced on the target, where the events arise, and there is always at least one.
 * The defaults are meant for a production node that nobody watches.
 */
import { OptionError } from "../erlang/errors";

/**
 * What a trace may cost before the node stops it. A tripped limit stops the trace once, says why (`trace.ended`), and it stays off.
 * `Infinity` lifts a limit; not all of them can be lifted at once.
 */
export interface TraceLimits {
  /** Events in all. Default: Infinity. */
  readonly events?: number;
  /** Events per second, measured over one second. Default: 250,000. */
  readonly rate?: number;
  /** Seconds from the start, rounded up to whole ones. Default: 60. */
  readonly seconds?: number;
  /** Bytes of memory of the tracer process on the node. Default: 128 MiB. */
  readonly memory?: number;
  /** Trace messages waiting in the tracer's queue on the node. From a quarter of it on, events are counted and dropped; above it the trace stops. Native tracer: what its rings hold in all, rounded down; more is counted and dropped. Default: 200,000. */
  readonly queue?: number;
  /**
   * Overhead budget (0–1): what tracing may add to the CPU that the VM uses without it; 0.02 is 2 %. The node measures itself and adapts,
   * within a second: first how many processes are traced, then whether those that start from then on are, and which kinds of events; each step is a marker
   * `sampling` or `sampling_new` in the stream. Only when nothing helps does the trace stop. It begins with a few processes. A VM that uses less than 5 % of a
   * core counts as one that does (below 0.02 more, up to 20 %). Default: Infinity.
   */
  readonly overhead?: number;
}

/** The limits of a running trace, with the defaults filled in. */
export type EffectiveLimits = Required<TraceLimits>;

/** Limits that hold when nothing else is said. */
export const DEFAULT_LIMITS: EffectiveLimits = Object.freeze({
  events: Infinity,
  rate: 250_000,
  seconds: 60,
  memory: 128 * 1024 * 1024,
  queue: 200_000,
  overhead: Infinity,
});

const MINIMUM: EffectiveLimits = {
  events: 1,
  rate: 1,
  seconds: 1,
  memory: 4 * 1024 * 1024,
  queue: 100,
  overhead: 0.000001,
};

/** The most that a limit can be, short of Infinity: what a timer of the VM takes, and integers that a number holds. */
const MAXIMUM: EffectiveLimits = {
  events: Number.MAX_SAFE_INTEGER,
  rate: Number.MAX_SAFE_INTEGER,
  seconds: 1_000_000_000,
  memory: Number.MAX_SAFE_INTEGER,
  queue: Number.MAX_SAFE_INTEGER,
  overhead: 1,
};

/**
 * Checks limits and fills in the defaults.
 *
 * @throws OptionError `BT_LIMIT_INVALID` for a value that is not a positive number, too small to be meant, or when every limit is lifted.
 */
export function effectiveLimits(limits: TraceLimits = {}): EffectiveLimits {
  if (typeof limits !== "object" || limits === null)
    throw new OptionError("BT_LIMIT_INVALID", "limits", "must be an object of limits");
  const known = Object.keys(DEFAULT_LIMITS) as (keyof EffectiveLimits)[];
  for (const key of Object.keys(limits)) {
    if (!known.includes(key as keyof EffectiveLimits)) {
      throw new OptionError(
        "BT_LIMIT_INVALID",
        `limits.${key}`,
        `there is no such limit; limits are ${known.join(", ")}`,
      );
    }
  }
  const result: { -readonly [K in keyof EffectiveLimits]: number } = { ...DEFAULT_LIMITS };
  for (const key of known) {
    const value = limits[key];
    if (value === undefined) continue;
    if (typeof value !== "number" || Number.isNaN(value) || value < MINIMUM[key]) {
      throw new OptionError(
        "BT_LIMIT_INVALID",
        `limits.${key}`,
        `must be a number of at least ${MINIMUM[key]} (or Infinity to lift it), not ${String(value)}`,
      );
    }
    if (key === "overhead" && value > 1 && value !== Infinity) {
      throw new OptionError(
        "BT_LIMIT_INVALID",
        "limits.overhead",
        `is a share between 0 and 1, not ${value}; 2 % is 0.02`,
      );
    }
    if (value > MAXIMUM[key] && value !== Infinity) {
      throw new OptionError(
        "BT_LIMIT_INVALID",
        `limits.${key}`,
        `must be at most ${MAXIMUM[key]} (or Infinity to lift it), not ${value}`,
      );
    }
    result[key] = key === "seconds" || key === "overhead" ? value : Math.floor(value);
  }
  if (known.every((key) => result[key] === Infinity)) {
    throw new OptionError(
      "BT_LIMIT_INVALID",
      "limits",
      "every limit is Infinity; at least one must be finite, so that a forgotten trace ends by itself",
    );
  }
  return result;
}

/** True when the caller set a finite limit that bounds what an over-broad trace can do. */
export function boundsVolume(limits: TraceLimits = {}): boolean {
  return [limits.events, limits.rate, limits.overhead].some(
    (value) => value !== undefined && value !== Infinity,
  );
}
