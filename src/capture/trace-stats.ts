/**
 * Figures of a running trace: what the node's tracer says of itself, and what this side counted.
 */
import { EVENT_KINDS, KIND_NAMES, type EventKind } from "../buffer/event-schema";
import { Atom, ErlMap, type Term } from "../erlang/term";

/** What the tracer on the node reports, once a second and at the end. Counts are since the start of the trace. */
export interface NodeStats {
  /** Trace messages of the wanted kinds that the tracer has taken from its queue. `received = shipped + lostTracer + lostLink + waiting`. */
  readonly received: number;
  /** Events that were sent. */
  readonly shipped: number;
  /** Events counted and dropped because the tracer's backlog was over its bound. */
  readonly lostTracer: number;
  /** Events counted and dropped because the connection could not take them. */
  readonly lostLink: number;
  /** Events of beamtrace's own processes, never sent. */
  readonly filtered: number;
  readonly batches: number;
  /** Trace messages that wait in the tracer's queue now, and the most there ever were. */
  readonly queue: number;
  readonly queueMax: number;
  /** Bytes of memory of the tracer process. */
  readonly memory: number;
  readonly reductions: number;
  /** Events per second over the last second. */
  readonly rate: number;
  /**
   * Estimated CPU that tracing costs ÷ CPU that the VM uses without it, over the last second. With `limits.overhead` by a cost per event that was
   * measured on this node, else by a fixed one.
   */
  readonly overhead: number;
  /** With `limits.overhead`: nanoseconds of CPU that an event costs on this node, as it was measured and is reckoned with; else 0. */
  readonly eventNs: number;
  /** The same of a process that is born outside of the sample: what looking at it costs. */
  readonly birthNs: number;
  /** Share of the processes that is traced now; 1 unless `sampling.processes` or `limits.overhead` says otherwise. */
  readonly share: number;
  /** Kinds of events that are traced now: those asked for, less what the overhead budget has left out. */
  readonly kinds: readonly EventKind[];
  /** Whether the overhead budget leaves out processes that start now, whatever `share` says: looking at each would cost more than there is. */
  readonly newLeftOut: boolean;
  /** Processes and ports that carried trace flags when the trace began. */
  readonly traced: number;
}

/** Figures of a trace on both sides. */
export interface TraceStats {
  readonly node: NodeStats;
  /** Events that arrived here and were written to the ring. */
  readonly written: number;
  /** Events that arrived here and found the ring full (`drop-newest`). */
  readonly lostRing: number;
  /** Events that wait in the ring for `batches$`. */
  readonly pending: number;
  /** Events known to be lost at all hops together. */
  readonly lost: number;
  /** Payloads that found no room. */
  readonly payloadsLost: number;
  /** Bytes received on the session's connection since it was opened. */
  readonly bytesIn: number;
}

const NO_STATS: NodeStats = Object.freeze({
  received: 0,
  shipped: 0,
  lostTracer: 0,
  lostLink: 0,
  filtered: 0,
  batches: 0,
  queue: 0,
  queueMax: 0,
  memory: 0,
  reductions: 0,
  rate: 0,
  overhead: 0,
  eventNs: 0,
  birthNs: 0,
  share: 1,
  kinds: [],
  newLeftOut: false,
  traced: 0,
});

const KEYS: Readonly<Record<string, Exclude<keyof NodeStats, "kinds" | "newLeftOut">>> = {
  received: "received",
  shipped: "shipped",
  lost_tracer: "lostTracer",
  lost_link: "lostLink",
  filtered: "filtered",
  batches: "batches",
  queue: "queue",
  queue_max: "queueMax",
  memory: "memory",
  reductions: "reductions",
  rate: "rate",
  overhead_ppm: "overhead",
  share_ppm: "share",
  event_ns: "eventNs",
  birth_ns: "birthNs",
  traced: "traced",
};

/** The tracer's map of figures (docs/agent-protocol.md, "Stats") as an object; what is missing is 0. */
export function nodeStats(term: Term | undefined): NodeStats {
  if (!(term instanceof ErlMap)) return NO_STATS;
  const result: { -readonly [K in keyof NodeStats]: NodeStats[K] } = { ...NO_STATS };
  let share = 1e6;
  for (const [key, value] of term) {
    if (
      key instanceof Atom &&
      key.name === "kinds" &&
      (typeof value === "number" || typeof value === "bigint")
    )
      result.kinds = kindsOf(BigInt(value));
    if (key instanceof Atom && key.name === "new_left") result.newLeftOut = value === 1;
    const name = key instanceof Atom ? KEYS[key.name] : undefined;
    if (name !== undefined && (typeof value === "number" || typeof value === "bigint"))
      if (name === "share") share = Number(value);
      else result[name] = Number(value);
  }
  result.overhead /= 1e6;
  result.share = share / 1e6;
  return result;
}

function kindsOf(mask: bigint): EventKind[] {
  return KIND_NAMES.filter((name) => ((mask >> BigInt(EVENT_KINDS[name])) & 1n) === 1n);
}
