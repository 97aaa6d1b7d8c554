/** Whether memory grows: the slope of a straight line through samples, as a row; and live objects, as a count. */
import type { Row } from "../row";
import { slopeEstimate, type Estimate } from "./statistics";

const KIB = 1024;
/** Growth over the whole run that is within the noise of an allocator, whatever the interval says. */
const NEGLIGIBLE = 0.02;
const NEGLIGIBLE_BYTES = 256 * KIB;

export interface Growth {
  readonly what: string;
  /** Name of a step: `minute`, `time`. */
  readonly unit: string;
  /** When each sample was taken, in units. */
  readonly at: readonly number[];
  readonly bytes: readonly number[];
  /** Slope that is not ours: what the VM loses by itself, measured in the same run. */
  readonly control?: Estimate;
  /** Only reported: what compiled code adds to a heap is not a leak, see `objectsRow`. */
  readonly informative?: boolean;
}

/** Fails when the slope is above 0 (or above the control's) with confidence and more than two percent of the mean (or 256 KiB) over the whole run. */
export function growthRow({ what, unit, at, bytes, control, informative = false }: Growth): Row {
  const { value, low, high } = slopeEstimate(at, bytes);
  const span = (at.at(-1) ?? NaN) - (at[0] ?? NaN);
  const mean = bytes.reduce((sum, each) => sum + each, 0) / bytes.length;
  const kib = (slope: number): string => (slope / KIB).toFixed(2);
  const excess = value - (control?.value ?? 0);
  return {
    what,
    target: informative
      ? ""
      : control
        ? `no slope beyond the VM's own, ${kib(control.value)} KiB a ${unit}`
        : "no slope",
    measured: `${kib(value)} KiB a ${unit} (${kib(low)} … ${kib(high)}), ${((100 * value * span) / mean).toFixed(1)} % of ${(mean / KIB / KIB).toFixed(1)} MiB in all`,
    value,
    ok:
      informative ||
      low <= (control?.high ?? 0) ||
      excess * span < Math.max(NEGLIGIBLE * mean, NEGLIGIBLE_BYTES),
  };
}

/** Fails when the client holds more objects than before by more than `allowed`. */
export function objectsRow(what: string, before: number, after: number, allowed: number): Row {
  const by = after - before;
  return {
    what,
    target: `no growth (at most ${allowed}, the samples among them)`,
    measured: `${by >= 0 ? "+" : "−"}${Math.abs(by)} of ${before}`,
    value: by,
    ok: by <= allowed,
  };
}
