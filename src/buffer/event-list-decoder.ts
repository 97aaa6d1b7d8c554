/**
 * The events of one message into slots, one after the other. `EventKernel` takes those that make up nearly all traffic, in the form in which every
 * node since OTP 26 sends them; whatever looks different is left to `EventDecoder`, which knows all of it. Both give the same slots.
 */
import { EventDecoder } from "./event-decoder";
import type { EventKernel } from "./event-kernel";
import { EVENT_KINDS as K, SLOT_WORDS } from "./event-schema";
import type { SlotBlock } from "./slot-block";
import { MISFIT, type WireReader } from "./wire-reader";

/** Decodes lists of events. */
export class EventListDecoder {
  readonly #reader: WireReader;
  readonly #events: EventDecoder;
  readonly #source: number;
  readonly #kernel: EventKernel | undefined;

  /** Gaps and markers in the last list. */
  marks = 0;
  /** Events in the last list that are not as agreed; they are stored as `unknown`. */
  misfits = 0;
  /** Whether an event of the last list has a payload. */
  hasPayload = false;

  /** @param kernel - undefined: every event goes to the general decoder */
  constructor(reader: WireReader, source: number, kernel: EventKernel | undefined) {
    this.#reader = reader;
    this.#source = source;
    this.#kernel = kernel;
    this.#events = new EventDecoder(reader, source);
  }

  /** Decodes `count` events from the reader's position into the first slots of the block, which has room. */
  decode(block: SlotBlock, count: number, offset: number): void {
    const kernel = this.#kernel;
    this.marks = this.misfits = this.#events.payloads = 0;
    kernel?.begin(this.#source);
    for (let i = 0; i < count;) {
      if (kernel !== undefined) i = kernel.decode(this.#reader, block, i, count, offset);
      if (i < count) this.#general(block, i++, offset);
    }
    this.hasPayload = this.#events.payloads > 0 || (kernel?.payloads ?? 0) > 0;
  }

  /** Decodes event `i`, in any form, where the last one that is done ends. */
  #general(block: SlotBlock, i: number, offset: number): void {
    const r = this.#reader;
    const { words, floats } = block;
    const base = i * SLOT_WORDS;
    const start = r.at;
    let kind: number;
    words.fill(0, base, base + SLOT_WORDS);
    try {
      kind = this.#events.decode(words, floats, base, offset);
    } catch (error) {
      if (error !== MISFIT && !(error instanceof RangeError)) throw error;
      // A term, but no event as agreed: its bytes are the payload.
      const stamp = floats[i * 8 + 1]!;
      r.at = start;
      r.skip();
      words.fill(0, base, base + SLOT_WORDS);
      words[base] = K.unknown | (this.#source << 8);
      floats[i * 8 + 1] = Number.isFinite(stamp) && stamp !== 0 ? stamp : offset;
      this.#events.payloadRange(words, base, start, r.at);
      this.misfits++;
      return;
    }
    if (kind === K.gap || kind === K.marker) this.marks++;
  }
}
