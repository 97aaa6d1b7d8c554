/**
 * A cursor over the bytes of a term, and the readers of all that is not in the decoder's hot loop: identifiers, funs, integers of
 * any size, forms that only old nodes write. Each checks its own bounds.
 */
import { BadTermError } from "../errors";
import {
  type Atom,
  BitString,
  ErlFloat,
  ExportFun,
  Fun,
  NativeRecord,
  Pid,
  Port,
  Reference,
  type Term,
} from "../term";
import { latin1Atom, utf8Atom } from "./atom-cache";
import { readBigInteger } from "./big-integer";
import { type DecodeOptions, type DecodeSettings, decodeSettings } from "./decode-options";
import * as T from "./tags";

export const EMPTY_BINARY = new Uint8Array(0);

/** Binaries up to this length are copied byte by byte, which is faster than a call. */
const COPIED_BY_HAND = 48;

/** Reads single parts of terms; `Decoder` is built on it. */
export class TermReader {
  protected readonly settings: DecodeSettings;
  protected bytes: Uint8Array = EMPTY_BINARY;
  protected offset = 0;

  constructor(options: DecodeOptions = {}) {
    this.settings = decodeSettings(options);
  }

  /** The terms that are too rare for the loop. `offset` is at the tag. */
  protected readRare(tag: number): Term {
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

  protected readBytes(from: number, length: number): Uint8Array {
    if (length === 0) return EMPTY_BINARY;
    const { bytes } = this;
    if (!this.settings.copyBinaries) return new Uint8Array(bytes.buffer, bytes.byteOffset + from, length);
    if (length > COPIED_BY_HAND) return bytes.slice(from, from + length);
    const copy = new Uint8Array(length);
    for (let i = 0; i < length; i++) copy[i] = bytes[from + i]!;
    return copy;
  }

  /** Steps over `length` bytes and returns where they start. */
  protected take(length: number): number {
    const from = this.offset;
    if (length > this.bytes.length - from) throw cutOff(this.bytes.length);
    this.offset = from + length;
    return from;
  }

  protected readU8(): number {
    return this.bytes[this.take(1)]!;
  }

  protected readU16(): number {
    const at = this.take(2);
    return (this.bytes[at]! << 8) | this.bytes[at + 1]!;
  }

  protected readU32(): number {
    return u32(this.bytes, this.take(4));
  }

  protected readAtom(): Atom {
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

  protected readInteger(): number | bigint {
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

  protected readPid(): Pid {
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

  protected readPort(): Port {
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

  protected readReference(): Reference {
    const at = this.offset;
    const tag = this.readU8();
    if (tag === T.REFERENCE_EXT) {
      const node = this.readAtom();
      const id = this.readU32();
      return new Reference(node, this.readU8(), [id]);
    }
    const length = this.readU16();
    if (length > T.MAX_REFERENCE_NUMBERS) {
      throw new BadTermError(`a reference of ${length} numbers`, at);
    }
    const node = this.readAtom();
    const creation = tag === T.NEW_REFERENCE_EXT ? this.readU8() : this.readU32();
    const numbers = new Array<number>(length);
    for (let i = 0; i < length; i++) numbers[i] = this.readU32();
    return new Reference(node, creation, numbers);
  }

  protected readBitString(): Term {
    const at = this.offset++;
    const length = this.readU32();
    const bits = this.readU8();
    if (bits > 8 || (bits === 0) !== (length === 0)) {
      throw new BadTermError(`a bit string of ${length} bytes with ${bits} bits in the last`, at);
    }
    const bytes = this.readBytes(this.take(length), length);
    return bits === 8 || length === 0 ? bytes : new BitString(bytes, bits);
  }

  protected readExport(): ExportFun {
    this.offset++;
    const module = this.readAtom();
    const fun = this.readAtom();
    const at = this.offset;
    const arity = this.readInteger();
    if (typeof arity === "bigint" || arity < 0 || arity > 255) throw new BadTermError(`arity ${arity}`, at);
    return new ExportFun(module, fun, arity);
  }

  protected readOldFloat(): ErlFloat {
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
  protected readFunHeader(): { size: number; finish: (items: Term[]) => Fun } {
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
  protected readRecordHeader(): { size: number; finish: (items: Term[]) => NativeRecord } {
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

/** Unsigned 32 bits, big-endian. */
export function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** The bytes end within a term. */
export function cutOff(end: number): BadTermError {
  return new BadTermError("a term is cut off", end);
}

/** A count that the bytes which follow can't satisfy. */
export function tooMany(count: number, at: number): BadTermError {
  return new BadTermError(`${count} elements cannot be in the bytes that follow`, at);
}
