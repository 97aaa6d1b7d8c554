/**
 * A billion records from one thread to another, every word of every record checked, in both overflow modes.
 * `npx tsx stress/ring-two-threads.ts [count] [--overwrite | --drop]`; prints a table and exits with 1 on any error.
 *
 * drop-newest: nothing may be missing, the producer waits when the ring is full. overwrite-oldest: what is missing must be what the gaps say.
 */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { RingBuffer } from "../src/buffer/ring-buffer";
import type { Overflow } from "../src/buffer/ring/layout";
import { bundleWorker } from "./ring-bundle";
import type { ConsumerReport, TwoThreadsData } from "./ring-two-threads-worker";

const args = process.argv.slice(2);
const count = Number(args.find((a) => !a.startsWith("--")) ?? 1e9);
const modes: Overflow[] = args.includes("--overwrite")
  ? ["overwrite-oldest"]
  : args.includes("--drop")
    ? ["drop-newest"]
    : ["drop-newest", "overwrite-oldest"];
if (!Number.isSafeInteger(count) || count < 1)
  throw new RangeError(`not a number of records: ${args.join(" ")}`);

async function run(path: string, overflow: Overflow): Promise<boolean> {
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
  return ok;
}

function spawn<T>(path: string, data: TwoThreadsData): Promise<T> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(path, { workerData: data });
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", (code) => reject(new Error(`worker exited with ${code}`)));
  });
}

await using bundle = await bundleWorker(
  fileURLToPath(new URL("ring-two-threads-worker.ts", import.meta.url)),
);
for (const mode of modes) {
  if (!(await run(bundle.path, mode))) process.exitCode = 1;
}
