/**
 * The experiment: one running load, many short blocks, each under one variant. Every round holds one block of each variant in random
 * order, and figures are compared within a round, so that what a shared machine does to a whole minute cancels out. Void blocks are measured again.
 *
 * With twins, two servers of the same kind under the same load, a variant is measured on one of them while the other one runs under the base; then
 * the other way round. What a shared machine does to a second cancels out as well, and so does what makes one of the two dearer.
 */
import { measureBlocks, type Block, type BlockOptions, type Side } from "./block";
import type { Comparison } from "./comparison";
import { random } from "./statistics";
import type { Variant, Workload } from "./variant";

export interface CompareOptions extends BlockOptions {
  readonly rounds: number;
  /** No further round begins after so long, once there are ten; default: any time. */
  readonly maximumMs?: number;
  /** Void blocks that are forgiven before the experiment fails; default 20 and five a round, any number where a quiet machine is asked for. */
  readonly maximumVoid?: number;
  readonly seed?: number;
  readonly log?: (line: string) => void;
}

/** Two servers of the same kind, under the same load. */
export type Twins = readonly [Workload, Workload];

/** What an experiment runs on, of one or two servers. */
export function oneOrTwins([one, other]: readonly Workload[]): Workload | Twins {
  if (one === undefined) throw new Error("there is no server");
  return other === undefined ? one : [one, other];
}

const ROUNDS_MIN = 10;

/** Runs the blocks. The workloads must have been started. With twins the first of the variants is the base. */
export async function compare(
  on: Workload | Twins,
  variants: readonly Variant[],
  options: CompareOptions,
): Promise<Comparison> {
  const experiment = new Experiment(options);
  try {
    await (isTwins(on) ? experiment.runTwins(on, variants) : experiment.runOne(on, variants));
  } finally {
    for (const variant of variants) await variant.dispose?.();
  }
  return experiment;
}

export const isTwins = (on: Workload | Twins): on is Twins => Array.isArray(on);

class Experiment implements Comparison {
  readonly blocks: Block[] = [];
  voided = 0;
  readonly #options: CompareOptions;
  readonly #next: () => number;
  readonly #maximumVoid: number;

  constructor(options: CompareOptions) {
    this.#options = options;
    this.#next = random(options.seed ?? 1);
    this.#maximumVoid =
      options.maximumVoid ?? (options.maximumForeign === undefined ? 20 + 5 * options.rounds : Infinity);
  }

  async runOne(workload: Workload, variants: readonly Variant[]): Promise<void> {
    for (const round of this.#rounds())
      for (const variant of this.#shuffled(variants))
        this.blocks.push(...(await this.#measure([{ workload, variant }], round)));
  }

  async runTwins(twins: Twins, [base, ...others]: readonly Variant[]): Promise<void> {
    if (base === undefined) return;
    for (const round of this.#rounds()) {
      const pairs: Pair[] = [];
      for (const variant of this.#shuffled(others))
        for (const [one, other] of this.#shuffled([twins, [twins[1], twins[0]]] as const)) {
          const sides = [
            { workload: one, variant },
            { workload: other, variant: base },
          ];
          const [under, beside] = await this.#measure(sides, round);
          if (under !== undefined && beside !== undefined) pairs.push({ under, beside });
        }
      this.blocks.push(...roundOfPairs(pairs));
    }
  }

  *#rounds(): Generator<number> {
    const end = performance.now() + (this.#options.maximumMs ?? Infinity);
    for (let round = 0; round < this.#options.rounds; round += 1) {
      if (round >= ROUNDS_MIN && performance.now() > end) return;
      yield round;
    }
  }

  #shuffled<T>(all: readonly T[]): T[] {
    return all
      .map((each) => ({ each, key: this.#next() }))
      .sort((a, b) => a.key - b.key)
      .map(({ each }) => each);
  }

  /** Blocks that are not void. */
  async #measure(sides: readonly Side[], round: number): Promise<readonly Block[]> {
    const name = sides.map(({ variant }) => variant.name).join(" beside ");
    for (;;) {
      const blocks = await measureBlocks(sides, round, this.#options);
      if (typeof blocks !== "string") {
        const units = sides[0]?.workload.unit;
        const figures = blocks.map(({ cpuPerUnit }) => cpuPerUnit.toFixed(1)).join(" and ");
        this.#options.log?.(`round ${round + 1} ${name}: ${figures} µs a ${units}`);
        return blocks;
      }
      this.voided += 1;
      this.#options.log?.(`round ${round + 1} ${name}: void, ${blocks}`);
      if (this.voided > this.#maximumVoid)
        throw new Error(`${sides[0]?.workload.name}: too many void blocks; the last: ${name}, ${blocks}`);
    }
  }
}

/** A block under a variant, and the one that the twin had under the base at the same time. */
interface Pair {
  readonly under: Block;
  readonly beside: Block;
}

const geometricMean = (values: readonly number[]): number =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** Several blocks of the same variant as one, but for the CPU; none of none. */
function merged(blocks: readonly Block[], cpuPerUnit: number): Block[] {
  const [first] = blocks;
  if (first === undefined) return [];
  const of = (field: "unitsPerSecond" | "cpus" | "backlog" | "foreign"): number =>
    mean(blocks.map((block) => block[field]));
  const counted = (field: "eventsPerUnit" | "lostPerUnit"): number | undefined =>
    first[field] === undefined ? undefined : mean(blocks.map((block) => block[field] ?? NaN));
  return [
    {
      ...first,
      cpuPerUnit,
      unitsPerSecond: of("unitsPerSecond"),
      cpus: of("cpus"),
      eventsPerUnit: counted("eventsPerUnit"),
      lostPerUnit: counted("lostPerUnit"),
      backlog: of("backlog"),
      foreign: of("foreign"),
    },
  ];
}

/** A round with twins as one block of each variant: the base, and the others so much dearer as the pairs say. */
function roundOfPairs(pairs: readonly Pair[]): Block[] {
  const bases = pairs.map(({ beside }) => beside);
  const baseCpu = geometricMean(bases.map(({ cpuPerUnit }) => cpuPerUnit));
  const blocks = merged(bases, baseCpu);
  for (const variant of new Set(pairs.map(({ under }) => under.variant))) {
    const those = pairs.filter(({ under }) => under.variant === variant);
    const factor = geometricMean(those.map(({ under, beside }) => under.cpuPerUnit / beside.cpuPerUnit));
    blocks.push(
      ...merged(
        those.map(({ under }) => under),
        factor * baseCpu,
      ),
    );
  }
  return blocks;
}
