/**
 * The inner loop of `EventListDecoder`, in WebAssembly: comparing names and process ids sixteen bytes at a time without a branch is what makes
 * it fast, and JavaScript can't. The code is event-kernel.c; here is what lies around it: the window of the message that it sees, the names that it
 * is told, the slots that are taken out. One instance a thread, as decoding a message is not interrupted; it knows names of one dictionary at a time.
 */
import { BeamtraceError } from "../erlang/errors";
import type { Dictionary } from "./dictionary";
import { EVENT_KERNEL } from "./event-kernel.generated";
import { EVENT_KINDS, GC_FIELDS, SLOT_BYTES, SLOT_WORDS } from "./event-schema";
import type { SlotBlock } from "./slot-block";
import { MISFIT, type WireReader } from "./wire-reader";

const K = EVENT_KINDS;
/** Sizes in event-kernel.c. */
const WINDOW = 65536;
const AHEAD = 4096;
const SLOTS = 1024;
const RECORDS = 16384;
const PREFIX_BYTES = 64;
/** Why the kernel stopped. */
const enum Stop {
  all,
  other,
  newMfa,
  newAtom,
}
/** Where merged records lie. */
const enum Merged {
  inPlace,
  inSlots,
  nowhere,
}
/** What is behind the process, by kind; F_* of event-kernel.c. */
const enum Has {
  identity = 1,
  mfa = 2,
  shape = 4,
  caller = 8,
  gc = 16,
  initial = 32,
  /** Class of an exception, between function and shape. */
  class = 64,
  /** Id, module and site of a call of instrumented code. */
  frame = 128,
}
const FORMS = new Uint8Array(256);
FORMS[K.spawn] = FORMS[K.spawned] = Has.identity | Has.mfa | Has.initial;
FORMS[K.link] = FORMS[K.unlink] = FORMS[K.getting_linked] = FORMS[K.getting_unlinked] = Has.identity;
FORMS[K.send] = FORMS[K.send_to_non_existing_process] = Has.identity | Has.shape;
FORMS[K.receive] = FORMS[K.exit] = Has.shape;
FORMS[K.in] = FORMS[K.out] = FORMS[K.return_to] = Has.mfa;
FORMS[K.in_exiting] = FORMS[K.out_exiting] = FORMS[K.out_exited] = Has.mfa;
FORMS[K.return_from] = Has.mfa | Has.shape;
FORMS[K.exception_from] = Has.mfa | Has.class | Has.shape;
FORMS[K.function_entry] = FORMS[K.function_return] = Has.frame | Has.shape;
FORMS[K.function_tail_call] = Has.frame;
FORMS[K.call] = Has.mfa | Has.shape | Has.caller;
FORMS[K.gc_minor_start] = FORMS[K.gc_minor_end] = FORMS[K.gc_major_start] = FORMS[K.gc_major_end] = Has.gc;
/** Elements of such an event, the three in front included, a payload not. */
const ARITIES = FORMS.map(
  (form) =>
    3 +
    (form & Has.identity ? 1 : 0) +
    (form & Has.mfa ? 3 : 0) +
    (form & Has.frame ? 3 : 0) +
    (form & Has.initial ? 3 : 0) +
    (form & Has.shape ? 3 : 0) +
    (form & Has.caller ? 1 : 0) +
    (form & Has.class ? 1 : 0) +
    (form & Has.gc ? GC_FIELDS.length : 0),
);

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  decode(at: number, length: number, count: number, offset: number): Stop;
  learnMfa(at: number, bytes: number, id: number): number;
  learnAtom(at: number, bytes: number, id: number): number;
  forget(): void;
  merge(count: number, offset: number): Merged;
}

/** The part of the WebAssembly interface that is used here; it is no part of the language's own library. */
interface Engine {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: object };
}

let shared: EventKernel | undefined;
let missing = false;

/** Decodes events in their usual form. */
export class EventKernel {
  readonly #exports: Exports;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  /** Places in the kernel's memory: bytes, or words where the name says so. */
  readonly #message: number;
  readonly #slots: Uint32Array;
  readonly #records: Uint32Array;
  readonly #prefix: number;
  readonly #node: number;
  readonly #prefixBytesWord: number;
  readonly #creationWord: number;
  readonly #sourceWord: number;
  readonly #windowWord: number;
  readonly #doneWord: number;
  readonly #nextWord: number;
  readonly #nameWord: number;
  readonly #payloadsWord: number;
  #names: Dictionary | undefined;
  #pid: Uint8Array | undefined;
  /** What of the message is in the window; none when `#length` is 0. */
  #from = 0;
  #length = 0;

  /** Events with a payload since `begin`. */
  payloads = 0;

  /** The kernel of this thread; undefined where the engine runs no WebAssembly. */
  static get shared(): EventKernel | undefined {
    if (shared === undefined && !missing) {
      const engine = (globalThis as { WebAssembly?: Engine }).WebAssembly;
      missing = engine === undefined;
      if (engine !== undefined) shared = new EventKernel(engine);
    }
    return shared;
  }

