/**
 * What a trace costs a node that has nothing to do: how much CPU its looking, ticking and renewing takes. Nothing is recorded, so this is what it costs
 * to have beamtrace there. The node's schedulers do not spin while they wait, as servers are set up that share their machine.
 * `npx tsx bench/server/idle.ts [--quick] [--rounds 10] [--block-ms 3000]`
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Session } from "../../src/capture";
import { type ErlNode, startNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { cpuTime } from "./cpu-time";
import { formatEstimate, medianEstimate } from "./statistics";

const DEFAULTS = { rounds: 10, "block-ms": 3000 };
/** CPU of calibration and first looks, which happen once. */
const SETTLE_MS = 1500;
const LIMIT_MS = 2;
const UNSPUN = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"];
const EVENTS = { processes: "all", events: ["send", "receive", "procs"] } as const;

type Trial = readonly [
  name: string,
  limitMs: number | undefined,
  begin: (session: Session) => Promise<() => Promise<unknown>>,
];

const traced =
  (limits: { readonly overhead?: number }) =>
  async (session: Session): Promise<() => Promise<unknown>> => {
    const trace = await session.trace({ ...EVENTS, limits: { seconds: 600, ...limits } });
    trace.batches$.subscribe();
    return () => trace.stop();
  };

/** By tracer: what is begun, and what it may cost. */
const TRIALS: Readonly<Record<"native" | "portable", readonly Trial[]>> = {
  native: [
    ["attached, no trace", undefined, () => Promise.resolve(() => Promise.resolve())],
    ["native trace", LIMIT_MS, traced({})],
    ["native trace, limits.overhead 0.02", LIMIT_MS, traced({ overhead: 0.02 })],
    [
      "flight recorder",
      LIMIT_MS,
      async (session) => {
        const recorder = await session.flightRecorder({ ...EVENTS, triggers: [{ on: "exit" }] });
        return () => recorder.stop();
      },
    ],
  ],
  portable: [
    ["portable trace", LIMIT_MS, traced({})],
    ["portable trace, limits.overhead 0.02", LIMIT_MS, traced({ overhead: 0.02 })],
  ],
};

async function cpuMs({ osPid }: ErlNode, blockMs: number): Promise<number> {
  await sleep(SETTLE_MS);
  const [cpu, at] = [cpuTime(osPid), performance.now()];
  await sleep(blockMs);
  return (cpuTime(osPid) - cpu) / (performance.now() - at);
}

export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { rounds: 4 } : {}), ...options };
  const node = await startNode({ args: UNSPUN });
  const alone: number[] = [];
  const measured = new Map<Trial, number[]>();
  try {
    for (let round = 0; round < settings.rounds; round += 1) {
      alone.push(await cpuMs(node, settings["block-ms"]));
      for (const tracer of ["native", "portable"] as const) {
        await using session = await attachTo(node, { tracer });
        for (const trial of TRIALS[tracer]) {
          const end = await trial[2](session);
          measured.set(trial, [...(measured.get(trial) ?? []), await cpuMs(node, settings["block-ms"])]);
          await end();
        }
      }
    }
  } finally {
    await node.stop();
  }
  return [
    ["nobody attached", undefined, alone] as const,
    ...[...measured].map(([[name, limit], cpu]) => [name, limit, cpu] as const),
  ].map(([name, limit, cpu]) => {
    const estimate = medianEstimate(cpu);
    return {
      what: `an idle node, ${name}: CPU of the VM in a second`,
      target: limit === undefined ? "" : `≤ ${limit} ms`,
      measured: `${formatEstimate(estimate)} ms`,
      value: estimate.value,
      ok: limit === undefined || estimate.value <= limit,
    };
  });
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
