/**
 * Half an hour at 50,000 events a second: nothing lost, every process' count exact, no memory slope on either side.
 * The first tenth is not looked at: buffers and heaps find their size.
 * `npx tsx bench/server/soak.ts [--quick] [--minutes 30] [--rate 50000] [--workers 20]`
 */
import { startNode } from "../../test/support/erl-node";
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
import { beginSending, differences, finishTraffic, startTraffic, trafficPids } from "./traffic";

const DEFAULTS = { minutes: 30, rate: 50_000, workers: 20 };
const SAMPLE_MS = 5000;
/** The samples themselves, and whatever a batch in the making holds. */
const OBJECTS_ALLOWED = 5_000;

interface Sample {
  readonly minutes: number;
  readonly node: NodeFootprint;
  readonly client: ClientFootprint;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs the load and looks at both sides every five seconds. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const { minutes, rate, workers } = { ...DEFAULTS, ...(quick ? { minutes: 1 } : {}), ...options };
  const durationMs = minutes * 60_000;
  const node = await startNode();
  try {
    await startTraffic(node, workers);
    // The snapshots below stop this thread for longer than the default lease.
    await using session = await attachTo(node, { leaseMs: 600_000 });
    const trace = await CountedTrace.start(
      session,
      {
        processes: await trafficPids(session),
        events: ["send", "receive"],
        // Room for a few seconds in which a shared machine does not let the tracer run.
        limits: { seconds: minutes * 60 + 300, rate: Infinity, queue: 1_000_000 },
      },
      true,
    );
    // A heap snapshot stands still for many seconds: before the load and after it, never within.
    const objects = await liveObjects();
    const start = performance.now();
    await beginSending(node, Math.round((rate / 2 / workers) * minutes * 60), durationMs);
    const samples: Sample[] = [];
    for (let i = 1; i * SAMPLE_MS < durationMs; i += 1) {
      await sleep(start + i * SAMPLE_MS - performance.now());
      const passed = (performance.now() - start) / 60_000;
      if (trace.trace.hasEnded)
        throw new Error(`the trace ended: ${JSON.stringify(await trace.trace.ended)}`);
      if (passed < minutes / 10) continue;
      samples.push({ minutes: passed, node: await nodeFootprint(node), client: clientFootprint() });
      if (i % 12 === 0)
        process.stderr.write(`${passed.toFixed(1)} min: ${trace.delivered} events, ${trace.lost} lost\n`);
    }
    const report = await finishTraffic(session, 120_000);
    await trace.stop();
    const objectsAfter = await liveObjects();
    const wrong = differences(report.processes, trace.processes.values());
    const title = `${minutes} minutes at ${rate} events/s`;
    const at = samples.map((sample) => sample.minutes);
    const growth = (what: string, bytes: (sample: Sample) => number, more: Partial<Growth> = {}): Row =>
      growthRow({ what: `${title}: ${what}`, unit: "minute", at, bytes: samples.map(bytes), ...more });
    const missing = report.events - trace.delivered;
    return [
      {
        what: `${title}: events lost`,
        target: "0",
        measured: `${missing} of ${report.events} (${trace.lost} counted), ${Math.round(report.events / (report.tookMs / 1000))} events/s`,
        value: missing,
        ok: missing === 0 && trace.lost === 0,
      },
      {
        what: `${title}: processes whose counts differ`,
        target: "0",
        measured: wrong.length === 0 ? `0 of ${report.processes.length}` : wrong.slice(0, 3).join("; "),
        value: wrong.length,
        ok: wrong.length === 0,
      },
      growth("memory of the node", (sample) => sample.node.bytes),
      growth("resident memory of the node", (sample) => sample.node.residentBytes),
      objectsRow(`${title}: objects of the client`, objects, objectsAfter, OBJECTS_ALLOWED),
      growth("heap of the client", (sample) => sample.client.heapBytes, { informative: true }),
      growth("external memory of the client", (sample) => sample.client.externalBytes),
      growth("resident memory of the client", (sample) => sample.client.residentBytes),
    ];
  } finally {
    await node.stop();
  }
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
