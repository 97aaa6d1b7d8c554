/**
 * Writing into a ring: the interface, and what both producers share (loss counters, the payload area, the push of one record).
 * A producer belongs to one thread. `words` and `floats` are views of the shared slots; only claimed slots may be written.
 */
import { BeamtraceError } from "../../erlang/errors";
import { SLOT_WORDS } from "../event-schema";
import { addCounter, crossesEpoch, readCounter, readLow, repairEpoch } from "./counter";
import { CELL } from "./layout";
import type { RingMemory } from "./layout";
import { copyIn, payloadUnitsOf } from "./payload-area";
import { wakeSleepers } from "./signal";

/**
 * Writes records: claim slots, fill them, publish them.
 *
 * @example
 * ```ts
 * const granted = producer.claim(events.length);        // the rest is counted as dropped
 * const { words, first, mask } = producer;
 * for (let i = 0, at = (first & mask) << 4; i < granted; i++, at = (at + 16) & (mask << 4)) {
 *   words[at] = …;                                      // all 16 words: a slot still holds its last record
 * }
 * producer.publish();
 * ```
 */
export interface RingProducer {
  /** All slots. The slot of position p begins at word `(p & mask) * 16`. */
  readonly words: Uint32Array;
  /** The same bytes; the slot of position p begins at index `(p & mask) * 8`. */
  readonly floats: Float64Array;
  /** Slots − 1. */
  readonly mask: number;
  /** Position of the first slot that the last claim granted, modulo 2^32. The others follow. */
  readonly first: number;
  /** False when another producer has taken over this ring: then this one must not write any more. */
  readonly current: boolean;
  /**
   * Claims `n` slots in a row and returns how many were granted, 0 to n; the rest is counted as dropped, after the granted ones. Claims add up
   * until `publish()`. drop-newest grants what no reader holds, overwrite-oldest always grants (up to the capacity in one batch).
   */
  claim(n: number): number;
  /** Like `claim`, but what is not granted is not counted: for producers that can wait. */
  tryClaim(n: number): number;
  /**
   * Copies `bytes[from, to)` into the payload area, for a record that is claimed and not yet published. Returns the position (units of 8 bytes
   * modulo 2^32, to be stored in the slot), or −1 when there is no room, which is counted as `payloadDropped`.
   */
  writePayload(bytes: Uint8Array, from: number, to: number): number;
  /** Makes everything claimed visible to readers and wakes those that sleep: one atomic operation. */
  publish(): void;
  /** Writes one record of 16 words from `src[offset…]`. Returns false when it was dropped (and counted). */
  push(src: Uint32Array, offset?: number): boolean;
  /** Counts `n` events that were lost before they came here. Readers get them as a gap, after the records written so far. */
  drop(n: number): void;
}

/** What single and multiple producers have in common. */
export abstract class BaseProducer implements RingProducer {
  readonly words: Uint32Array;
  readonly floats: Float64Array;
  readonly mask: number;
  first: number;

  protected readonly memory: RingMemory;
  protected readonly cells: Int32Array;
  protected readonly capacity: number;
  protected readonly overwrite: boolean;
  /** Events dropped so far, by all producers, as last looked up; marked in every slot once it is not 0. */
  protected dropped: number;
  /** Dropped after slots that are claimed but not published: told to readers after these, so that the order is right. */
  protected dropsHeldBack = 0;
  /** The payload area has been used (before that all floors are 0, and that is true). */
  protected payloadUsed: boolean;

  protected constructor(memory: RingMemory) {
    this.memory = memory;
    this.cells = memory.cells;
    this.words = memory.words;
    this.floats = memory.floats;
    this.mask = memory.mask;
    this.capacity = memory.capacity;
    this.overwrite = memory.overflow === "overwrite-oldest";
    this.dropped = readCounter(memory.cells, CELL.dropped);
    this.payloadUsed = readCounter(memory.cells, CELL.payloadHead) !== 0;
    this.first = readLow(memory.cells, CELL.published, 1);
  }

