/**
 * Reads the pieces that trace events are made of straight from external term format, without making objects: integers as numbers,
 * atoms as dictionary ids, identities as the two words of a slot. What is well-formed but not what was expected throws `MISFIT`, which the
 * decoders turn into an `unknown` event; what is no term at all throws `BadTermError`. Reading beyond the end is caught by the
 * DataView's own bounds check. Formats: External Term Format, erts user's guide; tags in wire facts F.9.
 */
import { BadTermError } from "../erlang/errors";
import { skipTerm } from "../erlang/etf/skip-term";
import type { Dictionary } from "./dictionary";
import { IDENTITY } from "./event-schema";
import type { AtomId, MfaId, NodeId } from "./ids";
import { SeenNames, SeenShortNames } from "./seen-names";

/** Thrown, without a stack, when a term is of another type than expected. Never leaves the decoders. */
export const MISFIT: unique symbol = Symbol("misfit");

/** Tags of external terms that are read here. */
export const TAG = {
  version: 131,
  smallInteger: 97,
  integer: 98,
  smallBig: 110,
  largeBig: 111,
  atomLatin1: 100,
  smallAtomLatin1: 115,
  atomUtf8: 118,
  smallAtomUtf8: 119,
  smallTuple: 104,
  largeTuple: 105,
  nil: 106,
  string: 107,
  list: 108,
  binary: 109,
  bitBinary: 77,
  newFloat: 70,
  float: 99,
  map: 116,
  newPid: 88,
  pid: 103,
  newPort: 89,
  port: 102,
  v4Port: 120,
  newerReference: 90,
  newReference: 114,
  reference: 101,
  newFun: 112,
  exportFun: 113,
  record: 67,
  localExt: 121,
} as const;

// Names of this module for what it reads all the time: V8 makes constants of these, but looks up what is im- or exported at every use.
const T = TAG;
const TAGS = IDENTITY;
const EMPTY = new Uint8Array(0);
const UTF8 = new TextEncoder();

/** A cursor over the bytes of one message. */
export class WireReader {
  bytes: Uint8Array = EMPTY;
  view: DataView = new DataView(EMPTY.buffer);
  /** Position of the next byte to read. */
  at = 0;

  /** Result of `identity`: the words as in a slot, and the node (0: the traced one). */
  low = 0;
  high = 0;
  node = 0;
  /** Result of `identity`: see FLAG.widePid and FLAG.widePort. */
  widePid = false;
  widePort = false;
  /** Result of `reference`: the first three numbers; further ones are in low and high. */
  number0 = 0;
  number1 = 0;
  number2 = 0;

  readonly dictionary: Dictionary;
  readonly #localNode: AtomId;
  /** Creation of the traced node, as given or as learned. */
  localCreation: number | undefined;
  /** The bytes before id, serial and creation of a local pid, as seen once: eight at a time, the last eight first (they may overlap). */
  prefix = new Float64Array(0);
  prefixBytes = 0;
  /** The same bytes, in memory of their own. */
  pidPrefix: Uint8Array | undefined;
  readonly #seenAtoms = new SeenNames();
  readonly #seenShort = new SeenShortNames();
  readonly #seenMfas = new SeenNames();

  /** @param creation - of the traced node; when not given it is that of the first pid with the node's name */
  constructor(dictionary: Dictionary, node: string, creation?: number) {
    this.dictionary = dictionary;
    this.#localNode = dictionary.atomId(node);
    this.localCreation = creation;
  }

