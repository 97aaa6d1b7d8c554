/** The ring between real threads: nothing torn, stale, doubled or lost without being told. */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RING_ORIGIN, RingBuffer } from "../../src/buffer/ring-buffer";
import type { RingBufferOptions } from "../../src/buffer/ring-buffer";
import { bundleWorker } from "../../stress/ring-bundle";
import type { WorkerBundle } from "../../stress/ring-bundle";
import type { ReadReport, ThreadTask } from "./ring-thread-worker";

let bundle: WorkerBundle;
beforeAll(async () => {
  bundle = await bundleWorker(fileURLToPath(new URL("ring-thread-worker.ts", import.meta.url)));
});
afterAll(() => bundle[Symbol.asyncDispose]());

function spawn<T>(task: ThreadTask): { worker: Worker; result: Promise<T> } {
  const worker = new Worker(bundle.path, { workerData: task });
  const result = new Promise<T>((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", () => reject(new Error("the thread ended early")));
  });
  result.catch(() => undefined);
  return { worker, result };
}

interface Setting {
  readonly options: RingBufferOptions;
  readonly producers: number;
  readonly count: number;
  readonly payloads?: boolean;
  readonly pauseMs?: number;
  readonly readers: readonly Pick<ThreadTask & { role: "read" }, "wait" | "by">[];
  readonly visitors?: readonly ("oldest" | "latest")[];
}

async function run({
  options,
  producers,
  count,
  payloads = false,
  pauseMs = 0,
  readers,
  visitors = [],
}: Setting) {
  // Positions pass 2^32 during the run.
  const ring = new RingBuffer({
    ...options,
    producers: producers === 1 ? "single" : "multiple",
    [RING_ORIGIN]: { position: 2n ** 32n - BigInt(count >> 1) },
  } as RingBufferOptions);
  const { handle } = ring;
  const start = new Int32Array(new SharedArrayBuffer(4));
  const startAt = readers.length + visitors.length;
  const reading = readers.map((reader) =>
    spawn<ReadReport>({ role: "read", handle, producers, start, ...reader }),
  );
  const visiting = visitors.map((from) => spawn<ReadReport>({ role: "visit", handle, from, start }));
  const producing = Array.from({ length: producers }, (_, id) =>
    spawn<undefined>({ role: "produce", handle, id, count, payloads, pauseMs, start, startAt }),
  );
  await Promise.race([
    Promise.all(producing.map(({ result }) => result)),
    // A reader that fails must not leave producers running unseen.
    ...reading.concat(visiting).map(({ result }) => result.then(() => new Promise(() => undefined))),
  ]);
  ring.close();
  const reports = await Promise.all(reading.map(({ result }) => result));
  const visits = await Promise.all(visiting.map(({ result }) => result));
  return { stats: ring.stats(), reports, visits };
}

describe.each(["drop-newest", "overwrite-oldest"] as const)("%s", (overflow) => {
  it("one producer, two readers: every gap exactly where it is said to be", async () => {
    const count = 300_000;
    const { stats, reports } = await run({
      options: { capacity: 256, overflow, payloadBytes: 0 },
      producers: 1,
      count,
      readers: [
        { wait: "spin", by: "poll" },
        { wait: "park", by: "next" },
      ],
    });
    expect(stats.written + stats.dropped).toBe(count);
    for (const report of reports) expect(report.read + report.lost).toBe(count);
  });

  it("payloads are those of their records, or gone", async () => {
    const count = 100_000;
    const { reports } = await run({
      options: { capacity: 512, overflow, payloadBytes: 4096 },
      producers: 1,
      count,
      payloads: true,
      readers: [{ wait: "park", by: "poll" }],
    });
    expect(reports[0]!.read + reports[0]!.lost).toBe(count);
    expect(reports[0]!.payloads).toBeGreaterThan(0);
    if (overflow === "drop-newest") expect(reports[0]!.payloadsGone).toBe(0);
  });

  it("three producers, two readers, with payloads", async () => {
    const count = 60_000;
    const { stats, reports } = await run({
      options: { capacity: 256, overflow, payloadBytes: 4096 },
      producers: 3,
      count,
      payloads: true,
      readers: [
        { wait: "park", by: "poll" },
        { wait: "park-async", by: "next" },
      ],
    });
    expect(stats.written + stats.dropped).toBe(3 * count);
    expect(stats.unpublished).toBe(0);
    for (const report of reports) expect(report.read + report.lost).toBe(3 * count);
  });

  it("readers come and go", async () => {
    const count = 400_000;
    const { stats, visits } = await run({
      options: { capacity: 128, overflow, payloadBytes: 0, maxReaders: 3 },
      producers: 1,
      count,
      readers: [],
      visitors: ["oldest", "latest"],
    });
    expect(stats.written + stats.dropped).toBe(count);
    expect(stats.readers).toEqual([]);
    for (const { visits: n } of visits) expect(n).toBeGreaterThan(0);
  });
});

describe("sleeping readers", () => {
  it.each(["park", "park-async", "poll"] as const)("miss nothing (%s)", async (wait) => {
    const count = 2000;
    const { reports } = await run({
      options: { capacity: 4096 },
      producers: 1,
      count,
      pauseMs: 0.2,
      readers: [{ wait, by: "poll" }],
    });
    expect(reports[0]).toMatchObject({ read: count, lost: 0 });
  });
});

describe("a reader whose thread was terminated", () => {
  it("holds up the ring until it is evicted", async () => {
    const ring = new RingBuffer({ capacity: 4 });
    const start = new Int32Array(new SharedArrayBuffer(4));
    const { worker } = spawn({ role: "hang", handle: ring.handle, start });
    await Atomics.waitAsync(start, 0, 0).value;
    await worker.terminate();
    const producer = ring.producer();
    producer.claim(4);
    producer.publish();
    expect(producer.claim(1)).toBe(0);
    const [dead] = ring.stats().readers;
    expect(dead).toMatchObject({ read: 0, pending: 4 });
    expect(ring.evict(dead!.index)).toBe(true);
    const reader = ring.reader();
    reader.release(reader.poll(4));
    expect(producer.claim(4)).toBe(4);
  });
});
