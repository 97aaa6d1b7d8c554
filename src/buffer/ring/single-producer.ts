/**
 * The producer of a ring with one producer. Claiming is local (no atomic operation) as long as the cached limit allows;
 * publishing is one exchange.
 *
 * overwrite-oldest: `claimed` is moved on by a read-modify-write *before* the first word is written, see overwriting-reader.ts.
 */
import { BeamtraceError } from "../../erlang/errors";
import { SLOT_WORDS } from "../event-schema";
import { EPOCH_STEPS, crossesEpoch, readLow } from "./counter";
import { CELL } from "./layout";
import type { RingMemory } from "./layout";
import { gateOf } from "./places";
import { BaseProducer, copyRecord } from "./producer";
import { wake } from "./signal";

/** Constants of this module: a property of another one's object costs each function that is put in line a part of V8's allowance. */
const { closed: CLOSED, published: PUBLISHED } = CELL;

/**
 * Slots that are made the producer's own at a time. Slots come back from a reader in the cache of the reader's processor: written one by
 * one, each waits for its line before it can be published; the lines of a group come together. With many more the other processor takes
 * lines back that it fetches ahead. (bench/ring, record by record on two threads: 22 M/s without, 41 M/s with 16, 35 M/s with 64.)
 */
const OWNED = 16;

/** See `RingProducer`. */
export class SingleProducer extends BaseProducer {
  /**
   * Positions (low words): published so far, claimed so far, the first that may not be claimed without a closer look, and the first that may not
   * be claimed at all, as last looked up.
   */
  private published: number;
  private next: number;
  private limit: number;
  private roomEnd: number;
  /** overwrite-oldest: what `claimed` says. A producer that died may have left it ahead; it must not fall. */
  private announced: number;
  /** First unit of the payload area that may not be written, as last looked up. */
  private payloadLimit: number;
  private readonly token: number;
  /** Claiming has more to do than counting: overwriting, drops to mark, payloads. Set for good. */
  private attentive: boolean;

  constructor(memory: RingMemory) {
    super(memory);
    this.token = (Atomics.add(memory.cells, CELL.producer, 1) + 1) | 0;
    this.published = readLow(memory.cells, CELL.published, 1);
    this.next = this.published;
    this.limit = this.published;
    this.roomEnd = this.published;
    this.attentive = this.overwrite || this.dropped !== 0 || this.payloadUsed;
    this.announced = readLow(memory.cells, CELL.claimed);
    this.payloadLimit = Atomics.load(memory.cells, CELL.payloadHead);
  }

  get current(): boolean {
    return Atomics.load(this.cells, CELL.producer) === this.token;
  }

  override claim(n: number): number {
    const first = this.next;
    if (((this.limit - first) | 0) < n >>> 0 || this.cells[CLOSED] !== 0) {
      const granted = this.claimAttentively(n);
      if (granted !== n) this.drop(n - granted);
      return granted;
    }
    this.first = first;
    this.next = (first + n) | 0;
    return n;
  }

  tryClaim(n: number): number {
    const first = this.next;
    if (((this.limit - first) | 0) < n >>> 0 || this.cells[CLOSED] !== 0) return this.claimAttentively(n);
    this.first = first;
    this.next = (first + n) | 0;
    return n;
  }

  /** Claims when there may be no room, when slots are to be made our own, or when something is to be done with claimed slots. */
  private claimAttentively(n: number): number {
    if (n < 0) throw new RangeError(`claimed ${n} slots`);
    const first = this.next;
    let granted = (this.roomEnd - first) | 0;
    if (granted < n) granted = this.lookUpRoom();
    if (granted > n) granted = n;
    if (granted <= 0 || this.cells[CLOSED] !== 0) return 0;
    const next = (first + granted) | 0;
    if (this.overwrite) this.announce(next);
    this.first = first;
    this.next = next;
    if (this.dropped !== 0 || this.payloadUsed) this.mark(first, granted);
    // Of many slots in a row the processor fetches several lines at a time anyway.
    if (!this.attentive) this.limit = n < OWNED ? this.own(next) : this.roomEnd;
    return granted;
  }

  /** Takes the cache lines of the next slots, which no reader reads now. Returns the position after them. */
  private own(first: number): number {
    const { words, mask } = this;
    const n = Math.min(OWNED, (this.roomEnd - first) | 0);
    for (let i = 0; i < n; i++) words[((first + i) & mask) * SLOT_WORDS] = 0;
    return (first + n) | 0;
  }

  /** From now on there is something to do with each claimed slot. */
  private payAttention(): void {
    this.attentive = true;
    this.limit = this.next;
  }

  private announce(next: number): void {
    const before = this.announced;
    if (((next - before) | 0) <= 0) return;
    Atomics.exchange(this.cells, CELL.claimed, next);
    if (crossesEpoch(before, next)) Atomics.add(this.cells, CELL.claimed + 1, 1);
    this.announced = next;
  }

  private mark(first: number, granted: number): void {
    const low = Atomics.load(this.cells, CELL.payloadHead);
    const epoch = Atomics.load(this.cells, CELL.payloadHead + 1);
    this.markSlots(first, granted, low, epoch);
  }

  private lookUpRoom(): number {
    if (!this.current)
      throw new BeamtraceError(
        "BT_RING_INVALID",
        'Another producer has taken over this ring. Make the ring with producers: "multiple" to have several at a time.',
      );
    this.roomEnd = ((this.overwrite ? this.published : gateOf(this.cells)) + this.capacity) | 0;
    return (this.roomEnd - this.next) | 0;
  }

  publish(): void {
    const { published, next } = this;
    if (next === published) return; // nothing is held back then
    const before = Atomics.exchange(this.cells, PUBLISHED, next << 1);
    this.published = next;
    if (((before & 1) | ((published ^ next) & EPOCH_STEPS)) !== 0 || this.dropsHeldBack !== 0)
      this.finishPublishing(before, published);
  }

  private finishPublishing(before: number, published: number): void {
    if (((published ^ this.published) & EPOCH_STEPS) !== 0) Atomics.add(this.cells, CELL.published + 1, 1);
    if ((before & 1) !== 0) wake(this.cells);
    if (this.dropsHeldBack !== 0) this.tellDrops();
  }

  override push(src: Uint32Array, offset = 0): boolean {
    if (this.claim(1) === 0) return false;
    copyRecord(src, offset, this.words, (this.first & this.mask) * SLOT_WORDS);
    this.publish();
    return true;
  }

  protected override tellDrops(): void {
    super.tellDrops();
    this.payAttention();
  }

  override writePayload(bytes: Uint8Array, from: number, to: number): number {
    if (!this.attentive) this.payAttention();
    return super.writePayload(bytes, from, to);
  }

  protected hasClaim(): boolean {
    return this.next !== this.published;
  }

  protected payloadHasRoom(head: number, units: number): boolean {
    // Nobody else writes here, and readers check what they have copied.
    if (this.overwrite) return true;
    if (((this.payloadLimit - head) | 0) < units) {
      // All slots up to `next` are claimed by us, so the floor of the slot at the gate is known.
      const gate = gateOf(this.cells);
      this.payloadLimit =
        ((this.memory.payloadFloor[(gate & this.mask) << 1] as number) + this.memory.payloadUnits) | 0;
    }
    return ((this.payloadLimit - head) | 0) >= units;
  }
}
