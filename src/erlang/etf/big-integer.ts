/**
 * Integers of any size: sign byte and little-endian magnitude (SMALL_BIG_EXT, LARGE_BIG_EXT) to and from number and bigint.
 * Up to eight bytes, which is what timestamps have, take one allocation: through a typed array instead of arithmetic on bigints.
 */
import { endianness } from "node:os";

const words = new Uint32Array(2);
const unsigned64 = new BigUint64Array(words.buffer);
const signed64 = new BigInt64Array(words.buffer);
const LOW = endianness() === "LE" ? 0 : 1;
const HIGH = 1 - LOW;

/** The integer whose magnitude is `bytes[from, from + length)`: a number when it is a safe one. */
export function readBigInteger(
  bytes: Uint8Array,
  from: number,
  length: number,
  negative: boolean,
): number | bigint {
  while (length > 0 && bytes[from + length - 1] === 0) length--;
  if (length > 8) {
    const bigEndian = Buffer.from(bytes.subarray(from, from + length)).reverse();
    const magnitude = BigInt(`0x${bigEndian.toString("hex")}`);
    return negative ? -magnitude : magnitude;
  }
  const split = length < 4 ? length : 4;
  let low = 0;
  let high = 0;
  for (let i = split - 1; i >= 0; i--) low = low * 256 + bytes[from + i]!;
  for (let i = length - 1; i >= 4; i--) high = high * 256 + bytes[from + i]!;
  if (high < 0x200000) {
    const value = high * 0x100000000 + low;
    return negative && value !== 0 ? -value : value;
  }
  if (!negative) {
    words[LOW] = low;
    words[HIGH] = high;
    return unsigned64[0]!;
  }
  if (high < 0x80000000) {
    // Two's complement by hand, so that the bigint is made with its sign.
    words[LOW] = -low;
    words[HIGH] = low === 0 ? -high : ~high;
    return signed64[0]!;
  }
  words[LOW] = low;
  words[HIGH] = high;
  return -unsigned64[0]!;
}

const MAX_64 = 2n ** 64n;
const eight = new Uint8Array(8);

/** Little-endian bytes of a magnitude beyond 2^53, without leading zeros. Valid until the next call. */
export function magnitudeBytes(magnitude: bigint): Uint8Array {
  if (magnitude < MAX_64) {
    unsigned64[0] = magnitude;
    let low = words[LOW]!;
    let high = words[HIGH]!;
    let length = 4;
    for (let i = 0; i < 4; i++, low >>>= 8) eight[i] = low;
    for (; high > 0; high >>>= 8) eight[length++] = high;
    return length === 8 ? eight : eight.subarray(0, length);
  }
  const hex = magnitude.toString(16);
  return Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex").reverse();
}
