/**
 * The reader of an overwrite-oldest ring. Producers never wait for it, so it copies records into memory of its own and checks afterwards
 * whether they may have been overwritten meanwhile (a sequence lock, with the producers' `claimed` as the sequence).
 *
 * Why nothing torn or stale comes out:
 * 1. A producer moves `claimed` past position p + capacity by an atomic read-modify-write before its first write to the slot of p.
 * 2. The reader copies the slot of p, does an atomic read-modify-write (on a cell of its own), then loads `claimed`. If that is not past
 *    p + capacity, no write of (1) came before the load.
 * 3. What was read was written before `published` passed p, and `published` was loaded before the copy: not older than p either.
 * Step 3 is ordered by ECMAScript's memory model. Steps 1 and 2 race plain reads with plain writes, where the model promises no order between a plain
 * access and a later atomic one on another cell; they rely on what engines and processors do: V8 doesn't move accesses of shared arrays across
 * Atomics, x86 keeps loads in order and stores in order, and on ARM64 the read-modify-writes (…AL instructions) are full barriers, which is why
 * plain Atomics.store and Atomics.load would not do here. `stress/ring-two-threads.ts` checks the content of every record.
 */
import { SLOT_BYTES } from "../event-schema";
import { readCounter, storeCounter, writeCounter } from "./counter";
import { CELL, PLACE } from "./layout";
import type { RingMemory } from "./layout";
import { copyRecord } from "./producer";
import { BaseReader } from "./reader";
import type { ReaderStart } from "./reader";
import type { WaitStrategy } from "./wait-strategy";

/** Most records that are copied at a time. */
const COPY_MAX = 1024;

/** See `RingReader`. */
export class OverwritingReader extends BaseReader {
  readonly words: Uint32Array;
  readonly floats: Float64Array;
  readonly mask: number;
  /** Position (from the origin) after the last record copied; `available` of the copies are not yet released. */
  private filledTo: number;
  /** Where the next of them is in our memory. */
  private at = 0;
  /** Low word of the position of the next record to release, as far as the place shows it. */
  private shown: number;
  /** Released but not shown. */
  private unshown = 0;
  private lapped = 0;
  /** Payload floor of the oldest copy. */
  private floorLow = 0;
  private floorEpoch = 0;

  constructor(memory: RingMemory, from: "oldest" | "latest", strategy: WaitStrategy) {
    super(memory, from, strategy);
    const size = Math.min(memory.capacity, COPY_MAX);
    const buffer = new ArrayBuffer(size * SLOT_BYTES);
    this.words = new Uint32Array(buffer);
    this.floats = new Float64Array(buffer);
    this.mask = size - 1;
    this.filledTo = readCounter(this.cells, this.place + PLACE.cursor, memory.originLow, memory.originEpoch);
    this.shown = Atomics.load(this.cells, this.place + PLACE.cursor);
  }

  protected findStart(from: "oldest" | "latest"): ReaderStart {
    const { cells, capacity, mask, originLow, droppedBefore } = this.memory;
    for (;;) {
      const published = this.published();
      const dropped = readCounter(cells, CELL.dropped);
      if (from === "latest") return { position: published, dropped };
      const oldest = Math.max(0, this.claimed() - capacity);
      if (oldest === 0) return { position: 0, dropped: 0 };
      if (oldest >= published) return { position: published, dropped };
      const before = droppedBefore[(originLow + oldest) & mask]!;
      Atomics.add(cells, this.place + PLACE.lock, 0);
      if (this.claimed() - capacity <= oldest) return { position: oldest, dropped: before };
    }
  }

  private published(): number {
    return readCounter(this.cells, CELL.published, this.memory.originLow, this.memory.originEpoch, 1);
  }

  private claimed(): number {
    return readCounter(this.cells, CELL.claimed, this.memory.originLow, this.memory.originEpoch);
  }

  get position(): number {
    return this.filledTo - this.available;
  }

  protected backlog(): number {
    return this.published() - this.position;
  }

  poll(max: number): number {
    if (this.unshown !== 0) this.flush();
    if (this.available === 0) this.fill();
    this.start = this.at;
    this.gap = this.pendingGap;
    this.pendingGap = 0;
    const available = this.available;
    return available < max ? available : max;
  }

  contiguous(n: number): number {
    return n;
  }

