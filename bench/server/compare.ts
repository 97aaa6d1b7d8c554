/**
 * The experiment: one running load, many short blocks, each under one variant. Every round holds one block of each variant in random
 * order, and figures are compared within a round, so that what a shared machine does to a whole minute cancels out.
 * A block in which the load fell short of its rate, or in which the tracer fell behind, is void and is measured again.
 */
import { cpuTime, machineTime } from "./cpu-time";
import { median, medianEstimate, random, type Estimate } from "./statistics";
import type { TraceCount, UnitCount, Variant, Workload } from "./variant";

export interface CompareOptions {
  readonly rounds: number;
  readonly blockMs: number;
  /** Time between the start of a tracer and the start of its block. */
  readonly settleMs?: number;
  /** Part of the demanded rate that a block must reach; default 0.98. */
  readonly minimumRate?: number;
  /** Void blocks that are forgiven before the experiment fails; default 20 and five a round. */
  readonly maximumVoid?: number;
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
  /** Share of the machine's CPU time that nobody used: near 0, the block was measured in a crowd. */
  readonly idle: number;
}

export interface Comparison {
  readonly blocks: readonly Block[];
  readonly voided: number;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Sample {
  readonly at: number;
  readonly cpu: number;
  readonly units: UnitCount;
  readonly trace: TraceCount | undefined;
  readonly machine: ReturnType<typeof machineTime>;
}

async function sample(workload: Workload, variant: Variant): Promise<Sample> {
  const units = await workload.units();
  const cpu = cpuTime(workload.node.osPid);
  return { at: performance.now(), cpu, units, machine: machineTime(), trace: await variant.count?.() };
}

async function measureBlock(
  workload: Workload,
  variant: Variant,
  round: number,
  options: CompareOptions,
): Promise<Block | string> {
  const { node } = workload;
  await variant.start(node);
  let before: Sample;
  let after: Sample;
  let backlog = 0;
  try {
    await sleep(options.settleMs ?? 300);
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
    idle: (after.machine.idle - before.machine.idle) / (after.machine.all - before.machine.all),
  };
  if (after.units.due !== undefined && before.units.due !== undefined) {
    const reached = done / (after.units.due - before.units.due);
    if (reached < (options.minimumRate ?? 0.98))
      return `only ${(reached * 100).toFixed(1)} % of the rate was reached`;
  }
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
  const maximumVoid = options.maximumVoid ?? 20 + 5 * options.rounds;
  for (let round = 0; round < options.rounds; round += 1) {
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

function addedByRound({ blocks }: Comparison, variant: string, base: string): Map<number, number> {
  const bases = new Map(of(blocks, base).map((block) => [block.round, block.cpuPerUnit]));
  return new Map(
    of(blocks, variant).map((block) => [block.round, block.cpuPerUnit - (bases.get(block.round) ?? NaN)]),
  );
}

/** CPU per unit that a variant adds to the base (the same round's block without a trace). */
export const addedCpu = (comparison: Comparison, variant: string, base: string): Estimate =>
  medianEstimate([...addedByRound(comparison, variant, base).values()]);

/** Median over rounds of (added CPU of `variant`) ÷ (added CPU of `reference`). */
export function addedRatio(
  comparison: Comparison,
  variant: string,
  reference: string,
  base: string,
): Estimate {
  const references = addedByRound(comparison, reference, base);
  const added = addedByRound(comparison, variant, base);
  return medianEstimate([...added].map(([round, value]) => value / (references.get(round) ?? NaN)));
}

/** Median of a figure of a variant's blocks; undefined where the variant does not count. */
export function figure(
  { blocks }: Comparison,
  variant: string,
  field: "eventsPerUnit" | "lostPerUnit" | "unitsPerSecond" | "cpus" | "idle",
): number | undefined {
  const values = of(blocks, variant).map((block) => block[field]);
  return values.some((value) => value === undefined) ? undefined : median(values as number[]);
}
