/** What the blocks of an experiment say: figures of a variant, and what it adds to the base of the same round. */
import type { Block } from "./block";
import { bootstrap, median, medianEstimate, type Estimate } from "./statistics";

export interface Comparison {
  readonly blocks: readonly Block[];
  readonly voided: number;
}

const of = (blocks: readonly Block[], variant: string): readonly Block[] =>
  blocks.filter((block) => block.variant === variant);

/** CPU per unit of a variant. */
export const cpuPerUnit = ({ blocks }: Comparison, variant: string): Estimate =>
  medianEstimate(of(blocks, variant).map((block) => block.cpuPerUnit));

/** CPU per unit by variant of one round. */
type Round = ReadonlyMap<string, number>;

function rounds({ blocks }: Comparison): Round[] {
  const result = new Map<number, Map<string, number>>();
  for (const block of blocks) {
    const round = result.get(block.round) ?? new Map<string, number>();
    result.set(block.round, round.set(block.variant, block.cpuPerUnit));
  }
  return [...result.values()];
}

/**
 * What a variant makes of a unit's CPU: the median over rounds of its ratio to the same round's base. A crowd on the machine (caches, clock,
 * sibling threads) slows all blocks of a round by about the same factor, which a ratio cancels and a difference does not.
 */
const factor = (of: readonly Round[], variant: string, base: string): number =>
  median(of.map((round) => (round.get(variant) ?? NaN) / (round.get(base) ?? NaN)));

const baseCpu = (of: readonly Round[], base: string): number =>
  median(of.map((round) => round.get(base) ?? NaN));

/** What a variant adds to a unit's CPU, as a share of the base; the interval resamples whole rounds. */
export const addedShare = (comparison: Comparison, variant: string, base: string): Estimate =>
  bootstrap(rounds(comparison), (sample) => factor(sample, variant, base) - 1);

/** CPU per unit that a variant adds to the base: (its factor − 1) × the base's median. */
export const addedCpu = (comparison: Comparison, variant: string, base: string): Estimate =>
  bootstrap(rounds(comparison), (sample) => (factor(sample, variant, base) - 1) * baseCpu(sample, base));

/** (added CPU of `variant`) ÷ (added CPU of `reference`); the interval resamples whole rounds. */
export const addedRatio = (
  comparison: Comparison,
  variant: string,
  reference: string,
  base: string,
): Estimate =>
  bootstrap(
    rounds(comparison),
    (sample) => (factor(sample, variant, base) - 1) / (factor(sample, reference, base) - 1),
  );

/** Median of a figure of a variant's blocks; undefined where the variant does not count. */
export function figure(
  { blocks }: Comparison,
  variant: string,
  field: "eventsPerUnit" | "lostPerUnit" | "unitsPerSecond" | "cpus" | "foreign",
): number | undefined {
  const values = of(blocks, variant).map((block) => block[field]);
  return values.some((value) => value === undefined) ? undefined : median(values as number[]);
}

/** Nanoseconds that a variant adds an event; undefined for one that does not count events. */
export function addedPerEvent(comparison: Comparison, variant: string, base: string): Estimate | undefined {
  const events = figure(comparison, variant, "eventsPerUnit");
  if (events === undefined) return undefined;
  const { value, low, high } = addedCpu(comparison, variant, base);
  const perEvent = (microseconds: number): number => (1000 * microseconds) / events;
  return { value: perEvent(value), low: perEvent(low), high: perEvent(high) };
}
