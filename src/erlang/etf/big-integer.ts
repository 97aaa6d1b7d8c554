/** Integers of any size: sign byte and little-endian magnitude (SMALL_BIG_EXT, LARGE_BIG_EXT) to and from number and bigint. */

/** The integer whose magnitude is `bytes[from, from + length)`: a number when it is a safe one. */
export function readBigInteger(
  bytes: Uint8Array,
  from: number,
  length: number,
  negative: boolean,
): number | bigint {
  while (length > 0 && bytes[from + length - 1] === 0) length--;
  if (length <= 6) {
    let value = 0;
    for (let i = from + length - 1; i >= from; i--) value = value * 256 + bytes[i]!;
    return negative && value !== 0 ? -value : value;
  }
  let magnitude: bigint;
  if (length <= 8) {
    let high = 0;
    for (let i = from + length - 1; i >= from + 4; i--) high = high * 256 + bytes[i]!;
    const low =
      bytes[from]! + bytes[from + 1]! * 0x100 + bytes[from + 2]! * 0x10000 + bytes[from + 3]! * 0x1000000;
    if (high < 0x200000) {
      const value = high * 0x100000000 + low;
      return negative ? -value : value;
    }
    magnitude = (BigInt(high) << 32n) | BigInt(low);
  } else {
    const bigEndian = Buffer.from(bytes.subarray(from, from + length)).reverse();
    magnitude = BigInt(`0x${bigEndian.toString("hex")}`);
  }
  return negative ? -magnitude : magnitude;
}

/** Little-endian bytes of a magnitude, without leading zeros. */
export function magnitudeBytes(magnitude: bigint): Uint8Array {
  const hex = magnitude.toString(16);
  return Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex").reverse();
}
