/** Where a term ends, without decoding it. Allocates nothing, except to inflate a compressed term. */
import { BadTermError } from "../errors";
import { inflateTerm } from "./inflate";
import * as T from "./tags";

/** Largest inflated size of a compressed term that is skipped. */
const MAX_INFLATED_BYTES = 64 * 1024 * 1024;

/**
 * The offset after the term at `offset`, which may or may not start with a version byte. Checks that the bytes are there and that
 * tags and counts make sense; not what `decode` also checks (text of atoms, keys of maps …).
 * @throws BadTermError `BT_BAD_TERM`
 */
export function skipTerm(bytes: Uint8Array, offset = 0): number {
  let at = offset;
  if (bytes[at] === T.VERSION) {
    at++;
    if (bytes[at] === T.COMPRESSED) return inflateTerm(bytes, at + 1, MAX_INFLATED_BYTES).next;
    if (bytes[at] === T.LOCAL_EXT) return bytes.length;
  }
  const end = bytes.length;
  // Terms still to be skipped; each has a byte at least.
  let left = 1;
  while (left > 0) {
    if (left > end - at) throw new BadTermError("a term is cut off", end);
    left--;
    const tag = bytes[at]!;
    const head = headLength(tag);
    if (head === 0) throw new BadTermError(`unknown tag ${tag}`, at);
    if (head > end - at) throw new BadTermError("a term is cut off", end);
    const from = at;
    at += head;
    switch (tag) {
      case T.ATOM_EXT:
      case T.ATOM_UTF8_EXT:
      case T.STRING_EXT:
        at += u16(bytes, from + 1);
        break;
      case T.SMALL_ATOM_EXT:
      case T.SMALL_ATOM_UTF8_EXT:
      case T.SMALL_BIG_EXT:
        at += bytes[from + 1]!;
        break;
      case T.BINARY_EXT:
      case T.BIT_BINARY_EXT:
      case T.LARGE_BIG_EXT:
        at += u32(bytes, from + 1);
        break;
      case T.SMALL_TUPLE_EXT:
        left += bytes[from + 1]!;
        break;
      case T.LARGE_TUPLE_EXT:
        left += u32(bytes, from + 1);
        break;
      case T.LIST_EXT:
        left += u32(bytes, from + 1) + 1;
        break;
      case T.MAP_EXT:
        left += 2 * u32(bytes, from + 1);
        break;
      case T.RECORD_EXT:
        left += 2 * u32(bytes, from + 1) + 2;
        break;
      case T.EXPORT_EXT:
        left += 3;
        break;
      case T.NEW_FUN_EXT:
        at = from + 1 + Math.max(29, u32(bytes, from + 1));
        break;
      case T.NEW_PID_EXT:
        at = skipNode(bytes, at) + 12;
        break;
      case T.PID_EXT:
      case T.NEW_PORT_EXT:
        at = skipNode(bytes, at) + (tag === T.PID_EXT ? 9 : 8);
        break;
      case T.PORT_EXT:
      case T.REFERENCE_EXT:
        at = skipNode(bytes, at) + 5;
        break;
      case T.V4_PORT_EXT:
        at = skipNode(bytes, at) + 12;
        break;
      case T.NEWER_REFERENCE_EXT:
        at = skipNode(bytes, at) + 4 + 4 * u16(bytes, from + 1);
        break;
      case T.NEW_REFERENCE_EXT:
        at = skipNode(bytes, at) + 1 + 4 * u16(bytes, from + 1);
        break;
    }
    if (at > end) throw new BadTermError("a term is cut off", end);
  }
  return at;
}

/** Steps over the node name of an identifier. */
function skipNode(bytes: Uint8Array, at: number): number {
  switch (bytes[at]) {
    case T.SMALL_ATOM_UTF8_EXT:
    case T.SMALL_ATOM_EXT:
      return at + 2 + (bytes[at + 1] ?? 0);
    case T.ATOM_UTF8_EXT:
    case T.ATOM_EXT:
      return at + 3 + (at + 3 > bytes.length ? 0 : u16(bytes, at + 1));
    case T.ATOM_CACHE_REF:
      return at + 2;
    default:
      throw new BadTermError("an identifier without node name", at);
  }
}

/** Bytes of a term up to its first part of variable size, tag included; 0 for unknown tags. */
function headLength(tag: number): number {
  switch (tag) {
    case T.NIL_EXT:
    case T.EXPORT_EXT:
    case T.NEW_PID_EXT:
    case T.PID_EXT:
    case T.NEW_PORT_EXT:
    case T.PORT_EXT:
    case T.V4_PORT_EXT:
    case T.REFERENCE_EXT:
      return 1;
    case T.SMALL_INTEGER_EXT:
    case T.SMALL_TUPLE_EXT:
    case T.SMALL_ATOM_EXT:
    case T.SMALL_ATOM_UTF8_EXT:
    case T.ATOM_CACHE_REF:
      return 2;
    case T.ATOM_EXT:
    case T.ATOM_UTF8_EXT:
    case T.STRING_EXT:
    case T.SMALL_BIG_EXT:
    case T.NEWER_REFERENCE_EXT:
    case T.NEW_REFERENCE_EXT:
      return 3;
    case T.INTEGER_EXT:
    case T.LARGE_TUPLE_EXT:
    case T.LIST_EXT:
    case T.MAP_EXT:
    case T.BINARY_EXT:
    case T.NEW_FUN_EXT:
      return 5;
    case T.BIT_BINARY_EXT:
    case T.LARGE_BIG_EXT:
    case T.RECORD_EXT:
      return 6;
    case T.NEW_FLOAT_EXT:
      return 9;
    case T.FLOAT_EXT:
      return 32;
    default:
      return 0;
  }
}

function u16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
