/**
 * Bytes of the external term format to terms. One loop with its own stack of open containers: nesting costs no JavaScript
 * stack, and no container is allocated before the bytes that its elements need at least are known to be there.
 * The input is only read; whether binaries share its memory is an option.
 */
import { BadTermError } from "../errors";
import {
  type Atom,
  BitString,
  ErlFloat,
  ErlMap,
  ExportFun,
  Fun,
  ImproperList,
  LocalExt,
  NativeRecord,
  Pid,
  Port,
  Reference,
  type Term,
  Tuple,
} from "../term";
import { latin1Atom, utf8Atom } from "./atom-cache";
import { readBigInteger } from "./big-integer";
import { type DecodeOptions, type DecodeSettings, decodeSettings } from "./decode-options";
import { distinctKeys } from "./distinct-keys";
import { inflateTerm } from "./inflate";
import * as T from "./tags";

/** What an open container becomes when its elements are there. */
const enum Open {
  Root,
  Tuple,
  List,
  Tail,
  Map,
  Fun,
  Record,
}

/** An open container that waits for the one inside it. */
class Frame {
  kind: Open = Open.Root;
  items: Term[] = NONE;
  filled = 0;
  count = 0;
  /** Where it began, for messages. */
  start = 0;
  /** Elements still to come in the containers around it: at least so many bytes must follow. */
  owed = 0;
  finish: ((items: Term[]) => Term) | undefined;
}

const NONE: Term[] = [];
const EMPTY_LIST = Object.freeze([]) as readonly Term[];
const EMPTY_TUPLE = new Tuple(EMPTY_LIST);
const EMPTY_MAP = new ErlMap(EMPTY_LIST);
const EMPTY_BINARY = new Uint8Array(0);

/** Arrays up to this length are allocated at once, longer ones grow with their elements. */
const PREALLOCATED = 1 << 16;
/** Frames kept for the next term. */
const KEPT_FRAMES = 256;

const doubleBytes = new Uint8Array(8);
const double = new DataView(doubleBytes.buffer);

/** Decodes terms; reusable, one term at a time. */
export class Decoder {
  /** After a call: the offset after the term. */
  next = 0;

  private readonly settings: DecodeSettings;
  private readonly frames: Frame[] = [];
  private bytes: Uint8Array = EMPTY_BINARY;
  private offset = 0;

  constructor(options: DecodeOptions = {}) {
    this.settings = decodeSettings(options);
  }

  /**
   * Decodes the term at `offset`, version byte first; `next` is then the offset after it.
   * @throws BadTermError `BT_BAD_TERM`
   */
  decodeAt(bytes: Uint8Array, offset = 0): Term {
    const from = plain(bytes);
    if (from[offset] !== T.VERSION) {
      throw new BadTermError(
        offset < from.length ? `a term starts with ${T.VERSION}, not ${from[offset]}` : "no bytes",
        offset,
      );
    }
    const tag = from[offset + 1];
    if (tag === T.COMPRESSED) {
      const { bytes: inflated, next } = inflateTerm(from, offset + 2, this.settings.maxInflatedBytes);
      const term = this.decodeBareAt(inflated, 0);
      if (this.next !== inflated.length) {
        throw new BadTermError("bytes after the term within its compressed form", offset);
      }
      this.next = next;
      return term;
    }
    if (tag === T.LOCAL_EXT) {
      this.next = from.length;
      return new LocalExt(from.slice(offset + 2));
    }
    return this.decodeBareAt(from, offset + 1);
  }

  /** Decodes the term at `offset` that has no version byte. */
  decodeBareAt(bytes: Uint8Array, offset = 0): Term {
    this.bytes = plain(bytes);
    this.offset = offset;
    try {
      const term = this.run();
      this.next = this.offset;
      return term;
    } catch (error) {
      for (const frame of this.frames) frame.items = NONE;
      throw error;
    } finally {
      this.bytes = EMPTY_BINARY;
      if (this.frames.length > KEPT_FRAMES) this.frames.length = KEPT_FRAMES;
    }
  }

