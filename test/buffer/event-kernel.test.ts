import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Dictionary } from "../../src/buffer/dictionary";
import { EVENT_KINDS, IDENTITY, SLOT_WORDS } from "../../src/buffer/event-schema";
import { EventKernel } from "../../src/buffer/event-kernel";
import { SlotBlock } from "../../src/buffer/slot-block";
import { TraceBatchDecoder, type DecodedMessage } from "../../src/buffer/trace-batch-decoder";
import { WireReader } from "../../src/buffer/wire-reader";
import { encode } from "../../src/erlang/etf";
import { Atom, Pid, Reference, Tuple } from "../../src/erlang/term";
import { arbitraryEvent, CREATION, message, NODE, type WireEvent } from "./support/arbitrary-event";

const BASE = -576_460_000_000_000_000n;
const K = EVENT_KINDS;
const pid = (id: number) => new Pid(Atom.of(NODE), id, 0, CREATION);
const wire = (...elements: ConstructorParameters<typeof Tuple>[0]): WireEvent => ({
  wire: new Tuple(elements),
  expected: { kind: "receive" } as WireEvent["expected"],
  dt: 1,
});

/** The same trace by the kernel and by the general decoder, with one dictionary, so that ids are the same. */
function pair(dictionary = new Dictionary(), source = 3) {
  const options = { dictionary, node: NODE, creation: CREATION, base: BASE, source };
  const sides = [{}, { general: true }].map((more) => ({
    decoder: new TraceBatchDecoder({ ...options, ...more }),
    block: new SlotBlock(),
  }));
  return (bytes: Uint8Array) => sides.map((side) => outcome(side.decoder, side.block, bytes));
}

function outcome(decoder: TraceBatchDecoder, block: SlotBlock, bytes: Uint8Array) {
  block.clear();
  let message: DecodedMessage | undefined;
  let code: unknown;
  try {
    message = { ...decoder.decode(bytes, block) };
  } catch (error) {
    code = (error as { code?: unknown }).code ?? error;
  }
  const payload = block.payload.slice(0, block.payloadBytes);
  return { message, code, words: block.words.slice(0, block.count * SLOT_WORDS), payload };
}

const batches = fc.array(fc.array(arbitraryEvent, { minLength: 1, maxLength: 30 }), {
  minLength: 1,
  maxLength: 4,
});

