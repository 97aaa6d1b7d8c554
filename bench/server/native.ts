/**
 * What the native tracer adds to the VM's CPU, against the VM's own floor and other tracers: RabbitMQ under an open loop, send + receive + procs of all
 * processes. First it is shown that the tracers see the same events, at last what large messages cost.
 * `npx tsx bench/server/native.ts [--quick] [--rate 5000] [--bytes 32] [--queues 4] [--rounds 40] [--block-ms 700] [--floor 1] [--twins 1] [--max-foreign 0.3]`
 */
import type { Row } from "../row";
import { beamtrace } from "./beamtrace";
import { claimRow } from "./claim-row";
import { compare, oneOrTwins, type CompareOptions } from "./compare";
import { addedRatio, addedShare, type Comparison, figure } from "./comparison";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { costRows, costTable } from "./cost-report";
import {
  countingLibrary,
  discardingLibrary,
  idleLibrary,
  loadNativePeers,
  recording,
  stampedLibrary,
  writingLibrary,
} from "./native-peers";
import { discarding, filePort, ipPort, loadPeers, untraced } from "./peers";
import { rabbitWorkload, type RabbitWorkload } from "./rabbitmq-workload";
import { bootstrap, median, type Estimate } from "./statistics";
import type { Variant } from "./variant";
import { startAlike, stopAll } from "./workloads";

const DEFAULTS = {
  rate: 5000,
  bytes: 32,
  queues: 4,
  rounds: 40,
  "block-ms": 700,
  /** 1: only the VM's floor, the least that a recorder does, and ours, for which a round takes a third of the time; the floor is small, and takes many rounds to be known. */
  floor: 0,
  /** 1: beside a server of the same kind, which is not traced meanwhile. */
  twins: 0,
  "max-foreign": 0,
};
const CHECK_ROUNDS = 12;
/** Tracers start and stop at different moments: their own processes, and the load's last ticks, differ by this share at most. */
const SAME_EVENTS = 0.03;
const LARGE_BYTES = 20_000;
/** Large messages at the full rate would be the load's own limit. */
const LARGE_RATE = 1000;

/** Upper bounds of what one variant adds ÷ what another adds. What a library that only writes adds is said by the same bound: where it is over that, no recorder can be under. */
const TARGETS = [
  ["nif-write", "nif-nothing", 1.1],
  ["nif-record", "nif-nothing", 1.1],
  ["native", "nif-nothing", 1.3],
  ["nif-record", "nif-stamped", 1.1],
  ["native", "nif-stamped", 1.3],
  ["native", "discard", 1 / 3],
  ["native", "file", 1 / 6],
  ["native", "ip", 1 / 10],
] as const;

type Settings = typeof DEFAULTS;

/** The floor and the recording are called for every event that the whole tracer delivers. */
async function sameEvents(title: string, workload: RabbitWorkload, options: CompareOptions): Promise<Row[]> {
  const comparison = await compare(
    workload,
    [countingLibrary(), recording(true), beamtrace("native", { detaches: true })],
    {
      ...options,
      rounds: CHECK_ROUNDS,
    },
  );
  const delivered = figure(comparison, "native", "eventsPerUnit") ?? NaN;
  return ["nif-count", "nif-record-count"].map((name) => {
    const seen = figure(comparison, name, "eventsPerUnit") ?? NaN;
    return {
      what: `${title}: events a message, ${name} ÷ native`,
      target: `1 ± ${SAME_EVENTS}`,
      measured: `${(seen / delivered).toFixed(3)}: ${seen.toFixed(2)} seen, ${delivered.toFixed(2)} delivered`,
      value: seen / delivered,
      ok: Math.abs(seen / delivered - 1) <= SAME_EVENTS,
    };
  });
}

/** A variant whose blocks run with messages of a size. */
function withBytes(workload: RabbitWorkload, variant: Variant, bytes: number): Variant {
  return {
    ...variant,
    name: `${variant.name}, ${bytes} B`,
    async start(node) {
      await workload.setBytes(bytes);
      await variant.start(node);
    },
  };
}

/** Microseconds added with large messages − those added with small ones, over the rounds. */
function largeMinusSmall({ blocks }: Comparison, bytes: number): Estimate {
  const rounds = new Map<number, Map<string, number>>();
  for (const { round, variant, cpuPerUnit } of blocks)
    rounds.set(round, (rounds.get(round) ?? new Map<string, number>()).set(variant, cpuPerUnit));
  const added = (round: Map<string, number>, size: number): number =>
    (round.get(`native, ${size} B`) ?? NaN) - (round.get(`untraced, ${size} B`) ?? NaN);
  return bootstrap(
    [...rounds.values()].map((round) => added(round, LARGE_BYTES) - added(round, bytes)),
    median,
  );
}