  // Long because it is the hot loop: the state of the innermost container lives in locals.
  private run(): Term {
    const { bytes, frames } = this;
    const { maxDepth } = this.settings;
    const end = bytes.length;
    let off = this.offset;
    let depth = 0;
    let kind: Open = Open.Root;
    let items: Term[] = [0];
    let filled = 0;
    let count = 1;
    let start = off;
    let owed = 0;
    let finish: ((items: Term[]) => Term) | undefined;

    for (;;) {
      while (filled === count) {
        let term: Term;
        switch (kind) {
          case Open.Root:
            this.offset = off;
            return items[0]!;
          case Open.Tuple:
            term = new Tuple(items);
            break;
          case Open.List: {
            if (off >= end) throw cutOff(end);
            const tag = bytes[off]!;
            if (tag === T.NIL_EXT) {
              off++;
              term = items;
              break;
            }
            if (tag === T.LIST_EXT) {
              // A list as tail makes this one longer.
              if (off + 5 > end) throw cutOff(end);
              const more = u32(bytes, off + 1);
              off += 5;
              if (more > end - off - owed) throw tooMany(more, off - 5);
              count += more;
              continue;
            }
            if (tag === T.STRING_EXT) {
              if (off + 3 > end) throw cutOff(end);
              const more = (bytes[off + 1]! << 8) | bytes[off + 2]!;
              off += 3;
              if (more > end - off) throw cutOff(end);
              for (let i = 0; i < more; i++) items.push(bytes[off + i]!);
              off += more;
              term = items;
              break;
            }
            kind = Open.Tail;
            count++;
            continue;
          }
          case Open.Tail: {
            const tail = items.pop()!;
            term = items.length === 0 ? tail : new ImproperList(items, tail);
            break;
          }
          case Open.Map: {
            const index = distinctKeys(items);
            if (index === false) throw new BadTermError("a map with a key twice", start);
            term = new ErlMap(items, index);
            break;
          }
          default:
            this.offset = off;
            term = finish!(items);
        }
        const frame = frames[--depth]!;
        kind = frame.kind;
        items = frame.items;
        filled = frame.filled;
        count = frame.count;
        start = frame.start;
        owed = frame.owed;
        finish = frame.finish;
        frame.items = NONE;
        frame.finish = undefined;
        items[filled++] = term;
      }

      if (off >= end) throw cutOff(end);
      const at = off;
      let opens: Open;
      let size: number;
      let opened: ((items: Term[]) => Term) | undefined;
      const tag = bytes[off++]!;
      switch (tag) {
        case T.SMALL_INTEGER_EXT:
          if (off >= end) throw cutOff(end);
          items[filled++] = bytes[off++]!;
          continue;
        case T.INTEGER_EXT:
          if (off + 4 > end) throw cutOff(end);
          items[filled++] =
            (bytes[off]! << 24) | (bytes[off + 1]! << 16) | (bytes[off + 2]! << 8) | bytes[off + 3]!;
          off += 4;
          continue;
        case T.SMALL_ATOM_UTF8_EXT: {
          if (off >= end) throw cutOff(end);
          const length = bytes[off++]!;
          if (length > end - off) throw cutOff(end);
          items[filled++] = utf8Atom(bytes, off, length);
          off += length;
          continue;
        }
        case T.ATOM_EXT:
        case T.SMALL_ATOM_EXT:
        case T.ATOM_UTF8_EXT:
        case T.ATOM_CACHE_REF:
          this.offset = at;
          items[filled++] = this.readAtom();
          off = this.offset;
          continue;
        case T.NIL_EXT:
          items[filled++] = EMPTY_LIST;
          continue;
        case T.BINARY_EXT: {
          if (off + 4 > end) throw cutOff(end);
          const length = u32(bytes, off);
          off += 4;
          if (length > end - off) throw cutOff(end);
          items[filled++] = this.readBytes(off, length);
          off += length;
          continue;
        }
        case T.STRING_EXT: {
          if (off + 2 > end) throw cutOff(end);
          const length = (bytes[off]! << 8) | bytes[off + 1]!;
          off += 2;
          if (length > end - off) throw cutOff(end);
          const list = new Array<number>(length);
          for (let i = 0; i < length; i++) list[i] = bytes[off + i]!;
          items[filled++] = list;
          off += length;
          continue;
        }
        case T.NEW_FLOAT_EXT: {
          if (off + 8 > end) throw cutOff(end);
          for (let i = 0; i < 8; i++) doubleBytes[i] = bytes[off + i]!;
          const value = double.getFloat64(0);
          if (!Number.isFinite(value)) throw new BadTermError(`a float that is ${value}`, at);
          items[filled++] = new ErlFloat(value);
          off += 8;
          continue;
        }
        case T.SMALL_TUPLE_EXT:
          if (off >= end) throw cutOff(end);
          size = bytes[off++]!;
          opens = Open.Tuple;
          break;
        case T.LARGE_TUPLE_EXT:
          if (off + 4 > end) throw cutOff(end);
          size = u32(bytes, off);
          off += 4;
          opens = Open.Tuple;
          break;
        case T.LIST_EXT:
          if (off + 4 > end) throw cutOff(end);
          size = u32(bytes, off);
          off += 4;
          opens = Open.List;
          break;
        case T.MAP_EXT:
          if (off + 4 > end) throw cutOff(end);
          size = 2 * u32(bytes, off);
          off += 4;
          opens = Open.Map;
          break;
        case T.NEW_FUN_EXT: {
          this.offset = off;
          const header = this.readFunHeader();
          size = header.size;
          opened = header.finish;
          off = this.offset;
          opens = Open.Fun;
          break;
        }
        case T.RECORD_EXT: {
          this.offset = off;
          const header = this.readRecordHeader();
          size = header.size;
          opened = header.finish;
          off = this.offset;
          opens = Open.Record;
          break;
        }
        default:
          this.offset = at;
          items[filled++] = this.readRare(tag);
          off = this.offset;
          continue;
      }

      if (size === 0) {
        if (opens === Open.Tuple) {
          items[filled++] = EMPTY_TUPLE;
          continue;
        }
        if (opens === Open.Map) {
          items[filled++] = EMPTY_MAP;
          continue;
        }
      }
      const outside = owed + count - filled - 1;
      if (size > end - off - outside) throw tooMany(size, at);
      if (depth >= maxDepth) throw new BadTermError(`nested deeper than ${maxDepth}`, at);
      const frame = (frames[depth] ??= new Frame());
      depth++;
      frame.kind = kind;
      frame.items = items;
      frame.filled = filled;
      frame.count = count;
      frame.start = start;
      frame.owed = owed;
      frame.finish = finish;
      kind = opens;
      items = size <= PREALLOCATED ? new Array<Term>(size) : [];
      filled = 0;
      count = size;
      start = at;
      owed = outside;
      finish = opened;
    }
  }