describe("EventKernel", () => {
  test("is there, and takes nearly all of what it should", () => {
    const { shared } = EventKernel;
    expect(shared).toBeDefined();
    expect(EventKernel.shared).toBe(shared);
    const reader = new WireReader(new Dictionary(), NODE, CREATION);
    const events = Array.from({ length: 50 }, (_, i) =>
      wire(K.call, i, pid(i), Atom.of("lists"), Atom.of(`f${i % 5}`), 2, 30, Atom.of("tag"), 0, 0),
    );
    const bytes = message(events);
    reader.reset(bytes);
    const first = message([]).length + 4;
    reader.at = first;
    const block = new SlotBlock(50);
    shared?.begin(0);
    // Not before a pid has been seen.
    expect(shared?.decode(reader, block, 0, 50, 0)).toBe(0);
    reader.at = first + 2 + 2 + 2;
    reader.tracee();
    reader.at = first;
    expect(shared?.decode(reader, block, 0, 50, 0)).toBe(50);
    expect(reader.at).toBe(bytes.length - 1);
  });

  test("gives what the general decoder gives, for any events", () => {
    fc.assert(
      fc.property(batches, (all) => {
        const both = pair();
        // Twice: what the first time is new is known the second time.
        for (const batch of [...all, ...all]) {
          const [kernel, general] = both(message(batch, { base: BASE }));
          expect(kernel).toEqual(general);
          expect(kernel?.code).toBeUndefined();
        }
      }),
      { numRuns: 300 },
    );
  });

  test("gives what the general decoder gives for changed and cut bytes, also an error", () => {
    const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(batches, fc.array(changes, { minLength: 1, maxLength: 10 }), fc.nat(), (all, many, cut) => {
        const both = pair();
        for (const batch of all) both(message(batch, { base: BASE }));
        for (const list of many) {
          const bytes = message(all[0]!, { base: BASE }).slice();
          for (const [where, value] of list) bytes[where % bytes.length] = value;
          const [kernel, general] = both(bytes);
          expect(kernel).toEqual(general);
        }
        const good = message(all[0]!, { base: BASE });
        const [kernel, general] = both(good.subarray(0, cut % good.length));
        expect(kernel).toEqual(general);
        expect(kernel?.code).toBe("BT_BAD_TERM");
        expect(kernel?.words.length).toBe(0);
      }),
      { numRuns: 500 },
    );
  });

  test("what lies behind a message is never read into it", () => {
    const both = pair();
    const long = message([wire(K.call, 1, pid(1), Atom.of("lists"), Atom.of("secret"), 2, 30, 0, 0, 0)], {});
    // Three times: a pid is seen, names are told, all is known.
    for (let turn = 0; turn < 3; turn++) expect(both(long)[0]?.code).toBeUndefined();
    // The same message within a larger buffer, cut at every place: what follows in memory would make it whole.
    for (let length = 0; length < long.length; length++) {
      for (const result of both(long.subarray(0, length)))
        expect(result).toMatchObject({ code: "BT_BAD_TERM", words: new Uint32Array(0) });
    }
  });

  test("messages longer than the window, with payloads of any length", () => {
    const both = pair();
    const lengths = [0, 1, 100, 5_000, 66_000, 3, 65_536, 20, 4_096, 61_440, 70_000, 8];
    const events = Array.from({ length: 3000 }, (_, i) => {
      const head = [K.receive, i, pid(i % 50), 8 + 2 * 16, Atom.of("ok"), 0] as const;
      const length = lengths[(i / 100) | 0] ?? 0;
      return i % 100 === 7 ? wire(...head, new Uint8Array(length).fill(i)) : wire(...head);
    });
    const bytes = message(events, { base: BASE });
    expect(bytes.length).toBeGreaterThan(300_000);
    const [kernel, general] = both(bytes);
    expect(kernel).toEqual(general);
    expect(kernel?.message).toMatchObject({ events: 3000, misfits: 0, written: 3000 });
  });

  test("more names than it can keep, of every length", () => {
    const both = pair();
    const events = Array.from({ length: 6000 }, (_, i) => {
      const module = Atom.of(`Elixir.M${"x".repeat(i % 200)}${i % 1500}`);
      const fun = Atom.of(`f${i % 7}${"y".repeat((i * 7) % 90)}`);
      return wire(K.call, i, pid(1), module, fun, i % 5, 14 + (i % 5) * 16, module, fun, 0);
    });
    for (let turn = 0; turn < 2; turn++) {
      const [kernel, general] = both(message(events, { base: BASE }));
      expect(kernel).toEqual(general);
      expect(kernel?.message?.misfits).toBe(0);
    }
  });

  test("two dictionaries in turn: no name of one comes out with an id of the other", () => {
    const first = pair();
    const other = new Dictionary();
    for (let i = 0; i < 50; i++) other.atomId(`atom ${i}`);
    const second = pair(other);
    const bytes = message([wire(K.in, 1, pid(9), Atom.of("gen_server"), Atom.of("loop"), 7)], { base: BASE });
    for (let turn = 0; turn < 3; turn++) {
      for (const both of [first, second]) {
        const [kernel, general] = both(bytes);
        expect(kernel).toEqual(general);
      }
    }
  });

  test("aliases of three and of five numbers, of this node and of another", () => {
    const both = pair();
    const aliases = [
      new Reference(Atom.of(NODE), CREATION, [1, 2, 0xffffffff]),
      new Reference(Atom.of(NODE), CREATION, [1, 2, 3, 0x7ffffff3, 0xffffffff]),
      new Reference(Atom.of(NODE), CREATION + 1, [1, 2, 3]),
      new Reference(Atom.of("other@host"), CREATION, [1, 2, 3, 4, 5]),
    ];
    const events = aliases.map((alias) => wire(K.send, 5, pid(3), alias, 8, Atom.of("reply"), 0));
    for (let turn = 0; turn < 2; turn++) {
      const [kernel, general] = both(message(events, { base: BASE }));
      expect(kernel).toEqual(general);
      expect(kernel?.message?.misfits).toBe(0);
    }
  });

  test("native records are merged as without it, whatever their stamps", () => {
    const stamp = fc.oneof(
      { weight: 100, arbitrary: fc.integer({ min: 0, max: 40 }) },
      { weight: 100, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }) },
      { weight: 1, arbitrary: fc.constantFrom(NaN, Infinity, -Infinity, -0) },
    );
    fc.assert(
      fc.property(fc.array(stamp, { maxLength: 400 }), fc.boolean(), (stamps, sorted) => {
        const both = pair();
        const [kernel, general] = both(nativeMessage(sorted ? stamps.sort((a, b) => a - b) : stamps));
        expect(kernel).toEqual(general);
        if (stamps.every(Number.isFinite)) expect(kernel?.words.length).toBe(stamps.length * SLOT_WORDS);
        else expect(kernel?.code).toBe("BT_BAD_TERM");
      }),
      { numRuns: 300 },
    );
  });

  test("native batches of more runs or records than it takes", () => {
    const both = pair();
    for (const stamps of [
      Array.from({ length: 1000 }, (_, i) => 1000 - i),
      Array.from({ length: 17_000 }, (_, i) => i % 9000),
      Array.from({ length: 16_384 }, (_, i) => i % 4096),
    ]) {
      const [kernel, general] = both(nativeMessage(stamps));
      expect(kernel).toEqual(general);
      const floats = new Float64Array(kernel!.words.buffer);
      for (let i = 1; i < stamps.length; i++)
        expect(floats[i * 8 + 1]! >= floats[(i - 1) * 8 + 1]!).toBe(true);
    }
  });
});

/** Collections of process `i` with these stamps. */
function nativeMessage(stamps: readonly number[]): Uint8Array {
  const words = new Uint32Array(stamps.length * SLOT_WORDS);
  const floats = new Float64Array(words.buffer);
  stamps.forEach((stamp, i) => {
    words[i * SLOT_WORDS] = K.gc_minor_start | (7 << 16);
    floats[i * 8 + 1] = stamp;
    words[i * SLOT_WORDS + 4] = (i << 4) | IDENTITY.pid;
  });
  return encode(new Tuple([3, 77, 0, BASE, stamps.length, 0, [], new Uint8Array(words.buffer)]));
}
