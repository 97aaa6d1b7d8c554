/** What a tracer makes of a server's CPU in percent, and what an event costs: figures of a comparison beside those of compare.ts. */
import { addedCpu, figure, type Comparison } from "./compare";
import { bootstrap, median, type Estimate } from "./statistics";

/** CPU per unit of a variant ÷ that of the base, − 1: the median over rounds, resampling whole rounds. 0.03 is three percent more. */
export function addedShare({ blocks }: Comparison, variant: string, base: string): Estimate {
  const bases = new Map(
    blocks.filter((block) => block.variant === base).map(({ round, cpuPerUnit }) => [round, cpuPerUnit]),
  );
  const ratios = blocks
    .filter((block) => block.variant === variant)
    .map(({ round, cpuPerUnit }) => cpuPerUnit / (bases.get(round) ?? NaN));
  return bootstrap(ratios, (sample) => median(sample) - 1);
}

/** Nanoseconds that a variant adds an event; undefined for one that does not count events. */
export function addedPerEvent(comparison: Comparison, variant: string, base: string): Estimate | undefined {
  const events = figure(comparison, variant, "eventsPerUnit");
  if (events === undefined) return undefined;
  const { value, low, high } = addedCpu(comparison, variant, base);
  const perEvent = (microseconds: number): number => (1000 * microseconds) / events;
  return { value: perEvent(value), low: perEvent(low), high: perEvent(high) };
}