  /** The terms that are too rare for the loop. `offset` is at the tag. */
  private readRare(tag: number): Term {
    switch (tag) {
      case T.NEW_PID_EXT:
      case T.PID_EXT:
        return this.readPid();
      case T.SMALL_BIG_EXT:
      case T.LARGE_BIG_EXT:
        return this.readInteger();
      case T.BIT_BINARY_EXT:
        return this.readBitString();
      case T.NEWER_REFERENCE_EXT:
      case T.NEW_REFERENCE_EXT:
      case T.REFERENCE_EXT:
        return this.readReference();
      case T.V4_PORT_EXT:
      case T.NEW_PORT_EXT:
      case T.PORT_EXT:
        return this.readPort();
      case T.EXPORT_EXT:
        return this.readExport();
      case T.FLOAT_EXT:
        return this.readOldFloat();
      case T.COMPRESSED:
      case T.LOCAL_EXT:
        throw new BadTermError(`tag ${tag} within a term`, this.offset);
      default:
        throw new BadTermError(`unknown tag ${tag}`, this.offset);
    }
  }

  private readBytes(from: number, length: number): Uint8Array {
    if (length === 0) return EMPTY_BINARY;
    const { bytes } = this;
    if (!this.settings.copyBinaries) return new Uint8Array(bytes.buffer, bytes.byteOffset + from, length);
    if (length > 48) return bytes.slice(from, from + length);
    const copy = new Uint8Array(length);
    for (let i = 0; i < length; i++) copy[i] = bytes[from + i]!;
    return copy;
  }

