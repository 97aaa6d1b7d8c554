/** What a benchmark compares: a way to trace a node, and a load on it. New tracers and new servers implement these two. */
import type { ErlNode } from "../../test/support/erl-node";

/** What a tracer has counted since it was started. */
export interface TraceCount {
  /** Events that arrived where they should. */
  readonly delivered: number;
  /** Events that the tracer says it lost. */
  readonly lost: number;
}

/** A way to trace all processes of a node: send, receive and process events, with monotonic time stamps. */
export interface Variant {
  readonly name: string;
  start(node: ErlNode): Promise<void>;
  /** Counts so far; undefined for a tracer that counts nothing. */
  count?(): Promise<TraceCount | undefined>;
  /** Messages that wait on the node for the tracer. More than a moment's worth means that work is put off, not saved. */
  backlog?(node: ErlNode): Promise<number>;
  /** Ends the trace and leaves nothing behind; throws when what the tracer reports does not add up. */
  stop(node: ErlNode): Promise<void>;
  /** After the last block: ends processes that were kept between blocks. */
  dispose?(): Promise<void>;
}

/** Work that a server has done since the load began. */
export interface UnitCount {
  /** Units that were finished. */
  readonly done: number;
  /** Units that an open loop wanted done; undefined in a closed loop. */
  readonly due?: number;
}

/** A load on a node. */
export interface Workload {
  readonly name: string;
  /** What is counted: `message`, `call`. */
  readonly unit: string;
  readonly node: ErlNode;
  /** Units a second that are demanded; 0 in a closed loop. */
  readonly rate: number;
  /** Demands another rate from now on. A load that can't is left out of experiments with jumps. */
  setRate?(perSecond: number): Promise<void>;
  start(): Promise<void>;
  units(): Promise<UnitCount>;
  /** Ends the load and the node. */
  stop(): Promise<void>;
}
