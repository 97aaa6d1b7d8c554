/**
 * Records of the native tracer into slots, in place: a record is a slot already, but for atoms and functions, which stand as words of the VM
 * (docs/agent-protocol.md, "Native batches"). One batch holds a run of records for each scheduler; the runs are merged by time stamp, so that
 * the events of a process keep their order. Contents lie beside the records, in the records' own order. Owns the table of atom words, which
 * grows with the batches' dictionaries.
 */
import type { Dictionary } from "./dictionary";
import type { EventKernel } from "./event-kernel";
import {
  CALLER_UNDEFINED,
  EVENT_KINDS,
  FLAG,
  IDENTITY,
  RAW,
  RAW_ATOM_WORDS,
  SLOT,
  SLOT_BYTES,
  SLOT_WORDS,
  type EventKind,
} from "./event-schema";
import { SlotBlock } from "./slot-block";
import { MISFIT } from "./wire-reader";

// Names of this module for what it reads all the time: V8 makes constants of these, but looks up an import at every use.
const K = EVENT_KINDS;
const W = SLOT;
const F = FLAG;
const R = RAW;
const TAGS = IDENTITY;
/** Whether records of a kind exist: gaps travel as portable events, and so do markers but for those of sampling. */
const KNOWN = Uint8Array.from({ length: 256 }, (_, kind) =>
  (kind > K.unknown && kind <= K.closed) || (kind >= K.marker && kind <= K.function_exception) ? 1 : 0,
);
const SHAPED = Uint8Array.from({ length: 256 }, (_, kind) =>
  Object.entries(RAW_ATOM_WORDS).some(
    ([name, words]) => EVENT_KINDS[name as EventKind] === kind && words.includes(W.tag2),
  )
    ? 1
    : 0,
);
/** An atom's word is its index × 64 + 11; indexes have 26 bits at most. */
const ATOM_TAG = 0x0b;
const CACHE_SIZE = 4096;
/** As many runs as a trace can have rings, 1,024 schedulers' and four shared ones: merging them takes time in proportion. */
const RUNS_MAX = 1028;
/** What no record of a batch without contents has; the words of a payload mean something else here. */
const CONTENT_FLAGS = FLAG.payload | FLAG.payloadLost;
/** Bytes that tell a content's length. */
const LENGTH_BYTES = 4;
/** What no record with a second identity has: the number of a node is given here. */
const FOREIGN_NODE = ~(0xff | RAW.namedFlag);

/** Turns records into slots. */
export class NativeRecordDecoder {
  readonly #dictionary: Dictionary;
  readonly #source: number;
  /** Dictionary ids by atom index; 0: not told of. */
  #atoms = new Uint32Array(4096);
  /** Functions seen lately: module word, function word, arity, id. */
  readonly #mfas = new Uint32Array(CACHE_SIZE * 4);
  readonly #kernel: EventKernel | undefined;
  readonly #merged = new SlotBlock(64);
  /** Markers in the last batch. */
  marks = 0;
  /** Whether a record of the last batch has contents. */
  hasPayload = false;

  /** @param kernel - merges; undefined: that is done here */
  constructor(dictionary: Dictionary, source: number, kernel: EventKernel | undefined) {
    this.#dictionary = dictionary;
    this.#source = source;
    this.#kernel = kernel;
  }

