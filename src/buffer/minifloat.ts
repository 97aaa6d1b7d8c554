/**
 * 12-bit floats (exponent:5, mantissa:7) for non-negative word counts: exact up to 255, above that rounded up with a relative error
 * of at most 1/128. Two of them fit the upper 24 bits of a gc event's flags word.
 */

/** Largest value that a minifloat holds. */
export const MINIFLOAT_MAX = 255 * 2 ** 30;

/** Nearest minifloat that is not smaller than `value`; saturates at `MINIFLOAT_MAX`, and at 0 for what is negative or NaN. */
export function toMinifloat(value: number): number {
  if (!(value > 0)) return 0;
  if (value >= MINIFLOAT_MAX) return 0xfff;
  if (value <= 127) return Math.ceil(value);
  let exponent = 1;
  let mantissa = value;
  while (mantissa > 255) {
    mantissa /= 2;
    exponent++;
  }
  mantissa = Math.ceil(mantissa);
  return (exponent << 7) | (mantissa - 128);
}

/** Value of a minifloat. */
export function fromMinifloat(bits: number): number {
  const exponent = (bits >>> 7) & 31;
  const mantissa = bits & 127;
  return exponent === 0 ? mantissa : (128 + mantissa) * 2 ** (exponent - 1);
}
