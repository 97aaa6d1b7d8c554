/**
 * Blocks: a short stretch of time in which a server under load does its work under one variant; or two servers at the same time, each under its own.
 * A block in which the load fell short of its rate, or in which the tracer fell behind, is void.
 */
import { cpuTime, foreignTime } from "./cpu-time";
import type { TraceCount, UnitCount, Variant, Workload } from "./variant";

export interface BlockOptions {
  readonly blockMs: number;
  /** Time between the start of a tracer and the start of its block; default 150. */
  readonly settleMs?: number;
  /** Part of the demanded rate that a block must reach; default 0.98. */
  readonly minimumRate?: number;
  /** CPUs that processes other than ours may use during a block; default: any. When given, blocks wait for a quiet moment. */
  readonly maximumForeign?: number;
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

/** A server, and what it is measured under. */
export interface Side {
  readonly workload: Workload;
  readonly variant: Variant;
}

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

/** What was measured on one side; a string says why it is void. */
function blockOf(
  { variant }: Side,
  [before, after]: readonly [Sample, Sample],
  backlog: number,
  round: number,
  options: BlockOptions,
): Block | string {
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

/** A block on each side, all at the same time; a string says why they are void. */
export async function measureBlocks(
  sides: readonly Side[],
  round: number,
  options: BlockOptions,
): Promise<readonly Block[] | string> {
  await quietMoment(options.maximumForeign ?? Infinity);
  const started: Side[] = [];
  const samples = (): Promise<Sample[]> =>
    Promise.all(sides.map(({ workload, variant }) => sample(workload, variant)));
  let before: Sample[];
  let after: Sample[];
  let backlogs: number[];
  try {
    for (const side of sides) {
      await side.variant.start(side.workload.node);
      started.push(side);
    }
    await sleep(options.settleMs ?? 150);
    before = await samples();
    await sleep(options.blockMs);
    after = await samples();
    backlogs = await Promise.all(
      sides.map(async ({ workload, variant }) => (await variant.backlog?.(workload.node)) ?? 0),
    );
  } finally {
    for (const { variant, workload } of started) await variant.stop(workload.node);
  }
  const blocks: Block[] = [];
  for (const [i, side] of sides.entries()) {
    const block = blockOf(side, [before[i]!, after[i]!], backlogs[i]!, round, options);
    if (typeof block === "string") return block;
    blocks.push(block);
  }
  return blocks;
}
