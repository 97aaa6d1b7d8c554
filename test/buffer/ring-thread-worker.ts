/**
 * Threads of ring-threads.test.ts: producers that never wait, and readers that check every word of every record and every payload,
 * and that every gap is exactly as long as it is said to be.
 *
 * Record n of producer p: word 0 is n, word 1 is p, words 6 and 7 are its payload (length 0: none), the others are mixed from n and p.
 */
import { parentPort, workerData } from "node:worker_threads";
import { RingBuffer } from "../../src/buffer/ring-buffer";
import type { RingHandle } from "../../src/buffer/ring/handle";
import type { RingReader } from "../../src/buffer/ring/reader";
import { recordWord } from "./ring-records";

/** What a thread is to do. */
export type ThreadTask =
  | {
      readonly role: "produce";
      readonly handle: RingHandle;
      readonly id: number;
      readonly count: number;
      readonly payloads: boolean;
      /** Pause so long after every batch, for readers that sleep. */
      readonly pauseMs: number;
      /** Starts when this cell is so high. */
      readonly start: Int32Array;
      readonly startAt: number;
    }
  | {
      readonly role: "read";
      readonly handle: RingHandle;
      readonly producers: number;
      readonly wait: "park" | "spin" | "poll" | "park-async";
      readonly by: "poll" | "next";
      readonly start: Int32Array;
    }
  | {
      /** Joins, reads a little, leaves, again and again until the ring is closed. */
      readonly role: "visit";
      readonly handle: RingHandle;
      readonly from: "oldest" | "latest";
      readonly start: Int32Array;
    }
  | {
      /** Joins, reads nothing, and waits to be terminated. */
      readonly role: "hang";
      readonly handle: RingHandle;
      readonly start: Int32Array;
    };

/** What a reader found. Throws instead when anything is wrong. */
export interface ReadReport {
  readonly read: number;
  readonly lost: number;
  readonly payloads: number;
  readonly payloadsGone: number;
  readonly visits: number;
}

const PAYLOAD_AT = 6;
const PAYLOAD_BYTES = 7;
const SPREAD = 0x0100_0000;

function payloadByte(n: number, id: number, i: number): number {
  return (n * 13 + id * 101 + i * 7) & 0xff;
}

function produce(task: ThreadTask & { role: "produce" }): void {
  const producer = RingBuffer.from(task.handle).producer();
  const { words, mask } = producer;
  const bytes = new Uint8Array(64);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let s = Atomics.load(task.start, 0); s < task.startAt; s = Atomics.load(task.start, 0))
    Atomics.wait(task.start, 0, s, 100);
  let size = task.id;
  for (let n = 0; n < task.count;) {
    size = (size * 5 + 3) & 31;
    const wanted = Math.min(size + 1, task.count - n);
    const granted = producer.claim(wanted);
    for (let i = 0; i < granted; i++) {
      const at = ((producer.first + i) & mask) << 4;
      const record = n + i;
      for (let w = 2; w < 16; w++) words[at + w] = recordWord(record + task.id * SPREAD, w);
      words[at] = record;
      words[at + 1] = task.id;
      words[at + PAYLOAD_BYTES] = 0;
      if (!task.payloads) continue;
      const length = record % 61;
      for (let b = 0; b < length; b++) bytes[b] = payloadByte(record, task.id, b);
      const position = producer.writePayload(bytes, 0, length);
      if (position < 0) continue;
      words[at + PAYLOAD_AT] = position;
      words[at + PAYLOAD_BYTES] = length;
    }
    producer.publish();
    // Numbers of dropped records are left out, so that a gap shows in the numbers too.
    n += wanted;
    if (task.pauseMs > 0) Atomics.wait(pause, 0, 0, task.pauseMs);
  }
}

class Checker {
  read = 0;
  lost = 0;
  payloads = 0;
  payloadsGone = 0;
  visits = 0;
  private readonly next: number[];
  private missing = 0;

  constructor(
    private readonly reader: RingReader,
    producers: number,
  ) {
    this.next = Array.from({ length: producers }, () => 0);
  }

  gap(n: number): void {
    this.lost += n;
    this.missing += n;
  }

