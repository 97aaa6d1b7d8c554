/**
 * The loops that bench/ring.ts compares. Both sides do the same work: write all 16 words of a record, move it through the ring, read and sum all 16 words.
 * Each side does it as its documentation says: ours writes and reads slots in place, ringbuf.js copies in and out of arrays.
 */
import type { RingBuffer as RingbufJs } from "ringbuf.js";
import type { RingBuffer } from "../src/buffer/ring-buffer";

/** Records of a batch. */
export const BATCH = 64;

/** Writes the 16 words of record `n`. */
export function write(words: Uint32Array, at: number, n: number): void {
  words[at] = n;
  words[at + 1] = n + 1;
  words[at + 2] = n + 2;
  words[at + 3] = n + 3;
  words[at + 4] = n + 4;
  words[at + 5] = n + 5;
  words[at + 6] = n + 6;
  words[at + 7] = n + 7;
  words[at + 8] = n + 8;
  words[at + 9] = n + 9;
  words[at + 10] = n + 10;
  words[at + 11] = n + 11;
  words[at + 12] = n + 12;
  words[at + 13] = n + 13;
  words[at + 14] = n + 14;
  words[at + 15] = n + 15;
}

/** Sums the 16 words of a record, modulo 2^32. */
export function sum(words: Uint32Array, at: number): number {
  // As a tree, so that no addition waits for all the others.
  return (
    (((((((words[at + 0]! + words[at + 1]!) | 0) + ((words[at + 2]! + words[at + 3]!) | 0)) | 0) +
      ((((words[at + 4]! + words[at + 5]!) | 0) + ((words[at + 6]! + words[at + 7]!) | 0)) | 0)) |
      0) +
      ((((((words[at + 8]! + words[at + 9]!) | 0) + ((words[at + 10]! + words[at + 11]!) | 0)) | 0) +
        ((((words[at + 12]! + words[at + 13]!) | 0) + ((words[at + 14]! + words[at + 15]!) | 0)) | 0)) |
        0)) |
    0
  );
}

/** What the sums of records 0 to n − 1 add up to, modulo 2^32. */
export function expectedSum(n: number): number {
  // Sum over records of 16 × i + (0 + 1 + … + 15).
  return Number(BigInt.asIntN(32, 8n * BigInt(n) * BigInt(n - 1) + 120n * BigInt(n)));
}

/**
 * Waits about a microsecond without touching shared memory; both sides call it when the ring is full or empty. Looking again at once would take the
 * cache line away from the other thread; of 16 to 1024 steps this is the best for both.
 */
export function pause(): number {
  let x = 1;
  for (let i = 0; i < 1024; i++) x = (x * 31 + i) | 0;
  return x;
}

/** Moves `n` records through a ring and returns the sum of their words, or what one side of that returns. */
export type Loop = (n: number) => number;

/** Both ends of our ring on one thread. Arrays are constants of the loops that use them, as they are in a module of a program; on both sides. */
export function oursOneThread(ring: RingBuffer): { perRecord: Loop; batched: Loop } {
  const producer = ring.producer();
  const reader = ring.reader();
  const { words, mask } = producer;
  const { words: read, mask: readMask } = reader;
  return {
    perRecord(n) {
      let total = 0;
      for (let i = 0; i < n; i++) {
        producer.claim(1);
        write(words, (producer.first & mask) << 4, i);
        producer.publish();
        total = (total + sum(read, reader.next())) | 0;
      }
      return total;
    },
    batched(n) {
      let total = 0;
      for (let i = 0; i < n; i += BATCH) {
        producer.claim(BATCH);
        const first = producer.first;
        for (let k = 0, at = (first & mask) << 4; k < BATCH; k++, at = (at + 16) & (mask << 4))
          write(words, at, i + k);
        producer.publish();
        const got = reader.poll(BATCH);
        const start = reader.start;
        for (let k = 0, at = (start & readMask) << 4; k < got; k++, at = (at + 16) & (readMask << 4))
          total = (total + sum(read, at)) | 0;
        reader.release(got);
      }
      return total;
    },
  };
}

/** The same with ringbuf.js. */
export function theirsOneThread(ring: RingbufJs): { perRecord: Loop; batched: Loop } {
  const input = new Uint32Array(16);
  const output = new Uint32Array(16);
  const inputs = new Uint32Array(16 * BATCH);
  const outputs = new Uint32Array(16 * BATCH);
  return {
    perRecord(n) {
      let total = 0;
      for (let i = 0; i < n; i++) {
        write(input, 0, i);
        ring.push(input);
        ring.pop(output);
        total = (total + sum(output, 0)) | 0;
      }
      return total;
    },
    batched(n) {
      let total = 0;
      for (let i = 0; i < n; i += BATCH) {
        for (let k = 0; k < BATCH; k++) write(inputs, k << 4, i + k);
        ring.push(inputs);
        ring.pop(outputs);
        for (let k = 0; k < BATCH; k++) total = (total + sum(outputs, k << 4)) | 0;
      }
      return total;
    },
  };
}

