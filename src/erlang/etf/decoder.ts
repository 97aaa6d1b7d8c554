/**
 * Bytes of the external term format to terms. One loop with its own stack of open containers: nesting costs no JavaScript
 * stack, and no container is allocated before the bytes that its elements need at least are known to be there.
 * The input is only read; whether binaries share its memory is an option.
 */
import { BadTermError } from "../errors";
import { ErlFloat, ErlMap, ImproperList, LocalExt, type Term, Tuple } from "../term";
import { utf8Atom } from "./atom-cache";
import { DistinctKeys } from "./distinct-keys";
import { inflateTerm } from "./inflate";
import * as T from "./tags";
import { cutOff, EMPTY_BINARY, TermReader, tooMany, u32 } from "./term-reader";

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

/** Arrays up to this length are allocated at once, longer ones grow with their elements. */
const PREALLOCATED = 1 << 16;
/** Frames kept for the next term. */
const KEPT_FRAMES = 256;

const doubleBytes = new Uint8Array(8);
const double = new DataView(doubleBytes.buffer);

/** Decodes terms; reusable, one term at a time. */
export class Decoder extends TermReader {
  /** After a call: the offset after the term. */
  next = 0;

  private readonly frames: Frame[] = [];
  private readonly distinctKeys = new DistinctKeys();

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
      this.distinctKeys.clear();
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
          case Open.Map:
            if (!this.distinctKeys.in(items)) throw new BadTermError("a map with a key twice", start);
            term = new ErlMap(items);
            break;
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
}

/** A `Buffer` as plain `Uint8Array`: `slice` of a Buffer shares memory and would not copy. */
function plain(bytes: Uint8Array): Uint8Array {
  return bytes.constructor === Uint8Array
    ? bytes
    : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
