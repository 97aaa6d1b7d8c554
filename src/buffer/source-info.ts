/** Where events come from: one traced node (and one trace on it) for each source index. */

/** A traced node and its clock. */
export interface SourceInfo {
  /** Name of the node. */
  readonly node: string;
  /** Creation of the node's life. */
  readonly creation: number;
  /** OTP release, e.g. `"27"`; empty when not known. */
  readonly otp: string;
  /** `erlang:monotonic_time(nanosecond)` that the time stamps count from. */
  readonly base: bigint;
  /** `erlang:time_offset(nanosecond)` at that time: wall clock = base + timeOffset + timestamp, in ns since 1970. */
  readonly timeOffset: bigint;
}

/** Wall clock time of a time stamp, in milliseconds since 1970 (to the resolution of a double: about 0.2 µs). */
export function wallClockMs(source: SourceInfo, timestamp: number): number {
  const ns = source.base + source.timeOffset;
  return Number(ns / 1_000_000n) + (Number(ns % 1_000_000n) + timestamp) / 1e6;
}
