/**
 * A million events within one second: what was produced must be what was delivered plus what was counted as lost, to the event.
 * `npx tsx bench/server/burst.ts [--quick] [--events 1000000] [--workers 20] [--bursts 6]`
 */
import { startNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { CountedTrace } from "./counted-trace";
import { median } from "./statistics";
import { beginSending, differences, finishTraffic, startTraffic, trafficPids } from "./traffic";

const DEFAULTS = { events: 1_000_000, workers: 20, bursts: 6 };
const BURST_MS = 1000;
/** Limits of the tracer's queue on the node, in events of a burst: room for all; and the default (200,000 for a million), above a quarter of which events are dropped. */
const QUEUES = [4, 0.2] as const;

interface Burst {
  readonly queue: number;
  readonly produced: number;
  readonly delivered: number;
  readonly lost: number;
  readonly tookMs: number;
  /** The node stopped the trace because too much waited for the tracer: only what came before is accounted for. */
  readonly tripped: boolean;
}

/** Runs the bursts on a node of their own. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { bursts: 2 } : {}), ...options };
  const node = await startNode();
  try {
    await startTraffic(node, settings.workers);
    const bursts: Burst[] = [];
    for (let i = 0; i < settings.bursts; i += 1) {
      const queue = (QUEUES[i % QUEUES.length] ?? 1) * settings.events;
      await using session = await attachTo(node);
      const trace = await CountedTrace.start(
        session,
        {
          processes: await trafficPids(session),
          events: ["send", "receive"],
          limits: { rate: Infinity, queue, memory: 2 ** 30, seconds: 120 },
        },
        true,
      );
      await beginSending(node, Math.round(settings.events / 2 / settings.workers), BURST_MS);
      const report = await finishTraffic(session, 60_000);
      const ended = await trace.end();
      const tripped = ended.kind === "limit" && ended.limit === "queue" && queue < settings.events;
      if (ended.kind !== "stopped" && !tripped) throw new Error(`the trace ended by itself: ${ended.kind}`);
      const { delivered, lost } = trace;
      bursts.push({ queue, produced: report.events, delivered, lost, tookMs: report.tookMs, tripped });
      process.stderr.write(
        `burst ${i + 1}: ${report.events} events in ${report.tookMs} ms, ${delivered} delivered, ${lost} lost${tripped ? ", stopped by its queue limit" : ""}\n`,
      );
      const wrong = lost === 0 && !tripped ? differences(report.processes, trace.processes.values()) : [];
      if (wrong.length > 0) throw new Error(`counts by process differ:\n${wrong.join("\n")}`);
    }
    const whole = bursts.filter(({ tripped }) => !tripped);
    const missing = whole.reduce(
      (sum, { produced, delivered, lost }) => sum + Math.abs(produced - delivered - lost),
      0,
    );
    const total = whole.reduce((sum, { produced }) => sum + produced, 0);
    const title = `Burst of ${settings.events} events in ${BURST_MS} ms`;
    const lost = (queue: number): Row => {
      const those = bursts.filter((burst) => burst.queue === queue * settings.events);
      const value = those.reduce((sum, burst) => sum + burst.lost, 0);
      const produced = those.reduce((sum, burst) => sum + burst.produced, 0);
      return {
        what: `${title}: counted losses, tracer's queue limited to ${queue * settings.events}`,
        target: "",
        measured: `${value} of ${produced}; ${those.filter(({ tripped }) => tripped).length} of ${those.length} traces stopped by that limit`,
        value,
        ok: true,
      };
    };
    const took = median(bursts.map(({ tookMs }) => tookMs));
    return [
      {
        what: `${title}, ${whole.length} times: produced − delivered − counted losses`,
        target: "0",
        measured: `${missing} of ${total}`,
        value: missing,
        ok: missing === 0,
      },
      ...QUEUES.map(lost),
      {
        what: `${title}: time that the traced node took for it, median`,
        target: "",
        measured: `${took.toFixed(0)} ms`,
        value: took,
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
