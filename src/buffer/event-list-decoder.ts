/**
 * The events of one message into slots, one after the other. The loop knows the kinds that make up nearly all traffic, in the form in which every
 * node since OTP 26 sends them, and reads these in one go with the position in a local variable. Whatever looks different is left to
 * `EventDecoder`, which knows all of it; both give the same slots. Long on purpose: with a call for each element it takes twice the time.
 */
import { EventDecoder } from "./event-decoder";
import { EVENT_KINDS as K, GC_FIELDS, IDENTITY, SLOT, SLOT_WORDS } from "./event-schema";
import type { SlotBlock } from "./slot-block";
import { toMinifloat } from "./minifloat";
import { MISFIT, type WireReader } from "./wire-reader";

const GC_WORDS = Uint8Array.from(GC_FIELDS.flatMap(([, word]) => (typeof word === "number" ? [word] : [])));
/** First two bytes: the integer 0. */
const ZERO = 0x6100;
/** First byte: an atom in UTF-8 with one byte of length. */
const ATOM = 119;
const SMALL_INTEGER = 97;
const INTEGER = 98;

/** What is behind the process, by kind: bits of `Has`; 0 for what is left to `EventDecoder`. */
const FORMS = new Uint8Array(256);
const enum Has {
  receiver = 1,
  mfa = 2,
  shape = 4,
  caller = 8,
  gc = 16,
  /** Left to `EventDecoder` from there on. */
  other = 32,
  /** A second process or port. */
  identity = 64,
  /** The initial call's function. */
  initial = 128,
}
for (let kind: number = K.spawn; kind < K.gap; kind++) FORMS[kind] = Has.other;
FORMS[K.spawn] = FORMS[K.spawned] = Has.identity | Has.mfa | Has.initial;
FORMS[K.link] = FORMS[K.unlink] = FORMS[K.getting_linked] = FORMS[K.getting_unlinked] = Has.identity;
FORMS[K.send] = Has.receiver | Has.shape;
FORMS[K.receive] = FORMS[K.exit] = Has.shape;
FORMS[K.in] = FORMS[K.out] = FORMS[K.return_to] = Has.mfa;
FORMS[K.return_from] = Has.mfa | Has.shape;
FORMS[K.call] = Has.mfa | Has.shape | Has.caller;
FORMS[K.gc_minor_start] = FORMS[K.gc_minor_end] = FORMS[K.gc_major_start] = FORMS[K.gc_major_end] = Has.gc;
/** Elements of such an event, the three in front included. */
const ARITIES = FORMS.map(
  (form) =>
    3 +
    (form & (Has.receiver | Has.identity) ? 1 : 0) +
    (form & Has.initial ? 3 : 0) +
    (form & Has.mfa ? 3 : 0) +
    (form & Has.shape ? 3 : 0) +
    (form & Has.caller ? 1 : 0) +
    (form & Has.gc ? GC_FIELDS.length : 0),
);

/** Decodes lists of events. */
export class EventListDecoder {
  readonly #reader: WireReader;
  readonly #events: EventDecoder;
  readonly #source: number;

  /** Gaps and markers in the last list. */
  marks = 0;
  /** Events in the last list that are not as agreed; they are stored as `unknown`. */
  misfits = 0;

  constructor(reader: WireReader, source: number) {
    this.#reader = reader;
    this.#source = source;
    this.#events = new EventDecoder(reader, source);
  }

  /** Whether an event of the last list has a payload. */
  get hasPayload(): boolean {
    return this.#events.payloads > 0;
  }

  /** Decodes `count` events from the reader's position into the first slots of the block, which has room and is zeroed. */
  decode(block: SlotBlock, count: number, offset: number): void {
    const r = this.#reader;
    this.marks = this.misfits = this.#events.payloads = 0;
    for (let i = 0; i < count;) {
      try {
        this.#usual(block, i, count, offset);
      } catch (error) {
        if (error !== MISFIT && !(error instanceof RangeError)) throw error;
      }
      i = this.#done;
      r.at = this.#doneAt;
      if (i < count) this.#general(block, i++, offset);
    }
  }

  /** Events that the loop has finished, and where the next one begins; true also when it throws. */
  #done = 0;
  #doneAt = 0;

