/**
 * The reader of a drop-newest ring: hands out the shared slots themselves, without copying.
 *
 * Every access here is ordered by the memory model of ECMAScript alone. A record is written before `published` is exchanged and read after
 * `published` is loaded; it is read before `cursor` is stored, and overwritten only after a producer has loaded that cursor. All of these are
 * sequentially consistent, so reads and writes of a slot never race. `published` can't be more than a ring ahead of `cursor`: low words do.
 */
import { counterDistance, readCounter, storeCounter } from "./counter";
import { CELL, PLACE } from "./layout";
import type { RingMemory } from "./layout";
import { BaseReader } from "./reader";
import type { ReaderStart } from "./reader";
import type { WaitStrategy } from "./wait-strategy";

const { published: PUBLISHED } = CELL;

/** See `RingReader`. */
export class InPlaceReader extends BaseReader {
  readonly words: Uint32Array;
  readonly floats: Float64Array;
  readonly mask: number;
  /** Next record (low word); `next` runs ahead of what producers see. */
  private cursor: number;
  /** What producers see. */
  private shown: number;
  /** `next` shows its progress after so many records. */
  private readonly group: number;

  constructor(memory: RingMemory, from: "oldest" | "latest", strategy: WaitStrategy) {
    super(memory, from, strategy);
    this.words = memory.words;
    this.floats = memory.floats;
    this.mask = memory.mask;
    this.group = Math.max(1, Math.min(256, memory.capacity >>> 3));
    // Between finding our start and becoming active producers may have gone on: move up to their gate (places.ts).
    let cursor = Atomics.load(this.cells, this.place + PLACE.cursor);
    for (;;) {
      const ahead = (Atomics.load(this.cells, CELL.gate) - cursor) | 0;
      if (ahead <= 0) break;
      storeCounter(this.cells, this.place + PLACE.cursor, cursor, (cursor + ahead) | 0);
      storeCounter(this.cells, this.place + PLACE.joined, cursor, (cursor + ahead) | 0);
      cursor = (cursor + ahead) | 0;
    }
    this.cursor = cursor;
    this.shown = cursor;
    this.start = cursor;
    if (from === "oldest") this.setDroppedSeen(this.droppedBeforeStart());
  }

  protected findStart(from: "oldest" | "latest"): ReaderStart {
    const { cells, originLow, originEpoch } = this.memory;
    for (;;) {
      const gate = Atomics.load(cells, CELL.gate);
      const published = readCounter(cells, CELL.published, originLow, originEpoch, 1);
      const dropped = readCounter(cells, CELL.dropped);
      if (from === "latest") return { position: published, dropped };
      const behind = (((originLow + published) | 0) - gate) | 0;
      if (behind <= this.memory.capacity) return { position: published - Math.max(0, behind), dropped };
    }
  }

  /** What was dropped before the record that we start with: noted in its slot, which nobody writes now. */
  private droppedBeforeStart(): number {
    if (this.position === 0) return 0;
    const dropped = readCounter(this.cells, CELL.dropped);
    return this.backlog() > 0 ? this.memory.droppedBefore[this.cursor & this.mask]! : dropped;
  }

  get position(): number {
    const { cells, place, memory } = this;
    const epoch = Atomics.load(cells, place + PLACE.cursor + 1);
    // `next` may be ahead of the shared cursor by less than an epoch; the correction by parity holds for it too.
    return counterDistance(this.cursor, epoch, memory.originLow, memory.originEpoch);
  }

  protected backlog(): number {
    return (Atomics.load(this.cells, CELL.published) - (this.cursor << 1)) >> 1;
  }

  poll(max: number): number {
    const cursor = this.cursor;
    let available = this.available;
    this.gap = 0;
    if (available < max) {
      available = (Atomics.load(this.cells, PUBLISHED) - (cursor << 1)) >> 1;
      if (available === 0 || this.hasUntoldDrops()) available = this.lookUp(available);
      this.available = available;
    }
    this.start = cursor;
    return available < max ? available : max;
  }

  /** The exceptions: nothing there (then at least show what was read), or something was dropped. Returns how many records come before the next gap. */
  private lookUp(n: number): number {
    this.flush();
    this.checkPlace();
    if (!this.hasUntoldDrops()) return n;
    const available = this.scanForGap(this.cursor, n);
    if (n === 0) this.takeTrailingDrops();
    this.gap = this.pendingGap;
    this.pendingGap = 0;
    return available;
  }

  contiguous(n: number): number {
    return Math.min(n, this.mask + 1 - (this.start & this.mask));
  }

  release(n: number): void {
    if (n > this.available || n < 0) throw new RangeError(`released ${n} records of ${this.available}`);
    this.available -= n;
    this.cursor = (this.cursor + n) | 0;
    this.flush();
  }

  next(): number {
    const cursor = this.cursor;
    let available = this.available;
    this.gap = 0;
    if (available === 0) {
      available = (Atomics.load(this.cells, PUBLISHED) - (cursor << 1)) >> 1;
      if (available === 0 || ((cursor - this.shown) | 0) >= this.group || this.hasUntoldDrops())
        available = this.lookUp(available);
      if (available === 0) return -1;
      if (available > this.group) available = this.group;
    }
    this.available = available - 1;
    this.cursor = (cursor + 1) | 0;
    return (cursor & this.mask) << 4;
  }

  protected flush(): void {
    if (this.cursor === this.shown) return;
    if (this.cells[this.place + PLACE.state] !== this.placeState) this.checkPlace();
    storeCounter(this.cells, this.place + PLACE.cursor, this.shown, this.cursor);
    this.shown = this.cursor;
  }

  protected payloadIntact(): boolean {
    return true;
  }
}
