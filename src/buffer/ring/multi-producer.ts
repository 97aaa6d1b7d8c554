/**
 * One of several producers of a ring. Slots are claimed by compare-and-exchange of `claimed`; a batch is made available by tagging its slots
 * with their positions, and whoever finds the batch at the frontier available moves `published` over it, his own or another's
 * (no producer waits for another: lock-free).
 *
 * Hazard: a thread that is terminated between claim and publish leaves a hole that readers can't pass, and once the ring is full behind it
 * everything is dropped (and counted). `stats().unpublished` shows it: it stays above 0 while `written` stands still. Don't terminate
 * a worker that produces; ask it to finish.
 *
 * The compare-and-exchanges look at 32 bits. They could only be fooled by a thread that is suspended between load and exchange for exactly a
 * multiple of 2^32 records (2^31 for `published`).
 */
import { crossesEpoch, readCounter, readLow, repairEpoch } from "./counter";
import { CELL } from "./layout";
import type { RingMemory } from "./layout";
import { gateOf } from "./places";
import { BaseProducer } from "./producer";
import { wake } from "./signal";

/** How often to look again for the payload floor of a slot that another producer has just claimed. */
const FLOOR_LOOKS = 64;

/** See `RingProducer`. */
export class MultiProducer extends BaseProducer {
  /** First position (low word) that may not be claimed, and the epoch of `claimed` when that was looked up. */
  private limit = 0;
  private limitEpoch: number | undefined;
  /** Claimed but not published: pairs of first position and length. */
  private ranges = new Int32Array(16);
  private rangesUsed = 0;

  constructor(memory: RingMemory) {
    super(memory);
  }

  get current(): boolean {
    return true;
  }

  tryClaim(n: number): number {
    const { cells } = this;
    if (n < 0) throw new RangeError(`claimed ${n} slots`);
    if (n === 0 || cells[CELL.closed] !== 0) return 0;
    let lookedUp = false;
    for (;;) {
      // Read before claiming: payloads of these and later slots can't begin before it. The epoch goes first: it may lag, not lead.
      const payloadEpoch = Atomics.load(cells, CELL.payloadHead + 1);
      const payloadLow = Atomics.load(cells, CELL.payloadHead);
      const first = Atomics.load(cells, CELL.claimed);
      let granted = (this.limit - first) | 0;
      // Others may have gone round the 32 bits since we looked; then the epoch has changed.
      const stale = granted > this.capacity || cells[CELL.claimed + 1] !== this.limitEpoch;
      if ((granted < n || stale) && !lookedUp) {
        this.lookUpLimit();
        lookedUp = true;
        continue;
      }
      if (granted > n) granted = n;
      if (granted <= 0) return 0;
      const next = (first + granted) | 0;
      if (Atomics.compareExchange(cells, CELL.claimed, first, next) !== first) continue;
      if (crossesEpoch(first, next)) repairEpoch(cells, CELL.claimed);
      this.first = first;
      this.addRange(first, granted);
      if (Atomics.load(cells, CELL.dropped) !== (this.dropped | 0))
        this.dropped = readCounter(cells, CELL.dropped);
      if ((payloadLow | payloadEpoch) !== 0) this.payloadUsed = true;
      if (this.dropped !== 0 || this.payloadUsed) this.markSlots(first, granted, payloadLow, payloadEpoch);
      return granted;
    }
  }

  private lookUpLimit(): void {
    const { cells } = this;
    repairEpoch(cells, CELL.claimed);
    repairEpoch(cells, CELL.published, 1);
    this.limitEpoch = Atomics.load(cells, CELL.claimed + 1);
    this.limit = (this.gate() + this.capacity) | 0;
  }

  /** First position (low word) that must be left alone. Overwriting stops at slots that another is still writing: two writers would tear them. */
  private gate(): number {
    return this.overwrite ? readLow(this.cells, CELL.published, 1) : gateOf(this.cells);
  }

  private addRange(first: number, n: number): void {
    const { ranges, rangesUsed: used } = this;
    if (used > 0) {
      const last = used - 2;
      if (((ranges[last]! + ranges[last + 1]!) | 0) === first) {
        ranges[last + 1]! += n;
        return;
      }
    }
    if (used === ranges.length) {
      this.ranges = new Int32Array(used * 2);
      this.ranges.set(ranges);
    }
    this.ranges[used] = first;
    this.ranges[used + 1] = n;
    this.rangesUsed = used + 2;
  }

  publish(): void {
    const used = this.rangesUsed;
    if (used > 0) {
      for (let i = 0; i < used; i += 2) this.makeAvailable(this.ranges[i]!, this.ranges[i + 1]!);
      this.rangesUsed = 0;
      this.advance();
    }
    if (this.dropsHeldBack !== 0) this.tellDrops();
  }

  private makeAvailable(first: number, n: number): void {
    const { tags, lengths } = this.memory;
    const mask = this.mask;
    // Every slot gets its tag, so that no tag is older than one lap. The first goes last: it stands for the batch.
    for (let i = 1; i < n; i++) tags[(first + i) & mask] = (first + i) | 0;
    lengths[first & mask] = n;
    Atomics.store(tags, first & mask, first);
  }

  /**
   * Moves `published` over every batch at the frontier that is available. Tags are stored before the frontier is read (both sequentially consistent),
   * so of two producers that finish at the same time at least one sees the other's batch.
   */
  private advance(): void {
    const { cells, mask } = this;
    const { tags, lengths } = this.memory;
    for (;;) {
      const cell = Atomics.load(cells, CELL.published);
      // 31 bits; the missing one is that of `claimed`, at most a ring ahead.
      const claimed = Atomics.load(cells, CELL.claimed);
      const frontier = (claimed + ((cell - (claimed << 1)) >> 1)) | 0;
      if (Atomics.load(tags, frontier & mask) !== frontier) {
        if (((Atomics.load(cells, CELL.published) ^ cell) & ~1) !== 0) continue;
        return;
      }
      const next = (frontier + lengths[frontier & mask]!) | 0;
      if (Atomics.compareExchange(cells, CELL.published, cell, next << 1) !== cell) continue;
      if (crossesEpoch(frontier, next)) repairEpoch(cells, CELL.published, 1);
      if ((cell & 1) !== 0) wake(cells);
    }
  }

  protected hasClaim(): boolean {
    return this.rangesUsed > 0;
  }

  /**
   * The floor of the slot at the gate bounds every payload still in use. It is exact when that slot is published or ours. Otherwise its claimer
   * may not have written it yet: then it is that of the last lap, which is lower, so that we may refuse but never overwrite.
   */
  protected payloadHasRoom(head: number, units: number): boolean {
    const size = this.memory.payloadUnits;
    for (let look = 0; look < FLOOR_LOOKS; look++) {
      const gate = this.gate();
      const floor = Atomics.load(this.memory.payloadFloor, (gate & this.mask) << 1);
      // Claimed again meanwhile: that was the floor of the next lap.
      if (((Atomics.load(this.cells, CELL.claimed) - gate) | 0) > this.capacity) continue;
      const room = (floor + size - head) | 0;
      if (room >= units && room <= size) return true;
      // The head has moved on: the caller's exchange fails, and it comes again.
      if (Atomics.load(this.cells, CELL.payloadHead) !== head) return true;
      const isExact = ((readLow(this.cells, CELL.published, 1) - gate) | 0) > 0;
      if (isExact || gate === this.ranges[0]) return false;
    }
    return false;
  }
}
