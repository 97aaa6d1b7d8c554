/** Hostile bytes in place of native batches: typed errors or events, nothing else, and no work without a bound. */
import { expect, test } from "vitest";
import { Dictionary } from "../../src/buffer/dictionary";
import { EVENT_KINDS, SLOT_WORDS } from "../../src/buffer/event-schema";
import { SlotBlock } from "../../src/buffer/slot-block";
import { TraceBatchDecoder } from "../../src/buffer/trace-batch-decoder";
import { BadTermError } from "../../src/erlang/errors";
import { encode } from "../../src/erlang/etf";
import { binary, Tuple } from "../../src/erlang/term";
import { fuzz } from "../../stress/native-decoder";

test("damaged batches give events or typed errors", { timeout: 60_000 }, () => {
  const report = fuzz(10_000, 42);
  expect(report.wrong).toEqual([]);
  expect(report.refused).toBeGreaterThan(1000);
  expect(report.events).toBeGreaterThan(10_000);
});

function batch(stamps: readonly number[], flags = 0): Uint8Array {
  const words = new Uint32Array(stamps.length * SLOT_WORDS);
  const floats = new Float64Array(words.buffer);
  stamps.forEach((stamp, i) => {
    words[i * SLOT_WORDS] = EVENT_KINDS.receive;
    words[i * SLOT_WORDS + 1] = flags;
    floats[i * 8 + 1] = stamp;
  });
  return encode(new Tuple([3, 1, 0, 0, stamps.length, 0, [], binary(new Uint8Array(words.buffer))]));
}

const decode = (bytes: Uint8Array): number => {
  const block = new SlotBlock();
  new TraceBatchDecoder({ dictionary: new Dictionary(), node: "a@b", base: 0n }).decode(bytes, block);
  return block.count;
};

test("more runs than a trace can have rings are refused: merging them would take for ever", () => {
  expect(decode(batch(Array.from({ length: 1028 }, (_, i) => 2000 - i)))).toBe(1028);
  expect(() => decode(batch(Array.from({ length: 1029 }, (_, i) => 2000 - i)))).toThrow(BadTermError);
});

test("stamps that are no time, and flags that no record has, are refused", () => {
  for (const stamp of [NaN, Infinity, -Infinity])
    expect(() => decode(batch([1, stamp, 2]))).toThrow(BadTermError);
  for (const flags of [1, 2, 3]) expect(() => decode(batch([1], flags))).toThrow(BadTermError);
  expect(decode(batch([1, 2]))).toBe(2);
});