  /** Steps over `length` bytes and returns where they start. */
  private take(length: number): number {
    const from = this.offset;
    if (length > this.bytes.length - from) throw cutOff(this.bytes.length);
    this.offset = from + length;
    return from;
  }

  private readU8(): number {
    return this.bytes[this.take(1)]!;
  }

  private readU16(): number {
    const at = this.take(2);
    return (this.bytes[at]! << 8) | this.bytes[at + 1]!;
  }

  private readU32(): number {
    return u32(this.bytes, this.take(4));
  }

  private readAtom(): Atom {
    const at = this.offset;
    const tag = this.readU8();
    switch (tag) {
      case T.SMALL_ATOM_UTF8_EXT: {
        const length = this.readU8();
        return utf8Atom(this.bytes, this.take(length), length);
      }
      case T.ATOM_UTF8_EXT: {
        const length = this.readU16();
        return utf8Atom(this.bytes, this.take(length), length);
      }
      case T.SMALL_ATOM_EXT: {
        const length = this.readU8();
        return latin1Atom(this.bytes, this.take(length), length);
      }
      case T.ATOM_EXT: {
        const length = this.readU16();
        return latin1Atom(this.bytes, this.take(length), length);
      }
      case T.ATOM_CACHE_REF: {
        const index = this.readU8();
        const atom = this.settings.atoms[index];
        if (atom === undefined)
          throw new BadTermError(`reference ${index} into an atom cache without it`, at);
        return atom;
      }
      default:
        throw new BadTermError(`tag ${tag} where an atom belongs`, at);
    }
  }

  private readInteger(): number | bigint {
    const at = this.offset;
    const tag = this.readU8();
    switch (tag) {
      case T.SMALL_INTEGER_EXT:
        return this.readU8();
      case T.INTEGER_EXT:
        return this.readU32() | 0;
      case T.SMALL_BIG_EXT:
      case T.LARGE_BIG_EXT: {
        const length = tag === T.SMALL_BIG_EXT ? this.readU8() : this.readU32();
        const { maxIntegerBytes } = this.settings;
        if (length > maxIntegerBytes) {
          throw new BadTermError(`an integer of ${length} bytes, where ${maxIntegerBytes} are allowed`, at);
        }
        const negative = this.readU8() !== 0;
        return readBigInteger(this.bytes, this.take(length), length, negative);
      }
      default:
        throw new BadTermError(`tag ${tag} where an integer belongs`, at);
    }
  }

  private readPid(): Pid {
    const at = this.offset;
    const tag = this.readU8();
    if (tag !== T.NEW_PID_EXT && tag !== T.PID_EXT) {
      throw new BadTermError(`tag ${tag} where a pid belongs`, at);
    }
    const node = this.readAtom();
    const id = this.readU32();
    const serial = this.readU32();
    return new Pid(node, id, serial, tag === T.PID_EXT ? this.readU8() : this.readU32());
  }

  private readPort(): Port {
    const tag = this.readU8();
    const node = this.readAtom();
    if (tag !== T.V4_PORT_EXT) {
      const id = this.readU32();
      return new Port(node, id, tag === T.PORT_EXT ? this.readU8() : this.readU32());
    }
    const high = this.readU32();
    const low = this.readU32();
    const id = high < 0x200000 ? high * 0x100000000 + low : (BigInt(high) << 32n) | BigInt(low);
    return new Port(node, id, this.readU32());
  }

