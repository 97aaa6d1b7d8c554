/**
 * Atoms, nodes and MFAs as small integers, so that a slot holds no text. Append-only; the log lies in a growable SharedArrayBuffer,
 * so any thread that has the handle reads and adds. The log's published length is an Atomics word; a reader catches up when it meets
 * an id it does not know. Lookups go to tables of the own thread; the lock is taken only to append. Bounded: see `maxBytes`.
 *
 * Log records (32-bit words, little-endian): atom = 1 | length << 8, then UTF-8 padded to words; node = 2, atom id, creation;
 * MFA = 3, module id, function id, arity. Ids are implied by the order within each sort.
 */
import { BadTermError, OptionError } from "../erlang/errors";
import { Atom, isAtomName } from "../erlang/term/atom";
import { AtomTable } from "./atom-table";
import { IdTable } from "./id-table";
import type { AtomId, MfaId, NodeId } from "./ids";
import { carryIds } from "./known-ids";
import { SiteTables } from "./site-tables";

/** Text of the reserved atom (id 1) that stands for every name which found no room. */
export const DICTIONARY_FULL = "…dictionary full";

/** Id 1 of each sort: no room was left. */
const FULL = 1;
const MAGIC = 0x42544431;
const HEADER_BYTES = 64;
const enum Head {
  magic,
  lock,
  length,
  overflowed,
}
const enum Entry {
  atom = 1,
  node = 2,
  mfa = 3,
}
/** An appender that has held the lock for so long was terminated in the middle; what it wrote was not published. */
const LOCK_PATIENCE_MS = 5000;

/** Options of a `Dictionary`. */
export interface DictionaryOptions {
  /** Most bytes that the log may take; at least 4096. Default 64 MiB. Address space is reserved, memory grows on demand. */
  readonly maxBytes?: number;
}

/** What a worker needs to share a dictionary; can be sent by `postMessage`. */
export interface DictionaryHandle {
  readonly dictionary: SharedArrayBuffer;
}

/** A module, function and arity. Names are atoms. */
export interface Mfa {
  readonly module: string;
  readonly function: string;
  readonly arity: number;
}

/** A node's incarnation. */
export interface NodeIdentity {
  readonly name: string;
  readonly creation: number;
}

/** Append-only ids for atoms, nodes and MFAs, shared between threads. */
export class Dictionary {
  readonly #log: SharedArrayBuffer;
  readonly #head: Int32Array;
  readonly #atoms: AtomTable;
  readonly #nodes: IdTable;
  readonly #mfas: IdTable;
  readonly #byName = new Map<string, AtomId>();
  readonly #atomObjects: Atom[] = [];
  readonly #mfaObjects: Mfa[] = [];
  readonly #nodeObjects: NodeIdentity[] = [];
  /** What sites of instrumented modules stand for, as far as this thread knows; not shared with others. */
  readonly sites = new SiteTables((name) => this.atomId(name));
  /** Bytes of the log that the tables of this thread hold. */
  #read = 0;

  constructor(options: DictionaryOptions = {}, handle?: DictionaryHandle) {
    const seed = (Math.random() * 0x7fffffff) | 0;
    this.#atoms = new AtomTable(seed);
    this.#nodes = new IdTable(seed);
    this.#mfas = new IdTable(seed);
    if (handle === undefined) {
      const maxBytes = options.maxBytes ?? 64 * 1024 * 1024;
      if (!Number.isSafeInteger(maxBytes) || maxBytes < 4096 || maxBytes > 0x7fff0000) {
        throw new OptionError(
          "BT_OPTION_INVALID",
          "maxBytes",
          `must be 4096 to 2147418112 bytes, not ${maxBytes}`,
        );
      }
      const limit = HEADER_BYTES + (maxBytes & ~3);
      this.#log = new SharedArrayBuffer(Math.min(limit, 65536), { maxByteLength: limit });
      this.#head = new Int32Array(this.#log, 0, HEADER_BYTES / 4);
      this.#head[Head.magic] = MAGIC;
      this.atomId(DICTIONARY_FULL);
      this.#append(Entry.node, FULL, 0, 0);
      this.#append(Entry.mfa, FULL, FULL, 0);
    } else {
      this.#log = handle.dictionary;
      this.#head = new Int32Array(this.#log, 0, HEADER_BYTES / 4);
      if (this.#head[Head.magic] !== MAGIC) {
        throw new OptionError("BT_OPTION_INVALID", "handle", "is not the handle of a Dictionary");
      }
      this.#catchUp();
    }
  }

