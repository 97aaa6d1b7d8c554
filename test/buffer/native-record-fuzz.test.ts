/** Hostile bytes in place of native batches: typed errors or events, nothing else, and no work without a bound. */
import { expect, test } from "vitest";
import { Dictionary } from "../../src/buffer/dictionary";
import { EventBatch } from "../../src/buffer/event-batch";
import { EventFactory } from "../../src/buffer/event-factory";
import { EVENT_KINDS, SLOT_WORDS } from "../../src/buffer/event-schema";
import { SlotBlock } from "../../src/buffer/slot-block";
import { TraceBatchDecoder } from "../../src/buffer/trace-batch-decoder";
import { BadTermError } from "../../src/erlang/errors";
import { encode } from "../../src/erlang/etf";
import { binary, Tuple, type Term } from "../../src/erlang/term";
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

/** A batch of messages that were received, `flagged` of them with contents. */
function withContents(flagged: readonly boolean[], contents: readonly number[], kind?: number): Uint8Array {
  const words = new Uint32Array(flagged.length * SLOT_WORDS);
  flagged.forEach((flag, i) => {
    words[i * SLOT_WORDS] = kind ?? EVENT_KINDS.receive;
    words[i * SLOT_WORDS + 1] = flag ? 1 : 0;
    // Two runs, the second the earlier one.
    new Float64Array(words.buffer)[i * 8 + 1] = i % 2 === 0 ? 10 + i : i;
  });
  const records = binary(new Uint8Array(words.buffer));
  return encode(new Tuple([4, 1, 0, 0, flagged.length, 0, [], binary(Uint8Array.from(contents)), records]));
}

const ONE = [3, 0, 0, 0, 131, 97, 1];
const TWO = [3, 0, 0, 0, 131, 97, 2];

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

test("contents stay with their records when the runs are merged", () => {
  const dictionary = new Dictionary();
  const block = new SlotBlock();
  const decoder = new TraceBatchDecoder({ dictionary, node: "a@b", base: 0n });
  decoder.decode(withContents([true, true, false], [...ONE, ...TWO]), block);
  const source = { node: "a@b", creation: 1, otp: "27", base: 0n, timeOffset: 0n };
  const batch = EventBatch.of(block, new EventFactory(dictionary, [source]));
  const events = [0, 1, 2].map((i) => batch.event(i) as { timestamp: number; payload?: Term });
  expect(events.map(({ timestamp, payload }) => [timestamp, payload])).toEqual([
    [1, 2],
    [10, 1],
    [12, undefined],
  ]);
});

test("contents that are not those of the records are refused", () => {
  expect(decode(withContents([true, true], [...ONE, ...TWO]))).toBe(2);
  expect(decode(withContents([false], []))).toBe(1);
  for (const contents of [[], ONE, ONE.slice(0, 3), [...ONE, ...TWO, 0], [...ONE, 4, 0, 0, 0, 131, 97, 2]])
    expect(() => decode(withContents([true, true], contents))).toThrow(BadTermError);
  expect(() => decode(withContents([true, true], [...ONE, 255, 255, 255, 255, 131]))).toThrow(BadTermError);
  expect(() => decode(withContents([true], [0, 0, 0, 0]))).toThrow(BadTermError);
  expect(() => decode(withContents([true], ONE, EVENT_KINDS.link))).toThrow(BadTermError);
});
