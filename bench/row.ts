/** One line of a benchmark's result: what was measured, what it should be, what it is. */
export interface Row {
  /** What is measured, in words. */
  readonly what: string;
  /** What it should be, in words; empty for a figure that is only reported. */
  readonly target: string;
  /** What was found, with unit and confidence interval. */
  readonly measured: string;
  /** The figure by itself. */
  readonly value: number;
  /** Whether the target is met. Always true for a figure that is only reported. */
  readonly ok: boolean;
}
