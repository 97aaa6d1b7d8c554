/**
 * An hour of the native tracer on RabbitMQ at 100,000 events a second: nothing lost, every event accounted for, no memory slope on either side, nobody
 * crashes. The first tenth is not looked at: buffers and heaps find their size.
 * `npx tsx bench/server/soak-native.ts [--quick] [--minutes 60] [--rate 5000]`; the rate is in messages, each of some twenty events.
 */
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { CountedTrace } from "./counted-trace";
import {
  clientFootprint,
  liveObjects,
  nodeFootprint,
  type ClientFootprint,
  type NodeFootprint,
} from "./footprint";
import { growthRow, objectsRow, type Growth } from "./growth";
import { slopeEstimate } from "./statistics";
import { SERVERS } from "./workloads";

const DEFAULTS = { minutes: 60, rate: 5000 };
const EVENTS_PER_SECOND = 100_000;
const SAMPLE_MS = 5000;
/** The samples themselves, and whatever a batch in the making holds. */
const OBJECTS_ALLOWED = 5_000;
const DAY_MINUTES = 24 * 60;

interface Sample {
  readonly minutes: number;
  readonly node: NodeFootprint;
  readonly client: ClientFootprint;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** What a day would add at the slope that was measured: no more than arithmetic. */
function dayRow(what: string, at: readonly number[], bytes: readonly number[]): Row {
  const { value, low, high } = slopeEstimate(at, bytes);
  const mib = (slope: number): string => ((slope * DAY_MINUTES) / 2 ** 20).toFixed(1);
  return {
    what: `${what}, slope × 24 h`,
    target: "",
    measured: `${mib(value)} MiB (${mib(low)} … ${mib(high)})`,
    value: value * DAY_MINUTES,
    ok: true,
  };
}

/** Runs the load and looks at both sides every five seconds. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const { minutes, rate } = { ...DEFAULTS, ...(quick ? { minutes: 2 } : {}), ...options };
  const workload = await SERVERS.rabbitmq.start(rate);
  const { node } = workload;
  let crashed = false;
  void node.exited.then(() => (crashed = true));
  try {
    await workload.start();
    // The snapshots below stop this thread for longer than the default lease.
    await using session = await attachTo(node, { tracer: "native", leaseMs: 600_000 });
    const objects = await liveObjects();
    const trace = await CountedTrace.start(session, {
      processes: "all",
      events: ["send", "receive", "procs"],
      limits: { seconds: minutes * 60 + 300, rate: Infinity, queue: 1_000_000 },
    });
    const start = performance.now();
    const before = await workload.units();
    const samples: Sample[] = [];
    for (let i = 1; i * SAMPLE_MS <= minutes * 60_000; i += 1) {
      await sleep(start + i * SAMPLE_MS - performance.now());
      const passed = (performance.now() - start) / 60_000;
      if (crashed) throw new Error(`RabbitMQ has ended: ${node.output().slice(-2000)}`);
      if (trace.trace.hasEnded)
        throw new Error(`the trace ended: ${JSON.stringify(await trace.trace.ended)}`);
      if (passed < minutes / 10) continue;
      samples.push({ minutes: passed, node: await nodeFootprint(node), client: clientFootprint() });
      if (i % 12 === 0)
        process.stderr.write(`${passed.toFixed(1)} min: ${trace.delivered} events, ${trace.lost} lost\n`);
    }
    const seconds = (performance.now() - start) / 1000;
    const after = await workload.units();
    await trace.stop();
    const objectsAfter = await liveObjects();
    const { received } = trace.trace.stats.node;
    const perSecond = received / seconds;
    const title = `Native tracer on RabbitMQ, ${minutes} minutes at ${rate} messages/s`;
    const at = samples.map((sample) => sample.minutes);
    const growth = (what: string, bytes: (sample: Sample) => number, more: Partial<Growth> = {}): Row =>
      growthRow({ what: `${title}: ${what}`, unit: "minute", at, bytes: samples.map(bytes), ...more });
    const reached = (after.done - before.done) / ((after.due ?? NaN) - (before.due ?? NaN));
    return [
      {
        what: `${title}: events lost`,
        target: "0",
        measured: `${trace.lost} of ${received} (${received - trace.delivered - trace.lost} unaccounted for)`,
        value: trace.lost,
        ok: trace.lost === 0 && received === trace.delivered,
      },
      {
        what: `${title}: events a second`,
        target: `≥ ${EVENTS_PER_SECOND}`,
        measured: `${Math.round(perSecond)}; ${(100 * reached).toFixed(2)} % of the messages that were due were consumed`,
        value: perSecond,
        ok: perSecond >= EVENTS_PER_SECOND,
      },
      {
        what: `${title}: crashes`,
        target: "0",
        measured: crashed ? "1" : "0",
        value: Number(crashed),
        ok: !crashed,
      },
      growth("memory of the node", (sample) => sample.node.bytes),
      growth("resident memory of the node", (sample) => sample.node.residentBytes),
      dayRow(
        `${title}: resident memory of the node`,
        at,
        samples.map((sample) => sample.node.residentBytes),
      ),
      objectsRow(`${title}: objects of the client`, objects, objectsAfter, OBJECTS_ALLOWED),
      growth("heap of the client", (sample) => sample.client.heapBytes, { informative: true }),
      growth("external memory of the client", (sample) => sample.client.externalBytes),
      growth("resident memory of the client", (sample) => sample.client.residentBytes),
      dayRow(
        `${title}: resident memory of the client`,
        at,
        samples.map((sample) => sample.client.residentBytes),
      ),
    ];
  } finally {
    await workload.stop();
  }
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
