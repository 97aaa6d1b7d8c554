/**
 * A ring's counters at one moment, taken without stopping anybody.
 * Readers are looked at before `published`, and `published` before `claimed`: each can only have moved on since, so no difference is negative.
 */
import { readCounter } from "./counter";
import { CELL, PLACE, PLACE_STATE } from "./layout";
import type { RingMemory } from "./layout";
import { placeCell } from "./places";

/** One reader's part. `written − joinedAt = read + dropped + pending`, at every moment. */
export interface RingReaderStats {
  /** The reader's place. */
  readonly index: number;
  /** Records that had been written before the first that this reader could get. */
  readonly joinedAt: number;
  /** Records that it has read and released. */
  readonly read: number;
  /** Records that were overwritten before it could read them (overwrite-oldest; always 0 with drop-newest). */
  readonly dropped: number;
  /** Records that it can still read. */
  readonly pending: number;
}

/** See `RingBuffer.stats`. */
export interface RingStats {
  /** Slots. */
  readonly capacity: number;
  /** Records published. */
  readonly written: number;
  /** Events that producers counted instead of writing them; `written + dropped` is what was produced. */
  readonly dropped: number;
  /** Payloads for which there was no room. */
  readonly payloadDropped: number;
  /** Slots claimed but not published, where that is known (several producers, or overwrite-oldest). Above 0 for long: a producer died or hangs. */
  readonly unpublished: number;
  readonly closed: boolean;
  readonly readers: readonly RingReaderStats[];
}

interface ReaderCounters {
  readonly index: number;
  readonly joinedAt: number;
  readonly cursor: number;
  readonly held: number;
  readonly lapped: number;
}

/** A reader that died while it wrote its counters leaves the lock odd; then they are taken as they are. */
const LOCK_LOOKS = 10_000;

function readReader(memory: RingMemory, index: number): ReaderCounters | undefined {
  const { cells, originLow, originEpoch } = memory;
  const at = placeCell(index);
  for (let look = 0; ; look++) {
    const state = Atomics.load(cells, at + PLACE.state);
    if ((state & PLACE_STATE.mask) !== PLACE_STATE.active) return undefined;
    const lock = Atomics.load(cells, at + PLACE.lock);
    const position = (counter: number) => readCounter(cells, at + counter, originLow, originEpoch);
    const counters = {
      index,
      joinedAt: position(PLACE.joined),
      cursor: position(PLACE.cursor),
      held: position(PLACE.held),
      lapped: readCounter(cells, at + PLACE.lapped),
    };
    const unchanged =
      Atomics.load(cells, at + PLACE.lock) === lock && Atomics.load(cells, at + PLACE.state) === state;
    if ((unchanged && (lock & 1) === 0) || look >= LOCK_LOOKS) return counters;
  }
}

/** Takes the statistics of a ring. */
export function ringStats(memory: RingMemory): RingStats {
  const { cells, originLow, originEpoch, capacity } = memory;
  const places = Atomics.load(cells, CELL.placesUsed);
  const readers = Array.from({ length: places }, (_, index) => readReader(memory, index)).filter(
    (reader) => reader !== undefined,
  );
  const written = readCounter(cells, CELL.published, originLow, originEpoch, 1);
  const claimed = readCounter(cells, CELL.claimed, originLow, originEpoch);
  const overwrites = memory.overflow === "overwrite-oldest";
  return {
    capacity,
    written,
    dropped: readCounter(cells, CELL.dropped),
    payloadDropped: readCounter(cells, CELL.payloadDropped),
    unpublished: Math.max(0, claimed - written),
    closed: Atomics.load(cells, CELL.closed) !== 0,
    readers: readers.map(({ index, joinedAt, cursor, held, lapped }) => {
      // Overwritten, but the reader hasn't come to notice: what it has already copied is safe.
      const unnoticed = overwrites ? Math.max(0, claimed - capacity - Math.max(held, cursor)) : 0;
      return {
        index,
        joinedAt,
        read: cursor - joinedAt - lapped,
        dropped: lapped + unnoticed,
        pending: written - cursor - unnoticed,
      };
    }),
  };
}
