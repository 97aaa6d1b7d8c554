/**
 * Records of the native tracer into slots, in place: a record is a slot already, but for atoms and functions, which stand as words of the VM
 * (docs/agent-protocol.md, "Native batches"). One batch holds a run of records for each scheduler; the runs are merged by time stamp, so that
 * the events of a process keep their order. Owns the table of atom words, which grows with the batches' dictionaries.
 */
import type { Dictionary } from "./dictionary";
import {
  CALLER_UNDEFINED,
  EVENT_KINDS,
  FLAG,
  IDENTITY,
  RAW,
  RAW_ATOM_WORDS,
  SLOT,
  SLOT_WORDS,
  type EventKind,
} from "./event-schema";
import { SlotBlock } from "./slot-block";
import { MISFIT } from "./wire-reader";

const K = EVENT_KINDS;
/** Whether records of a kind exist: gaps and markers travel as portable events. */
const KNOWN: readonly boolean[] = Array.from(
  { length: 256 },
  (_, kind) => kind > K.unknown && kind <= K.closed,
);
const SHAPED: readonly boolean[] = Array.from({ length: 256 }, (_, kind) =>
  Object.entries(RAW_ATOM_WORDS).some(
    ([name, words]) => EVENT_KINDS[name as EventKind] === kind && words.includes(13),
  ),
);
/** An atom's word is its index × 64 + 11; indexes have 26 bits at most. */
const ATOM_TAG = 0x0b;
const CACHE_SIZE = 4096;
/** As many runs as a VM can have schedulers, and one more: merging them takes time in proportion. */
const RUNS_MAX = 1025;
/** What no record has; the words of a payload mean something else here. */
const FOREIGN_FLAGS = FLAG.payload | FLAG.payloadLost;

/** Turns records into slots. */
export class NativeRecordDecoder {
  readonly #dictionary: Dictionary;
  readonly #source: number;
  /** Dictionary ids by atom index; 0: not told of. */
  #atoms = new Uint32Array(4096);
  /** Functions seen lately: module word, function word, arity, id. */
  readonly #mfas = new Uint32Array(CACHE_SIZE * 4);
  #merged = new SlotBlock(64);

