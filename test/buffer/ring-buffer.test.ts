/** What a ring promises beyond the order of its records: options, handles, places, closing, waiting. */
import { describe, expect, it } from "vitest";
import { RingBuffer } from "../../src/buffer/ring-buffer";
import type { RingBufferOptions } from "../../src/buffer/ring-buffer";
import { CELL } from "../../src/buffer/ring/layout";
import { fillRecord, checkRecord } from "./ring-records";

const code = (code: string) => expect.objectContaining({ code }) as unknown as Error;

function write(
  ring: RingBuffer,
  producer: ReturnType<RingBuffer["producer"]>,
  from: number,
  n: number,
): number {
  const granted = producer.claim(n);
  for (let i = 0; i < granted; i++)
    fillRecord(producer.words, ((producer.first + i) & producer.mask) * 16, from + i);
  producer.publish();
  return granted;
}

describe("options", () => {
  it("rounds the capacity up to a power of two", () => {
    expect(new RingBuffer({ capacity: 1000 }).capacity).toBe(1024);
    expect(new RingBuffer().capacity).toBe(65_536);
  });

  it.each<[string, RingBufferOptions]>([
    ["capacity", { capacity: 0 }],
    ["capacity", { capacity: 1.5 }],
    ["capacity", { capacity: 2 ** 26 }],
    ["payloadBytes", { payloadBytes: -1 }],
    ["maxReaders", { maxReaders: 0 }],
    ["overflow", { overflow: "drop-oldest" as never }],
    ["producers", { producers: "many" as never }],
  ])("refuses a wrong %s", (_, options) => {
    expect(() => new RingBuffer(options)).toThrowError(code("BT_OPTION_INVALID"));
  });
});

describe("handle", () => {
  it("survives a structured clone and opens the same ring", () => {
    const ring = new RingBuffer({ capacity: 8 });
    const same = RingBuffer.from(structuredClone(ring.handle));
    write(ring, ring.producer(), 0, 3);
    const reader = same.reader();
    expect(reader.poll(10)).toBe(3);
    checkRecord(reader.words, ((reader.start + 2) & reader.mask) * 16, 2);
    expect(ring.stats().readers).toHaveLength(1);
  });

  const valid = () => new RingBuffer({ capacity: 8, payloadBytes: 64 }).handle;
  const damaged = (cell: number, value: number) => {
    const handle = valid();
    new Int32Array(handle.sab)[cell] = value;
    return handle;
  };
  it.each<[string, () => unknown]>([
    ["nothing", () => undefined],
    ["a string", () => "ring"],
    ["an object of another kind", () => ({ kind: "ring", version: 1, sab: new SharedArrayBuffer(64) })],
    ["another version", () => ({ ...valid(), version: 2 })],
    ["no shared memory", () => ({ ...valid(), sab: new ArrayBuffer(4096) })],
    ["memory that is too small", () => ({ ...valid(), sab: new SharedArrayBuffer(16) })],
    ["memory of something else", () => ({ ...valid(), sab: new SharedArrayBuffer(1 << 16) })],
    ["a damaged magic", () => damaged(CELL.magic, 1)],
    ["a damaged version", () => damaged(CELL.version, 9)],
    ["a capacity that is no power of two", () => damaged(CELL.capacity, 7)],
    ["a capacity that doesn't fit the memory", () => damaged(CELL.capacity, 16)],
    ["a negative capacity", () => damaged(CELL.capacity, -8)],
    ["a wrong number of readers", () => damaged(CELL.maxReaders, 0)],
    ["a wrong payload area", () => damaged(CELL.payloadUnits, 9)],
  ])("refuses %s", (_, handle) => {
    expect(() => RingBuffer.from(handle() as never)).toThrowError(code("BT_RING_INVALID"));
  });
});