  /** Starts on another message. */
  reset(bytes: Uint8Array): void {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  /** Tag of the next term. */
  tag(): number {
    return this.view.getUint8(this.at);
  }

  /** Arity of the tuple that starts here. */
  tuple(): number {
    const tag = this.view.getUint8(this.at);
    if (tag === T.smallTuple) {
      const arity = this.view.getUint8(this.at + 1);
      this.at += 2;
      return arity;
    }
    if (tag !== T.largeTuple) throw MISFIT;
    const arity = this.view.getUint32(this.at + 1);
    this.at += 5;
    return arity;
  }

  /** An integer; beyond 2^53 the nearest double. */
  integer(): number {
    const at = this.at;
    const tag = this.view.getUint8(at);
    if (tag === T.integer) {
      this.at = at + 5;
      return this.view.getInt32(at + 1);
    }
    if (tag === T.smallInteger) {
      this.at = at + 2;
      return this.view.getUint8(at + 1);
    }
    return this.#bigInteger(tag);
  }

  /** An integer in full; `number` when it is safe. Once a batch, not for every event. */
  exactInteger(): number | bigint {
    const tag = this.tag();
    if (tag !== T.smallBig && tag !== T.largeBig) return this.integer();
    const size = tag === T.smallBig ? this.view.getUint8(this.at + 1) : this.view.getUint32(this.at + 1);
    const head = tag === T.smallBig ? 3 : 6;
    if (size > 64) throw MISFIT;
    let value = 0n;
    for (let i = size - 1; i >= 0; i--)
      value = (value << 8n) | BigInt(this.view.getUint8(this.at + head + i));
    if (this.view.getUint8(this.at + head - 1) !== 0) value = -value;
    this.at += head + size;
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }

  #bigInteger(tag: number): number {
    if (tag !== T.smallBig && tag !== T.largeBig) throw MISFIT;
    const head = tag === T.smallBig ? 3 : 6;
    const size = tag === T.smallBig ? this.view.getUint8(this.at + 1) : this.view.getUint32(this.at + 1);
    const from = this.at + head;
    const negative = this.view.getUint8(from - 1) !== 0;
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + this.view.getUint8(from + i);
    this.at = from + size;
    return negative ? -value : value;
  }

  /** Whether an atom starts here. */
  isAtom(): boolean {
    const tag = this.view.getUint8(this.at);
    return tag === T.smallAtomUtf8 || tag === T.atomLatin1 || tag === T.atomUtf8 || tag === T.smallAtomLatin1;
  }

  /** Dictionary id of an atom. */
  atom(): AtomId {
    const at = this.at;
    const view = this.view;
    const tag = view.getUint8(at);
    if (tag === T.smallAtomUtf8) {
      const length = view.getUint8(at + 1);
      this.at = at + 2 + length;
      return this.utf8Atom(at + 2, length);
    }
    if (tag === T.atomLatin1 || tag === T.atomUtf8) {
      const length = view.getUint16(at + 1);
      this.at = at + 3 + length;
      return tag === T.atomUtf8
        ? this.dictionary.internAtom(view, at + 3, length)
        : this.#latin1(at + 3, length);
    }
    if (tag !== T.smallAtomLatin1) throw MISFIT;
    const length = view.getUint8(at + 1);
    this.at = at + 2 + length;
    return this.#latin1(at + 2, length);
  }

  /** Dictionary id of the UTF-8 text at `at`, which stands behind a tag and one byte of length. */
  utf8Atom(at: number, length: number): AtomId {
    const view = this.view;
    if (length < 6) {
      if (length < 2) return this.dictionary.internAtom(view, at, length);
      const seen = this.#seenShort.find(view, at, length);
      if (seen !== 0) return seen as AtomId;
      const id = this.dictionary.internAtom(view, at, length);
      this.#seenShort.remember(view, at, length, id);
      return id;
    }
    // Tag, length and a text of 6 bytes or more are 8 bytes to compare.
    const hash = Math.imul(view.getInt32(at + length - 4, true) + view.getInt32(at - 1, true), 0x9e3779b1);
    const seen = this.#seenAtoms.find(view, at - 2, length + 2, hash);
    if (seen !== 0) return seen as AtomId;
    const id = this.dictionary.internAtom(view, at, length);
    this.#seenAtoms.remember(view, at - 2, length + 2, hash, id);
    return id;
  }

  /** Dictionary id of an atom, 0 for the integer 0. */
  atomOrZero(): AtomId {
    const at = this.at;
    if (this.view.getUint8(at) !== T.smallInteger) return this.atom();
    if (this.view.getUint8(at + 1) !== 0) throw MISFIT;
    this.at = at + 2;
    return 0 as AtomId;
  }