  /** An atom of a batch's dictionary. */
  learn(word: number, id: number): void {
    if ((word & 0x3f) !== ATOM_TAG) throw MISFIT;
    const index = word >>> 6;
    if (index >= this.#atoms.length) {
      const atoms = new Uint32Array(Math.max(index + 1, this.#atoms.length * 2));
      atoms.set(this.#atoms);
      this.#atoms = atoms;
    }
    this.#atoms[index] = id;
  }

  /**
   * Decodes `count` records from byte `from` of the message on, in the order of their stamps.
   * @param staged - has room for them; its memory is used
   * @param offset - base of the batch minus base of the source, in ns
   * @returns the block that holds the slots: `staged`, or one of this decoder, valid until the next call
   */
  decode(message: Uint8Array, from: number, count: number, offset: number, staged: SlotBlock): SlotBlock {
    staged.count = count;
    this.marks = 0;
    this.hasPayload = false;
    let block = staged;
    if (this.#kernel?.merge(message, from, count, offset, staged) !== true) {
      copyRecords(message, from, staged);
      block = this.#inOrder(offset, staged);
    }
    for (let i = 0; i < count; i++) this.#slot(block.words, i * SLOT_WORDS, CONTENT_FLAGS);
    return block;
  }

  /**
   * The same for a batch with contents, which lie in bytes `at` to `end` of the message: `<<Bytes:32/little, Term/binary>>` for each record that
   * says so, in their order. The slots' `payloadAt` is a place in the message.
   */
  decodeWithContents(
    message: Uint8Array,
    [at, end]: readonly [at: number, end: number],
    from: number,
    count: number,
    offset: number,
    staged: SlotBlock,
  ): SlotBlock {
    staged.count = count;
    this.marks = 0;
    this.hasPayload = at < end;
    copyRecords(message, from, staged);
    const { words } = staged;
    const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
    let next = at;
    for (let i = 0; i < count; i++) {
      const base = i * SLOT_WORDS;
      const flags = words[base + W.flags]!;
      const told = SHAPED[words[base]! & 0xff] !== 0 ? 0 : CONTENT_FLAGS;
      if ((flags & CONTENT_FLAGS) === CONTENT_FLAGS) throw MISFIT;
      this.#slot(words, base, told);
      if ((flags & F.payload) === 0) continue;
      if (end - next < LENGTH_BYTES) throw MISFIT;
      const length = view.getUint32(next, true);
      next += LENGTH_BYTES;
      if (length === 0 || length > end - next) throw MISFIT;
      words[base + W.payloadAt] = next;
      words[base + W.payloadBytes] = length;
      next += length;
    }
    if (next !== end) throw MISFIT;
    return this.#inOrder(offset, staged);
  }

  /** What the kernel does, for batches that it can't take. */
  #inOrder(offset: number, staged: SlotBlock): SlotBlock {
    const { floats, count } = staged;
    const runs: number[] = [0];
    let last = -Infinity;
    for (let i = 0; i < count; i++) {
      const stamp = floats[i * 8 + 1]!;
      // Written so that NaN is caught, too.
      if (!(stamp > -Infinity && stamp < Infinity)) throw MISFIT;
      if (stamp < last && runs.push(i) > RUNS_MAX) throw MISFIT;
      last = stamp;
      floats[i * 8 + 1] = stamp + offset;
    }
    return runs.length === 1 ? staged : this.#merge(staged, runs);
  }

  /** @param foreign - flags that the record may not have */
  #slot(words: Uint32Array, base: number, foreign: number): void {
    const head = words[base]!;
    const kind = head & 0xff;
    if (KNOWN[kind] === 0 || (head & 0xff00) !== 0 || (words[base + W.flags]! & foreign) !== 0) throw MISFIT;
    words[base] = head | (this.#source << 8);
    if (SHAPED[kind] !== 0) {
      words[base + W.tag1] = this.#atom(words[base + W.tag1]!);
      words[base + W.tag2] = this.#atom(words[base + W.tag2]!);
    }
    switch (kind) {
      case K.send:
      case K.send_to_non_existing_process:
      case K.link:
      case K.unlink:
      case K.getting_linked:
      case K.getting_unlinked:
        this.#other(words, base, R.remoteNode, R.remoteCreation);
        return;
      case K.open:
        this.#other(words, base, R.remoteNode, R.remoteCreation);
        words[base + W.extra] = this.#atom(words[base + W.extra]!);
        return;
      case K.spawn:
      case K.spawned:
        this.#spawn(words, base);
        return;
      case K.call:
        this.#caller(words, base);
        this.#function(words, base);
        return;
      case K.exception_from:
        words[base + W.extra] = this.#atom(words[base + W.extra]!);
        this.#function(words, base);
        return;
      case K.return_from:
      case K.return_to:
      case K.in:
      case K.out:
      case K.in_exiting:
      case K.out_exiting:
      case K.out_exited:
        this.#function(words, base);
        return;
      case K.register:
      case K.unregister:
        words[base + W.otherLow] = this.#name(words[base + W.otherLow]!);
        return;
      case K.port_in:
      case K.port_out:
        words[base + W.extra] = this.#atom(words[base + W.extra]!);
        return;
      case K.function_entry:
      case K.function_return:
      case K.function_tail_call:
      case K.function_exception:
        words[base + W.extra] = this.#atom(words[base + W.extra]!);
        return;
      case K.marker:
        words[base + W.tag1] = this.#atom(words[base + W.tag1]!);
        this.marks++;
        return;
      default:
    }
  }

  #atom(word: number): number {
    if (word === 0) return 0;
    const id = this.#atoms[word >>> 6];
    if (id === undefined || id === 0 || (word & 0x3f) !== ATOM_TAG) throw MISFIT;
    return id;
  }

  #name(word: number): number {
    return ((this.#atom(word) << 4) | TAGS.atom) >>> 0;
  }

  #other(words: Uint32Array, base: number, nodeWord: number, creationWord: number): void {
    const flags = words[base + W.flags]!;
    if ((flags & FOREIGN_NODE) !== 0) throw MISFIT;
    if ((flags & R.namedFlag) !== 0) {
      const node = this.#dictionary.internNode(this.#atomId(words[base + W.otherHigh]!), 0);
      words[base + W.otherLow] = this.#name(words[base + W.otherLow]!);
      words[base + W.otherHigh] = 0;
      words[base + W.flags] = ((flags & 0xff) | (node << 8)) >>> 0;
      return;
    }
    const low = words[base + W.otherLow]!;
    const node = words[base + nodeWord]!;
    if (node !== 0) {
      const id = this.#dictionary.internNode(this.#atomId(node), words[base + creationWord]!);
      words[base + W.flags] = ((flags & 0xff) | (id << 8)) >>> 0;
      words[base + nodeWord] = 0;
      words[base + creationWord] = 0;
    } else if ((flags & (F.alias | F.widePid | F.widePort)) === 0 && (low & 0x3f) === ATOM_TAG) {
      words[base + W.otherLow] = this.#name(low);
    }
  }

  #atomId(word: number): Parameters<Dictionary["internNode"]>[0] {
    return this.#atom(word) as Parameters<Dictionary["internNode"]>[0];
  }

