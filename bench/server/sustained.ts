/**
 * The native tracer at a million events a second for a minute, the client on the same CPUs: produced = delivered. Then more than can be taken, once by
 * the node and once by a slow subscriber: delivered + counted losses = produced, to the event. Last, the highest rate at which nothing is lost.
 * `npx tsx bench/server/sustained.ts [--quick] [--rate 1000000] [--seconds 60] [--workers 20]`
 */
import { startNode, type ErlNode } from "../../test/support/erl-node";
import { RingBuffer } from "../../src/buffer";
import type { TraceLimits } from "../../src/capture";
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { CountedTrace } from "./counted-trace";
import { cpuTime } from "./cpu-time";
import { beginSending, differences, finishTraffic, startTraffic, trafficPids } from "./traffic";

const DEFAULTS = { rate: 1_000_000, seconds: 60, workers: 20 };
/** Room for what comes while a shared machine does not let the node or the client run. */
const ROOMY: TraceLimits = { rate: Infinity, queue: 1_000_000, memory: 2 ** 29, seconds: 900 };
/** The same on this side: a second's worth. */
const ROOMY_RING = 1 << 20;
/** The defaults, but for the rate: little room, so that too much is soon too much. */
const USUAL: TraceLimits = { rate: Infinity, seconds: 900 };
const FLOOD = 3_000_000;
/** Too little room for it in the node, however fast the machine is. */
const SCANT: TraceLimits = { ...USUAL, memory: 2 ** 22 };
const FLOOD_SECONDS = 4;
/** A subscriber that can take half a million events a second. */
const SLOW_NS = 2000;
/** Steps of the search for the highest rate. */
const STEP = 1.25;
const STEP_SECONDS = 5;
const STEPS_MAX = 8;

interface Outcome {
  readonly produced: number;
  readonly delivered: number;
  readonly lost: number;
  readonly tookMs: number;
  /** CPUs that node and client used. */
  readonly nodeCpus: number;
  readonly clientCpus: number;
}

interface Load {
  readonly rate: number;
  readonly seconds: number;
  readonly workers: number;
  readonly limits: TraceLimits;
  /** Nanoseconds that a second subscriber takes for an event. */
  readonly slowNs?: number;
}

function spin(ns: number): void {
  const end = performance.now() + ns / 1e6;
  while (performance.now() < end);
}

/** Lets the workers send at a rate, and accounts for every event. */
async function trace(node: ErlNode, load: Load): Promise<Outcome> {
  await using session = await attachTo(node, { tracer: "native", leaseMs: 120_000 });
  const trace = await CountedTrace.start(
    session,
    {
      processes: await trafficPids(session),
      events: ["send", "receive"],
      limits: load.limits,
      ...(load.limits === ROOMY && { into: new RingBuffer({ capacity: ROOMY_RING, payloadBytes: 0 }) }),
    },
    true,
  );
  const { slowNs } = load;
  if (slowNs !== undefined) trace.trace.batches$.subscribe((batch) => void spin(batch.length * slowNs));
  const cpu = cpuTime(node.osPid);
  const own = process.cpuUsage();
  const start = performance.now();
  await beginSending(node, Math.round((load.rate / 2 / load.workers) * load.seconds), load.seconds * 1000);
  const report = await finishTraffic(session, 600_000);
  await trace.stop();
  const micros = (performance.now() - start) * 1000;
  const { user, system } = process.cpuUsage(own);
  const { delivered, lost } = trace;
  const wrong = lost === 0 ? differences(report.processes, trace.processes.values()) : [];
  if (wrong.length > 0) throw new Error(`counts by process differ:\n${wrong.join("\n")}`);
  const outcome = {
    produced: report.events,
    delivered,
    lost,
    tookMs: report.tookMs,
    nodeCpus: (cpuTime(node.osPid) - cpu) / micros,
    clientCpus: (user + system) / micros,
  };
  process.stderr.write(
    `${load.rate} events/s wanted: ${report.events} in ${report.tookMs} ms, ${delivered} delivered, ${lost} lost\n`,
  );
  return outcome;
}

const perSecond = ({ produced, tookMs }: Outcome): number => Math.round(produced / (tookMs / 1000));

/** The row of a load that is above capacity: every event is accounted for. */
function exactRow(what: string, outcome: Outcome): Row {
  const { produced, delivered, lost } = outcome;
  const missing = produced - delivered - lost;
  return {
    what: `${what}: produced − delivered − counted losses`,
    target: "0, with losses",
    measured: `${missing} of ${produced} (${lost} lost), ${perSecond(outcome)} events/s`,
    value: missing,
    ok: missing === 0 && lost > 0,
  };
}

/** The highest rate of a ladder that the node reaches and nothing is lost at; 0 when there is none. */
async function highestRate(node: ErlNode, from: number, workers: number): Promise<number> {
  let best = 0;
  let rate = from;
  for (let step = 0; step < STEPS_MAX; step += 1, rate *= STEP) {
    const outcome = await trace(node, { rate, seconds: STEP_SECONDS, workers, limits: ROOMY });
    // A node that takes longer than it should has no CPU left: that is the end, too.
    if (outcome.lost > 0 || outcome.tookMs > STEP_SECONDS * 1050) return best;
    best = perSecond(outcome);
  }
  return best;
}

/** Runs all of it on a node of its own. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const { rate, seconds, workers } = { ...DEFAULTS, ...(quick ? { seconds: 15 } : {}), ...options };
  const node = await startNode();
  try {
    await startTraffic(node, workers);
    const steady = await trace(node, { rate, seconds, workers, limits: ROOMY });
    const flood = await trace(node, { rate: FLOOD, seconds: FLOOD_SECONDS, workers, limits: SCANT });
    const slow = await trace(node, { rate, seconds: FLOOD_SECONDS, workers, limits: USUAL, slowNs: SLOW_NS });
    const highest = await highestRate(node, rate / STEP, workers);
    const title = `Native tracer, ${rate} events/s for ${seconds} s`;
    const missing = steady.produced - steady.delivered;
    return [
      {
        what: `${title}: produced − delivered`,
        target: "0",
        measured: `${missing} of ${steady.produced} (${steady.lost} counted as lost)`,
        value: missing,
        ok: missing === 0 && steady.lost === 0,
      },
      {
        what: `${title}: events a second that the node produced`,
        target: `≥ ${rate} × 0.98`,
        measured: `${perSecond(steady)}, on ${steady.nodeCpus.toFixed(2)} CPUs; client on ${steady.clientCpus.toFixed(2)}`,
        value: perSecond(steady),
        ok: perSecond(steady) >= rate * 0.98,
      },
      exactRow(`Native tracer, ${FLOOD} events/s`, flood),
      exactRow(`Native tracer, ${rate} events/s to a subscriber that takes ${SLOW_NS} ns an event`, slow),
      {
        what: "Native tracer: highest rate at which nothing is lost, in steps of a quarter",
        target: "",
        measured: `${highest} events/s`,
        value: highest,
        ok: true,
      },
    ];
  } finally {
    await node.stop();
  }
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