  #latin1(at: number, length: number): AtomId {
    const view = this.view;
    for (let i = 0; i < length; i++) {
      if (view.getUint8(at + i) < 0x80) continue;
      let text = "";
      for (let k = 0; k < length; k++) text += String.fromCharCode(view.getUint8(at + k));
      const utf8 = UTF8.encode(text);
      return this.dictionary.internAtom(new DataView(utf8.buffer, utf8.byteOffset), 0, utf8.length);
    }
    return this.dictionary.internAtom(view, at, length);
  }

  /** Three elements of a tuple: module, function, arity. */
  mfa(): MfaId {
    const start = this.at;
    const view = this.view;
    if (view.getUint8(start) !== T.smallAtomUtf8) return this.#mfaOfAnyForm();
    const fun = start + 2 + view.getUint8(start + 1);
    if (view.getUint8(fun) !== T.smallAtomUtf8) return this.#mfaOfAnyForm();
    const arity = fun + 2 + view.getUint8(fun + 1);
    if (view.getUint8(arity) !== T.smallInteger) return this.#mfaOfAnyForm();
    const length = arity + 2 - start;
    if (length < 8) return this.#mfaOfAnyForm();
    const hash = Math.imul(
      view.getInt32(arity - 2, true) + Math.imul(view.getInt32(fun - 4, true), 31),
      0x9e3779b1,
    );
    const seen = this.#seenMfas.find(view, start, length, hash);
    if (seen !== 0) {
      this.at = arity + 2;
      return seen as MfaId;
    }
    const id = this.#mfaOfAnyForm();
    this.#seenMfas.remember(view, start, length, hash, id);
    return id;
  }

  #mfaOfAnyForm(): MfaId {
    const module = this.atom();
    const fun = this.atom();
    const arity = this.integer();
    if (!(arity >= 0 && arity <= 0xffff)) throw MISFIT;
    return this.dictionary.internMfa(module, fun, arity);
  }

  /** A pid or port of the traced node, or the integer 0 (none), into low and high. Anything else does not fit. */
  tracee(): void {
    if (this.localPid()) return;
    const at = this.at;
    if (this.view.getUint8(at) === T.smallInteger) {
      if (this.view.getUint8(at + 1) !== 0) throw MISFIT;
      this.at = at + 2;
      this.low = this.high = this.node = 0;
      return;
    }
    this.identity();
    if (this.node !== 0 || this.widePid || this.widePort || (this.low & 15) === TAGS.atom) throw MISFIT;
  }

  /** A pid, port, atom or `{Name, Node}` into low, high and node. */
  identity(): void {
    if (this.localPid()) return;
    this.widePid = this.widePort = false;
    const tag = this.view.getUint8(this.at);
    switch (tag) {
      case T.newPid:
      case T.pid:
        return this.#pid(tag);
      case T.newPort:
      case T.v4Port:
      case T.port:
        return this.#port(tag);
      case T.smallTuple: {
        if (this.tuple() !== 2) throw MISFIT;
        this.low = this.#atomIdentity();
        this.high = 0;
        this.node = this.dictionary.internNode(this.atom(), 0);
        return;
      }
      default:
        this.low = this.#atomIdentity();
        this.high = this.node = 0;
    }
  }

  #atomIdentity(): number {
    return ((this.atom() << 4) | TAGS.atom) >>> 0;
  }

  /** A reference: numbers into number0–2, and low and high (0 when it has three numbers), node as in `identity`. */
  reference(): void {
    const view = this.view;
    if (view.getUint8(this.at) !== T.newerReference) throw MISFIT;
    const count = view.getUint16(this.at + 1);
    if (count !== 3 && count !== 5) throw MISFIT;
    this.at += 3;
    const name = this.atom();
    const at = this.at;
    this.node = this.#nodeId(name, view.getUint32(at));
    this.number0 = view.getUint32(at + 4);
    this.number1 = view.getUint32(at + 8);
    this.number2 = view.getUint32(at + 12);
    this.low = count === 5 ? view.getUint32(at + 16) : 0;
    this.high = count === 5 ? view.getUint32(at + 20) : 0;
    this.widePid = this.widePort = false;
    this.at = at + 4 + 4 * count;
  }

  /** The common case, without a look at the dictionary: the bytes before the id are those of the last local pid. */
  localPid(): boolean {
    const view = this.view;
    const prefix = this.prefix;
    const at = this.at;
    const fields = at + this.prefixBytes;
    const count = prefix.length;
    if (count === 0 || fields + 12 > view.byteLength) return false;
    if (view.getFloat64(fields - 8, true) !== prefix[0]) return false;
    for (let i = 1, from = at; i < count; i++, from += 8)
      if (view.getFloat64(from, true) !== prefix[i]) return false;
    const id = view.getUint32(fields);
    if (view.getUint32(fields + 8) !== this.localCreation || id > 0x0fffffff) return false;
    this.low = ((id << 4) | TAGS.pid) >>> 0;
    this.high = view.getUint32(fields + 4);
    this.node = 0;
    this.widePid = this.widePort = false;
    this.at = fields + 12;
    return true;
  }

  #pid(tag: number): void {
    const start = this.at;
    const view = this.view;
    this.at = start + 1;
    const name = this.atom();
    const fields = this.at;
    const id = view.getUint32(fields);
    const creation = tag === T.newPid ? view.getUint32(fields + 8) : view.getUint8(fields + 8);
    this.high = view.getUint32(fields + 4);
    this.node = this.#nodeId(name, creation);
    this.at = fields + (tag === T.newPid ? 12 : 9);
    this.widePid = id > 0x0fffffff;
    this.low = this.widePid ? id : ((id << 4) | TAGS.pid) >>> 0;
    if (this.node === 0 && tag === T.newPid && !this.widePid) this.#learnPrefix(start, fields - start);
  }

  #port(tag: number): void {
    const view = this.view;
    this.at++;
    const name = this.atom();
    const at = this.at;
    let upper = 0;
    let lower: number;
    let fields = 4;
    if (tag === T.v4Port) {
      upper = view.getUint32(at);
      lower = view.getUint32(at + 4);
      fields = 8;
    } else {
      lower = view.getUint32(at);
    }
    const creation = tag === T.port ? view.getUint8(at + fields) : view.getUint32(at + fields);
    this.at = at + fields + (tag === T.port ? 1 : 4);
    this.node = this.#nodeId(name, creation);
    this.widePort = upper > 0x0fffffff;
    if (this.widePort) {
      this.low = lower;
      this.high = upper;
    } else {
      this.low = ((lower << 4) | TAGS.port) >>> 0;
      this.high = ((upper << 4) | (lower >>> 28)) >>> 0;
    }
  }

  #nodeId(name: AtomId, creation: number): NodeId | 0 {
    if (name === this.#localNode) {
      this.localCreation ??= creation;
      if (creation === this.localCreation) return 0;
    }
    return this.dictionary.internNode(name, creation);
  }

  #learnPrefix(start: number, length: number): void {
    this.pidPrefix ??= this.bytes.slice(start, start + length);
    const prefix = new Float64Array(Math.ceil(length / 8));
    for (let i = 0; i < prefix.length; i++) {
      const from = i === 0 ? start + length - 8 : start + (i - 1) * 8;
      prefix[i] = from >= 0 ? this.view.getFloat64(from, true) : NaN;
    }
    // Two float64 are equal when their bytes are, unless they are NaN or zero: then every pid takes the long way.
    if (length < 8 || prefix.some((value) => Number.isNaN(value) || value === 0)) return;
    this.prefix = prefix;
    this.prefixBytes = length;
  }

  /**
   * Steps over one whole term of any type.
   * @throws BadTermError when it is no term
   */
  skip(): void {
    if (this.bytes[this.at] === T.version) throw new BadTermError("version byte within a term", this.at);
    this.at = skipTerm(this.bytes, this.at);
  }
}
