/**
 * Millions of spawns and exits, traced natively, in pieces: each piece starts traces (two at once with overlapping processes where the node has
 * trace sessions), spawns, stops, and accounts for every event. `npx tsx stress/native-torture.ts [pieces] [spawns of each]`. The node is
 * this machine's, or another release's by scripts/with-otp.sh.
 */
import { fileURLToPath } from "node:url";
import type { Row } from "../bench/row";
import { RingBuffer } from "../src/buffer";
import type { Trace } from "../src/capture";
import { startNode } from "../test/support/erl-node";
import {
  account,
  EVENTS_OF_A_SPAWN,
  SPAWNED,
  spawnAll,
  startSpawners,
  stopSpawners,
} from "../test/support/spawners";
import { attachTo } from "../test/support/traced";

const SPAWNERS = 8;

export interface TortureReport {
  readonly otp: number;
  readonly traces: number;
  readonly spawns: number;
  readonly expected: number;
  readonly delivered: number;
  readonly lost: number;
  readonly backwards: number;
  readonly seconds: number;
  readonly usage: string;
  readonly wrong: readonly string[];
}

export async function torture(pieces: number, spawns: number): Promise<TortureReport> {
  const node = await startNode();
  const wrong: string[] = [];
  const totals = { expected: 0, delivered: 0, lost: 0, backwards: 0, spawns: 0 };
  const start = performance.now();
  const session = await attachTo(node, { tracer: "native" });
  const { otp } = session.info;
  const pids = await startSpawners(node, session, SPAWNERS);
  const each = Math.ceil(spawns / SPAWNERS);
  // On the legacy session there is one trace at a time.
  const groups = session.info.capabilities.traceSessions ? [pids, pids.slice(SPAWNERS / 2)] : [pids];
  let usage = "";
  for (let piece = 0; piece < pieces; piece++) {
    const running: { trace: Trace; size: number; counted: ReturnType<typeof account> }[] = [];
    for (const processes of groups) {
      const trace = await session.trace({
        ...SPAWNED,
        processes,
        into: new RingBuffer({ capacity: 1 << 20 }),
      });
      running.push({ trace, size: processes.length, counted: account(trace) });
    }
    await spawnAll(node, SPAWNERS, each);
    if (piece === pieces - 1) usage = await node.eval("beamtrace_nif:usage()");
    for (const { trace, size, counted } of running) {
      await trace.stop();
      await counted.done;
      const { delivered, lost, backwards } = counted.counts;
      const expected = EVENTS_OF_A_SPAWN * each * size;
      totals.expected += expected;
      totals.delivered += delivered;
      totals.lost += lost;
      totals.backwards += backwards;
      if (delivered + lost !== expected)
        wrong.push(
          `piece ${piece}: ${delivered} + ${lost} are not ${expected}; ${JSON.stringify(trace.stats)}`,
        );
      if (lost === 0 && new Set([...Object.values(counted.counts.kinds)]).size !== 1)
        wrong.push(`piece ${piece}: kinds differ: ${JSON.stringify(counted.counts.kinds)}`);
    }
    totals.spawns += each * SPAWNERS;
  }
  const seconds = (performance.now() - start) / 1000;
  await stopSpawners(node, SPAWNERS);
  await session.close();
  await node.eval("code:purge(spawner), code:delete(spawner), code:purge(spawner)");
  await node.stop();
  return { otp, traces: groups.length, ...totals, seconds, usage, wrong };
}

/** `quick`: 200,000 spawns; otherwise ten million. */
export async function run(quick: boolean): Promise<Row[]> {
  const report = await torture(quick ? 2 : 10, quick ? 100_000 : 1_000_000);
  for (const line of report.wrong) console.error(line);
  return [
    {
      what: `OTP ${report.otp}: ${report.spawns.toExponential(1)} spawns and exits, traced natively by ${report.traces} at once`,
      target: "produced = delivered + lost, in order, the node lives",
      measured: `${report.expected} produced = ${report.delivered} delivered + ${report.lost} counted as lost; ${report.backwards} backwards; ${report.seconds.toFixed(0)} s`,
      value: report.expected - report.delivered - report.lost,
      ok: report.wrong.length === 0 && report.backwards === 0,
    },
  ];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [pieces = 10, spawns = 1_000_000] = process.argv.slice(2).map(Number);
  const report = await torture(pieces, spawns);
  console.log(JSON.stringify(report, null, 2));
  process.exit(report.wrong.length === 0 && report.backwards === 0 ? 0 : 1);
}