/** The producing thread's side of our ring. */
export function oursProduce(ring: RingBuffer): {
  perRecord: (n: number) => void;
  batched: (n: number) => void;
} {
  const producer = ring.producer();
  const { words, mask } = producer;
  return {
    perRecord(n) {
      for (let i = 0; i < n;) {
        if (producer.tryClaim(1) === 0) {
          pause();
          continue;
        }
        write(words, (producer.first & mask) << 4, i++);
        producer.publish();
      }
    },
    batched(n) {
      for (let i = 0; i < n;) {
        const granted = producer.tryClaim(n - i < BATCH ? n - i : BATCH);
        if (granted === 0) {
          pause();
          continue;
        }
        const first = producer.first;
        for (let k = 0, at = (first & mask) << 4; k < granted; k++, at = (at + 16) & (mask << 4))
          write(words, at, i + k);
        producer.publish();
        i += granted;
      }
    },
  };
}

/** The consuming thread's side of our ring. */
export function oursConsume(ring: RingBuffer): { perRecord: Loop; batched: Loop } {
  const reader = ring.reader();
  const { words, mask } = reader;
  return {
    perRecord(n) {
      let total = 0;
      for (let i = 0; i < n;) {
        const at = reader.next();
        if (at === -1) {
          pause();
          continue;
        }
        total = (total + sum(words, at)) | 0;
        i++;
      }
      reader.next(); // gives back the last record
      return total;
    },
    batched(n) {
      let total = 0;
      for (let i = 0; i < n;) {
        const got = reader.poll(BATCH);
        if (got === 0) {
          pause();
          continue;
        }
        const start = reader.start;
        for (let k = 0, at = (start & mask) << 4; k < got; k++, at = (at + 16) & (mask << 4))
          total = (total + sum(words, at)) | 0;
        reader.release(got);
        i += got;
      }
      return total;
    },
  };
}

/** The producing thread's side of ringbuf.js. */
export function theirsProduce(ring: RingbufJs): {
  perRecord: (n: number) => void;
  batched: (n: number) => void;
} {
  const input = new Uint32Array(16);
  const inputs = new Uint32Array(16 * BATCH);
  return {
    perRecord(n) {
      for (let i = 0; i < n; i++) {
        write(input, 0, i);
        // Capacity is a multiple of 16 words less one: a record goes in whole or in part.
        for (let sent = 0; sent < 16;) {
          const pushed = ring.push(input, 16 - sent, sent);
          if (pushed === 0) pause();
          sent += pushed;
        }
      }
    },
    batched(n) {
      for (let i = 0; i < n; i += BATCH) {
        const count = n - i < BATCH ? n - i : BATCH;
        for (let k = 0; k < count; k++) write(inputs, k << 4, i + k);
        for (let sent = 0; sent < count * 16;) {
          const pushed = ring.push(inputs, count * 16 - sent, sent);
          if (pushed === 0) pause();
          sent += pushed;
        }
      }
    },
  };
}

/** The consuming thread's side of ringbuf.js. */
export function theirsConsume(ring: RingbufJs): { perRecord: Loop; batched: Loop } {
  const output = new Uint32Array(16);
  const outputs = new Uint32Array(16 * BATCH);
  return {
    perRecord(n) {
      let total = 0;
      for (let i = 0; i < n; i++) {
        for (let got = 0; got < 16;) {
          const popped = ring.pop(output, 16 - got, got);
          if (popped === 0) pause();
          got += popped;
        }
        total = (total + sum(output, 0)) | 0;
      }
      return total;
    },
    batched(n) {
      let total = 0;
      let left = 0; // words of a record that has come in part
      for (let i = 0; i < n;) {
        const popped = ring.pop(outputs, 16 * BATCH - left, left);
        if (popped === 0) {
          pause();
          continue;
        }
        const got = (left + popped) >>> 4;
        for (let k = 0; k < got; k++) total = (total + sum(outputs, k << 4)) | 0;
        const rest = (left + popped) & 15;
        if (rest > 0) outputs.copyWithin(0, got << 4, (got << 4) + rest);
        left = rest;
        i += got;
      }
      return total;
    },
  };
}
