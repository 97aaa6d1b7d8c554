/**
 * The payload area as bytes: a ring of 8-byte units. A payload begins at a unit and may wrap around the end of the area.
 * Positions are units modulo 2^32; the size of the area is a power of two, so a position maps to one place for ever.
 */

/** Units of 8 bytes that so many bytes take. */
export function payloadUnitsOf(bytes: number): number {
  return (bytes + 7) >>> 3;
}

/** Below this many bytes a plain loop beats a typed array's `set`, which needs a view. */
const SHORT = 48;

function copy(from: Uint8Array, start: number, end: number, into: Uint8Array, at: number): void {
  if (end - start <= SHORT) {
    for (let i = start, o = at; i < end; i++, o++) into[o] = from[i] as number;
  } else {
    into.set(from.subarray(start, end), at);
  }
}

/** Copies `bytes[from, to)` into the area at a position. */
export function copyIn(
  area: Uint8Array,
  position: number,
  bytes: Uint8Array,
  from: number,
  to: number,
): void {
  const at = (position & (area.length / 8 - 1)) * 8;
  const first = Math.min(to - from, area.length - at);
  copy(bytes, from, from + first, area, at);
  if (from + first < to) copy(bytes, from + first, to, area, 0);
}

/** Copies `length` bytes at a position out of the area. */
export function copyOut(area: Uint8Array, position: number, length: number, into: Uint8Array): void {
  const at = (position & (area.length / 8 - 1)) * 8;
  const first = Math.min(length, area.length - at);
  copy(area, at, at + first, into, 0);
  if (first < length) copy(area, 0, length - first, into, first);
}
