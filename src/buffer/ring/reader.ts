/**
 * Reading from a ring: the interface, and what both kinds of reader share (their place, gaps of drops, waiting, leaving).
 * In a drop-newest ring a reader hands out the shared slots themselves (in-place-reader.ts), in an overwrite-oldest ring its own
 * copies of them (overwriting-reader.ts). A reader belongs to one thread.
 */
import { AbortedError, BeamtraceError } from "../../erlang/errors";
import { EPOCH_STEPS, readCounter, writeCounter } from "./counter";
import { CELL, PLACE } from "./layout";
import type { RingMemory } from "./layout";
import { activatePlace, freePlace, placeCell, takePlace } from "./places";
import { copyOut } from "./payload-area";
import { wake } from "./signal";
import type { WaitGate, WaitResult, WaitStrategy } from "./wait-strategy";

/**
 * Reads every record once, in order, and is told of every loss where it happened.
 *
 * @example
 * ```ts
 * for (;;) {
 *   const n = reader.poll(1024);
 *   if (reader.gap > 0) …                                 // so many events were lost before these records
 *   const { words, start, mask } = reader;
 *   for (let i = 0, at = (start & mask) << 4; i < n; i++, at = (at + 16) & (mask << 4)) {
 *     words[at];                                          // first word of the record
 *   }
 *   reader.release(n);
 *   if (n === 0 && (await reader.wait(1000)) === "closed") break;
 * }
 * ```
 */
export interface RingReader {
  /** The reader's place, for `RingBuffer.evict` and `stats().readers`. */
  readonly index: number;
  /** Where records are: the shared slots (drop-newest; don't write) or the reader's own copy (overwrite-oldest). */
  readonly words: Uint32Array;
  /** The same bytes. */
  readonly floats: Float64Array;
  readonly mask: number;
  /** Record i of the last poll begins at word `((start + i) & mask) * 16`. */
  readonly start: number;
  /** Events lost immediately before the first record of the last `poll` or `next` (each loss is told once). May be > 0 while no record is there. */
  readonly gap: number;
  /** Position of the next record to release, counted from the ring's first. */
  readonly position: number;
  /**
   * Returns how many records, up to `max`, can be read now. They are valid until they are released. A poll ends before the next gap. Records that
   * weren't released are handed out again.
   */
  poll(max: number): number;
  /** How many of the `n` records of a poll lie in one piece from `start`; the others go on at word 0. */
  contiguous(n: number): number;
  /** Gives the first `n` records of the last poll back. */
  release(n: number): void;
  /**
   * Record by record: returns the first word of the next record, or −1 when there is none. The record is valid until the next call and released by it;
   * slots go back to producers in groups, and always when −1 is returned.
   */
  next(): number;
  /**
   * Copies a payload of a record that is not yet released. Returns undefined when it has been overwritten (overwrite-oldest only).
   * `into` is used when it is long enough.
   */
  readPayload(position: number, length: number, into?: Uint8Array): Uint8Array | undefined;
  /** Waits until there is something to poll; `closed` when there will never be, or when this reader is closed. Rejects with `BT_ABORTED` when the signal fires. */
  wait(timeoutMs?: number, signal?: AbortSignal): Promise<WaitResult>;
  /** The same, blocking the thread. */
  waitSync(timeoutMs?: number): WaitResult;
  /** Frees the reader's place; the reader can't be used any more. */
  close(): void;
  [Symbol.dispose](): void;
}

/** Where a reader starts. */
export interface ReaderStart {
  /** Distance from the ring's origin. */
  readonly position: number;
  /** What was dropped before that. */
  readonly dropped: number;
}

/** What both kinds of reader share. */
export abstract class BaseReader implements RingReader, WaitGate {
  readonly index: number;
  abstract readonly words: Uint32Array;
  abstract readonly floats: Float64Array;
  abstract readonly mask: number;
  start = 0;
  gap = 0;

  readonly cells: Int32Array;
  readonly cell: number = CELL.signal;
  protected readonly memory: RingMemory;
  /** First cell of our place. */
  protected readonly place: number;
  /** What our place's state must be; otherwise we were evicted. */
  protected readonly placeState: number;
  /** Dropped events that have been told, as number and as low word and (possibly lagging) epoch. */
  protected droppedSeen = 0;
  protected droppedSeenLow = 0;
  protected droppedSeenEpoch = 0;
  /** Found but not yet told. */
  protected pendingGap = 0;
  /** Records known to be readable before the next gap. */
  protected available = 0;
  private readonly strategy: WaitStrategy;
  private open = true;

  protected constructor(memory: RingMemory, from: "oldest" | "latest", strategy: WaitStrategy) {
    this.memory = memory;
    this.cells = memory.cells;
    this.strategy = strategy;
    this.index = takePlace(memory);
    this.place = placeCell(this.index);
    const { position, dropped } = this.findStart(from);
    for (const counter of [PLACE.cursor, PLACE.held, PLACE.joined]) this.writePosition(counter, position);
    writeCounter(this.cells, this.place + PLACE.lapped, 0);
    Atomics.store(this.cells, this.place + PLACE.lock, 0);
    this.placeState = activatePlace(memory, this.index);
    this.setDroppedSeen(dropped);
  }

