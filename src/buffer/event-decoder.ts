/**
 * One event of a batch, `{K, Dt, Tracee, …}` in external term format, into one zeroed slot (docs/agent-protocol.md, "Batches"). No object and
 * no string is made. A tuple that is not as agreed throws `MISFIT`; the caller stores it as `unknown`. Payload is not copied:
 * the slot gets the byte range within the message, and whoever delivers the slot moves it.
 */
import {
  CALLER_UNDEFINED,
  EVENT_KINDS,
  EXCEPTION_CLASSES,
  FLAG,
  GAP_HOPS,
  GC_FIELDS,
  IDENTITY,
  SLOT,
  SLOT_ALIAS,
  SLOT_FRAME,
  SLOT_GAP,
  type ExceptionClass,
  type GapHop,
} from "./event-schema";
import { toMinifloat } from "./minifloat";
import { MISFIT, TAG, type WireReader } from "./wire-reader";

// Names of this module for what it reads all the time: V8 makes constants of these, but looks up an import at every use.
const K = EVENT_KINDS;
const W = SLOT;
const F = FLAG;
const TAGS = IDENTITY;

/** Words that take a gc value each, in wire order; the two block sizes of virtual heaps follow. */
const GC_WORDS = GC_FIELDS.flatMap(([, word]) => (typeof word === "number" ? [word] : []));

/** Decodes single events of batches into slots. */
export class EventDecoder {
  readonly #reader: WireReader;
  readonly #source: number;
  readonly #undefinedAtom: number;

  /** Slots given a payload since somebody set this to 0. */
  payloads = 0;

  constructor(reader: WireReader, source: number) {
    this.#reader = reader;
    this.#source = source;
    this.#undefinedAtom = reader.dictionary.atomId("undefined");
  }

  /**
   * Decodes the event at the reader's position into the slot that starts at word `base`.
   * @param offset - base of the batch minus base of the source, in ns
   * @returns the event's kind
   */
  decode(words: Uint32Array, floats: Float64Array, base: number, offset: number): number {
    const r = this.#reader;
    const start = r.at;
    const arity = r.tuple();
    const head = r.integer();
    const kind = head & 0xff;
    // Every integer that fits is an int32 here; a scheduler id has 16 bits.
    words[base] = kind | (this.#source << 8) | ((head >>> 8) << 16);
    floats[(base >>> 1) + 1] = offset + r.integer();
    r.tracee();
    words[base + W.traceeLow] = r.low;
    words[base + W.traceeHigh] = r.high;
    if ((r.low & 15) === TAGS.port) words[base + W.flags] = F.port;

    this.rest(words, floats, base, kind, arity - 3, start, offset);
    return kind;
  }

  /**
   * Decodes what comes behind K, Dt and Tracee: `elements` of them, at the reader's position.
   * @param start - where the event begins in the message
   */
  rest(
    words: Uint32Array,
    floats: Float64Array,
    base: number,
    kind: number,
    elements: number,
    start: number,
    offset: number,
  ): void {
    const r = this.#reader;
    let rest = elements;
    switch (kind) {
      case K.send:
      case K.send_to_non_existing_process:
        this.receiver(words, base);
        rest -= 1 + this.#shape(words, base);
        break;
      case K.receive:
      case K.exit:
      case K.closed:
        rest -= this.#shape(words, base);
        break;
      case K.call:
        words[base + W.mfa] = r.mfa();
        rest -= 4 + this.#shape(words, base);
        words[base + W.extra] = this.#caller();
        break;
      case K.return_from:
        words[base + W.mfa] = r.mfa();
        rest -= 3 + this.#shape(words, base);
        break;
      case K.exception_from:
        words[base + W.mfa] = r.mfa();
        words[base + W.extra] = r.atom();
        rest -= 4 + this.#shape(words, base);
        break;
      case K.return_to:
      case K.in:
      case K.out:
      case K.in_exiting:
      case K.out_exiting:
      case K.out_exited:
        rest -= this.#mfaOrZero(words, base + W.mfa, rest);
        break;
      case K.spawn:
      case K.spawned:
        this.other(words, base);
        words[base + W.mfa] = r.mfa();
        rest -= 4 + this.initialCall(words, base);
        break;
      case K.link:
      case K.unlink:
      case K.getting_linked:
      case K.getting_unlinked:
        this.other(words, base);
        rest -= 1;
        break;
      case K.register:
      case K.unregister:
        words[base + W.otherLow] = (r.atom() << 4) | TAGS.atom;
        rest -= 1;
        break;
      case K.port_in:
      case K.port_out:
        words[base + W.extra] = r.atomOrZero();
        rest -= 1;
        break;
      case K.gc_minor_start:
      case K.gc_minor_end:
      case K.gc_major_start:
      case K.gc_major_end:
      case K.gc_max_heap_size:
        if (rest !== GC_FIELDS.length) throw MISFIT;
        this.#gc(words, base);
        return;
      case K.open:
        this.other(words, base);
        words[base + W.extra] = r.atom();
        rest -= 2;
        break;
      case K.function_entry:
      case K.function_return:
        this.frame(words, base);
        rest -= 3 + this.#shape(words, base);
        break;
      case K.function_tail_call:
        this.frame(words, base);
        rest -= 3;
        break;
      case K.function_exception:
        this.frame(words, base);
        words[base + SLOT_FRAME.class] = this.#class();
        rest -= 4 + this.#shape(words, base);
        break;
      case K.unknown:
        words[base + W.tag1] = r.atomOrZero();
        rest -= 1;
        break;
      case K.gap:
        if (rest !== 4) throw MISFIT;
        this.#gap(words, floats, base, offset);
        return;
      case K.marker:
        if (rest !== 3) throw MISFIT;
        words[base + W.tag1] = r.atom();
        r.skip();
        r.skip();
        this.payloadRange(words, base, start, r.at);
        return;
      default:
        throw MISFIT;
    }
    if (rest === 1) this.#payload(words, base);
    else if (rest !== 0) throw MISFIT;
  }

  /** The payload is this range of the message. */
  payloadRange(words: Uint32Array, base: number, from: number, to: number): void {
    this.payloads++;
    words[base + W.payloadAt] = from;
    words[base + W.payloadBytes] = to - from;
    words[base + W.flags]! |= F.payload;
  }

  /** A binary whose bytes are the payload. */
  #payload(words: Uint32Array, base: number): void {
    const r = this.#reader;
    if (r.tag() !== TAG.binary) throw MISFIT;
    const length = r.view.getUint32(r.at + 1);
    const from = r.at + 5;
    if (from + length > r.bytes.length) throw MISFIT;
    r.at = from + length;
    this.payloadRange(words, base, from, from + length);
  }

