/**
 * What bench/ring.ts measures: blocks of our ring and of ringbuf.js by turns. Bundled and run as a program: arguments are the bundle of ring-worker.ts and
 * the number of blocks; prints rows as JSON.
 */
import { Worker } from "node:worker_threads";
import { RingBuffer as RingbufJs } from "ringbuf.js";
import { RingBuffer } from "../src/buffer/ring-buffer";
import { BATCH, expectedSum, oursOneThread, oursProduce, theirsOneThread, theirsProduce } from "./ring-loops";
import { CONTROL, KIND } from "./ring-worker";
import type { RingWorkerData } from "./ring-worker";
import type { Row } from "./row";

/** Slots of both rings. */
const CAPACITY = 4096;

/** One side of a comparison. */
interface Side {
  /** What comes before the clock starts: waking the other thread. */
  prepare?(n: number): void;
  /** Moves n records and returns the sum of their words. */
  move(n: number): number;
}

interface Comparison {
  readonly what: string;
  readonly ours: Side;
  readonly theirs: Side;
  /** Least ratio, and least million records a second of ours. */
  readonly ratio: number;
  readonly millions: number;
  /** Records of a block. */
  readonly block: number;
}

/** Comparisons give up waiting for undisturbed blocks after so long. */
const PATIENCE_MS = 60_000;

/** With fewer pairs of undisturbed neighbours the ratio is that of the medians. */
const FEW = 20;

/** Million records a second; undefined when a thread of ours was taken off its processor meanwhile. */
function millionsPerSecond(side: Side, n: number): number | undefined {
  side.prepare?.(n);
  const switches = process.resourceUsage().involuntaryContextSwitches;
  const start = process.hrtime.bigint();
  const total = side.move(n);
  const ns = Number(process.hrtime.bigint() - start);
  const disturbed = process.resourceUsage().involuntaryContextSwitches !== switches;
  if (total !== expectedSum(n))
    throw new Error("the sum of the words is wrong: records were lost or damaged");
  return disturbed ? undefined : (n / ns) * 1e3;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function compare({ what, ours, theirs, ratio, millions, block }: Comparison, blocks: number): Row[] {
  for (let i = 0; i < blocks / 3; i++) {
    millionsPerSecond(ours, block);
    millionsPerSecond(theirs, block);
  }
  const a: number[] = [];
  const b: number[] = [];
  const ratios: number[] = [];
  let tried = 0;
  const until = performance.now() + PATIENCE_MS;
  for (; Math.min(a.length, b.length) < blocks && performance.now() < until; tried++) {
    const x = millionsPerSecond(ours, block);
    const y = millionsPerSecond(theirs, block);
    if (x !== undefined) a.push(x);
    if (y !== undefined) b.push(y);
    if (x !== undefined && y !== undefined) ratios.push(x / y);
  }
  if (a.length === 0 || b.length === 0)
    throw new Error(`${what}: no block was undisturbed in ${PATIENCE_MS / 1000} s`);
  const found = median(a);
  // Neighbours ran at the same speed of the machine, which changes under other load.
  const foundRatio = ratios.length >= FEW ? median(ratios) : found / median(b);
  const m = (x: number) => x.toFixed(1);
  return [
    {
      what: `ring, ${what}: records/s`,
      target: `≥ ${millions} M/s`,
      measured: `${m(found)} M/s (quartiles ${m(quantile(a, 0.25))}–${m(quantile(a, 0.75))}, best ${m(Math.max(...a))}; ${a.length} of ${tried} blocks)`,
      value: found,
      ok: found >= millions,
    },
    {
      what: `ring, ${what}: against ringbuf.js`,
      target: `≥ ${ratio} ×`,
      measured: `${foundRatio.toFixed(2)} × (ringbuf.js ${m(median(b))} M/s, quartiles ${m(quantile(b, 0.25))}–${m(quantile(b, 0.75))}; ${ratios.length} pairs)`,
      value: foundRatio,
      ok: foundRatio >= ratio,
    },
  ];
}

function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((x, y) => x - y);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
}

function newTheirs(sab = RingbufJs.getStorageForCapacity(CAPACITY * 16, Uint32Array)): RingbufJs {
  return new RingbufJs(sab, Uint32Array);
}

/** Both ends on one thread. */
function oneThread(blocks: number): Row[] {
  const ours = oursOneThread(new RingBuffer({ capacity: CAPACITY, payloadBytes: 0 }));
  const theirs = theirsOneThread(newTheirs());
  return [
    ...compare(
      {
        what: "one thread, record by record",
        ours: { move: ours.perRecord },
        theirs: { move: theirs.perRecord },
        ratio: 3,
        millions: 25,
        block: 20_000,
      },
      blocks,
    ),
    ...compare(
      {
        what: `one thread, batches of ${BATCH}`,
        ours: { move: ours.batched },
        theirs: { move: theirs.batched },
        ratio: 3,
        millions: 100,
        block: 64 * 1000,
      },
      blocks,
    ),
  ];
}

/** One end here, the other in a worker. */
async function twoThreads(blocks: number, workerPath: string): Promise<Row[]> {
  const ring = new RingBuffer({ capacity: CAPACITY, payloadBytes: 0 });
  const ours = oursProduce(ring);
  const theirsMemory = RingbufJs.getStorageForCapacity(CAPACITY * 16, Uint32Array);
  const theirs = theirsProduce(newTheirs(theirsMemory));
  const control = new Int32Array(new SharedArrayBuffer(CONTROL.cells * 4));
  const data: RingWorkerData = {
    control: control.buffer as SharedArrayBuffer,
    ours: ring.handle,
    theirs: theirsMemory,
  };
  const worker = new Worker(workerPath, { workerData: data });
  const failed = new Promise<never>((_, reject) => worker.once("error", reject));
  const exited = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
  await Promise.race([failed, new Promise<void>((resolve) => worker.once("online", resolve))]);
  let order = 0;
  const tell = (kind: number, n: number) => {
    Atomics.store(control, CONTROL.kind, kind);
    Atomics.store(control, CONTROL.count, n);
    Atomics.store(control, CONTROL.order, ++order);
    Atomics.notify(control, CONTROL.order);
  };
  const across = (kind: number, produce: (n: number) => void): Side => ({
    prepare(n) {
      tell(kind, n);
      while (Atomics.load(control, CONTROL.ready) !== order);
    },
    move(n) {
      produce(n);
      while (Atomics.load(control, CONTROL.done) !== order);
      return Atomics.load(control, CONTROL.sum);
    },
  });
  try {
    return [
      ...compare(
        {
          what: "two threads, record by record",
          ours: across(KIND.oursPerRecord, ours.perRecord),
          theirs: across(KIND.theirsPerRecord, theirs.perRecord),
          ratio: 3,
          millions: 25,
          block: 8192,
        },
        blocks,
      ),
      ...compare(
        {
          what: `two threads, batches of ${BATCH}`,
          ours: across(KIND.oursBatched, ours.batched),
          theirs: across(KIND.theirsBatched, theirs.batched),
          ratio: 2,
          millions: 40,
          block: 64 * 400,
        },
        blocks,
      ),
    ];
  } finally {
    tell(KIND.stop, 0);
    await exited;
  }
}

const [workerPath = "", blocks = ""] = process.argv.slice(2);
const rows = [...oneThread(Number(blocks)), ...(await twoThreads(Number(blocks), workerPath))];
process.stdout.write(JSON.stringify(rows));
