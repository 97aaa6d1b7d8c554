/** Whether memory grows: the slope of a straight line through samples, as a row. */
import type { Row } from "../row";
import { slopeEstimate } from "./statistics";

const KIB = 1024;
/** Growth over the whole run that is no growth, whatever the interval says: a page here and there. */
const NEGLIGIBLE = 0.005;

/** `at`: when each sample was taken, in `unit`s. Fails when the slope is above 0 with confidence and more than half a percent over the whole run. */
export function growthRow(what: string, unit: string, at: readonly number[], bytes: readonly number[]): Row {
  const { value, low, high } = slopeEstimate(at, bytes);
  const span = (at.at(-1) ?? NaN) - (at[0] ?? NaN);
  const mean = bytes.reduce((sum, each) => sum + each, 0) / bytes.length;
  const kib = (slope: number): string => (slope / KIB).toFixed(2);
  return {
    what,
    target: "no slope",
    measured: `${kib(value)} KiB a ${unit} (${kib(low)} … ${kib(high)}), ${((100 * value * span) / mean).toFixed(1)} % of ${(mean / KIB / KIB).toFixed(1)} MiB in all`,
    value,
    ok: low <= 0 || value * span < NEGLIGIBLE * mean,
  };
}
