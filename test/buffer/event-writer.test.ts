import fc from "fast-check";
import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { Dictionary } from "../../src/buffer/dictionary";
import { EventBatch } from "../../src/buffer/event-batch";
import { EventFactory } from "../../src/buffer/event-factory";
import { EventWriter } from "../../src/buffer/event-writer";
import { SlotBlock } from "../../src/buffer/slot-block";
import { TraceBatchDecoder } from "../../src/buffer/trace-batch-decoder";
import type { TraceEvent } from "../../src/buffer/trace-event";
import { Atom, Pid } from "../../src/erlang";
import { arbitraryEvent, CREATION, message, NODE } from "./support/arbitrary-event";

const SOURCES = [{ node: NODE, creation: CREATION, otp: "27", base: 0n, timeOffset: 0n }];
const wires = fc.array(arbitraryEvent, { minLength: 1, maxLength: 40 });

function decoded(wire: Parameters<typeof message>[0]): EventBatch {
  const dictionary = new Dictionary();
  const block = new SlotBlock();
  const decoder = new TraceBatchDecoder({ dictionary, node: NODE, creation: CREATION, base: 0n });
  decoder.decode(message(wire, { base: 0 }), block);
  return EventBatch.of(block, new EventFactory(dictionary, SOURCES));
}

function written(events: readonly TraceEvent[], dictionary: Dictionary): SlotBlock {
  const block = new SlotBlock();
  const writer = new EventWriter(dictionary, SOURCES, block);
  for (const event of events) writer.write(event);
  return block;
}

describe("EventWriter", () => {
  test("the same comes of objects that carry ids and of their plain copies", () => {
    fc.assert(
      fc.property(wires, (wire) => {
        const batch = decoded(wire);
        const { dictionary } = batch.factory;
        const events = batch.events();
        // A copy field by field loses what an object carries besides its fields.
        const copies = events.map(
          (event) =>
            Object.fromEntries(
              Object.entries(event).map(([key, value]: [string, unknown]) => [
                key,
                ["mfa", "initialCall", "caller", "shape", "reason"].includes(key) && typeof value === "object"
                  ? { ...value }
                  : value,
              ]),
            ) as unknown as TraceEvent,
        );
        expect(copies).toEqual(events);
        // Compared as objects: the atom without a text is none there, so slots may differ in that.
        const read = (block: SlotBlock) =>
          EventBatch.of(block, new EventFactory(dictionary, SOURCES)).events();
        expect(read(written(copies, dictionary))).toEqual(events);
        expect(read(written(events, dictionary))).toEqual(events);
      }),
      { numRuns: 150 },
    );
  });

  test("events go into another dictionary, and come out as they were", () => {
    fc.assert(
      fc.property(wires, (wire) => {
        const events = decoded(wire).events();
        const other = new Dictionary();
        // Ids of the other dictionary that would be wrong ones for what the events carry.
        for (let i = 0; i < 20; i++)
          other.internMfa(other.atomId(`other_${i}`), other.atomId(`function_${i}`), i);
        const block = written(events, other);
        expect(EventBatch.of(block, new EventFactory(other, SOURCES)).events()).toEqual(events);
      }),
      { numRuns: 150 },
    );
  });

  test("what shared objects carry shows nowhere", () => {
    const dictionary = new Dictionary();
    const id = dictionary.internMfa(dictionary.atomId("lists"), dictionary.atomId("map"), 2);
    const mfa = dictionary.mfa(id);
    const plain = { module: "lists", function: "map", arity: 2 };
    expect(mfa).toStrictEqual(plain);
    expect(Object.keys(mfa ?? {})).toEqual(Object.keys(plain));
    expect({ ...mfa }).toStrictEqual(plain);
    expect(JSON.stringify(mfa)).toBe(JSON.stringify(plain));
    expect(inspect(mfa)).toBe(inspect(plain));
    expect(structuredClone(mfa)).toStrictEqual(plain);
  });

  test("sizes of a collection are stored up to 32 bits", () => {
    const process = new Pid(Atom.of(NODE), 5, 0, CREATION);
    const event: TraceEvent = {
      kind: "gc_major_end",
      timestamp: 1.5,
      source: 0,
      scheduler: 3,
      process,
      wordsize: 2 ** 33,
      heap_size: 2,
      heap_block_size: 3,
      old_heap_size: 4,
      old_heap_block_size: 5,
      stack_size: 6,
      recent_size: 7,
      mbuf_size: 8,
      bin_vheap_size: 0xffffffff,
      bin_old_vheap_size: 10,
      bin_vheap_block_size: 11,
      bin_old_vheap_block_size: 12,
    };
    const dictionary = new Dictionary();
    const batch = EventBatch.of(written([event], dictionary), new EventFactory(dictionary, SOURCES));
    expect(batch.event(0)).toStrictEqual({ ...event, wordsize: 0xffffffff });
  });
});
