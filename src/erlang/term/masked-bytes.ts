/** The bytes of a bit string without the bits that carry no meaning. */
import type { BitString } from "./bit-string";

/** The bytes with the unused bits of the last one cleared. */
export function maskedBytes(bits: BitString): Uint8Array {
  const last = bits.bytes.length - 1;
  const value = bits.bytes[last] as number;
  const masked = value & (0xff00 >> bits.bits) & 0xff;
  if (masked === value) return bits.bytes;
  const copy = Uint8Array.from(bits.bytes);
  copy[last] = masked;
  return copy;
}
