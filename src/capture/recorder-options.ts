/**
 * Options of a flight recorder: what is asked for, whether it can be meant, and the terms that the agent gets for it.
 */
import { EVENT_KINDS } from "../buffer";
import { OptionError } from "../erlang/errors";
import { atom, map, type Atom, type ErlMap, type Term } from "../erlang/term";
import type { TraceLimits } from "./limits";
import { mergePatterns, type RecorderTrigger, type ResolvedTriggers } from "./recorder-triggers";
import type { TraceSpec } from "./trace-options";
import type { ResolvedTraceSpec } from "./trace-spec";

/** Options of `session.flightRecorder()`: what to trace, as for `session.trace()`, how much of it to keep, and when. */
export interface FlightRecorderOptions extends Omit<TraceSpec, "limits" | "batch" | "overflow"> {
  /** How much is kept. What is asked for in seconds must fit into the bytes, or recordings begin later and are not `complete`. */
  readonly keep?: {
    /** Seconds before the trigger, from 0.001 on. Default: what fits. */
    readonly seconds?: number;
    /** Bytes of the rings in the node, from 64 KiB to 1 GiB, 64 for an event, split evenly over its schedulers and one more. Default: 16 MiB. */
    readonly bytes?: number;
  };
  /** What makes the recorder keep its window, noticed on the node. Default: none; then there is `snapshot()`. */
  readonly triggers?: readonly RecorderTrigger[];
  /** How long recordings go on after their trigger, up to 60 seconds. It has to fit into `keep.bytes` as well. Default: 0. */
  readonly after?: { readonly seconds: number };
  /** Least time between two triggers that are heeded. What fires in between is counted (`suppressed`). Default: 1000. */
  readonly minIntervalMs?: number;
  /** As for a trace, but `seconds` is Infinity when it is not given. `events` can't be limited: the recorder is to stay on. */
  readonly limits?: Omit<TraceLimits, "events">;
  /** Stops the recorder. */
  readonly signal?: AbortSignal;
}

const DEFAULT_BYTES = 16 << 20;
const AFTER_MAX_SECONDS = 60;
const NS = 1e9;

/** @throws OptionError `BT_TRACE_SPEC_INVALID`, `BT_LIMIT_INVALID` */
export function checkOptions(options: FlightRecorderOptions): void {
  const check = (option: string, value: number | undefined, least: number, most: number): void => {
    if (value !== undefined && !(value >= least && value <= most))
      throw new OptionError(
        "BT_TRACE_SPEC_INVALID",
        option,
        `must be a number from ${least} to ${most}, not ${String(value)}`,
      );
  };
  const known = (at: string, value: object | undefined, keys: readonly string[]): void => {
    for (const key of Object.keys(value ?? {}))
      if (!keys.includes(key))
        throw new OptionError(
          "BT_TRACE_SPEC_INVALID",
          `${at}.${key}`,
          `there is no such option; options are ${keys.join(", ")}`,
        );
  };
  known("keep", options.keep, ["seconds", "bytes"]);
  known("after", options.after, ["seconds"]);
  check("keep.seconds", options.keep?.seconds, 0.001, 86_400);
  check("keep.bytes", options.keep?.bytes, 1 << 16, 1 << 30);
  check("after.seconds", options.after?.seconds, 0, AFTER_MAX_SECONDS);
  check("minIntervalMs", options.minIntervalMs, 0, 86_400_000);
  if (options.limits !== undefined && "events" in options.limits)
    throw new OptionError("BT_LIMIT_INVALID", "limits.events", "a flight recorder is bounded by keep.bytes");
}

/** The trace that sees what is to be kept and the triggers. */
export function traceSpec(options: FlightRecorderOptions, triggers: ResolvedTriggers): TraceSpec {
  const { keep: _k, triggers: _t, after: _a, minIntervalMs: _m, limits, signal: _s, ...spec } = options;
  return {
    ...spec,
    ...(spec.events !== undefined || triggers.exits
      ? { events: [...(spec.events ?? []), ...(triggers.exits ? (["exit"] as const) : [])] }
      : {}),
    calls: [...(spec.calls ?? []), ...triggers.patterns],
    limits: { seconds: Infinity, ...limits },
  };
}

/** The spec for the agent: that of a native trace, with what only a recorder has. */
export function recorderTerm(
  spec: ResolvedTraceSpec,
  options: FlightRecorderOptions,
  triggers: ResolvedTriggers,
): ErlMap {
  const fields = new Map<string, Term>();
  for (const [key, value] of spec.termFor("native")) fields.set((key as Atom).name, value);
  let kinds = BigInt(fields.get("kinds") as number | bigint);
  for (const kind of triggers.kinds) kinds |= 1n << BigInt(EVENT_KINDS[kind]);
  const { seconds } = options.keep ?? {};
  return map({
    ...Object.fromEntries(fields),
    kinds: kinds <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(kinds) : kinds,
    calls: mergePatterns(fields.get("calls") as Term[], triggers.patternNumbers),
    recorder: map({
      bytes: Math.floor(options.keep?.bytes ?? DEFAULT_BYTES),
      keep_ns: seconds === undefined ? atom("infinity") : Math.round(seconds * NS),
      after_ns: Math.round((options.after?.seconds ?? 0) * NS),
      interval_ns: Math.round((options.minIntervalMs ?? 1000) * 1e6),
      triggers: [...triggers.terms],
    }),
  });
}