describe("places of readers", () => {
  it("are limited, and free again when a reader leaves", () => {
    const ring = new RingBuffer({ capacity: 8, maxReaders: 2 });
    const a = ring.reader();
    ring.reader();
    expect(() => ring.reader()).toThrowError(code("BT_RING_INVALID"));
    a.close();
    expect(ring.reader().index).toBe(a.index);
  });

  it("gives what a reader has released back when it leaves", () => {
    const ring = new RingBuffer({ capacity: 4 });
    const producer = ring.producer();
    const reader = ring.reader();
    expect(write(ring, producer, 0, 4)).toBe(4);
    reader.release(reader.poll(3) - 1);
    reader.close();
    expect(write(ring, producer, 4, 4)).toBe(2);
    const next = ring.reader();
    expect(next.poll(9)).toBe(4);
    checkRecord(next.words, (next.start & next.mask) * 16, 2);
  });

  it("a closed reader can't be used", () => {
    const reader = new RingBuffer({ capacity: 4 }).reader();
    reader.close();
    reader.close();
    expect(() => reader.poll(1)).toThrowError(code("BT_CLOSED"));
  });

  it("can be taken from a dead reader, which then doesn't hold up anybody", () => {
    const ring = new RingBuffer({ capacity: 4 });
    const producer = ring.producer();
    const dead = ring.reader();
    const alive = ring.reader();
    write(ring, producer, 0, 4);
    alive.release(alive.poll(4));
    expect(write(ring, producer, 4, 1)).toBe(0);
    expect(ring.evict(dead.index)).toBe(true);
    expect(ring.evict(dead.index)).toBe(false);
    expect(write(ring, producer, 4, 4)).toBe(4);
    expect(() => dead.poll(5)).toThrowError(code("BT_CLOSED"));
    expect(alive.poll(9)).toBe(4);
    expect(alive.gap).toBe(1);
    expect(() => ring.evict(99)).toThrowError(code("BT_RING_INVALID"));
  });

  it("a reader that waits is told when it is evicted or closed", async () => {
    const ring = new RingBuffer({ capacity: 4 });
    const [evicted, closed] = [ring.reader(), ring.reader()];
    const waits = [evicted.wait(), closed.wait()];
    await new Promise((resolve) => setImmediate(resolve));
    ring.evict(evicted.index);
    closed.close();
    expect(await Promise.all(waits)).toEqual(["ready", "closed"]);
    expect(() => evicted.poll(1)).toThrowError(code("BT_CLOSED"));
  });

  it("without any reader the first records are kept", () => {
    const ring = new RingBuffer({ capacity: 4 });
    const producer = ring.producer();
    expect(write(ring, producer, 0, 6)).toBe(4);
    expect(ring.stats()).toMatchObject({ written: 4, dropped: 2, readers: [] });
    const reader = ring.reader();
    expect(reader.poll(9)).toBe(4);
    reader.release(4);
    expect(reader.poll(9)).toBe(0);
    expect(reader.gap).toBe(2);
  });

  it("refuses to release more than was handed out", () => {
    const ring = new RingBuffer({ capacity: 4 });
    const reader = ring.reader();
    write(ring, ring.producer(), 0, 2);
    reader.poll(2);
    expect(() => reader.release(3)).toThrowError(RangeError);
  });
});

