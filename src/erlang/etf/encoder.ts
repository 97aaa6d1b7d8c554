/**
 * Terms to bytes of the external term format, as `term_to_binary(T, [{minor_version, 2}])` writes them. Appends to one growing
 * buffer, so that several terms and a frame's header lie in a row. Like the decoder it keeps its own stack: nesting costs no JavaScript stack.
 */
import { BeamtraceError } from "../errors";
import {
  Atom,
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
import { maskedBytes } from "../term/masked-bytes";
import { magnitudeBytes } from "./big-integer";
import { ByteWriter } from "./byte-writer";
import * as T from "./tags";

/** Options of `encode` and `Encoder`. */
export interface EncodeOptions {
  /**
   * `utf8` (default): as OTP 26 and later write atoms, and what every peer of the distribution reads. `latin1`: as
   * `term_to_binary/1` of OTP 25 and earlier does, for bytes that must be equal to theirs.
   */
  readonly atoms?: "utf8" | "latin1";
  /** OTP release whose bytes are wanted; default 26. Earlier ones write ports of up to 28 bits in a shorter form. All read both. */
  readonly release?: number;
}

/** Terms nested deeper than this are taken for cyclic. */
const MAX_DEPTH = 1_000_000;
const KEPT_FRAMES = 256;
const NONE: readonly Term[] = [];
const utf8 = new TextEncoder();
const double = new DataView(new ArrayBuffer(8));
const doubleBytes = new Uint8Array(double.buffer);

/** A container whose parts are being written. */
class Frame {
  items: readonly Term[] = NONE;
  next = 0;
  after = NOTHING;
}

/** What follows the last part of a container: nothing, `[]`, or the size of a fun at this position. */
const NOTHING = -1;
const NIL = -2;

/** Appends terms to a buffer. */
export class Encoder extends ByteWriter {
  private readonly latin1: boolean;
  private readonly shortPorts: boolean;
  private readonly frames: Frame[] = [];

  constructor(options: EncodeOptions & { readonly initialBytes?: number } = {}) {
    super(options.initialBytes);
    this.latin1 = options.atoms === "latin1";
    this.shortPorts = options.release !== undefined && options.release < 26;
  }

  /**
   * Appends a term with its version byte.
   * @throws BeamtraceError `BT_NOT_ENCODABLE` for values that are no terms; what was written before then stands, and nothing more.
   */
  term(term: Term): this {
    const start = this.used;
    this.u8(T.VERSION);
    if (term instanceof LocalExt) {
      this.u8(T.LOCAL_EXT).raw(term.bytes);
      return this;
    }
    return this.run(term, start);
  }

  /** Appends a term without version byte. */
  bareTerm(term: Term): this {
    return this.run(term, this.used);
  }

  private run(term: Term, start: number): this {
    try {
      this.write(term);
      return this;
    } catch (error) {
      this.used = start;
      throw error;
    } finally {
      if (this.frames.length > KEPT_FRAMES) this.frames.length = KEPT_FRAMES;
    }
  }

  // Long because it is the hot loop: the innermost container lives in locals.
  private write(root: Term): void {
    const { frames } = this;
    let items: readonly Term[] = [root];
    let next = 0;
    let after = NOTHING;
    let depth = 0;

    for (;;) {
      while (next === items.length) {
        if (after === NIL) this.u8(T.NIL_EXT);
        else if (after !== NOTHING) this.putU32(after, this.used - after);
        if (depth === 0) return;
        const frame = frames[--depth]!;
        items = frame.items;
        next = frame.next;
        after = frame.after;
        frame.items = NONE;
      }

      const term = items[next++]!;
      let parts: readonly Term[];
      let closing = NOTHING;
      if (typeof term === "number") {
        this.integer(term);
        continue;
      }
      if (term instanceof Atom) {
        this.atom(term);
        continue;
      }
      if (term instanceof Tuple) {
        parts = term.elements;
        if (parts.length < 256) this.u8(T.SMALL_TUPLE_EXT).u8(parts.length);
        else this.u8(T.LARGE_TUPLE_EXT).u32(parts.length);
      } else if (term instanceof Uint8Array) {
        this.u8(T.BINARY_EXT).u32(term.length).raw(term);
        continue;
      } else if (Array.isArray(term)) {
        parts = term as readonly Term[];
        if (parts.length === 0) {
          this.u8(T.NIL_EXT);
          continue;
        }
        if (isByteList(parts)) {
          this.string(parts);
          continue;
        }
        this.u8(T.LIST_EXT).u32(parts.length);
        closing = NIL;
      } else if (term instanceof ErlMap) {
        parts = term.flat;
        this.u8(T.MAP_EXT).u32(parts.length / 2);
      } else if (term instanceof ImproperList) {
        parts = [...term.elements, term.tail];
        this.u8(T.LIST_EXT).u32(term.elements.length);
      } else if (term instanceof Fun) {
        closing = this.funHeader(term);
        parts = term.freeVars;
      } else if (term instanceof NativeRecord) {
        this.recordHeader(term);
        parts = term.values;
      } else {
        this.leaf(term);
        continue;
      }

      if (depth >= MAX_DEPTH) {
        throw notEncodable(`a term nested deeper than ${MAX_DEPTH}: does it contain itself?`);
      }
      const frame = (frames[depth] ??= new Frame());
      depth++;
      frame.items = items;
      frame.next = next;
      frame.after = after;
      items = parts;
      next = 0;
      after = closing;
    }
  }

  private leaf(term: Term): void {
    if (typeof term === "bigint") this.bigInteger(term);
    else if (term instanceof ErlFloat) this.float(term.value);
    else if (term instanceof Pid) this.pid(term);
    else if (term instanceof Reference) this.reference(term);
    else if (term instanceof Port) this.port(term);
    else if (term instanceof BitString) this.bitString(term);
    else if (term instanceof ExportFun) {
      this.u8(T.EXPORT_EXT);
      this.atom(term.module);
      this.atom(term.function);
      this.u8(T.SMALL_INTEGER_EXT).u8(unsigned(term.arity, 0xff, "arity"));
    } else throw notATerm(term);
  }

  private integer(value: number): void {
    if (value >= 0 && value <= 255 && (value | 0) === value) {
      const at = this.reserve(2);
      this.buffer[at] = T.SMALL_INTEGER_EXT;
      this.buffer[at + 1] = value;
    } else if ((value | 0) === value) {
      const at = this.reserve(5);
      this.buffer[at] = T.INTEGER_EXT;
      this.putU32(at + 1, value);
    } else if (Number.isSafeInteger(value)) {
      let magnitude = Math.abs(value);
      const at = this.reserve(3);
      this.buffer[at] = T.SMALL_BIG_EXT;
      this.buffer[at + 2] = value < 0 ? 1 : 0;
      let length = 0;
      for (; magnitude > 0; length++) {
        this.u8(magnitude % 256);
        magnitude = Math.floor(magnitude / 256);
      }
      this.buffer[at + 1] = length;
    } else {
      throw notEncodable(
        Number.isInteger(value)
          ? `${value} is beyond the integers that a number holds exactly: give a bigint`
          : `${value} is no integer: give float(${value})`,
      );
    }
  }

  private bigInteger(value: bigint): void {
    if (value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER) {
      this.integer(Number(value));
      return;
    }
    const bytes = magnitudeBytes(value < 0n ? -value : value);
    if (bytes.length < 256) this.u8(T.SMALL_BIG_EXT).u8(bytes.length);
    else this.u8(T.LARGE_BIG_EXT).u32(bytes.length);
    this.u8(value < 0n ? 1 : 0).raw(bytes);
  }

  private float(value: number): void {
    double.setFloat64(0, value);
    this.u8(T.NEW_FLOAT_EXT).raw(doubleBytes);
  }

  private atom(atom: Atom): void {
    const { name } = atom;
    const { length } = name;
    const start = this.used;
    if (this.latin1) {
      if (this.latin1Atom(name)) return;
    } else if (length < 256) {
      const at = this.reserve(2 + length);
      const { buffer } = this;
      buffer[at] = T.SMALL_ATOM_UTF8_EXT;
      buffer[at + 1] = length;
      let i = 0;
      for (; i < length; i++) {
        const code = name.charCodeAt(i);
        if (code >= 0x80) break;
        buffer[at + 2 + i] = code;
      }
      if (i === length) return;
    }
    this.used = start;
    const bytes = utf8.encode(name);
    if (bytes.length < 256) this.u8(T.SMALL_ATOM_UTF8_EXT).u8(bytes.length);
    else this.u8(T.ATOM_UTF8_EXT).u16(bytes.length);
    this.raw(bytes);
  }

  private latin1Atom(name: string): boolean {
    const { length } = name;
    const at = this.reserve(3 + length);
    const { buffer } = this;
    buffer[at] = T.ATOM_EXT;
    buffer[at + 1] = length >>> 8;
    buffer[at + 2] = length;
    for (let i = 0; i < length; i++) {
      const code = name.charCodeAt(i);
      if (code > 0xff) return false;
      buffer[at + 3 + i] = code;
    }
    return true;
  }

  private string(codes: readonly Term[]): void {
    const { length } = codes;
    let at = this.reserve(3 + length);
    const { buffer } = this;
    buffer[at++] = T.STRING_EXT;
    buffer[at++] = length >>> 8;
    buffer[at++] = length;
    for (let i = 0; i < length; i++) buffer[at++] = Number(codes[i]);
  }

  private pid(pid: Pid): void {
    this.u8(T.NEW_PID_EXT);
    this.atom(pid.node);
    const at = this.reserve(12);
    this.putU32(at, unsigned(pid.id, 0xffffffff, "id of a pid"));
    this.putU32(at + 4, unsigned(pid.serial, 0xffffffff, "serial of a pid"));
    this.putU32(at + 8, unsigned(pid.creation, 0xffffffff, "creation"));
  }

  private port(port: Port): void {
    if (typeof port.id === "number" && !(Number.isSafeInteger(port.id) && port.id >= 0)) {
      throw notEncodable(`${port.id} as id of a port`);
    }
    if (this.shortPorts && port.id <= T.MAX_V3_PORT) {
      this.u8(T.NEW_PORT_EXT);
      this.atom(port.node);
      this.u32(Number(port.id));
    } else {
      const id = BigInt(port.id);
      if (id >> 64n !== 0n) throw notEncodable(`${id} as id of a port`);
      this.u8(T.V4_PORT_EXT);
      this.atom(port.node);
      this.u32(Number(id >> 32n)).u32(Number(id & 0xffffffffn));
    }
    this.u32(unsigned(port.creation, 0xffffffff, "creation"));
  }

  private reference(reference: Reference): void {
    const { numbers } = reference;
    if (numbers.length > T.MAX_REFERENCE_NUMBERS) {
      throw notEncodable(`a reference of ${numbers.length} numbers`);
    }
    this.u8(T.NEWER_REFERENCE_EXT).u16(numbers.length);
    this.atom(reference.node);
    this.u32(unsigned(reference.creation, 0xffffffff, "creation"));
    for (const number of numbers) this.u32(unsigned(number, 0xffffffff, "number of a reference"));
  }

  private bitString(term: BitString): void {
    this.u8(T.BIT_BINARY_EXT).u32(term.bytes.length).u8(term.bits).raw(maskedBytes(term));
  }

  /** Returns where the size goes once the free variables are written. */
  private funHeader(fun: Fun): number {
    if (fun.uniq.length !== 16) throw notEncodable("a fun whose uniq has not 16 bytes");
    this.u8(T.NEW_FUN_EXT);
    const sizeAt = this.used;
    this.u32(0)
      .u8(unsigned(fun.arity, 0xff, "arity"))
      .raw(fun.uniq)
      .u32(unsigned(fun.index, 0xffffffff, "index of a fun"))
      .u32(fun.freeVars.length);
    this.atom(fun.module);
    this.integer(fun.oldIndex);
    this.integer(fun.oldUniq);
    this.pid(fun.pid);
    return sizeAt;
  }

  private recordHeader(record: NativeRecord): void {
    this.u8(T.RECORD_EXT)
      .u32(record.fields.length)
      .u8(unsigned(record.flags, 0xff, "flags"));
    this.atom(record.module);
    this.atom(record.name);
    for (const field of record.fields) this.atom(field);
  }
}

function isByteList(list: readonly Term[]): boolean {
  const { length } = list;
  if (length > T.MAX_STRING_LENGTH) return false;
  for (let i = 0; i < length; i++) {
    const item = list[i];
    if (typeof item === "number") {
      if ((item & 0xff) !== item) return false;
    } else if (typeof item !== "bigint" || item < 0n || item > 255n) return false;
  }
  return true;
}

function unsigned(value: number, max: number, what: string): number {
  if (!(value >= 0 && value <= max) || !Number.isInteger(value)) throw notEncodable(`${value} as ${what}`);
  return value;
}

function notEncodable(message: string): BeamtraceError {
  return new BeamtraceError("BT_NOT_ENCODABLE", message);
}

function notATerm(value: unknown): BeamtraceError {
  if (value instanceof LocalExt) return notEncodable("a local term within another: it can only stand alone");
  if (typeof value === "string") {
    return notEncodable(
      `the string ${JSON.stringify(value.slice(0, 40))} is no term: give atom(), binary() or charlist()`,
    );
  }
  if (typeof value === "boolean" || value === null || value === undefined) {
    return notEncodable(`${String(value)} is no term: give atom("${String(value)}")`);
  }
  return notEncodable(`a value of type ${typeof value} is no term`);
}