  /** Where to start; called while the place is joining. */
  protected abstract findStart(from: "oldest" | "latest"): ReaderStart;
  abstract get position(): number;
  abstract poll(max: number): number;
  abstract contiguous(n: number): number;
  abstract release(n: number): void;
  abstract next(): number;
  /** Records between our position and what is published (may exceed the ring when overwritten). */
  protected abstract backlog(): number;
  /** May a payload that was copied from this position have been overwritten meanwhile? */
  protected abstract payloadIntact(position: number): boolean;

  /** Writes a counter of our place, as distance from the ring's origin. */
  protected writePosition(counter: number, position: number): void {
    const { cells, originLow, originEpoch } = this.memory;
    writeCounter(cells, this.place + counter, position, originLow, originEpoch);
  }

  protected setDroppedSeen(dropped: number): void {
    this.droppedSeen = dropped;
    this.droppedSeenLow = dropped | 0;
    this.droppedSeenEpoch = Math.floor(dropped / EPOCH_STEPS) | 0;
  }

  /**
   * Is there a drop that this reader hasn't been told? Reads plain cells: what was dropped before a record is stored before the record is published, so after
   * `published` has been loaded it is here; and an epoch that lags only costs a second look.
   */
  protected hasUntoldDrops(): boolean {
    return (
      this.cells[CELL.dropped] !== this.droppedSeenLow ||
      this.cells[CELL.dropped + 1] !== this.droppedSeenEpoch
    );
  }

  /**
   * Looks at `n` published records from a position for the first that events were dropped before. A gap at the position itself is taken into
   * `pendingGap`. Returns how many records come before the next gap.
   */
  protected scanForGap(low: number, n: number): number {
    const { droppedBefore, mask } = this.memory;
    for (let i = 0; i < n; i++) {
      const dropped = droppedBefore[(low + i) & mask]!;
      if (dropped <= this.droppedSeen) continue;
      if (i > 0) return i;
      this.pendingGap += dropped - this.droppedSeen;
      this.setDroppedSeen(dropped);
    }
    return n;
  }

  /**
   * Everything is read: takes drops that come after the last record into `pendingGap`. The drops are loaded before `published`: if there still is
   * no record, all of them happened here.
   */
  protected takeTrailingDrops(): void {
    const dropped = readCounter(this.cells, CELL.dropped);
    if (dropped <= this.droppedSeen || this.backlog() !== 0) return;
    this.pendingGap += dropped - this.droppedSeen;
    this.setDroppedSeen(dropped);
  }

  /** Throws when this reader was closed or evicted. */
  protected checkPlace(): void {
    if (this.open && Atomics.load(this.cells, this.place + PLACE.state) === this.placeState) return;
    throw new BeamtraceError(
      "BT_CLOSED",
      this.open ? "This reader was evicted from the ring (RingBuffer.evict)." : "This reader is closed.",
    );
  }

  readPayload(position: number, length: number, into?: Uint8Array): Uint8Array | undefined {
    if (length > this.memory.payload.length) return undefined;
    const target = into !== undefined && into.length >= length ? into : new Uint8Array(length);
    if (length > 0) {
      copyOut(this.memory.payload, position, length, target);
      if (!this.payloadIntact(position)) return undefined;
    }
    return target.length === length ? target : target.subarray(0, length);
  }

  state(): "ready" | "closed" | undefined {
    if (!this.open) return "closed";
    if (this.available > 0 || this.pendingGap > 0) return "ready";
    // Evicted: the next poll says so.
    if (Atomics.load(this.cells, this.place + PLACE.state) !== this.placeState) return "ready";
    // Closed is loaded first: what was published or dropped before closing is then seen.
    const closed = Atomics.load(this.cells, CELL.closed) !== 0;
    if (this.backlog() !== 0 || readCounter(this.cells, CELL.dropped) !== this.droppedSeen) return "ready";
    return closed ? "closed" : undefined;
  }

  announceSleep(): number | undefined {
    const { cells } = this;
    const value = Atomics.load(cells, CELL.signal);
    Atomics.or(cells, CELL.published, 1);
    // Whoever publishes, drops or closes after this line wakes us; what came before it is seen here.
    return this.state() === undefined ? value : undefined;
  }

  waitSync(timeoutMs = Infinity): WaitResult {
    this.checkPlace();
    this.flush();
    return this.strategy.waitSync(this, timeoutMs);
  }

  async wait(timeoutMs = Infinity, signal?: AbortSignal): Promise<WaitResult> {
    this.checkPlace();
    this.flush();
    const result = signal?.aborted === true ? "timeout" : await this.strategy.wait(this, timeoutMs, signal);
    if (result === "timeout" && signal?.aborted === true)
      throw new AbortedError("BT_ABORTED", "Waiting for records was aborted.", { cause: signal.reason });
    return result;
  }

  /** Shows producers everything that `next` has gone past. */
  protected abstract flush(): void;

  close(): void {
    if (!this.open) return;
    if (Atomics.load(this.cells, this.place + PLACE.state) === this.placeState) {
      this.flush();
      freePlace(this.memory, this.index, this.placeState);
    }
    this.open = false;
    this.available = 0;
    wake(this.cells);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
