/**
 * A billion records from one thread to another, every word of every record checked, in both overflow modes.
 * `npx tsx stress/ring-two-threads.ts [count] [--overwrite | --drop]`; prints a table and exits with 1 on any error.
 *
 * drop-newest: nothing may be missing, the producer waits when the ring is full. overwrite-oldest: what is missing must be what the gaps say.
 */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { Row } from "../bench/row";
import { isProgram } from "../bench/server/command-line";
import { RingBuffer } from "../src/buffer/ring-buffer";
import type { Overflow } from "../src/buffer/ring/layout";
import { bundleWorker } from "./ring-bundle";
import type { ConsumerReport, TwoThreadsData } from "./ring-two-threads-worker";

async function twoThreads(path: string, overflow: Overflow, count: number): Promise<Row> {
  const ring = new RingBuffer({ capacity: 1 << 16, payloadBytes: 0, overflow });
  const start = performance.now();
  const started = new Int32Array(new SharedArrayBuffer(4));
  const consumer = spawn<ConsumerReport>(path, { role: "consume", handle: ring.handle, count, started });
  const producer = spawn<undefined>(path, { role: "produce", handle: ring.handle, count, started });
  const [report] = await Promise.all([consumer, producer]);
  const seconds = (performance.now() - start) / 1000;
  const { written, dropped } = ring.stats();
  const accounted = report.read + report.lost === count && written === count && dropped === 0;
  const complete = overflow === "overwrite-oldest" || report.lost === 0;
  const ok = report.wrong === 0 && accounted && complete;
  const line = {
    mode: overflow,
    written,
    read: report.read,
    lost: report.lost,
    gaps: report.gaps,
    wrong: report.wrong,
    "M/s": (count / seconds / 1e6).toFixed(1),
    result: ok ? "ok" : "FAILED",
  };
  console.table([line]);
  if (report.firstWrong !== undefined) console.error(report.firstWrong);
  return {
    what: `${count.toExponential(0)} records between two threads, ${overflow}: records wrong or unaccounted for`,
    target: "0",
    measured: ok
      ? `0 (${line["M/s"]} M/s, every word checked)`
      : `${report.wrong} wrong, ${report.lost} lost in ${report.gaps} gaps, ${report.read} read of ${written}`,
    value: report.wrong + Math.abs(count - report.read - report.lost),
    ok,
  };
}

function spawn<T>(path: string, data: TwoThreadsData): Promise<T> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(path, { workerData: data });
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", (code) => reject(new Error(`worker exited with ${code}`)));
  });
}

/** Runs the modes one after another. */
async function stress(modes: readonly Overflow[], count: number): Promise<Row[]> {
  await using bundle = await bundleWorker(
    fileURLToPath(new URL("ring-two-threads-worker.ts", import.meta.url)),
  );
  const rows: Row[] = [];
  for (const mode of modes) rows.push(await twoThreads(bundle.path, mode, count));
  return rows;
}

const MODES: readonly Overflow[] = ["drop-newest", "overwrite-oldest"];

/** The stress as a check: a billion records, with `quick` ten million. */
export function run(quick: boolean): Promise<Row[]> {
  return stress(MODES, quick ? 1e7 : 1e9);
}

if (isProgram(import.meta.url)) {
  const args = process.argv.slice(2);
  const count = Number(args.find((a) => !a.startsWith("--")) ?? 1e9);
  if (!Number.isSafeInteger(count) || count < 1)
    throw new RangeError(`not a number of records: ${args.join(" ")}`);
  const modes = MODES.filter((mode) =>
    args.includes("--overwrite")
      ? mode === "overwrite-oldest"
      : !args.includes("--drop") || mode === "drop-newest",
  );
  if ((await stress(modes, count)).some((row) => !row.ok)) process.exitCode = 1;
}
