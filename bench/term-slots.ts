/**
 * Trace tuples that another library has decoded, on into slots: what a user of that library would write to get what `TraceBatchDecoder` gives.
 * Written with the same care as ours: names go through the dictionary's own lookups, slots are filled in place, nothing is made anew.
 */
import { GC_FIELDS, EVENT_KINDS, FLAG, IDENTITY, SLOT, SLOT_ALIAS, SLOT_WORDS } from "../src/buffer";
import type { Dictionary, SlotBlock } from "../src/buffer";
import { toMinifloat } from "../src/buffer/minifloat";

/** How a library shows what the events are made of. */
export interface TermReader<T> {
  /** The elements of a list. */
  list(term: T): readonly T[];
  /** Text of an atom; undefined for another term. */
  atom(term: T): string | undefined;
  isPid(term: T): boolean;
  isReference(term: T): boolean;
  /** Name of the node of a pid or reference. */
  node(term: T): string;
  creation(term: T): number;
  id(term: T): number;
  serial(term: T): number;
  /** Number `i` of a reference; 0 behind the last. */
  number(term: T, i: number): number;
}

const K = EVENT_KINDS;
const W = SLOT;
const GC_WORDS = GC_FIELDS.flatMap(([, word]) => (typeof word === "number" ? [word] : []));

/** Writes the events of decoded messages into the first slots of a block. */
export class TermSlots<T> {
  readonly #reader: TermReader<T>;
  readonly #dictionary: Dictionary;
  readonly #node: string;
  readonly #creation: number;

  constructor(reader: TermReader<T>, dictionary: Dictionary, node: string, creation: number) {
    this.#reader = reader;
    this.#dictionary = dictionary;
    this.#node = node;
    this.#creation = creation;
  }

  /** The events of a message, `{1, TraceId, Seq, Base, Received, Lost, Events}`. Returns how many. */
  write(message: readonly T[], block: SlotBlock, offset: number): number {
    const events = this.#reader.list(message[6]!);
    block.clear();
    block.reserve(events.length);
    block.count = events.length;
    for (let i = 0; i < events.length; i++)
      this.#event(events[i] as unknown as readonly T[], block.words, block.floats, i * SLOT_WORDS, offset);
    return events.length;
  }

  #event(e: readonly T[], words: Uint32Array, floats: Float64Array, base: number, offset: number): void {
    const head = e[0] as number;
    const kind = head & 0xff;
    words[base] = kind | ((head >>> 8) << 16);
    floats[(base >>> 1) + 1] = offset + (e[1] as number);
    const r = this.#reader;
    const tracee = e[2]!;
    this.#local(tracee);
    words[base + W.traceeLow] = (r.id(tracee) << 4) | IDENTITY.pid;
    words[base + W.traceeHigh] = r.serial(tracee);
    switch (kind) {
      case K.send:
      case K.send_to_non_existing_process:
        this.#receiver(e[3]!, words, base);
        return this.#shape(e, 4, words, base);
      case K.receive:
      case K.exit:
        return this.#shape(e, 3, words, base);
      case K.call:
      case K.return_from:
        words[base + W.mfa] = this.#mfa(e, 3);
        return this.#shape(e, 6, words, base);
      case K.exception_from:
        words[base + W.mfa] = this.#mfa(e, 3);
        words[base + W.extra] = this.#atom(e[6]!);
        return this.#shape(e, 7, words, base);
      case K.return_to:
      case K.in:
      case K.out:
      case K.in_exiting:
      case K.out_exiting:
      case K.out_exited:
        if (e.length > 4) words[base + W.mfa] = this.#mfa(e, 3);
        return;
      case K.spawn:
      case K.spawned:
        this.#receiver(e[3]!, words, base);
        words[base + W.mfa] = this.#mfa(e, 4);
        if (r.atom(e[7]!) !== undefined) words[base + W.extra] = this.#mfa(e, 7);
        return;
      case K.link:
      case K.unlink:
      case K.getting_linked:
      case K.getting_unlinked:
        return this.#receiver(e[3]!, words, base);
      case K.register:
      case K.unregister:
        words[base + W.otherLow] = (this.#atom(e[3]!) << 4) | IDENTITY.atom;
        return;
      case K.gc_minor_start:
      case K.gc_minor_end:
      case K.gc_major_start:
      case K.gc_major_end:
        for (let i = 0; i < GC_WORDS.length; i++) words[base + GC_WORDS[i]!] = e[3 + i] as number;
        words[base + W.flags] = (toMinifloat(e[13] as number) << 8) | (toMinifloat(e[14] as number) << 20);
        return;
      default:
        throw new Error(`an event of kind ${kind} is not in the mix`);
    }
  }

  #local(pid: T): void {
    const r = this.#reader;
    if (r.node(pid) !== this.#node || r.creation(pid) !== this.#creation) throw new Error("not a local pid");
  }

  #nodeId(term: T): number {
    const r = this.#reader;
    const name = r.node(term);
    const creation = r.creation(term);
    if (name === this.#node && creation === this.#creation) return 0;
    return this.#dictionary.internNode(this.#dictionary.atomId(name), creation);
  }

  #receiver(to: T, words: Uint32Array, base: number): void {
    const r = this.#reader;
    if (r.isPid(to)) {
      words[base + W.flags]! |= this.#nodeId(to) << 8;
      words[base + W.otherLow] = (r.id(to) << 4) | IDENTITY.pid;
      words[base + W.otherHigh] = r.serial(to);
    } else if (r.isReference(to)) {
      words[base + W.flags]! |= FLAG.alias | (this.#nodeId(to) << 8);
      words[base + SLOT_ALIAS.number0] = r.number(to, 0);
      words[base + SLOT_ALIAS.number1] = r.number(to, 1);
      words[base + SLOT_ALIAS.number2] = r.number(to, 2);
      words[base + W.otherLow] = r.number(to, 3);
      words[base + W.otherHigh] = r.number(to, 4);
    } else if (r.atom(to) !== undefined) {
      words[base + W.otherLow] = (this.#atom(to) << 4) | IDENTITY.atom;
    } else {
      const [name, node] = to as unknown as readonly [T, T];
      words[base + W.otherLow] = (this.#atom(name) << 4) | IDENTITY.atom;
      words[base + W.flags]! |= this.#dictionary.internNode(this.#atom(node), 0) << 8;
    }
  }

  #shape(e: readonly T[], at: number, words: Uint32Array, base: number): void {
    words[base + W.shape] = e[at] as number;
    words[base + W.tag1] = this.#atom(e[at + 1]!);
    words[base + W.tag2] = this.#atom(e[at + 2]!);
  }

  #mfa(e: readonly T[], at: number): number {
    return this.#dictionary.internMfa(this.#atom(e[at]!), this.#atom(e[at + 1]!), e[at + 2] as number);
  }

  /** Id of an atom; 0 for the integer 0. */
  #atom(term: T): ReturnType<Dictionary["atomId"]> {
    const name = this.#reader.atom(term);
    return name === undefined ? (0 as ReturnType<Dictionary["atomId"]>) : this.#dictionary.atomId(name);
  }
}