  private readReference(): Reference {
    const at = this.offset;
    const tag = this.readU8();
    if (tag === T.REFERENCE_EXT) {
      const node = this.readAtom();
      const id = this.readU32();
      return new Reference(node, this.readU8(), [id]);
    }
    const length = this.readU16();
    if (length === 0 || length > T.MAX_REFERENCE_NUMBERS) {
      throw new BadTermError(`a reference of ${length} numbers`, at);
    }
    const node = this.readAtom();
    const creation = tag === T.NEW_REFERENCE_EXT ? this.readU8() : this.readU32();
    const numbers = new Array<number>(length);
    for (let i = 0; i < length; i++) numbers[i] = this.readU32();
    return new Reference(node, creation, numbers);
  }

  private readBitString(): Term {
    const at = this.offset++;
    const length = this.readU32();
    const bits = this.readU8();
    if (bits > 8 || (bits === 0) !== (length === 0)) {
      throw new BadTermError(`a bit string of ${length} bytes with ${bits} bits in the last`, at);
    }
    const bytes = this.readBytes(this.take(length), length);
    return bits === 8 || length === 0 ? bytes : new BitString(bytes, bits);
  }

  private readExport(): ExportFun {
    this.offset++;
    const module = this.readAtom();
    const fun = this.readAtom();
    const at = this.offset;
    const arity = this.readInteger();
    if (typeof arity === "bigint" || arity < 0 || arity > 255) throw new BadTermError(`arity ${arity}`, at);
    return new ExportFun(module, fun, arity);
  }

  private readOldFloat(): ErlFloat {
    const at = this.offset++;
    const from = this.take(31);
    const text = String.fromCharCode(...this.bytes.subarray(from, from + 31)).replace(/\0[^]*$/, "");
    const value = Number(text);
    if (!/^ *[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?$/.test(text) || !Number.isFinite(value)) {
      throw new BadTermError("a float that is none", at);
    }
    return new ErlFloat(value);
  }

  /** Reads a fun up to its free variables. */
  private readFunHeader(): { size: number; finish: (items: Term[]) => Fun } {
    const start = this.offset;
    const length = this.readU32();
    const arity = this.readU8();
    const uniqAt = this.take(16);
    const uniq = this.bytes.slice(uniqAt, uniqAt + 16);
    const index = this.readU32();
    const size = this.readU32();
    const module = this.readAtom();
    const at = this.offset;
    const oldIndex = this.readInteger();
    const oldUniq = this.readInteger();
    if (typeof oldIndex === "bigint" || typeof oldUniq === "bigint") {
      throw new BadTermError("a fun whose old index or old uniq is too large", at);
    }
    const pid = this.readPid();
    const finish = (freeVars: Term[]): Fun => {
      if (this.offset - start !== length) {
        throw new BadTermError(`a fun of ${this.offset - start} bytes that claims ${length}`, start);
      }
      return new Fun({ module, arity, index, uniq, oldIndex, oldUniq, pid, freeVars });
    };
    return { size, finish };
  }

  /** Reads a native record up to its values. */
  private readRecordHeader(): { size: number; finish: (items: Term[]) => NativeRecord } {
    const at = this.offset;
    const size = this.readU32();
    const flags = this.readU8();
    const module = this.readAtom();
    const name = this.readAtom();
    // A name has two bytes at least, a value one.
    if (size > (this.bytes.length - this.offset) / 3) throw tooMany(size, at);
    const fields: Atom[] = [];
    for (let i = 0; i < size; i++) fields.push(this.readAtom());
    if (new Set(fields).size !== size) throw new BadTermError("a native record with a field twice", at);
    return { size, finish: (values) => new NativeRecord(module, name, flags, fields, values) };
  }
}

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

function cutOff(end: number): BadTermError {
  return new BadTermError("a term is cut off", end);
}

function tooMany(count: number, at: number): BadTermError {
  return new BadTermError(`${count} elements cannot be in the bytes that follow`, at);
}

/** A `Buffer` as plain `Uint8Array`: `slice` of a Buffer shares memory and would not copy. */
function plain(bytes: Uint8Array): Uint8Array {
  return bytes.constructor === Uint8Array
    ? bytes
    : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
