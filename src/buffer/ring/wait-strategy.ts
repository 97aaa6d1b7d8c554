/**
 * How a reader waits for records. A strategy knows nothing of slots and cursors: it asks a `WaitGate`.
 */

/** What a wait ended with. `closed`: the ring is closed and everything has been read. */
export type WaitResult = "ready" | "timeout" | "closed";

/** What a strategy sees of the reader that waits. */
export interface WaitGate {
  /** `ready` when there is something to poll (records, or a gap), `closed` when there will never be; undefined otherwise. */
  state(): "ready" | "closed" | undefined;
  /**
   * Announces to producers that this reader is going to sleep, and returns the value to sleep on, or undefined when it must not sleep because
   * something has come meanwhile.
   */
  announceSleep(): number | undefined;
  /** Sleepers sleep on `cells[cell]`. */
  readonly cells: Int32Array;
  readonly cell: number;
}

/** Blocks (`waitSync`) or waits (`wait`) until the gate is ready or closed, or time is over. */
export interface WaitStrategy {
  readonly name: string;
  /** Blocks the thread; on the main thread of a program that is seldom wanted. */
  waitSync(gate: WaitGate, timeoutMs: number): WaitResult;
  /** `aborted` settles the wait early (the caller then rejects). */
  wait(gate: WaitGate, timeoutMs: number, aborted: AbortSignal | undefined): Promise<WaitResult>;
}
