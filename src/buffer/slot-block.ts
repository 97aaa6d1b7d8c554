/**
 * A growable array of slots in memory of its own, with the payload bytes that they refer to. Decoders fill one before they hand a whole
 * message to a ring, `EventBatch.copy` keeps events in one, recordings read their chunks into one. Owned by one thread.
 */
import { FLAG, SLOT, SLOT_WORDS } from "./event-schema";

/**
 * Slots and payload in ordinary memory. `payloadAt` of a slot counts in units of 8 bytes from the start of `payload`.
 * Slots that are not in use are zero: whoever writes beyond `count` without raising it clears them again.
 */
export class SlotBlock {
  words: Uint32Array<ArrayBuffer>;
  /** The same memory as `words`. */
  floats: Float64Array<ArrayBuffer>;
  /** Slots in use, from the first. */
  count = 0;
  payload: Uint8Array<ArrayBuffer>;
  payloadBytes = 0;

  constructor(slots = 64, payloadBytes = 0) {
    this.words = new Uint32Array(slots * SLOT_WORDS);
    this.floats = new Float64Array(this.words.buffer);
    this.payload = new Uint8Array(payloadBytes);
  }

  /** Forgets all slots and payload; memory is kept. */
  clear(): void {
    this.words.fill(0, 0, this.count * SLOT_WORDS);
    this.count = 0;
    this.payloadBytes = 0;
  }

  /** Room for `slots` in all, the ones in use kept. Replaces `words` and `floats`. */
  reserve(slots: number): void {
    const capacity = this.words.length / SLOT_WORDS;
    if (slots <= capacity) return;
    const words = new Uint32Array(Math.max(slots, capacity * 2) * SLOT_WORDS);
    words.set(this.words.subarray(0, this.count * SLOT_WORDS));
    this.words = words;
    this.floats = new Float64Array(words.buffer);
  }

  /** Adds a zeroed slot and returns the index of its first word. */
  add(): number {
    this.reserve(this.count + 1);
    return this.count++ * SLOT_WORDS;
  }

  /** Takes the last slot back. */
  drop(): void {
    const base = --this.count * SLOT_WORDS;
    this.words.fill(0, base, base + SLOT_WORDS);
  }

  /** Appends payload bytes for the slot at `base`, and marks the slot. */
  addPayload(base: number, bytes: Uint8Array, from = 0, to = bytes.length): void {
    const length = to - from;
    const at = this.payloadBytes;
    const end = at + ((length + 7) & ~7);
    if (end > this.payload.length) {
      const larger = new Uint8Array(Math.max(end, this.payload.length * 2, 1024));
      larger.set(this.payload.subarray(0, at));
      this.payload = larger;
    }
    this.payload.set(from === 0 && to === bytes.length ? bytes : bytes.subarray(from, to), at);
    this.payload.fill(0, at + length, end);
    this.payloadBytes = end;
    this.words[base + SLOT.payloadAt] = at / 8;
    this.words[base + SLOT.payloadBytes] = length;
    this.words[base + SLOT.flags]! |= FLAG.payload;
  }
}