  /** Decodes events from `first` on as long as they are in their usual form. */
  #usual(block: SlotBlock, first: number, count: number, offset: number): void {
    const r = this.#reader;
    const { view, prefix, prefixBytes } = r;
    const { words, floats } = block;
    const source = this.#source << 8;
    const creation = r.localCreation ?? -1;
    const parts = prefix.length;
    const prefix0 = prefix[0]!;
    const prefix1 = parts > 1 ? prefix[1]! : 0;
    const prefix2 = parts > 2 ? prefix[2]! : 0;
    // The last bytes of a message are left to the careful decoder: what is read ahead here must be there.
    const limit = view.byteLength - prefixBytes - 32;
    let at = r.at;
    this.#done = first;
    this.#doneAt = at;
    if (parts === 0) return;
    for (let i = first; i < count; i++) {
      if (at > limit) return;
      const base = i * SLOT_WORDS;
      // {K, Dt, Pid, …}: tuple tag, arity, and tag and first byte of K come in one word.
      const header = view.getUint32(at);
      const tagK = (header >>> 8) & 0xff;
      let head = header & 0xff;
      at += 4;
      if (tagK === INTEGER) {
        head = view.getInt32(at - 1);
        at += 3;
      } else if (tagK !== SMALL_INTEGER) return;
      const form = FORMS[head & 0xff]!;
      if (form === 0 || header >>> 24 !== 0x68 || view.getUint8(at) !== INTEGER) return;
      if (form !== Has.other && ((header >>> 16) & 0xff) !== ARITIES[head & 0xff]) return;
      const stamp = offset + view.getInt32(at + 1);
      at += 5;
      let fields = at + prefixBytes;
      if (view.getFloat64(fields - 8, true) !== prefix0) return;
      if (parts > 1 && view.getFloat64(at, true) !== prefix1) return;
      if (parts > 2 && view.getFloat64(at + 8, true) !== prefix2) return;
      for (let part = 3; part < parts; part++)
        if (view.getFloat64(at + part * 8 - 8, true) !== prefix[part]) return;
      const id = view.getInt32(fields);
      if (id >>> 28 !== 0 || view.getUint32(fields + 8) !== creation) return;
      words[base] = (head & 0xff) | source | ((head >>> 8) << 16);
      floats[i * 8 + 1] = stamp;
      words[base + SLOT.traceeLow] = (id << 4) | IDENTITY.pid;
      words[base + SLOT.traceeHigh] = view.getInt32(fields + 4);
      at = fields + 12;

      if ((form & (Has.receiver | Has.identity)) !== 0) {
        fields = at + prefixBytes;
        if (
          fields + 12 <= view.byteLength &&
          view.getFloat64(fields - 8, true) === prefix0 &&
          (parts < 2 || view.getFloat64(at, true) === prefix1) &&
          (parts < 3 || view.getFloat64(at + 8, true) === prefix2) &&
          parts < 4 &&
          view.getUint32(fields + 8) === creation &&
          view.getUint32(fields) >>> 28 === 0
        ) {
          words[base + SLOT.otherLow] = (view.getInt32(fields) << 4) | IDENTITY.pid;
          words[base + SLOT.otherHigh] = view.getInt32(fields + 4);
          at = fields + 12;
        } else {
          r.at = at;
          if ((form & Has.receiver) !== 0) this.#events.receiver(words, base);
          else this.#events.other(words, base);
          at = r.at;
        }
      }
      if ((form & Has.mfa) !== 0) {
        r.at = at;
        words[base + SLOT.mfa] = r.mfa();
        at = r.at;
        if ((form & Has.initial) !== 0) {
          this.#events.initialCall(words, base);
          at = r.at;
        }
      }
      if ((form & Has.shape) !== 0) {
        const tag = view.getUint8(at);
        if (tag === SMALL_INTEGER) {
          words[base + SLOT.shape] = view.getUint8(at + 1);
          at += 2;
        } else {
          const shape = view.getInt32(at + 1);
          if (tag !== INTEGER || shape < 0) return;
          words[base + SLOT.shape] = shape;
          at += 5;
        }
        for (let word = base + SLOT.tag1; word <= base + SLOT.tag2; word++) {
          const tagAndLength = view.getUint16(at);
          if (tagAndLength === ZERO) {
            at += 2;
            continue;
          }
          if (tagAndLength >>> 8 !== ATOM) return;
          const length = tagAndLength & 0xff;
          words[word] = r.utf8Atom(at + 2, length);
          at += 2 + length;
        }
        if ((form & Has.caller) !== 0) {
          // A caller is rarely asked for.
          if (view.getUint16(at) !== ZERO) return;
          at += 2;
        }
      }
      if (form === Has.gc) {
        at = this.#gc(words, base, at);
        if (at < 0) return;
      } else if (form === Has.other) {
        r.at = at;
        this.#events.rest(
          words,
          floats,
          base,
          head & 0xff,
          ((header >>> 16) & 0xff) - 3,
          this.#doneAt,
          offset,
        );
        at = r.at;
      }
      this.#done = i + 1;
      this.#doneAt = at;
    }
  }

  /** Sizes are small or large without a pattern, so they are read without a branch: a mispredicted one costs more than the rest. */
  #gc(words: Uint32Array, base: number, from: number): number {
    const { view } = this.#reader;
    if (from + GC_FIELDS.length * 5 + 3 > view.byteLength) return -1;
    let at = from;
    // Stays 0 and not negative as long as all are non-negative integers of one or four bytes.
    let odd = 0;
    let sign = 0;
    for (let i = 0; i < GC_WORDS.length; i++) {
      const large = view.getUint8(at) - SMALL_INTEGER;
      const bytes = view.getInt32(at + 1);
      // One byte, in front of what does not belong to it, or all four.
      words[base + GC_WORDS[i]!] = bytes >>> (24 - 24 * large);
      odd |= large & ~1;
      sign |= bytes & -large;
      at += 2 + 3 * (large & 1);
    }
    let blocks = 0;
    for (let shift = 8; shift <= 20; shift += 12) {
      const large = view.getUint8(at) - SMALL_INTEGER;
      const bytes = view.getInt32(at + 1);
      blocks |= toMinifloat(bytes >>> (24 - 24 * large)) << shift;
      odd |= large & ~1;
      sign |= bytes & -large;
      at += 2 + 3 * (large & 1);
    }
    words[base + SLOT.flags] = blocks;
    return odd === 0 && sign >= 0 ? at : -1;
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
