/**
 * From `attach()` to the first event at the subscriber, on loopback, with a fresh node for every ten.
 * `npx tsx bench/server/attach-latency.ts [--quick] [--times 100]`
 */
import { startNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { CountedTrace } from "./counted-trace";
import { medianEstimate, quantile } from "./statistics";
import { beginSending, startTraffic } from "./traffic";

const DEFAULTS = { times: 100 };
const PER_NODE = 10;
const WORKERS = 4;
/** Messages a second of the node's own traffic: there is always an event soon. */
const RATE = 1000;
const TRAFFIC_MS = 60_000;
const TARGET_MS = 150;

/** Attaches, traces, and waits for the first event, `times` times. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const { times } = { ...DEFAULTS, ...(quick ? { times: 20 } : {}), ...options };
  const attached: number[] = [];
  const first: number[] = [];
  while (first.length < times) {
    const node = await startNode();
    try {
      await startTraffic(node, WORKERS);
      await beginSending(node, (RATE * TRAFFIC_MS) / 1000 / WORKERS, TRAFFIC_MS);
      for (let i = 0; i < PER_NODE && first.length < times; i += 1) {
        const start = performance.now();
        await using session = await attachTo(node);
        attached.push(performance.now() - start);
        const trace = await CountedTrace.start(session, { processes: "all", events: ["send", "receive"] });
        first.push((await trace.firstEvent) - start);
        await trace.stop();
      }
    } finally {
      await node.stop();
    }
  }
  const { value, low, high } = medianEstimate(first);
  return [
    {
      what: `attach() to the first event, median of ${times}`,
      target: `≤ ${TARGET_MS} ms`,
      measured: `${value.toFixed(0)} ms (${low.toFixed(0)} … ${high.toFixed(0)}), of which attach() ${quantile(attached, 0.5).toFixed(0)} ms`,
      value,
      ok: value <= TARGET_MS,
    },
    {
      what: `attach() to the first event, 95th percentile of ${times}`,
      target: `≤ ${TARGET_MS} ms`,
      measured: `${quantile(first, 0.95).toFixed(0)} ms, slowest ${quantile(first, 1).toFixed(0)} ms`,
      value: quantile(first, 0.95),
      ok: quantile(first, 0.95) <= TARGET_MS,
    },
  ];
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
