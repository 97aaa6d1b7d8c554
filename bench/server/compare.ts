/**
 * The experiment: one running load, many short blocks, each under one variant. Every round holds one block of each variant in random
 * order, and figures are compared within a round, so that what a shared machine does to a whole minute cancels out.
 * A block in which the load fell short of its rate, or in which the tracer fell behind, is void and is measured again.
 */
import { cpuTime, foreignTime } from "./cpu-time";
import { bootstrap, median, medianEstimate, random, type Estimate } from "./statistics";
import type { TraceCount, UnitCount, Variant, Workload } from "./variant";

export interface CompareOptions {
  readonly rounds: number;
  readonly blockMs: number;
  /** No further round begins after so long, once there are ten; default: any time. */
  readonly maximumMs?: number;
  /** Time between the start of a tracer and the start of its block; default 150. */
  readonly settleMs?: number;
  /** Part of the demanded rate that a block must reach; default 0.98. */
  readonly minimumRate?: number;
  /** Void blocks that are forgiven before the experiment fails; default 20 and five a round, any number where a quiet machine is asked for. */
  readonly maximumVoid?: number;
  /** CPUs that processes other than ours may use during a block; default: any. When given, blocks wait for a quiet moment. */
  readonly maximumForeign?: number;
  readonly seed?: number;
  readonly log?: (line: string) => void;
}

/** One block. */
export interface Block {
  readonly variant: string;
  readonly round: number;
  /** Microseconds of CPU of the VM per unit of work. */
  readonly cpuPerUnit: number;
  readonly unitsPerSecond: number;
  /** CPUs that the VM kept busy. */
  readonly cpus: number;
  readonly eventsPerUnit: number | undefined;
  readonly lostPerUnit: number | undefined;
  readonly backlog: number;
  /** CPUs that processes other than ours used meanwhile: the crowd in which the block was measured. */
  readonly foreign: number;
}

export interface Comparison {
  readonly blocks: readonly Block[];
  readonly voided: number;
}

const ROUNDS_MIN = 10;
const QUIET_PROBE_MS = 300;
const QUIET_PATIENCE_MS = 600_000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Sample {
  readonly at: number;
  readonly cpu: number;
  readonly units: UnitCount;
  readonly trace: TraceCount | undefined;
  readonly foreign: number;
}

async function sample(workload: Workload, variant: Variant): Promise<Sample> {
  const units = await workload.units();
  const cpu = cpuTime(workload.node.osPid);
  return { at: performance.now(), cpu, units, foreign: foreignTime(), trace: await variant.count?.() };
}

/** Waits until others leave the machine alone. */
async function quietMoment(maximumForeign: number): Promise<void> {
  const end = performance.now() + QUIET_PATIENCE_MS;
  while (maximumForeign < Infinity) {
    const [at, foreign] = [performance.now(), foreignTime()];
    await sleep(QUIET_PROBE_MS);
    const cpus = (foreignTime() - foreign) / 1000 / (performance.now() - at);
    if (cpus <= maximumForeign) return;
    if (performance.now() > end)
      throw new Error(`other processes always used more than ${maximumForeign} CPUs`);
  }
}

async function measureBlock(
  workload: Workload,
  variant: Variant,
  round: number,
  options: CompareOptions,
): Promise<Block | string> {
  const { node } = workload;
  await quietMoment(options.maximumForeign ?? Infinity);
  await variant.start(node);
  let before: Sample;
  let after: Sample;
  let backlog = 0;
  try {
    await sleep(options.settleMs ?? 150);
    before = await sample(workload, variant);
    await sleep(options.blockMs);
    after = await sample(workload, variant);
    backlog = (await variant.backlog?.(node)) ?? 0;
  } finally {
    await variant.stop(node);
  }
  const done = after.units.done - before.units.done;
  const seconds = (after.at - before.at) / 1000;
  const perUnit = (of: (count: TraceCount) => number): number | undefined =>
    before.trace && after.trace ? (of(after.trace) - of(before.trace)) / done : undefined;
  const block: Block = {
    variant: variant.name,
    round,
    cpuPerUnit: (after.cpu - before.cpu) / done,
    unitsPerSecond: done / seconds,
    cpus: (after.cpu - before.cpu) / 1e6 / seconds,
    eventsPerUnit: perUnit(({ delivered, lost }) => delivered + lost),
    lostPerUnit: perUnit(({ lost }) => lost),
    backlog,
    foreign: (after.foreign - before.foreign) / 1e6 / seconds,
  };
  if (after.units.due !== undefined && before.units.due !== undefined) {
    const reached = done / (after.units.due - before.units.due);
    if (reached < (options.minimumRate ?? 0.98))
      return `only ${(reached * 100).toFixed(1)} % of the rate was reached`;
  }
  if (block.foreign > (options.maximumForeign ?? Infinity))
    return `other processes used ${block.foreign.toFixed(2)} CPUs`;
  // A twentieth of a second's worth of events may wait; more is work that the block did not pay for.
  if (backlog > 0.05 * block.unitsPerSecond * (block.eventsPerUnit ?? 20))
    return `${backlog} events waited for the tracer`;
  return block;
}

/** Runs the blocks. The workload must have been started. */
export async function compare(
  workload: Workload,
  variants: readonly Variant[],
  options: CompareOptions,
): Promise<Comparison> {
  const progress = { blocks: [] as Block[], voided: 0 };
  try {
    await runRounds(workload, variants, options, progress);
  } finally {
    for (const variant of variants) await variant.dispose?.();
  }
  return progress;
}

async function runRounds(
  workload: Workload,
  variants: readonly Variant[],
  options: CompareOptions,
  progress: { blocks: Block[]; voided: number },
): Promise<void> {
  const next = random(options.seed ?? 1);
  const maximumVoid =
    options.maximumVoid ?? (options.maximumForeign === undefined ? 20 + 5 * options.rounds : Infinity);
  const end = performance.now() + (options.maximumMs ?? Infinity);
  for (let round = 0; round < options.rounds; round += 1) {
    if (round >= ROUNDS_MIN && performance.now() > end) return;
    const order = variants.map((variant) => ({ variant, key: next() })).sort((a, b) => a.key - b.key);
    for (const { variant } of order) {
      for (;;) {
        const block = await measureBlock(workload, variant, round, options);
        if (typeof block !== "string") {
          progress.blocks.push(block);
          options.log?.(
            `round ${round + 1} ${variant.name}: ${block.cpuPerUnit.toFixed(1)} µs a ${workload.unit}`,
          );
          break;
        }
        progress.voided += 1;
        options.log?.(`round ${round + 1} ${variant.name}: void, ${block}`);
        if (progress.voided > maximumVoid)
          throw new Error(`${workload.name}: too many void blocks; the last: ${variant.name}, ${block}`);
      }
    }
  }
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