  abstract get current(): boolean;
  abstract tryClaim(n: number): number;
  abstract publish(): void;
  /** Are there slots claimed but not published? */
  protected abstract hasClaim(): boolean;
  /** Is there room for so many units after `head`, with nothing in it that a reader or another producer still uses? */
  protected abstract payloadHasRoom(head: number, units: number): boolean;

  claim(n: number): number {
    const granted = this.tryClaim(n);
    if (granted !== n) this.drop(n - granted);
    return granted;
  }

  push(src: Uint32Array, offset = 0): boolean {
    if (this.tryClaim(1) === 0) {
      this.drop(1);
      return false;
    }
    copyRecord(src, offset, this.words, (this.first & this.mask) * SLOT_WORDS);
    this.publish();
    return true;
  }

  drop(n: number): void {
    if (n <= 0) return;
    this.dropsHeldBack += n;
    if (!this.hasClaim()) this.tellDrops();
  }

  /** Shows drops to readers. */
  protected tellDrops(): void {
    addCounter(this.cells, CELL.dropped, this.dropsHeldBack);
    this.dropsHeldBack = 0;
    this.dropped = readCounter(this.cells, CELL.dropped);
    wakeSleepers(this.cells);
  }

  /** Notes in claimed slots what was dropped before them, and where the payload area was. */
  protected markSlots(first: number, n: number, payloadLow: number, payloadEpoch: number): void {
    const { droppedBefore, payloadFloor } = this.memory;
    const mask = this.mask;
    if (this.dropped !== 0) {
      const dropped = this.dropped;
      for (let i = 0; i < n; i++) droppedBefore[(first + i) & mask] = dropped;
    }
    if (this.payloadUsed) {
      for (let i = 0; i < n; i++) {
        const at = ((first + i) & mask) << 1;
        payloadFloor[at] = payloadLow;
        payloadFloor[at + 1] = payloadEpoch;
      }
    }
  }

  writePayload(bytes: Uint8Array, from: number, to: number): number {
    if (!this.hasClaim())
      throw new BeamtraceError(
        "BT_RING_INVALID",
        "A payload belongs to a claimed record: claim a slot first.",
      );
    const units = payloadUnitsOf(to - from);
    const cells = this.cells;
    for (;;) {
      const head = Atomics.load(cells, CELL.payloadHead);
      if (units === 0) return head >>> 0;
      if (units > this.memory.payloadUnits || !this.payloadHasRoom(head, units)) {
        addCounter(cells, CELL.payloadDropped, 1);
        return -1;
      }
      const next = (head + units) | 0;
      // Before the first byte is written: a reader that finds the head here knows that older bytes may be going (overwrite-oldest).
      if (Atomics.compareExchange(cells, CELL.payloadHead, head, next) !== head) continue;
      if (crossesEpoch(head, next)) repairEpoch(cells, CELL.payloadHead);
      this.payloadUsed = true;
      copyIn(this.memory.payload, head, bytes, from, to);
      return head >>> 0;
    }
  }
}

/** Copies the 16 words of one record. */
export function copyRecord(from: Uint32Array, at: number, into: Uint32Array, to: number): void {
  into[to] = from[at]!;
  into[to + 1] = from[at + 1]!;
  into[to + 2] = from[at + 2]!;
  into[to + 3] = from[at + 3]!;
  into[to + 4] = from[at + 4]!;
  into[to + 5] = from[at + 5]!;
  into[to + 6] = from[at + 6]!;
  into[to + 7] = from[at + 7]!;
  into[to + 8] = from[at + 8]!;
  into[to + 9] = from[at + 9]!;
  into[to + 10] = from[at + 10]!;
  into[to + 11] = from[at + 11]!;
  into[to + 12] = from[at + 12]!;
  into[to + 13] = from[at + 13]!;
  into[to + 14] = from[at + 14]!;
  into[to + 15] = from[at + 15]!;
}
