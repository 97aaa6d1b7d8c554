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

/** See `RingProducer`. */
export class SingleProducer extends BaseProducer {
  /** Positions (low words): published so far, claimed so far, and the first that may not be claimed, as last looked up. */
  private published: number;
  private next: number;
  private limit: number;
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
    this.attentive = this.overwrite || this.dropped !== 0 || this.payloadUsed;
    this.announced = readLow(memory.cells, CELL.claimed);
    this.payloadLimit = Atomics.load(memory.cells, CELL.payloadHead);
  }

  get current(): boolean {
    return Atomics.load(this.cells, CELL.producer) === this.token;
  }

  override claim(n: number): number {
    const first = this.next;
    if (((this.limit - first) | 0) < n >>> 0 || this.attentive || this.cells[CELL.closed] !== 0) {
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
    if (((this.limit - first) | 0) < n >>> 0 || this.attentive || this.cells[CELL.closed] !== 0)
      return this.claimAttentively(n);
    this.first = first;
    this.next = (first + n) | 0;
    return n;
  }

  /** Claims when there may be no room, or when something is to be done with claimed slots. */
  private claimAttentively(n: number): number {
    if (n < 0) throw new RangeError(`claimed ${n} slots`);
    const first = this.next;
    let granted = (this.limit - first) | 0;
    if (granted < n) granted = this.lookUpRoom();
    if (granted > n) granted = n;
    if (granted <= 0 || this.cells[CELL.closed] !== 0) return 0;
    const next = (first + granted) | 0;
    if (this.overwrite) this.announce(next);
    this.first = first;
    this.next = next;
    if (this.dropped !== 0 || this.payloadUsed) this.mark(first, granted);
    return granted;
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
    this.limit = ((this.overwrite ? this.published : gateOf(this.cells)) + this.capacity) | 0;
    return (this.limit - this.next) | 0;
  }

  publish(): void {
    const { published, next } = this;
    if (next !== published) {
      const before = Atomics.exchange(this.cells, CELL.published, next << 1);
      this.published = next;
      if (((published ^ next) & EPOCH_STEPS) !== 0) Atomics.add(this.cells, CELL.published + 1, 1);
      if ((before & 1) !== 0) wake(this.cells);
    }
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
    this.attentive = true;
  }

  override writePayload(bytes: Uint8Array, from: number, to: number): number {
    this.attentive = true;
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