  constructor(dictionary: Dictionary, source: number) {
    this.#dictionary = dictionary;
    this.#source = source;
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
   * Translates the records that lie in `staged`, and brings them into the order of their stamps.
   * @param offset - base of the batch minus base of the source, in ns
   * @returns the block that holds the slots: `staged`, or one of this decoder, valid until the next call
   */
  decode(staged: SlotBlock, offset: number): SlotBlock {
    const { words, floats, count } = staged;
    const runs: number[] = [0];
    let last = -Infinity;
    for (let i = 0; i < count; i++) {
      const base = i * SLOT_WORDS;
      const stamp = floats[(base >>> 1) + 1]!;
      // Written so that NaN is caught, too.
      if (!(stamp > -Infinity && stamp < Infinity)) throw MISFIT;
      if (stamp < last && runs.push(i) > RUNS_MAX) throw MISFIT;
      last = stamp;
      floats[(base >>> 1) + 1] = stamp + offset;
      this.#slot(words, base);
    }
    return runs.length === 1 ? staged : this.#merge(staged, runs);
  }

  #slot(words: Uint32Array, base: number): void {
    const head = words[base]!;
    const kind = head & 0xff;
    if (!KNOWN[kind] || (head & 0xff00) !== 0 || (words[base + SLOT.flags]! & FOREIGN_FLAGS) !== 0)
      throw MISFIT;
    words[base] = head | (this.#source << 8);
    if (SHAPED[kind]) {
      words[base + SLOT.tag1] = this.#atom(words[base + SLOT.tag1]!);
      words[base + SLOT.tag2] = this.#atom(words[base + SLOT.tag2]!);
    }
    switch (kind) {
      case K.send:
      case K.send_to_non_existing_process:
      case K.link:
      case K.unlink:
      case K.getting_linked:
      case K.getting_unlinked:
        this.#other(words, base, RAW.remoteNode, RAW.remoteCreation);
        return;
      case K.open:
        this.#other(words, base, RAW.remoteNode, RAW.remoteCreation);
        words[base + SLOT.extra] = this.#atom(words[base + SLOT.extra]!);
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
        words[base + SLOT.extra] = this.#atom(words[base + SLOT.extra]!);
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
        words[base + SLOT.otherLow] = this.#name(words[base + SLOT.otherLow]!);
        return;
      case K.port_in:
      case K.port_out:
        words[base + SLOT.extra] = this.#atom(words[base + SLOT.extra]!);
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
    return ((this.#atom(word) << 4) | IDENTITY.atom) >>> 0;
  }

  #other(words: Uint32Array, base: number, nodeWord: number, creationWord: number): void {
    const flags = words[base + SLOT.flags]!;
    if ((flags & RAW.namedFlag) !== 0) {
      const node = this.#dictionary.internNode(this.#atomId(words[base + SLOT.otherHigh]!), 0);
      words[base + SLOT.otherLow] = this.#name(words[base + SLOT.otherLow]!);
      words[base + SLOT.otherHigh] = 0;
      words[base + SLOT.flags] = ((flags & 0xff) | (node << 8)) >>> 0;
      return;
    }
    const low = words[base + SLOT.otherLow]!;
    const node = words[base + nodeWord]!;
    if (node !== 0) {
      const id = this.#dictionary.internNode(this.#atomId(node), words[base + creationWord]!);
      words[base + SLOT.flags] = ((flags & 0xff) | (id << 8)) >>> 0;
      words[base + nodeWord] = 0;
      words[base + creationWord] = 0;
    } else if ((flags & (FLAG.alias | FLAG.widePid | FLAG.widePort)) === 0 && (low & 0x3f) === ATOM_TAG) {
      words[base + SLOT.otherLow] = this.#name(low);
    }
  }

  #atomId(word: number): Parameters<Dictionary["internNode"]>[0] {
    return this.#atom(word) as Parameters<Dictionary["internNode"]>[0];
  }

  #spawn(words: Uint32Array, base: number): void {
    this.#other(words, base, RAW.spawnRemoteNode, RAW.spawnRemoteCreation);
    const initial = this.#mfa(
      words[base + RAW.initialModule]!,
      words[base + RAW.initialFunction]!,
      words[base + RAW.initialArity]!,
    );
    const mfa = this.#mfa(
      words[base + RAW.spawnModule]!,
      words[base + RAW.spawnFunction]!,
      words[base + RAW.spawnArity]!,
    );
    words[base + RAW.spawnModule] = 0;
    words[base + RAW.spawnFunction] = 0;
    words[base + RAW.initialArity] = 0;
    words[base + RAW.initialFunction] = 0;
    words[base + SLOT.mfa] = mfa;
    words[base + SLOT.extra] = initial;
  }

  #caller(words: Uint32Array, base: number): void {
    const module = words[base + RAW.callerModule]!;
    const arity = words[base + RAW.callerArity]!;
    words[base + SLOT.extra] =
      module === 0
        ? arity === CALLER_UNDEFINED
          ? CALLER_UNDEFINED
          : 0
        : this.#mfa(module, words[base + RAW.callerFunction]!, arity);
    words[base + RAW.callerModule] = 0;
    words[base + RAW.callerFunction] = 0;
    words[base + RAW.callerArity] = 0;
  }

  #function(words: Uint32Array, base: number): void {
    const mfa = this.#mfa(words[base + RAW.module]!, words[base + RAW.function]!, words[base + RAW.arity]!);
    words[base + RAW.module] = 0;
    words[base + RAW.function] = 0;
    words[base + SLOT.mfa] = mfa;
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
    merged.clear();
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
