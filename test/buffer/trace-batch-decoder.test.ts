import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Dictionary } from "../../src/buffer/dictionary";
import { EventBatch } from "../../src/buffer/event-batch";
import { EventFactory } from "../../src/buffer/event-factory";
import { EVENT_KINDS } from "../../src/buffer/event-schema";
import { RingBuffer } from "../../src/buffer/ring-buffer";
import { SlotBlock } from "../../src/buffer/slot-block";
import { TraceBatchDecoder } from "../../src/buffer/trace-batch-decoder";
import { encode } from "../../src/erlang/etf";
import { Atom, map, Pid, Tuple, type ErlMap } from "../../src/erlang/term";
import { arbitraryEvent, CREATION, message, NODE, type WireEvent } from "./support/arbitrary-event";

const BASE = -576_460_000_000_000_000n;
const SOURCE = { node: NODE, creation: CREATION, otp: "27", base: BASE, timeOffset: 0n };

function setup() {
  const dictionary = new Dictionary();
  const decoder = new TraceBatchDecoder({ dictionary, node: NODE, creation: CREATION, base: BASE });
  const factory = new EventFactory(dictionary, [SOURCE]);
  const block = new SlotBlock();
  return { decoder, block, events: () => EventBatch.of(block, factory).events() };
}

function expected(events: readonly WireEvent[], offset: number) {
  return events.map((e) => {
    const fields: Record<string, unknown> = { ...e.expected, timestamp: e.dt + offset, source: 0 };
    if (e.expected.kind === "gap") {
      fields["from"] = (fields["from"] as number) + offset;
      fields["to"] = (fields["to"] as number) + offset;
    }
    return fields;
  });
}

const pid = new Pid(Atom.of(NODE), 5, 0, CREATION);
const receive = (dt: number): WireEvent => ({
  wire: new Tuple([EVENT_KINDS.receive, dt, pid, 8 + 2 * 16, Atom.of("ok"), 0]),
  expected: { kind: "receive" } as WireEvent["expected"],
  dt,
});