  /** `exact`: with one producer a gap must be just what is missing before this record. */
  record(at: number, exact: boolean): void {
    const words = this.reader.words;
    const n = words[at]!;
    const id = words[at + 1]!;
    const expected = this.next[id];
    if (expected === undefined) throw new Error(`a record of producer ${id}`);
    if (exact && n !== expected + this.missing)
      throw new Error(`record ${n} after ${expected - 1} and a gap of ${this.missing}`);
    if (n < expected) throw new Error(`record ${n} of producer ${id} after ${expected - 1}`);
    for (let w = 2; w < 16; w++) {
      if (w === PAYLOAD_AT || w === PAYLOAD_BYTES) continue;
      if (words[at + w] !== recordWord(n + id * SPREAD, w))
        throw new Error(`word ${w} of record ${n} is wrong`);
    }
    const length = words[at + PAYLOAD_BYTES]!;
    if (length > 0) this.payload(words[at + PAYLOAD_AT]!, length, n, id);
    this.missing = 0;
    this.next[id] = n + 1;
    this.read++;
  }

  /** From here on the first record may have any number. */
  startAt(at: number): void {
    this.next[0] = this.reader.words[at]!;
    this.missing = 0;
  }

  private payload(position: number, length: number, n: number, id: number): void {
    if (length !== n % 61) throw new Error(`payload of record ${n} has ${length} bytes`);
    const bytes = this.reader.readPayload(position, length);
    if (bytes === undefined) {
      this.payloadsGone++;
      return;
    }
    this.payloads++;
    for (let b = 0; b < length; b++) {
      if (bytes[b] !== payloadByte(n, id, b))
        throw new Error(`byte ${b} of the payload of record ${n} is wrong`);
    }
  }

  report(): ReadReport {
    const { read, lost, payloads, payloadsGone, visits } = this;
    return { read, lost, payloads, payloadsGone, visits };
  }
}

function ready(start: Int32Array): void {
  Atomics.add(start, 0, 1);
  Atomics.notify(start, 0);
}

async function read(task: ThreadTask & { role: "read" }): Promise<ReadReport> {
  const reader = RingBuffer.from(task.handle).reader({
    wait: task.wait === "park-async" ? "park" : task.wait,
  });
  const checker = new Checker(reader, task.producers);
  const exact = task.producers === 1;
  ready(task.start);
  for (;;) {
    let got = 0;
    if (task.by === "poll") {
      got = reader.poll(100);
      checker.gap(reader.gap);
      for (let i = 0; i < got; i++) checker.record(((reader.start + i) & reader.mask) << 4, exact);
      reader.release(got);
    } else {
      for (let at = reader.next(); ; at = reader.next()) {
        checker.gap(reader.gap);
        if (at === -1) break;
        checker.record(at, exact);
      }
    }
    if (got > 0) continue;
    const result = task.wait === "park-async" ? await reader.wait(60_000) : reader.waitSync(60_000);
    if (result === "timeout") throw new Error("nothing came for a minute");
    if (result === "closed") break;
  }
  reader.close();
  return checker.report();
}

function visit(task: ThreadTask & { role: "visit" }): ReadReport {
  const ring = RingBuffer.from(task.handle);
  let total: Checker | undefined;
  let [read, lost, visits] = [0, 0, 0];
  ready(task.start);
  for (let open = true; open; visits++) {
    const reader = ring.reader({ from: task.from });
    const checker = (total = new Checker(reader, 1));
    let first = true;
    for (let polls = 0; polls < 10; polls++) {
      const got = reader.poll(1 + (visits % 64));
      if (!first) checker.gap(reader.gap);
      if (got > 0 && first) checker.startAt((reader.start & reader.mask) << 4);
      for (let i = 0; i < got; i++) checker.record(((reader.start + i) & reader.mask) << 4, true);
      first &&= got === 0;
      reader.release(got);
      if (got === 0 && reader.waitSync(5) === "closed") open = false;
    }
    reader.close();
    read += checker.read;
    lost += checker.lost;
  }
  return { ...(total as Checker).report(), read, lost, visits };
}

async function main(task: ThreadTask): Promise<unknown> {
  switch (task.role) {
    case "produce":
      return produce(task);
    case "read":
      return read(task);
    case "visit":
      return visit(task);
    case "hang":
      RingBuffer.from(task.handle).reader();
      ready(task.start);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }
}

parentPort?.postMessage(await main(workerData as ThreadTask));
