/**
 * Both threads of ring-two-threads.ts. Word 0 of a record is the low word of its number, word 1 the high word, the others are mixed from both.
 */
import { parentPort, workerData } from "node:worker_threads";
import { RingBuffer } from "../src/buffer/ring-buffer";
import type { RingHandle } from "../src/buffer/ring/handle";

/** What a worker is started with. */
export interface TwoThreadsData {
  readonly role: "produce" | "consume";
  readonly handle: RingHandle;
  readonly count: number;
  /** Set to 1 when the reader has joined. */
  readonly started: Int32Array;
}

/** What the consumer found. */
export interface ConsumerReport {
  readonly read: number;
  readonly lost: number;
  readonly gaps: number;
  /** Records of which any word was not as it must be. */
  readonly wrong: number;
  readonly firstWrong: string | undefined;
}

const MIX = 0x9e37_79b1 | 0;

// Unrolled: a billion records are a lot.
function write(words: Uint32Array, at: number, low: number, high: number): void {
  words[at] = low;
  words[at + 1] = high;
  let x = Math.imul(low, MIX) ^ high;
  words[at + 2] = x = (x + MIX) | 0;
  words[at + 3] = x = (x + MIX) | 0;
  words[at + 4] = x = (x + MIX) | 0;
  words[at + 5] = x = (x + MIX) | 0;
  words[at + 6] = x = (x + MIX) | 0;
  words[at + 7] = x = (x + MIX) | 0;
  words[at + 8] = x = (x + MIX) | 0;
  words[at + 9] = x = (x + MIX) | 0;
  words[at + 10] = x = (x + MIX) | 0;
  words[at + 11] = x = (x + MIX) | 0;
  words[at + 12] = x = (x + MIX) | 0;
  words[at + 13] = x = (x + MIX) | 0;
  words[at + 14] = x = (x + MIX) | 0;
  words[at + 15] = x = (x + MIX) | 0;
}

function isRight(words: Uint32Array, at: number, low: number, high: number): boolean {
  let wrong = (words[at]! ^ low) | (words[at + 1]! ^ high);
  let x = Math.imul(low, MIX) ^ high;
  wrong |= words[at + 2]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 3]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 4]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 5]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 6]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 7]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 8]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 9]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 10]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 11]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 12]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 13]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 14]! ^ (x = (x + MIX) | 0);
  wrong |= words[at + 15]! ^ (x = (x + MIX) | 0);
  return wrong === 0;
}

/** High word of a record number; the low word is `n | 0`. */
function highOf(n: number): number {
  return Math.floor(n / 0x1_0000_0000);
}

function produce({ handle, count, started }: TwoThreadsData): void {
  Atomics.wait(started, 0, 0);
  const ring = RingBuffer.from(handle);
  const producer = ring.producer();
  const { words, mask } = producer;
  const rest = new Int32Array(new SharedArrayBuffer(4));
  // Batches of 1 to 64 records; a fixed sequence, so that a run can be repeated.
  let size = 1;
  for (let n = 0; n < count;) {
    size = (size * 5 + 3) & 63;
    const granted = producer.tryClaim(Math.min(size + 1, count - n));
    if (granted === 0) {
      // Full: let the consumer have the processor, in case it has none.
      Atomics.wait(rest, 0, 0, 0.05);
      continue;
    }
    const first = producer.first;
    for (let i = 0; i < granted; i++) write(words, ((first + i) & mask) << 4, (n + i) | 0, highOf(n + i));
    producer.publish();
    n += granted;
  }
  ring.close();
  parentPort?.postMessage(undefined);
}

function consume({ handle, started }: TwoThreadsData): ConsumerReport {
  const reader = RingBuffer.from(handle).reader();
  Atomics.store(started, 0, 1);
  Atomics.notify(started, 0);
  const { words, mask } = reader;
  let next = 0;
  let read = 0;
  let lost = 0;
  let gaps = 0;
  let wrong = 0;
  let firstWrong: string | undefined;
  for (;;) {
    const got = reader.poll(256);
    if (reader.gap > 0) {
      gaps++;
      lost += reader.gap;
      next += reader.gap;
    }
    const start = reader.start;
    for (let i = 0; i < got; i++, next++) {
      const at = ((start + i) & mask) << 4;
      if (isRight(words, at, next | 0, highOf(next))) continue;
      wrong++;
      firstWrong ??= `record ${next}: ${Array.from(words.subarray(at, at + 16), (w) => w.toString(16)).join(" ")}`;
    }
    reader.release(got);
    read += got;
    if (got === 0 && reader.waitSync() === "closed") break;
  }
  return { read, lost, gaps, wrong, firstWrong };
}

const data = workerData as TwoThreadsData;
if (data.role === "produce") produce(data);
else parentPort?.postMessage(consume(data));
