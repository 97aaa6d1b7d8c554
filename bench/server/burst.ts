/**
 * A million events within one second: what was produced must be what was delivered plus what was counted as lost, to the event.
 * `npx tsx bench/server/burst.ts [--quick] [--events 1000000] [--workers 20] [--bursts 5]`
 */
import { startNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { CountedTrace } from "./counted-trace";
import { beginSending, differences, finishTraffic, startTraffic, trafficPids } from "./traffic";

const DEFAULTS = { events: 1_000_000, workers: 20, bursts: 5 };
const BURST_MS = 1000;

/** Runs the bursts on a node of their own. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { bursts: 2 } : {}), ...options };
  const node = await startNode();
  try {
    await startTraffic(node, settings.workers);
    const bursts: { produced: number; delivered: number; lost: number; tookMs: number }[] = [];
    for (let i = 0; i < settings.bursts; i += 1) {
      await using session = await attachTo(node);
      const trace = await CountedTrace.start(
        session,
        {
          processes: await trafficPids(session),
          events: ["send", "receive"],
          limits: { rate: Infinity, queue: 4 * settings.events, memory: 2 ** 30, seconds: 120 },
        },
        true,
      );
      await beginSending(node, Math.round(settings.events / 2 / settings.workers), BURST_MS);
      const report = await finishTraffic(session, 60_000);
      await trace.stop();
      const { delivered, lost } = trace;
      bursts.push({ produced: report.events, delivered, lost, tookMs: report.tookMs });
      process.stderr.write(
        `burst ${i + 1}: ${report.events} events in ${report.tookMs} ms, ${delivered} delivered, ${lost} lost\n`,
      );
      const wrong = lost === 0 ? differences(report.processes, trace.processes.values()) : [];
      if (wrong.length > 0) throw new Error(`counts by process differ:\n${wrong.join("\n")}`);
    }
    const missing = bursts.reduce(
      (sum, { produced, delivered, lost }) => sum + Math.abs(produced - delivered - lost),
      0,
    );
    const total = bursts.reduce((sum, { produced }) => sum + produced, 0);
    const lost = bursts.reduce((sum, burst) => sum + burst.lost, 0);
    const slowest = Math.max(...bursts.map(({ tookMs }) => tookMs));
    const title = `Burst of ${settings.events} events in ${BURST_MS} ms`;
    return [
      {
        what: `${title}, ${settings.bursts} times: produced − delivered − counted losses`,
        target: "0",
        measured: `${missing} of ${total}`,
        value: missing,
        ok: missing === 0,
      },
      {
        what: `${title}: counted losses`,
        target: "",
        measured: `${lost} of ${total}; the slowest burst took ${slowest} ms`,
        value: lost,
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