  release(n: number): void {
    if (n > this.available || n < 0) throw new RangeError(`released ${n} records of ${this.available}`);
    this.available -= n;
    this.at += n;
    this.unshown += n;
    this.flush();
  }

  next(): number {
    if (this.available === 0) {
      this.flush();
      this.fill();
      this.gap = this.pendingGap;
      this.pendingGap = 0;
      if (this.available === 0) return -1;
    } else {
      this.gap = 0;
    }
    // Our copy needs no release: the record counts as read when it is handed out.
    this.available--;
    this.unshown++;
    return this.at++ << 4;
  }

  protected flush(): void {
    if (this.unshown === 0) return;
    const cursor = (this.shown + this.unshown) | 0;
    storeCounter(this.cells, this.place + PLACE.cursor, this.shown, cursor);
    this.shown = cursor;
    this.unshown = 0;
  }

  /** Copies the next records; sets `at`, `available` and `pendingGap`. */
  private fill(): void {
    this.checkPlace();
    const { capacity } = this.memory;
    for (let attempt = 0; ; attempt++) {
      const published = this.published();
      if (published === this.filledTo) {
        this.takeTrailingDrops();
        return;
      }
      // Overtaken: go on with the oldest that is there, after failed attempts a little further, for the producer runs as fast as we do.
      const oldest = this.claimed() - capacity;
      if (oldest > this.filledTo)
        this.skipTo(
          Math.min(
            published,
            oldest + (attempt === 0 ? 0 : Math.min(attempt, 8) * Math.max(1, capacity >>> 4)),
          ),
        );
      if (published === this.filledTo) continue;
      if (this.tryCopy(Math.min(published - this.filledTo, this.mask + 1))) return;
    }
  }

  /** Copies `n` records. Returns false when they must be read anew. */
  private tryCopy(n: number): boolean {
    const { memory, words, filledTo } = this;
    const { capacity, mask, originLow } = memory;
    const shared = memory.words;
    const low = (originLow + filledTo) | 0;
    for (let i = 0; i < n; i++) copyRecord(shared, ((low + i) & mask) << 4, words, i << 4);
    if (memory.payloadUnits > 0) this.noteFloor(low & mask);
    const { pendingGap, droppedSeen } = this;
    const untold = this.hasUntoldDrops();
    const count = untold ? this.scanForGap(low, n) : n;
    Atomics.add(this.cells, this.place + PLACE.lock, 0);
    const bad = Math.max(0, this.claimed() - capacity - filledTo);
    // What we looked up beside the records (gaps, the payload floor) may have been that of newer ones.
    if (bad > 0 && (untold || memory.payloadUnits > 0 || bad >= n)) {
      this.pendingGap = pendingGap;
      this.setDroppedSeen(droppedSeen);
      return false;
    }
    if (bad > 0) this.skipTo(filledTo + bad);
    const before = (originLow + this.filledTo) | 0;
    this.filledTo = filledTo + count;
    storeCounter(this.cells, this.place + PLACE.held, before, (originLow + this.filledTo) | 0);
    this.at = bad;
    this.available = count - bad;
    return true;
  }

  private noteFloor(slot: number): void {
    const { payloadFloor } = this.memory;
    const low = payloadFloor[slot << 1]!;
    const epoch = payloadFloor[(slot << 1) + 1]!;
    this.floorLow = low;
    this.floorEpoch = (epoch + (((low >>> 30) ^ epoch) & 1)) | 0;
  }

  /** Gives up records that were overwritten, and notes how many. */
  private skipTo(position: number): void {
    const { cells, place } = this;
    const lost = position - this.filledTo;
    this.flush();
    this.lapped += lost;
    this.pendingGap += lost;
    this.filledTo = position;
    this.shown = (this.memory.originLow + position) | 0;
    // Whoever reads statistics meanwhile looks again when the lock is released.
    Atomics.add(cells, place + PLACE.lock, 1);
    this.writePosition(PLACE.cursor, position);
    this.writePosition(PLACE.held, position);
    writeCounter(cells, place + PLACE.lapped, this.lapped);
    Atomics.add(cells, place + PLACE.lock, 1);
  }

  protected payloadIntact(position: number): boolean {
    const { cells, memory } = this;
    Atomics.add(cells, this.place + PLACE.lock, 0);
    const head = readCounter(cells, CELL.payloadHead, this.floorLow, this.floorEpoch);
    return head - ((position - this.floorLow) >>> 0) <= memory.payloadUnits;
  }
}
