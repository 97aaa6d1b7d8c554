/**
 * From the bytes of an atom to the atom. A small direct-mapped cache, compared byte by byte, stands before the atom table:
 * nearly all atoms of a stream are the same few hundred, and making a string costs several times as much as finding one here.
 */
import { BadTermError } from "../errors";
import { Atom, MAX_ATOM_LENGTH } from "../term/atom";

const SLOTS = 2048;
/** Longer names bypass the cache. */
const MAX_CACHED_BYTES = 62;
const STRIDE = 64;

/** Per slot: the length plus one, then the bytes. */
const names = new Uint8Array(SLOTS * STRIDE);
const atoms = new Array<Atom | undefined>(SLOTS).fill(undefined);
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The atom whose UTF-8 name is `bytes[from, from + length)`; the caller has checked the bounds. */
export function utf8Atom(bytes: Uint8Array, from: number, length: number): Atom {
  if (length > MAX_CACHED_BYTES) return uncachedUtf8(bytes, from, length);
  let hash = length;
  for (let i = from, end = from + length; i < end; i++) hash = (Math.imul(hash, 31) + bytes[i]!) | 0;
  const slot = (hash ^ (hash >>> 11) ^ (hash >>> 22)) & (SLOTS - 1);
  const base = slot * STRIDE;
  hit: if (names[base] === length + 1) {
    for (let i = 0; i < length; i++) if (names[base + 1 + i] !== bytes[from + i]) break hit;
    return atoms[slot]!;
  }
  const atom = uncachedUtf8(bytes, from, length);
  names[base] = length + 1;
  for (let i = 0; i < length; i++) names[base + 1 + i] = bytes[from + i]!;
  atoms[slot] = atom;
  return atom;
}

/** The atom whose Latin-1 name is `bytes[from, from + length)`. */
export function latin1Atom(bytes: Uint8Array, from: number, length: number): Atom {
  if (length > MAX_ATOM_LENGTH) throw new BadTermError(`an atom of ${length} characters`, from);
  for (let i = from, end = from + length; i < end; i++) {
    if (bytes[i]! >= 0x80) return Atom.of(latin1Text(bytes, from, length));
  }
  return utf8Atom(bytes, from, length);
}

function uncachedUtf8(bytes: Uint8Array, from: number, length: number): Atom {
  // Up to four bytes a character.
  if (length > 4 * MAX_ATOM_LENGTH) throw new BadTermError(`an atom of ${length} bytes`, from);
  let name: string;
  try {
    name = utf8.decode(bytes.slice(from, from + length));
  } catch (cause) {
    throw new BadTermError("an atom that is not UTF-8", from, { cause });
  }
  try {
    return Atom.of(name);
  } catch (cause) {
    throw new BadTermError(`an atom of more than ${MAX_ATOM_LENGTH} characters`, from, { cause });
  }
}

function latin1Text(bytes: Uint8Array, from: number, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + from, length).toString("latin1");
}
