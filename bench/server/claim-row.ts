/** A figure with its interval against a bound: met only when the whole interval lies within, and told apart from what the noise leaves open. */
import type { Row } from "../row";
import { formatEstimate, type Estimate } from "./statistics";

export interface Claim {
  readonly what: string;
  readonly estimate: Estimate;
  /** Upper bound. */
  readonly bound: number;
  readonly target?: string;
  readonly format?: (estimate: Estimate) => string;
}

/** The row of a claim that a figure is at most `bound`. */
export function claimRow({ what, estimate, bound, target, format = formatEstimate }: Claim): Row {
  const open = estimate.value <= bound && !(estimate.high <= bound);
  return {
    what,
    target: target ?? `≤ ${bound.toFixed(2)}`,
    measured: `${format(estimate)}${open ? ", open: the interval reaches past the target" : ""}`,
    value: estimate.value,
    ok: estimate.high <= bound,
  };
}
