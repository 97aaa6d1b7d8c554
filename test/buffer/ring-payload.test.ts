/**
 * The payload area: what a record's payload says is what was written, until the record is released (drop-newest) or overwritten,
 * and then it is gone, never something else.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RING_ORIGIN, RingBuffer } from "../../src/buffer/ring-buffer";
import type { RingBufferOptions } from "../../src/buffer/ring-buffer";

const AT = 6;
const BYTES = 7;

/** Bytes that follow from the record's number. */
function payloadOf(record: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (record * 31 + i * 7 + (i >> 8)) & 0xff);
}

interface Written {
  readonly record: number;
  readonly length: number;
  /** Units written before this payload's end, in all. */
  readonly end: number;
  readonly stored: boolean;
}

const step = fc.record({
  write: fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 6 }),
  pad: fc.nat(9),
  read: fc.nat(8),
});

const PAYLOAD_ORIGINS = [0n, 2n ** 30n - 20n, 2n ** 32n - 50n, 2n ** 53n - 3n];

describe.each(["drop-newest", "overwrite-oldest"] as const)("%s", (overflow) => {
  it.each(["single", "multiple"] as const)("keeps payloads with their records (%s)", (producers) => {
    fc.assert(
      fc.property(
        fc.constantFrom(8, 64, 512, 1024),
        fc.constantFrom(...PAYLOAD_ORIGINS),
        fc.array(step, { maxLength: 40 }),
        (payloadBytes, payload, steps) => {
          const ring = new RingBuffer({
            capacity: 16,
            payloadBytes,
            overflow,
            producers,
            [RING_ORIGIN]: { payload, position: 2n ** 32n - 20n },
          } as RingBufferOptions);
          const producer = ring.producer();
          const reader = ring.reader();
          const queue: Written[] = [];
          const size = payloadBytes / 8;
          let record = 0;
          let head = 0;
          let lost = 0;
          const read = (max: number) => {
            const n = reader.poll(max);
            queue.splice(0, overflow === "overwrite-oldest" ? reader.gap : 0);
            for (let i = 0; i < n; i++) {
              const written = queue[i]!;
              const at = ((reader.start + i) & reader.mask) * 16;
              expect(reader.words[at]).toBe(written.record);
              if (!written.stored) continue;
              const found = reader.readPayload(reader.words[at + AT]!, reader.words[at + BYTES]!);
              const units = Math.ceil(written.length / 8);
              const begin = written.end - units;
              if (overflow === "drop-newest" || units === 0 || head - begin <= size)
                expect(found).toEqual(payloadOf(written.record, written.length));
              else expect(found).toBeUndefined();
            }
            reader.release(n);
            queue.splice(0, n);
            return n;
          };
          for (const { write, pad, read: max } of steps) {
            const granted = producer.claim(write.length);
            for (let i = 0; i < granted; i++) {
              const length = write[i]!;
              const bytes = new Uint8Array(length + pad + 3);
              bytes.set(payloadOf(record, length), pad);
              const position = producer.writePayload(bytes, pad, pad + length);
              const units = Math.ceil(length / 8);
              if (position >= 0) head += units;
              else lost++;
              if (overflow === "overwrite-oldest" && producers === "single")
                expect(position >= 0).toBe(units <= size);
              const at = ((producer.first + i) & producer.mask) * 16;
              producer.words[at] = record;
              producer.words[at + AT] = position;
              producer.words[at + BYTES] = length;
              queue.push({ record, length, end: head, stored: position >= 0 });
              record++;
            }
            producer.publish();
            expect(ring.stats().payloadDropped).toBe(lost);
            if (max > 0) read(max);
          }
          while (read(5) > 0);
          expect(queue).toEqual([]);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("drop-newest", () => {
  it.each(["single", "multiple"] as const)(
    "takes a payload of the whole area as soon as everything is read (%s)",
    (producers) => {
      const ring = new RingBuffer({ capacity: 8, payloadBytes: 256, producers });
      const producer = ring.producer();
      const reader = ring.reader();
      for (let round = 0; round < 40; round++) {
        const length = round % 2 === 0 ? 256 : 8;
        producer.claim(1);
        expect(producer.writePayload(payloadOf(round, length), 0, length)).toBeGreaterThanOrEqual(0);
        producer.publish();
        producer.claim(1);
        expect(producer.writePayload(payloadOf(0, 256), 0, 256)).toBe(-1);
        producer.publish();
        reader.release(reader.poll(2));
      }
      expect(ring.stats().payloadDropped).toBe(40);
    },
  );

  it("reads into memory that it is given", () => {
    const ring = new RingBuffer({ capacity: 8, payloadBytes: 64 });
    const producer = ring.producer();
    const reader = ring.reader();
    producer.claim(1);
    const position = producer.writePayload(payloadOf(5, 20), 0, 20);
    producer.publish();
    reader.poll(1);
    const into = new Uint8Array(100);
    const found = reader.readPayload(position, 20, into);
    expect(found?.buffer).toBe(into.buffer);
    expect(found).toEqual(payloadOf(5, 20));
    expect(reader.readPayload(position, 20, new Uint8Array(3))).toEqual(payloadOf(5, 20));
  });

  it("refuses a payload without a record", () => {
    const producer = new RingBuffer({ capacity: 8 }).producer();
    expect(() => producer.writePayload(new Uint8Array(8), 0, 8)).toThrowError(
      expect.objectContaining({ code: "BT_RING_INVALID" }),
    );
  });

  it("counts payloads when there is no area", () => {
    const ring = new RingBuffer({ capacity: 8, payloadBytes: 0 });
    const producer = ring.producer();
    producer.claim(1);
    expect(producer.writePayload(new Uint8Array(8), 0, 8)).toBe(-1);
    producer.publish();
    expect(ring.stats().payloadDropped).toBe(1);
  });
});
