/**
 * What a process that is born outside of the sample costs the HTTP server: new ones carry flags until the VM, or the tracer, has been told that they are
 * not in it. A trace that samples nobody stays all the time; only the flags of new processes are set and taken away, in many short blocks.
 * The overhead budget reckons with `birthNs` for it.
 * `npx tsx bench/server/births.ts [--quick] [--rate 800] [--rounds 400] [--block-ms 150]`
 */
import type { Session } from "../../src/capture";
import { eventually, type ErlNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { compare } from "./compare";
import { addedCpu } from "./comparison";
import { formatEstimate, type Estimate } from "./statistics";
import type { Variant, Workload } from "./variant";
import { SERVERS } from "./workloads";

const DEFAULTS = { rate: 800, rounds: 400, "block-ms": 150 };
type Settings = typeof DEFAULTS;

/** Nobody of a few hundred processes. */
const NOBODY = 0.0005;
const SETTLE_MS = 30;
const EVERYTHING = { processes: "all", events: ["send", "receive", "procs"] } as const;

/** Flags of new processes as the trace has set them, kept for `set`. */
const KEEP = `{tracer, Tracer} = erlang:trace_info(new, tracer), {flags, Flags} = erlang:trace_info(new, flags),
  How = case Tracer of {Module, State} -> {tracer, Module, State}; _ -> {tracer, Tracer} end,
  persistent_term:put(beamtrace_bench_new, [How | Flags]), ok`;
const ON = `erlang:trace(new, true, persistent_term:get(beamtrace_bench_new))`;
const OFF = `erlang:trace(new, false, [all])`;

const untraced: Variant = {
  name: "not looked at",
  start: () => Promise.resolve(),
  stop: () => Promise.resolve(),
};
const lookedAt: Variant = {
  name: "looked at",
  start: async (node) => void (await node.eval(ON)),
  stop: async (node) => void (await node.eval(OFF)),
};

/** Processes that the node has started so far; asking starts as many each time. OTP 25: `<0.Number.Serial>`, 15 bits. */
async function started(node: ErlNode): Promise<number> {
  const text = await node.eval(`pid_to_list(spawn(fun() -> ok end))`);
  const [, number = NaN, serial = NaN] = /<\d+\.(\d+)\.(\d+)>/.exec(text)?.map(Number) ?? [];
  return serial * 2 ** 15 + number;
}

async function birthsPerUnit({ node, ...workload }: Workload, seconds: number): Promise<number> {
  const asking = (await started(node)) - (await started(node));
  const [births, units] = [await started(node), await workload.units()];
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const done = (await workload.units()).done - units.done;
  return ((await started(node)) - births + asking) / done;
}

/** What the budget reckons with on this node. */
async function reckoned(session: Session): Promise<number> {
  const trace = await session.trace({
    ...EVERYTHING,
    limits: { overhead: 0.02, rate: Infinity, seconds: 60 },
  });
  try {
    const birthNs = await eventually(
      () => trace.stats.node.birthNs,
      (ns) => ns > 0,
    );
    return birthNs / 1000;
  } finally {
    await trace.stop();
  }
}

async function measure(
  workload: Workload,
  tracer: "native" | "portable",
  settings: Settings,
  perUnit: number,
): Promise<Row> {
  const session = await attachTo(workload.node, { tracer });
  try {
    const price = await reckoned(session);
    const trace = await session.trace({
      ...EVERYTHING,
      sampling: { processes: NOBODY },
      limits: { rate: Infinity, seconds: 3600 },
    });
    await workload.node.eval(`${KEEP}, ${OFF}, ok`);
    const comparison = await compare(workload, [untraced, lookedAt], {
      rounds: settings.rounds,
      blockMs: settings["block-ms"],
      settleMs: SETTLE_MS,
      minimumRate: 0.5,
    });
    await trace.stop();
    const unit = addedCpu(comparison, lookedAt.name, untraced.name);
    const each = (of: (estimate: Estimate) => number): number => of(unit) / perUnit;
    const birth = { value: each((e) => e.value), low: each((e) => e.low), high: each((e) => e.high) };
    return {
      what: `HTTP, ${tracer}: a process born outside of the sample, µs of VM CPU (${perUnit.toFixed(2)} a request)`,
      target: `≤ what is reckoned with, ${price.toFixed(1)}`,
      measured: formatEstimate(birth, 1),
      value: birth.value,
      ok: birth.value <= price,
    };
  } finally {
    await session.close();
  }
}

export async function run(quick: boolean, options: Partial<Settings> = {}): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { rounds: 100 } : {}), ...options };
  const workload = await SERVERS.http.start(settings.rate);
  try {
    await workload.start();
    const perUnit = await birthsPerUnit(workload, 3);
    return [
      await measure(workload, "native", settings, perUnit),
      await measure(workload, "portable", settings, perUnit),
    ];
  } finally {
    await workload.stop();
  }
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