  constructor(engine: Engine) {
    const module = new engine.Module(Buffer.from(EVENT_KERNEL, "base64"));
    const { exports } = new engine.Instance(module);
    const place = (name: string): number =>
      (exports as Record<string, { readonly value: number }>)[name]!.value;
    this.#exports = exports as Exports;
    const { buffer } = this.#exports.memory;
    this.#bytes = new Uint8Array(buffer);
    this.#words = new Uint32Array(buffer);
    this.#message = place("message");
    this.#slots = new Uint32Array(buffer, place("slots"), RECORDS * SLOT_WORDS);
    this.#records = new Uint32Array(buffer, place("records"), RECORDS * SLOT_WORDS);
    this.#prefix = place("prefix");
    this.#node = place("node");
    this.#prefixBytesWord = place("prefix_bytes") / 4;
    this.#creationWord = place("creation") / 4;
    this.#sourceWord = place("source_bits") / 4;
    this.#windowWord = place("window_at") / 4;
    this.#doneWord = place("done") / 4;
    this.#nextWord = place("next_at") / 4;
    this.#nameWord = place("name_at") / 4;
    this.#payloadsWord = place("payloads") / 4;
    this.#bytes.set(FORMS, place("forms"));
    this.#bytes.set(ARITIES, place("arities"));
  }

  /** Starts on another message, whose events carry this source. */
  begin(source: number): void {
    this.payloads = 0;
    this.#length = 0;
    this.#words[this.#sourceWord] = source << 8;
  }

  /**
   * Decodes events from the reader's position on, into the block's slots from `first` up to `count`, until one is not in its usual form.
   * Leaves the reader before it. Returns its index.
   */
  decode(reader: WireReader, block: SlotBlock, first: number, count: number, offset: number): number {
    if (!this.#knows(reader)) return first;
    const words = this.#words;
    const message = reader.bytes;
    let i = first;
    let at = reader.at;
    let told = 0;
    while (i < count) {
      if (this.#length === 0 || at >= this.#from + this.#length) this.#show(message, at);
      const stop = this.#exports.decode(at, this.#length, Math.min(count - i, SLOTS), offset);
      const done = words[this.#doneWord]!;
      if (done > 0) {
        block.words.set(this.#slots.subarray(0, done * SLOT_WORDS), i * SLOT_WORDS);
        this.payloads += words[this.#payloadsWord]!;
        i += done;
        at = words[this.#nextWord]!;
        told = 0;
      }
      if (stop === Stop.all) continue;
      const end = this.#from + this.#length;
      if (at > this.#from && end < message.length && at + AHEAD > end) {
        // The event may go on behind the window.
        this.#show(message, at);
        continue;
      }
      // Names that take each other's place would be told for ever.
      if (stop === Stop.other || ++told > MOST_NAMES || !this.#tell(reader, stop, end)) break;
    }
    reader.at = at;
    return i;
  }

  /**
   * Writes the records of a native batch, `count` of them from byte `from` of the message on, into the block's first slots, merged by their stamps, to
   * which `offset` is added. False when they are too many, or of too many runs; then the block is as before.
   */
  merge(message: Uint8Array, from: number, count: number, offset: number, block: SlotBlock): boolean {
    if (count > RECORDS) return false;
    const bytes = count * SLOT_BYTES;
    this.#bytes.set(message.subarray(from, from + bytes), this.#records.byteOffset);
    const where = this.#exports.merge(count, offset);
    if (where === Merged.nowhere) return false;
    const merged = where === Merged.inPlace ? this.#records : this.#slots;
    block.words.set(merged.subarray(0, count * SLOT_WORDS));
    return true;
  }

  /** Sets the kernel to the reader's node and dictionary. False: it has not seen a pid yet, or one with a very long name. */
  #knows(reader: WireReader): boolean {
    const { pidPrefix, localCreation } = reader;
    if (pidPrefix === undefined || localCreation === undefined || pidPrefix.length > PREFIX_BYTES)
      return false;
    this.#words[this.#creationWord] = localCreation;
    if (this.#names !== reader.dictionary) {
      this.#names = reader.dictionary;
      this.#exports.forget();
    }
    if (this.#pid !== pidPrefix) {
      this.#pid = pidPrefix;
      for (let i = 0; i < PREFIX_BYTES; i++) {
        this.#bytes[this.#prefix + i] = pidPrefix[i] ?? 0;
        this.#bytes[this.#node + i] = pidPrefix[i + 1] ?? 0;
      }
      this.#words[this.#prefixBytesWord] = pidPrefix.length;
    }
    return true;
  }

  /** Copies the message from `at` on into the window. */
  #show(message: Uint8Array, at: number): void {
    this.#from = at;
    this.#length = Math.min(message.length - at, WINDOW);
    this.#words[this.#windowWord] = at;
    this.#bytes.set(message.subarray(at, at + this.#length), this.#message);
  }

  /** Tells the kernel the id of the name that it stopped at. False when it is none, or not whole in the window. */
  #tell(reader: WireReader, stop: Stop, end: number): boolean {
    const from = this.#words[this.#nameWord]!;
    try {
      reader.at = from;
      const id = stop === Stop.newMfa ? reader.mfa() : reader.atom();
      const bytes = reader.at - from;
      if (reader.at > end) return false;
      return (
        (stop === Stop.newMfa
          ? this.#exports.learnMfa(from, bytes, id)
          : this.#exports.learnAtom(from, bytes, id)) !== 0
      );
    } catch (error) {
      // The general decoder meets the same and says what it is.
      if (error !== MISFIT && !(error instanceof RangeError) && !(error instanceof BeamtraceError))
        throw error;
      return false;
    }
  }
}

/** Names that one event can hold, and each once more. */
const MOST_NAMES = 8;
