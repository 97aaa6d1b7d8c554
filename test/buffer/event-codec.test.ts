import fc from "fast-check";
import { execFileSync } from "node:child_process";
import { pack } from "msgpackr";
import { describe, expect, test } from "vitest";
import { Dictionary } from "../../src/buffer/dictionary";
import { EventBatch } from "../../src/buffer/event-batch";
import { EventCodec } from "../../src/buffer/event-codec";
import { EventFactory } from "../../src/buffer/event-factory";
import { RawTraceDecoder } from "../../src/buffer/raw-trace-decoder";
import { SlotBlock } from "../../src/buffer/slot-block";
import { packSlots, unpackSlots } from "../../src/buffer/slot-columns";
import { TraceBatchDecoder } from "../../src/buffer/trace-batch-decoder";
import type { EventOf } from "../../src/buffer/trace-event";
import { inspect } from "../../src/erlang";
import { arbitraryEvent, CREATION, message, NODE, type WireEvent } from "./support/arbitrary-event";
import { traceFixture } from "./support/fixture";

const BASE = -576_460_000_000_000_000n;
const SOURCES = [{ node: NODE, creation: CREATION, otp: "27", base: BASE, timeOffset: 1n }];

function batchOf(events: readonly WireEvent[]): EventBatch {
  const dictionary = new Dictionary();
  // Names that these events don't use: ids differ from those in the message.
  for (let i = 0; i < 40; i++) dictionary.atomId(`unused_${i}`);
  const decoder = new TraceBatchDecoder({ dictionary, node: NODE, creation: CREATION, base: BASE });
  const block = new SlotBlock();
  decoder.decode(message(events), block);
  return EventBatch.of(block, new EventFactory(dictionary, SOURCES));
}

function fixtureBatch(): EventBatch {
  const fixture = traceFixture("phoenix-send-receive-procs");
  const dictionary = new Dictionary();
  const { node, flags } = fixture;
  const decoder = new RawTraceDecoder({ dictionary, node, flags, payload: { maxBytes: 10_000 } });
  const block = new SlotBlock();
  for (const record of fixture.records) decoder.decode(record, block);
  const source = {
    node,
    creation: decoder.creation!,
    otp: "27",
    base: decoder.base!,
    timeOffset: fixture.timeOffset,
  };
  return EventBatch.of(block, new EventFactory(dictionary, [source]));
}

describe("EventCodec", () => {
  test("a batch comes out of a fresh codec as it went in", () => {
    fc.assert(
      fc.property(fc.array(arbitraryEvent, { maxLength: 40 }), (events) => {
        const batch = batchOf(events);
        const decoded = new EventCodec().decode(new EventCodec().encode(batch));
        expect(decoded.events()).toEqual(batch.events());
        if (events.length > 0) expect(decoded.factory.sources).toEqual(SOURCES);
      }),
      { numRuns: 150 },
    );
  });

  test("event objects come out as they went in", () => {
    fc.assert(
      fc.property(fc.array(arbitraryEvent, { maxLength: 40 }), (events) => {
        const objects = batchOf(events).events();
        expect(new EventCodec().decode(new EventCodec().encode(objects, SOURCES)).events()).toEqual(objects);
        expect(new EventCodec().decode(new EventCodec().encode(objects)).events()).toEqual(objects);
      }),
      { numRuns: 150 },
    );
  });

  test("real events with every payload survive, also a selection of them", () => {
    const batch = fixtureBatch();
    const codec = new EventCodec();
    const bytes = codec.encode(batch);
    expect(new EventCodec().decode(bytes).events()).toEqual(batch.events());
    const sends = batch.filter("send");
    expect(new EventCodec().decode(codec.encode(sends)).events()).toEqual(sends.events());
  });

  test("another process decodes it", () => {
    const bytes = new EventCodec().encode(fixtureBatch());
    const code = `
      import { EventCodec } from "./src/buffer/event-codec.ts";
      import { inspect } from "./src/erlang/index.ts";
      import { readFileSync } from "node:fs";
      const events = new EventCodec().decode(readFileSync(0)).events();
      const sent = events.find((e) => e.kind === "send");
      console.log(events.length, inspect(sent.process), inspect(sent.payload).slice(0, 60));`;
    const out = execFileSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", code], {
      input: bytes,
      cwd: new URL("../..", import.meta.url),
      encoding: "utf8",
    });
    const events = fixtureBatch().events();
    const sent = events.find((e): e is EventOf<"send"> => e.kind === "send")!;
    expect(out.trim()).toBe(
      `${events.length} ${inspect(sent.process)} ${inspect(sent.payload!).slice(0, 60)}`,
    );
  });

  test("hostile bytes give BT_CODEC_INVALID or harmless events, never anything else", () => {
    const good = new EventCodec().encode(fixtureBatch().slice(0, 40));
    const codec = new EventCodec();
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        (edits) => {
          const bytes = good.slice();
          for (const [at, value] of edits) bytes[at] = value;
          try {
            for (const event of codec.decode(bytes)) void event.kind;
          } catch (error) {
            expect(error).toMatchObject({ code: "BT_CODEC_INVALID" });
          }
        },
      ),
      { numRuns: 3000 },
    );
    fc.assert(
      fc.property(fc.nat(good.length - 1), (length) => {
        expect(() => codec.decode(good.slice(0, length))).toThrow(
          expect.objectContaining({ code: "BT_CODEC_INVALID" }) as Error,
        );
      }),
    );
  });

  test.each<[string, Uint8Array]>([
    ["random text", new TextEncoder().encode("hello")],
    ["nothing", new Uint8Array(0)],
    ["an array that claims four billion elements", new Uint8Array([0xdd, 0xff, 0xff, 0xff, 0xff, 0])],
    ["nested arrays", new Uint8Array(5000).fill(0x91)],
    ["an extension type", new Uint8Array([0xc7, 1, 0x78, 0])],
    [
      "another version",
      new Uint8Array(pack(["btev", 99, [], [], [], [], 0, new Uint8Array(0), new Uint8Array(0)])),
    ],
    [
      "too many events",
      new Uint8Array(pack(["btev", 1, [], [], [], [], 4e9, new Uint8Array(16), new Uint8Array(0)])),
    ],
  ])("refuses %s", (_, bytes) => {
    expect(() => new EventCodec().decode(bytes)).toThrow(
      expect.objectContaining({ code: "BT_CODEC_INVALID" }) as Error,
    );
  });
});

test("packed slots are exact in every bit", () => {
  const word = fc.oneof(fc.constant(0), fc.nat(255), fc.nat(0xffff), fc.nat(0xffffffff));
  fc.assert(
    fc.property(fc.array(fc.array(word, { minLength: 16, maxLength: 16 }), { maxLength: 20 }), (slots) => {
      const block = new SlotBlock(slots.length);
      block.count = slots.length;
      slots.forEach((slot, i) => block.words.set(slot, i * 16));
      // A float64 with a signalling bit pattern would be made quiet; stamps are never NaN.
      for (let i = 0; i < slots.length; i++)
        if (Number.isNaN(block.floats[i * 8 + 1])) block.floats[i * 8 + 1] = i;
      const unpacked = unpackSlots(packSlots(block), slots.length);
      expect([...unpacked.words]).toEqual([...block.words.subarray(0, slots.length * 16)]);
    }),
  );
});
