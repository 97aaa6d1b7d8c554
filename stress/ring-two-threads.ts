/**
 * A billion records from one thread to another, every word of every record checked, in both overflow modes.
 * `npx tsx stress/ring-two-threads.ts [count] [--overwrite | --drop]`; prints a table and exits with 1 on any error.
 *
 * drop-newest: nothing may be missing, the producer waits when the ring is full. overwrite-oldest: what is missing must be what the gaps say.
 */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { Row } from "../bench/row";
import { RingBuffer } from "../src/buffer/ring-buffer";
import type { Overflow } from "../src/buffer/ring/layout";
import { bundleWorker } from "./ring-bundle";
import type { ConsumerReport, TwoThreadsData } from "./ring-two-threads-worker";

interface Outcome {
  readonly mode: Overflow;
  readonly written: number;
  readonly read: number;
  readonly lost: number;
  readonly gaps: number;
  readonly wrong: number;
  readonly millionsPerSecond: number;
  readonly firstWrong: string | undefined;
  readonly ok: boolean;
}

/** Moves `count` records in one mode. */
async function move(count: number, mode: Overflow): Promise<Outcome> {
  await using bundle = await bundleWorker(
    fileURLToPath(new URL("ring-two-threads-worker.ts", import.meta.url)),
  );
  const ring = new RingBuffer({ capacity: 1 << 16, payloadBytes: 0, overflow: mode });
  const start = performance.now();
  const started = new Int32Array(new SharedArrayBuffer(4));
  const consumer = spawn<ConsumerReport>(bundle.path, {
    role: "consume",
    handle: ring.handle,
    count,
    started,
  });
  const producer = spawn<undefined>(bundle.path, { role: "produce", handle: ring.handle, count, started });
  const [{ read, lost, gaps, wrong, firstWrong }] = await Promise.all([consumer, producer]);
  const seconds = (performance.now() - start) / 1000;
  const { written, dropped } = ring.stats();
  const accounted = read + lost === count && written === count && dropped === 0;
  const complete = mode === "overwrite-oldest" || lost === 0;
  const millionsPerSecond = count / seconds / 1e6;
  return {
    mode,
    written,
    read,
    lost,
    gaps,
    wrong,
    millionsPerSecond,
    firstWrong,
    ok: wrong === 0 && accounted && complete,
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

/** Both modes. `quick`: ten million records instead of a billion. */
export async function run(quick: boolean): Promise<Row[]> {
  const rows: Row[] = [];
  for (const mode of ["drop-newest", "overwrite-oldest"] as const) {
    const { written, read, lost, wrong, firstWrong, ok } = await move(quick ? 1e7 : 1e9, mode);
    rows.push({
      what: `ring, ${mode}: ${written.toExponential(0)} records across two threads, every word checked`,
      target: mode === "drop-newest" ? "0 wrong, 0 lost" : "0 wrong, written = read + lost",
      measured: `${wrong} wrong; ${read} read + ${lost} lost = ${read + lost}${firstWrong === undefined ? "" : `; ${firstWrong}`}`,
      value: wrong,
      ok,
    });
  }
  return rows;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  const count = Number(args.find((a) => !a.startsWith("--")) ?? 1e9);
  if (!Number.isSafeInteger(count) || count < 1)
    throw new RangeError(`not a number of records: ${args.join(" ")}`);
  const modes: Overflow[] = [];
  if (!args.includes("--overwrite")) modes.push("drop-newest");
  if (!args.includes("--drop")) modes.push("overwrite-oldest");
  const outcomes: Outcome[] = [];
  for (const mode of modes) outcomes.push(await move(count, mode));
  console.table(outcomes.map((o) => ({ ...o, millionsPerSecond: o.millionsPerSecond.toFixed(1) })));
  if (!outcomes.every(({ ok }) => ok)) process.exitCode = 1;
}
