/** Floats as text, as `float_to_list(F, [short])` of OTP 25 and later writes them. */

/** Beyond this, whole floats are no longer exact and always written with an exponent. */
const EXACT = 2 ** 53;

/** The shortest text that reads back as the same float; always with a decimal point. */
export function floatText(value: number): string {
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  const magnitude = Math.abs(value);
  if (magnitude === 0) return `${sign}0.0`;
  // "d.ddde±x" with the fewest digits that round-trip.
  const [mantissa = "", exponentText = ""] = magnitude.toExponential().split("e");
  const exponent = Number(exponentText);
  const digits = mantissa.replace(".", "");
  const scientific = `${digits[0]}.${digits.slice(1) || "0"}e${exponent}`;
  if (magnitude >= EXACT) return sign + scientific;
  const decimal = decimalText(digits, exponent);
  return sign + (decimal.length <= scientific.length ? decimal : scientific);
}

/** The same in Elixir's `inspect/1`, which writes whole numbers below 1.0e16 in full. */
export function elixirFloatText(value: number): string {
  const magnitude = Math.abs(value);
  if (magnitude >= 1 && magnitude < 1e16 && Number.isInteger(value)) return `${value}.0`;
  return floatText(value);
}

function decimalText(digits: string, exponent: number): string {
  if (exponent < 0) return `0.${"0".repeat(-exponent - 1)}${digits}`;
  if (digits.length <= exponent + 1) return `${digits}${"0".repeat(exponent + 1 - digits.length)}.0`;
  return `${digits.slice(0, exponent + 1)}.${digits.slice(exponent + 1)}`;
}