/** What the native tracer adds with large messages must not be more than with small ones: their contents are never copied. */
async function largeMessages(workload: RabbitWorkload, bytes: number, options: CompareOptions): Promise<Row> {
  await workload.setRate(LARGE_RATE);
  const sizes = [bytes, LARGE_BYTES].flatMap((size) => [
    withBytes(workload, untraced(), size),
    withBytes(workload, beamtrace("native", { detaches: true }), size),
  ]);
  const comparison = await compare(workload, sizes, options);
  const small = `native, ${bytes} B`;
  const share = addedShare(comparison, small, `untraced, ${bytes} B`);
  const base = median(
    comparison.blocks.filter(({ variant }) => variant === small).map(({ cpuPerUnit }) => cpuPerUnit),
  );
  // A tenth of what small messages cost is below what can be told apart.
  const addedBySmall = (base * share.value) / (1 + share.value);
  return claimRow({
    what: `RabbitMQ, ${LARGE_RATE} messages/s: CPU added by native, ${LARGE_BYTES} B messages − ${bytes} B ones`,
    estimate: largeMinusSmall(comparison, bytes),
    bound: 0.1 * addedBySmall,
    target: `≤ 10 % of ${addedBySmall.toFixed(1)} µs`,
    format: ({ value, low, high }) => `${value.toFixed(1)} µs (${low.toFixed(1)} … ${high.toFixed(1)})`,
  });
}

/** The claims about those that were measured. */
function ratioRows(title: string, comparison: Comparison): Row[] {
  const measured = new Set(comparison.blocks.map(({ variant }) => variant));
  return TARGETS.filter(([ours, peer]) => measured.has(ours) && measured.has(peer)).map(
    ([ours, peer, bound]) =>
      claimRow({
        what: `${title}: added CPU, ${ours} ÷ ${peer}`,
        estimate: addedRatio(comparison, ours, peer, "untraced"),
        bound,
      }),
  );
}

/** Runs the experiment and prints its table. */
export async function run(quick: boolean, options: Partial<Settings> = {}): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { rounds: 8 } : {}), ...options };
  const workloads = await startAlike(settings.twins > 0 ? 2 : 1, () => rabbitWorkload(settings));
  const [workload] = workloads as [RabbitWorkload];
  const compareOptions: CompareOptions = {
    rounds: settings.rounds,
    blockMs: settings["block-ms"],
    ...(settings["max-foreign"] > 0 && { maximumForeign: settings["max-foreign"] }),
    log: (line) => process.stderr.write(`${line}\n`),
  };
  try {
    for (const { node } of workloads) {
      await loadPeers(node);
      await loadNativePeers(node);
    }
    for (const each of workloads) await each.start();
    const on = oneOrTwins(workloads);
    const title = `RabbitMQ, ${settings.rate} messages/s of ${settings.bytes} bytes`;
    const same = await sameEvents(title, workload, compareOptions);
    const floor = [idleLibrary(), stampedLibrary(), recording(), beamtrace("native", { detaches: true })];
    if (settings.floor > 0) {
      const comparison = await compare(on, [untraced(), writingLibrary(), ...floor], compareOptions);
      console.log(costTable(title, workload, comparison, "nif-nothing"));
      return [...same, ...ratioRows(title, comparison)];
    }
    const others = [discarding(), filePort(), ipPort(), beamtrace("portable", { detaches: true })];
    const comparison = await compare(
      on,
      [untraced(), discardingLibrary(), ...floor, ...others],
      compareOptions,
    );
    console.log(costTable(title, workload, comparison));
    const lost = figure(comparison, "native", "lostPerUnit") ?? NaN;
    return [
      ...same,
      ...costRows(title, workload, comparison).filter(({ what }) => !what.includes("÷")),
      {
        what: `${title}: events lost by native`,
        target: "0",
        measured: `${lost.toFixed(3)} a message`,
        value: lost,
        ok: lost === 0,
      },
      ...ratioRows(title, comparison),
      await largeMessages(workload, settings.bytes, compareOptions),
    ];
  } finally {
    await stopAll(workloads);
  }
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