  /** Shape, Tag1, Tag2. */
  #shape(words: Uint32Array, base: number): 3 {
    const r = this.#reader;
    const shape = r.integer();
    if (!(shape >= 0 && shape <= 0xffffffff)) throw MISFIT;
    words[base + W.shape] = shape;
    words[base + W.tag1] = r.atomOrZero();
    words[base + W.tag2] = r.atomOrZero();
    return 3;
  }

  /** A second identity: process, port or name. */
  other(words: Uint32Array, base: number): void {
    const r = this.#reader;
    r.identity();
    words[base + W.otherLow] = r.low;
    words[base + W.otherHigh] = r.high;
    if (r.node !== 0 || r.widePid || r.widePort) {
      words[base + W.flags]! |= (r.node << 8) | (r.widePid ? F.widePid : 0) | (r.widePort ? F.widePort : 0);
    }
  }

  /** The receiver of a message: any of its forms. */
  receiver(words: Uint32Array, base: number): void {
    const r = this.#reader;
    if (r.tag() !== TAG.newerReference) return this.other(words, base);
    r.reference();
    words[base + W.otherLow] = r.low;
    words[base + W.otherHigh] = r.high;
    words[base + SLOT_ALIAS.number0] = r.number0;
    words[base + SLOT_ALIAS.number1] = r.number1;
    words[base + SLOT_ALIAS.number2] = r.number2;
    words[base + W.flags]! |= F.alias | (r.node << 8);
  }

  /** @returns how many elements it took */
  #mfaOrZero(words: Uint32Array, word: number, rest: number): number {
    const r = this.#reader;
    if (rest < 3) {
      if (r.atomOrZero() !== 0) throw MISFIT;
      return 1;
    }
    words[word] = r.mfa();
    return 3;
  }

  /** Three elements: the initial call's function, or none. */
  initialCall(words: Uint32Array, base: number): 3 {
    const r = this.#reader;
    if (r.isAtom()) {
      words[base + W.extra] = r.mfa();
    } else {
      r.skip();
      r.skip();
      r.skip();
    }
    return 3;
  }

  /** Id, module and site of a call of instrumented code. */
  frame(words: Uint32Array, base: number): void {
    const r = this.#reader;
    const id = r.integer();
    if (!(id >= 0 && id <= Number.MAX_SAFE_INTEGER)) throw MISFIT;
    words[base + SLOT_FRAME.idLow] = id % 0x1_0000_0000;
    words[base + SLOT_FRAME.idHigh] = Math.floor(id / 0x1_0000_0000);
    words[base + SLOT_FRAME.module] = r.atom();
    const site = r.integer();
    if (!(site >= 0 && site <= 0xffffffff)) throw MISFIT;
    words[base + SLOT_FRAME.site] = site;
  }

  #class(): number {
    const r = this.#reader;
    const name = r.dictionary.atomName(r.atom()) ?? "";
    const known = EXCEPTION_CLASSES[name as ExceptionClass] as number | undefined;
    if (known === undefined) throw MISFIT;
    return known;
  }

  #caller(): number {
    const r = this.#reader;
    if (r.tag() === TAG.smallTuple) {
      if (r.tuple() !== 3) throw MISFIT;
      return r.mfa();
    }
    const atom = r.atomOrZero();
    if (atom === 0) return 0;
    if (atom !== this.#undefinedAtom) throw MISFIT;
    return CALLER_UNDEFINED;
  }

  #gc(words: Uint32Array, base: number): void {
    const r = this.#reader;
    for (let i = 0; i < GC_WORDS.length; i++) words[base + GC_WORDS[i]!] = saturated(r.integer());
    const block = toMinifloat(r.integer());
    const oldBlock = toMinifloat(r.integer());
    words[base + W.flags] = (words[base + W.flags]! & 0xff) | (block << 8) | (oldBlock << 20);
  }

  #gap(words: Uint32Array, floats: Float64Array, base: number, offset: number): void {
    const r = this.#reader;
    const hop = GAP_HOPS[(r.dictionary.atomName(r.atom()) ?? "") as GapHop] as number | undefined;
    if (hop === undefined) throw MISFIT;
    words[base + SLOT_GAP.hop] = hop;
    const at = base >>> 1;
    floats[at + SLOT_GAP.countF64] = r.integer();
    floats[at + SLOT_GAP.fromF64] = this.#stamp(offset);
    floats[at + SLOT_GAP.toF64] = this.#stamp(offset);
  }

  #stamp(offset: number): number {
    const r = this.#reader;
    if (!r.isAtom()) return offset + r.integer();
    r.atom();
    return NaN;
  }
}

function saturated(value: number): number {
  return value >= 0xffffffff ? 0xffffffff : value > 0 ? value : 0;
}
