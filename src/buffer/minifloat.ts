/**
 * 12-bit floats (exponent:5, mantissa:7) for non-negative word counts: exact up to 255, above that rounded up with a relative error
 * of at most 1/128. Two of them fit the upper 24 bits of a gc event's flags word.
 */

/** Largest value that a minifloat holds. */
export const MINIFLOAT_MAX = 255 * 2 ** 30;

/** Unit of each exponent. Tables, as a power or a division takes longer than all the rest. */
const UNITS = Float64Array.from({ length: 32 }, (_, exponent) => (exponent === 0 ? 1 : 2 ** (exponent - 1)));

/** One over each unit: powers of two, so multiplying is exact. */
const PER_UNIT = UNITS.map((unit) => 1 / unit);

/** Nearest minifloat that is not smaller than `value`; saturates at `MINIFLOAT_MAX`, and at 0 for what is negative or NaN. */
export function toMinifloat(value: number): number {
  if (!(value > 0)) return 0;
  if (value >= MINIFLOAT_MAX) return 0xfff;
  if (value <= 255) return value <= 127 ? Math.ceil(value) : 128 | (Math.ceil(value) - 128);
  // Whole units of the exponent, so that 128 to 255 of them make the value.
  const whole = Math.ceil(value);
  const exponent = 25 - (whole <= 0x1_0000_0000 ? Math.clz32(whole - 1) : -Math.ceil(Math.log2(whole) - 32));
  const mantissa = Math.ceil(value * PER_UNIT[exponent]!);
  return mantissa > 255 ? (exponent + 1) << 7 : (exponent << 7) | (mantissa - 128);
}

/** Value of a minifloat. */
export function fromMinifloat(bits: number): number {
  const exponent = (bits >>> 7) & 31;
  const mantissa = bits & 127;
  return exponent === 0 ? mantissa : (128 + mantissa) * UNITS[exponent]!;
}