describe("TraceBatchDecoder", () => {
  test("any events come out as they went in", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(arbitraryEvent, { maxLength: 20 }), { maxLength: 4 }),
        fc.nat(2 ** 40),
        (batches, step) => {
          const { decoder, block, events } = setup();
          let received = 0;
          const all = batches.flatMap((batch, seq) => {
            received += batch.filter((e) => !["gap", "marker"].includes(e.expected.kind)).length;
            const bytes = message(batch, {
              seq,
              base: BASE + BigInt(seq * step),
              received: received + 3,
              lost: 3,
            });
            const result = decoder.decode(bytes, block);
            expect(result).toMatchObject({
              type: "batch",
              seq,
              events: batch.length,
              written: batch.length,
              missing: 0,
              misfits: 0,
            });
            return expected(batch, seq * step);
          });
          expect(events()).toEqual(all);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("reads Latin-1 atoms and old pids of OTP 25 like their UTF-8 form", () => {
    const { decoder, block, events } = setup();
    const utf8 = [...encode(receive(1).wire)].slice(1);
    const latin: number[] = [];
    for (let i = 0; i < utf8.length; i++) {
      if (utf8[i] === 119) {
        latin.push(100, 0, utf8[i + 1]!);
        i++;
      } else latin.push(utf8[i]!);
    }
    // An atom of one Latin-1 character, ö, in place of "ok".
    const at = latin.lastIndexOf(100);
    latin.splice(at, 5, 100, 0, 1, 0xf6);
    const head = encode(new Tuple([1, 77, 0, BASE, 1, 0, []]));
    decoder.decode(new Uint8Array([...head.subarray(0, -1), 108, 0, 0, 0, 1, ...latin, 106]), block);
    expect(events()).toMatchObject([{ kind: "receive", process: pid, shape: { tags: ["ö"] } }]);
  });

  test("the last message gives the tracer's counters", () => {
    const { decoder, block } = setup();
    const stats = map([[Atom.of("received"), 12]]);
    const message = decoder.decode(encode(new Tuple([2, 77, 0, stats])), block);
    expect(message.type).toBe("end");
    expect((message.stats as ErlMap).get(Atom.of("received"))).toBe(12);
  });

  test("a message that never came is a gap with the exact count", () => {
    const { decoder, block, events } = setup();
    decoder.decode(message([receive(1), receive(2)], { seq: 0, received: 2 }), block);
    const result = decoder.decode(message([receive(30)], { seq: 2, received: 10, lost: 2 }), block);
    expect(result.missing).toBe(5);
    expect(events()[2]).toMatchObject({ kind: "gap", hop: "link", count: 5, from: 2, to: 30, timestamp: 30 });
    expect(decoder.decode(message([receive(31)], { seq: 3, received: 11, lost: 2 }), block).missing).toBe(0);
    expect(events().map((e) => e.kind)).toEqual(["receive", "receive", "gap", "receive", "receive"]);
  });

  test("an event that is not as agreed becomes unknown, the others are untouched", () => {
    const { decoder, block, events } = setup();
    const odd = [
      new Tuple([EVENT_KINDS.receive, 7, pid, Atom.of("no_shape"), 0, 0]),
      new Tuple([EVENT_KINDS.receive, 7, pid]),
      new Tuple([200, 7, pid, 1, 2]),
      new Tuple([EVENT_KINDS.send, 7, pid, pid, 8, 0, 0, new Uint8Array([1]), 9]),
      new Tuple([EVENT_KINDS.gap, 7, 0, Atom.of("nowhere"), 1, 1, 1]),
      Atom.of("event"),
    ];
    const bytes = encode(new Tuple([1, 77, 0, BASE, 8, 0, [receive(1).wire, ...odd, receive(9).wire]]));
    expect(decoder.decode(bytes, block)).toMatchObject({ events: 8, misfits: 6 });
    const got = events();
    expect(got.map((e) => e.kind)).toEqual(["receive", ...odd.map(() => "unknown"), "receive"]);
    odd.forEach((term, i) => expect(got[i + 1]).toMatchObject({ payload: term }));
  });

  test("damaged bytes give BT_BAD_TERM and deliver nothing", () => {
    fc.assert(
      fc.property(
        fc.array(arbitraryEvent, { minLength: 1, maxLength: 6 }),
        fc.nat(),
        fc.nat(255),
        fc.boolean(),
        (batch, where, value, cut) => {
          const { decoder, block, events } = setup();
          const good = message(batch);
          const bytes = cut ? good.slice(0, where % good.length) : good.slice();
          if (!cut) bytes[where % good.length] = value;
          try {
            decoder.decode(bytes, block);
            events();
          } catch (error) {
            expect(error).toMatchObject({ code: "BT_BAD_TERM" });
            expect(block.count).toBe(0);
          }
          if (cut) expect(block.count).toBe(0);
        },
      ),
      { numRuns: 1500 },
    );
  });

  test("a count of events that the message can't hold is refused before memory is taken", () => {
    const { decoder, block } = setup();
    const head = encode(new Tuple([1, 77, 0, BASE, 1, 0, []])).subarray(0, -1);
    const bytes = new Uint8Array([...head, 108, 0xff, 0xff, 0xff, 0xff, 106]);
    expect(() => decoder.decode(bytes, block)).toThrow(
      expect.objectContaining({ code: "BT_BAD_TERM" }) as Error,
    );
  });

  test("what a gap tells is not lost in a full ring: it comes as soon as there is room, and is no event", () => {
    const ring = new RingBuffer({ capacity: 4 });
    const { dictionary } = ring;
    const decoder = new TraceBatchDecoder({ dictionary, node: NODE, creation: CREATION, base: BASE });
    const producer = ring.producer();
    const reader = ring.reader();
    const gap = (count: number, from: number, to: number): WireEvent => ({
      wire: new Tuple([EVENT_KINDS.gap, to, 0, Atom.of("tracer"), count, from, to]),
      expected: { kind: "gap" } as WireEvent["expected"],
      dt: to,
    });
    // Four events fill the ring; of the next message one event and two gaps find no room.
    const four = [1, 2, 3, 4].map(receive);
    decoder.decode(message(four, { seq: 0, received: 4 }), producer);
    decoder.decode(
      message([receive(5), gap(100, 5, 6), gap(23, 6, 7)], { seq: 1, received: 128, lost: 123 }),
      producer,
    );
    expect(ring.stats().dropped).toBe(1);
    expect(reader.poll(16)).toBe(4);
    reader.release(4);
    decoder.decode(message([receive(8)], { seq: 2, received: 129, lost: 123 }), producer);
    expect(reader.poll(16)).toBe(2);
    expect(reader.gap).toBe(1);
    const at = (reader.start & reader.mask) * 16;
    expect(reader.words[at]! & 0xff).toBe(EVENT_KINDS.gap);
    expect([4, 5, 6].map((i) => reader.floats[at / 2 + i])).toEqual([123, 5, 7]);
    expect(reader.words[((reader.start + 1) & reader.mask) * 16]! & 0xff).toBe(EVENT_KINDS.receive);
  });

  test("at the end a full ring tells the gaps that it has no room for by its own count", () => {
    const ring = new RingBuffer({ capacity: 1 });
    const { dictionary } = ring;
    const decoder = new TraceBatchDecoder({ dictionary, node: NODE, creation: CREATION, base: BASE });
    const producer = ring.producer();
    ring.reader();
    decoder.decode(message([receive(1)], { seq: 0, received: 1 }), producer);
    const gap = new Tuple([EVENT_KINDS.gap, 2, 0, Atom.of("tracer"), 7, 1, 2]);
    decoder.decode(encode(new Tuple([1, 77, 1, BASE, 8, 7, [gap]])), producer);
    expect(ring.stats().dropped).toBe(0);
    decoder.decode(encode(new Tuple([2, 77, 2, map({})])), producer);
    expect(ring.stats().dropped).toBe(7);
  });

  test("what the tracer had taken and no message told of is a gap at the end, told once", () => {
    const { decoder, block, events } = setup();
    decoder.decode(message([receive(1), receive(2)], { seq: 0, received: 5, lost: 3 }), block);
    decoder.decode(encode(new Tuple([2, 77, 1, map({ received: 25 })])), block);
    decoder.settle(25, block);
    decoder.settle(20, block);
    expect(events().slice(2)).toMatchObject([{ kind: "gap", hop: "link", count: 20, from: 2, timestamp: 2 }]);
  });

  test("also when the last message never came", () => {
    const { decoder, block, events } = setup();
    decoder.settle(7, block);
    expect(events()).toMatchObject([{ kind: "gap", hop: "link", count: 7 }]);
  });
});