  #spawn(words: Uint32Array, base: number): void {
    this.#other(words, base, R.spawnRemoteNode, R.spawnRemoteCreation);
    const initial = this.#mfa(
      words[base + R.initialModule]!,
      words[base + R.initialFunction]!,
      words[base + R.initialArity]!,
    );
    const mfa = this.#mfa(
      words[base + R.spawnModule]!,
      words[base + R.spawnFunction]!,
      words[base + R.spawnArity]!,
    );
    words[base + R.spawnModule] = 0;
    words[base + R.spawnFunction] = 0;
    words[base + R.initialArity] = 0;
    words[base + R.initialFunction] = 0;
    words[base + W.mfa] = mfa;
    words[base + W.extra] = initial;
  }

  #caller(words: Uint32Array, base: number): void {
    const module = words[base + R.callerModule]!;
    const arity = words[base + R.callerArity]!;
    words[base + W.extra] =
      module === 0
        ? arity === CALLER_UNDEFINED
          ? CALLER_UNDEFINED
          : 0
        : this.#mfa(module, words[base + R.callerFunction]!, arity);
    words[base + R.callerModule] = 0;
    words[base + R.callerFunction] = 0;
    words[base + R.callerArity] = 0;
  }

  #function(words: Uint32Array, base: number): void {
    const mfa = this.#mfa(words[base + R.module]!, words[base + R.function]!, words[base + R.arity]!);
    words[base + R.module] = 0;
    words[base + R.function] = 0;
    words[base + W.mfa] = mfa;
  }

  #mfa(module: number, fun: number, arity: number): number {
    if (module === 0) return 0;
    const cache = this.#mfas;
    const at = ((Math.imul(module, 0x9e3779b1) ^ Math.imul(fun, 0x85ebca6b) ^ arity) >>> 20) * 4;
    if (cache[at] === module && cache[at + 1] === fun && cache[at + 2] === arity) return cache[at + 3]!;
    if (arity > 0xffff) throw MISFIT;
    const id = this.#dictionary.internMfa(this.#atomId(module), this.#atomId(fun), arity);
    cache[at] = module;
    cache[at + 1] = fun;
    cache[at + 2] = arity;
    cache[at + 3] = id;
    return id;
  }

  /** Merges runs that are in order each. There are as many as schedulers, so the least head is searched in a row. */
  #merge(staged: SlotBlock, starts: readonly number[]): SlotBlock {
    const { words, floats, count } = staged;
    const merged = this.#merged;
    merged.count = 0;
    merged.reserve(count);
    const next = [...starts];
    const ends = [...starts.slice(1), count];
    let to = 0;
    while (next.length > 1) {
      let run = 0;
      let least = Infinity;
      let second = Infinity;
      for (let i = 0; i < next.length; i++) {
        const stamp = floats[next[i]! * 8 + 1]!;
        if (stamp < least) {
          second = least;
          least = stamp;
          run = i;
        } else if (stamp < second) second = stamp;
      }
      const from = next[run]!;
      const end = ends[run]!;
      let until = from + 1;
      while (until < end && floats[until * 8 + 1]! <= second) until++;
      merged.words.set(words.subarray(from * SLOT_WORDS, until * SLOT_WORDS), to * SLOT_WORDS);
      to += until - from;
      if (until < end) next[run] = until;
      else {
        next.splice(run, 1);
        ends.splice(run, 1);
      }
    }
    merged.words.set(words.subarray(next[0]! * SLOT_WORDS, ends[0]! * SLOT_WORDS), to * SLOT_WORDS);
    merged.count = count;
    return merged;
  }
}

function copyRecords(message: Uint8Array, from: number, { words, count }: SlotBlock): void {
  new Uint8Array(words.buffer).set(message.subarray(from, from + count * SLOT_BYTES));
}