  /** The dictionary that another thread made. */
  static from(handle: DictionaryHandle): Dictionary {
    return new Dictionary({}, handle);
  }

  /** To send to a worker, which calls `Dictionary.from`. */
  get handle(): DictionaryHandle {
    return { dictionary: this.#log };
  }

  /** How many names found no room so far, in all threads. */
  get overflowed(): number {
    return Atomics.load(this.#head, Head.overflowed) >>> 0;
  }

  /** Bytes of the log in use. */
  get usedBytes(): number {
    return Atomics.load(this.#head, Head.length);
  }

  /** The id of an atom's text, given as UTF-8 in `view` at [at, at + length). No allocation when the atom is known. */
  internAtom(view: DataView, at: number, length: number): AtomId {
    const id = this.#atoms.find(view, at, length);
    return (id === 0 ? this.#addAtom(view, at, length) : id) as AtomId;
  }

  /** The id of an atom. */
  atomId(name: string): AtomId {
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    const utf8 = ENCODER.encode(name);
    const id = this.internAtom(new DataView(utf8.buffer, utf8.byteOffset, utf8.length), 0, utf8.length);
    // Not for names that found no room: the map is to stay as bounded as the log.
    if (id !== FULL || name === DICTIONARY_FULL) this.#byName.set(name, id);
    return id;
  }

  /** The id of a node's incarnation. */
  internNode(name: AtomId, creation: number): NodeId {
    const id = this.#nodes.find(name, creation >>> 0, 0);
    return (id === 0 ? this.#append(Entry.node, name, creation >>> 0, 0) : id) as NodeId;
  }

  /** The id of a function. */
  internMfa(module: AtomId, fun: AtomId, arity: number): MfaId {
    const id = this.#mfas.find(module, fun, arity);
    return (id === 0 ? this.#append(Entry.mfa, module, fun, arity) : id) as MfaId;
  }

  /** The atom's text; `undefined` for 0 and for an id that nobody gave. */
  atomName(id: AtomId | number): string | undefined {
    if (id > this.#atoms.count) this.#catchUp();
    return this.#atoms.name(id);
  }

  /** The atom of an id as a term. `undefined` for 0 and for an id that nobody gave. */
  atom(id: AtomId | number): Atom | undefined {
    const known = this.#atomObjects[id];
    if (known !== undefined || id === 0) return known;
    const name = this.atomName(id);
    if (name === undefined) return undefined;
    const atom = Atom.of(name);
    this.#fill(this.#atomObjects, id, atom);
    return atom;
  }

  /** The function of an id; the object is the same at every call. `undefined` for 0. */
  mfa(id: MfaId | number): Mfa | undefined {
    const known = this.#mfaObjects[id];
    if (known !== undefined || id === 0) return known;
    if (id > this.#mfas.count) this.#catchUp();
    if (id > this.#mfas.count) return undefined;
    const names = {
      module: this.atomName(this.#mfas.value(id, 0)) ?? "",
      function: this.atomName(this.#mfas.value(id, 1)) ?? "",
      arity: this.#mfas.value(id, 2),
    };
    const mfa = Object.freeze(carryIds(names, this, id));
    this.#fill(this.#mfaObjects, id, mfa);
    return mfa;
  }

  /** The node of an id; the object is the same at every call. `undefined` for 0, which is the traced node. */
  node(id: NodeId | number): NodeIdentity | undefined {
    const known = this.#nodeObjects[id];
    if (known !== undefined || id === 0) return known;
    if (id > this.#nodes.count) this.#catchUp();
    if (id > this.#nodes.count) return undefined;
    const name = this.atomName(this.#nodes.value(id, 0)) ?? "";
    const node = Object.freeze({ name, creation: this.#nodes.value(id, 1) });
    this.#fill(this.#nodeObjects, id, node);
    return node;
  }

  /** Atom ids (module, function) and arity of an MFA, as raw numbers; 0 for an unknown id. */
  mfaColumn(id: number, column: 0 | 1 | 2): number {
    if (id > this.#mfas.count) this.#catchUp();
    return this.#mfas.value(id, column);
  }

  /** Atom id (0) or creation (1) of a node, as raw numbers; 0 for an unknown id. */
  nodeColumn(id: number, column: 0 | 1): number {
    if (id > this.#nodes.count) this.#catchUp();
    return this.#nodes.value(id, column);
  }

  /** Keeps the array dense while ids are first asked for in any order. */
  #fill<T>(objects: T[], id: number, value: T): void {
    while (objects.length < id) objects.push(undefined as T);
    objects[id] = value;
  }

  #addAtom(view: DataView, at: number, length: number): number {
    requireAtom(view, at, length);
    this.#lock();
    try {
      this.#catchUp();
      const raced = this.#atoms.find(view, at, length);
      if (raced !== 0) return raced;
      const words = (length + 3) >>> 2;
      const log = this.#reserve(4 + words * 4);
      if (log === undefined) return FULL;
      log.setUint32(0, Entry.atom | (length << 8), true);
      for (let i = 0; i < length; i++) log.setUint8(4 + i, view.getUint8(at + i));
      for (let i = length; i < words * 4; i++) log.setUint8(4 + i, 0);
      const id = this.#atoms.add(view, at, length);
      this.#publish(4 + words * 4);
      return id;
    } finally {
      this.#unlock();
    }
  }

  #append(entry: Entry.node | Entry.mfa, a: number, b: number, c: number): number {
    const table = entry === Entry.node ? this.#nodes : this.#mfas;
    this.#lock();
    try {
      this.#catchUp();
      const raced = table.find(a, b, c);
      if (raced !== 0) return raced;
      const bytes = entry === Entry.node ? 12 : 16;
      const log = this.#reserve(bytes);
      if (log === undefined) return FULL;
      log.setUint32(0, entry, true);
      log.setUint32(4, a, true);
      log.setUint32(8, b, true);
      if (entry === Entry.mfa) log.setUint32(12, c, true);
      const id = table.add(a, b, c);
      this.#publish(bytes);
      return id;
    } finally {
      this.#unlock();
    }
  }

  /** Room for `bytes` behind the end of the log, which this thread has just caught up with; `undefined` when it is full. */
  #reserve(bytes: number): DataView | undefined {
    const at = HEADER_BYTES + this.#read;
    const end = at + bytes;
    if (end > this.#log.maxByteLength) {
      Atomics.add(this.#head, Head.overflowed, 1);
      return undefined;
    }
    if (end > this.#log.byteLength) {
      try {
        this.#log.grow(Math.min(this.#log.maxByteLength, Math.max(end, this.#log.byteLength * 2)));
      } catch {
        Atomics.add(this.#head, Head.overflowed, 1);
        return undefined;
      }
    }
    return new DataView(this.#log, at, bytes);
  }

  #publish(bytes: number): void {
    this.#read += bytes;
    Atomics.store(this.#head, Head.length, this.#read);
  }

  /** Reads what other threads have published since. */
  #catchUp(): void {
    const end = Atomics.load(this.#head, Head.length);
    if (end === this.#read) return;
    const log = new DataView(this.#log, HEADER_BYTES, end);
    let at = this.#read;
    while (at < end) {
      const head = log.getUint32(at, true);
      switch (head & 0xff) {
        case Entry.atom:
          this.#atoms.add(log, at + 4, head >>> 8);
          at += 4 + (((head >>> 8) + 3) & ~3);
          break;
        case Entry.node:
          this.#nodes.add(log.getUint32(at + 4, true), log.getUint32(at + 8, true), 0);
          at += 12;
          break;
        default:
          this.#mfas.add(
            log.getUint32(at + 4, true),
            log.getUint32(at + 8, true),
            log.getUint32(at + 12, true),
          );
          at += 16;
      }
    }
    this.#read = end;
  }

  #lock(): void {
    const since = performance.now();
    while (Atomics.compareExchange(this.#head, Head.lock, 0, 1) !== 0) {
      if (performance.now() - since > LOCK_PATIENCE_MS) return;
      Atomics.wait(this.#head, Head.lock, 1, 1);
    }
  }

  #unlock(): void {
    Atomics.store(this.#head, Head.lock, 0);
    Atomics.notify(this.#head, Head.lock, 1);
  }
}

const ENCODER = new TextEncoder();
const STRICT_DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What no node can have as an atom does not get an id either. */
function requireAtom(view: DataView, at: number, length: number): void {
  let name: string | undefined;
  try {
    if (length <= 4 * 255) {
      name = STRICT_DECODER.decode(new Uint8Array(view.buffer, view.byteOffset + at, length).slice());
    }
  } catch {
    // not UTF-8
  }
  if (name === undefined || !isAtomName(name))
    throw new BadTermError("no atom: over 255 characters or not UTF-8", at);
}