describe("producers", () => {
  it.each(["single", "multiple"] as const)("claim whole numbers of slots only (%s)", (producers) => {
    const producer = new RingBuffer({ capacity: 8, producers }).producer();
    expect(producer.claim(0)).toBe(0);
    expect(() => producer.claim(-1)).toThrowError(RangeError);
  });

  it("a second one of a single-producer ring takes over, the first notices", () => {
    for (const overflow of ["drop-newest", "overwrite-oldest"] as const) {
      const ring = new RingBuffer({ capacity: 4, overflow });
      const first = ring.producer();
      const reader = ring.reader();
      write(ring, first, 0, 3);
      first.claim(1); // never published
      const second = ring.producer();
      expect(write(ring, second, 3, 1)).toBe(1);
      expect(reader.poll(9)).toBe(4);
      for (let i = 0; i < 4; i++) checkRecord(reader.words, ((reader.start + i) & reader.mask) * 16, i);
      expect(() => first.claim(4)).toThrowError(code("BT_RING_INVALID"));
    }
  });

  it("several interleave their claims; records become readable in order of claims", () => {
    const ring = new RingBuffer({ capacity: 16, producers: "multiple" });
    const [a, b] = [ring.producer(), ring.producer()];
    const reader = ring.reader();
    const fill = (p: typeof a, n: number, from: number) => {
      expect(p.claim(n)).toBe(n);
      for (let i = 0; i < n; i++) fillRecord(p.words, ((p.first + i) & p.mask) * 16, from + i);
    };
    fill(a, 2, 0);
    fill(b, 3, 2);
    fill(a, 1, 5);
    b.publish();
    expect(reader.poll(9)).toBe(0);
    expect(ring.stats()).toMatchObject({ written: 0, unpublished: 6 });
    a.publish();
    expect(reader.poll(9)).toBe(6);
    for (let i = 0; i < 6; i++) checkRecord(reader.words, ((reader.start + i) & reader.mask) * 16, i);
    expect(ring.stats()).toMatchObject({ written: 6, unpublished: 0 });
  });

  it("never overwrite what another is still writing", () => {
    const ring = new RingBuffer({ capacity: 4, producers: "multiple", overflow: "overwrite-oldest" });
    const [slow, fast] = [ring.producer(), ring.producer()];
    slow.claim(1);
    expect(fast.claim(10)).toBe(3);
    fast.publish();
    expect(fast.claim(1)).toBe(0);
    slow.publish();
    expect(fast.claim(9)).toBe(4);
    expect(ring.stats().dropped).toBe(7 + 1); // the last five are told when these four are published
    fast.publish();
    expect(ring.stats().dropped).toBe(7 + 1 + 5);
  });
});

describe.each(["drop-newest", "overwrite-oldest"] as const)("closing (%s)", (overflow) => {
  it("lets readers drain, then tells them", async () => {
    const ring = new RingBuffer({ capacity: 8, overflow });
    const producer = ring.producer();
    const reader = ring.reader();
    write(ring, producer, 0, 2);
    ring.close();
    expect(ring.closed).toBe(true);
    expect(producer.claim(1)).toBe(0);
    expect(await reader.wait(1000)).toBe("ready");
    reader.release(reader.poll(9));
    expect(reader.waitSync(1000)).toBe("ready"); // the claim after closing was dropped, and counted
    expect(reader.poll(9)).toBe(0);
    expect(reader.gap).toBe(1);
    expect(await reader.wait(1000)).toBe("closed");
    expect(reader.waitSync(1000)).toBe("closed");
  });
});

describe.each(["park", "spin", "poll"] as const)("waiting by %s", (wait) => {
  it("ends with records, with a gap, with time, and by abort", async () => {
    const ring = new RingBuffer({ capacity: 8 });
    const producer = ring.producer();
    const reader = ring.reader({ wait });
    expect(reader.waitSync(1)).toBe("timeout");
    expect(await reader.wait(1)).toBe("timeout");

    const records = reader.wait();
    await new Promise((resolve) => setImmediate(resolve));
    write(ring, producer, 0, 1);
    expect(await records).toBe("ready");
    reader.release(reader.poll(1));

    const gap = reader.wait();
    await new Promise((resolve) => setImmediate(resolve));
    producer.drop(3);
    expect(await gap).toBe("ready");
    expect(reader.poll(1)).toBe(0);
    expect(reader.gap).toBe(3);

    const controller = new AbortController();
    const aborted = reader.wait(Infinity, controller.signal);
    setImmediate(() => controller.abort(new Error("enough")));
    await expect(aborted).rejects.toThrowError(code("BT_ABORTED"));
    await expect(reader.wait(1, controller.signal)).rejects.toThrowError(code("BT_ABORTED"));

    const closed = reader.wait();
    await new Promise((resolve) => setImmediate(resolve));
    ring.close();
    expect(await closed).toBe("closed");
  });

  it("serves several readers at a time", async () => {
    const ring = new RingBuffer({ capacity: 8 });
    const producer = ring.producer();
    const readers = [ring.reader({ wait }), ring.reader({ wait }), ring.reader({ wait })];
    const all = Promise.all(readers.map((reader) => reader.wait()));
    await new Promise((resolve) => setImmediate(resolve));
    write(ring, producer, 0, 1);
    expect(await all).toEqual(["ready", "ready", "ready"]);
  });
});
