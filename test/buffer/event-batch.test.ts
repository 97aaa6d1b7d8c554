import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Dictionary } from "../../src/buffer/dictionary";
import { EventBatch } from "../../src/buffer/event-batch";
import { EventFactory } from "../../src/buffer/event-factory";
import { EVENT_KINDS } from "../../src/buffer/event-schema";
import { keyHigh, keyLow, processKey } from "../../src/buffer/ids";
import { fromMinifloat, MINIFLOAT_MAX, toMinifloat } from "../../src/buffer/minifloat";
import { SlotBlock } from "../../src/buffer/slot-block";
import { TraceBatchDecoder } from "../../src/buffer/trace-batch-decoder";
import type { TraceEvent } from "../../src/buffer/trace-event";
import { Pid } from "../../src/erlang";
import { arbitraryEvent, CREATION, message, NODE } from "./support/arbitrary-event";

const SOURCES = [{ node: NODE, creation: CREATION, otp: "27", base: 0n, timeOffset: 0n }];
const events = fc.array(arbitraryEvent, { minLength: 1, maxLength: 60 });

const batchOf = (wire: Parameters<typeof message>[0]): EventBatch => {
  const dictionary = new Dictionary();
  const block = new SlotBlock();
  new TraceBatchDecoder({ dictionary, node: NODE, creation: CREATION, base: 0n }).decode(
    message(wire, { base: 0 }),
    block,
  );
  return EventBatch.of(block, new EventFactory(dictionary, SOURCES));
};

describe("EventBatch", () => {
  test("columns say what the objects say", () => {
    fc.assert(
      fc.property(events, (wire) => {
        const batch = batchOf(wire);
        const cursor = batch.cursor();
        let i = 0;
        for (const event of batch) {
          expect(cursor.next()).toBe(true);
          expect(batch.kind(i)).toBe(event.kind);
          expect(batch.kindCode(i)).toBe(EVENT_KINDS[event.kind]);
          expect(batch.timestamp(i)).toBe(event.timestamp);
          expect(batch.scheduler(i)).toBe(event.scheduler ?? 0);
          expect(batch.source(i)).toBe(0);
          const key = batch.process(i);
          if (event.process === undefined) expect(key).toBe(0);
          // A key is a double: exact below 2^49 processes.
          else if (keyHigh(key) < 2 ** 21) expect(batch.identityOf(key)).toBe(event.process);
          expect(cursor.process).toBe(key);
          expect(cursor.event()).toEqual(event);
          expect(batch.mfa(i)).toEqual("mfa" in event ? event.mfa : undefined);
          i++;
        }
        expect(cursor.next()).toBe(false);
      }),
      { numRuns: 100 },
    );
  });

  test("slices count from the end and stay within the batch", () => {
    const [one] = fc.sample(arbitraryEvent, 1);
    const batch = batchOf(Array.from({ length: 6 }, () => one!));
    const inner = batch.slice(1, 5);
    for (const [from, to] of [
      [-2, undefined],
      [-9, 2],
      [1, -1],
      [3, 1],
      [9, 12],
    ] as const)
      expect(inner.slice(from, to).length).toBe([0, 1, 2, 3].slice(from, to).length);
    expect(inner.slice(-1).slot(0)).toBe(inner.slot(3));
  });

  test("what was selected from a batch is released with it, columns included", () => {
    const { words, floats, factory, payload } = batchOf(fc.sample(arbitraryEvent, 8));
    const batch = new EventBatch({ words, floats, first: 0, count: 8, payload }, factory);
    const selected = batch.filter((_, i) => i % 2 === 0).slice(1);
    expect(selected.length).toBe(3);
    batch.release();
    const released = expect.objectContaining({ code: "BT_BATCH_RELEASED" }) as Error;
    expect(() => selected.kind(0)).toThrow(released);
    expect(() => selected.timestamp(0)).toThrow(released);
    expect(() => selected.cursor().next() && selected.process(0)).toThrow(released);
  });

  test("filter, slice and copy are what arrays would give", () => {
    fc.assert(
      fc.property(events, fc.nat(60), (wire, cut) => {
        const batch = batchOf(wire);
        const all = batch.events();
        expect(batch.filter(["send", "call"]).events()).toEqual(
          all.filter((e) => e.kind === "send" || e.kind === "call"),
        );
        expect(batch.filter((b, i) => b.timestamp(i) > 0).events()).toEqual(
          all.filter((e) => e.timestamp > 0),
        );
        const key = batch.process(0);
        if (keyHigh(key) < 2 ** 21)
          expect(batch.filter({ process: key }).events()).toEqual(
            all.filter((_, i) => batch.process(i) === key),
          );
        expect(batch.filter({ process: key, source: 3 }).length).toBe(0);
        expect(batch.slice(cut).events()).toEqual(all.slice(cut));
        const some = batch.filter((_, i) => i % 2 === 0).filter((_, i) => i % 2 === 1);
        expect(some.copy().events()).toEqual(all.filter((_, i) => i % 4 === 2));
        expect(some.copy().copy().length).toBe(some.length);
      }),
      { numRuns: 100 },
    );
  });

  test("one process is one Pid object, in every event", () => {
    fc.assert(
      fc.property(events, (wire) => {
        const seen = new Map<string, TraceEvent["process"]>();
        for (const { process } of [...batchOf(wire), ...[]]) {
          if (!(process instanceof Pid)) continue;
          const key = `${process.id} ${process.serial}`;
          expect(seen.get(key) ?? process).toBe(process);
          seen.set(key, process);
        }
      }),
    );
  });

  test("after release every use throws BT_BATCH_RELEASED, a copy lives on", () => {
    const [wire] = fc.sample(fc.array(arbitraryEvent, { minLength: 3, maxLength: 5 }), {
      seed: 5,
      numRuns: 1,
    });
    const batch = batchOf(wire!);
    const copy = batch.copy();
    const part = batch.filter((_, i) => i === 0);
    const before = batch.events();
    batch.release();
    const released = expect.objectContaining({ code: "BT_BATCH_RELEASED" }) as Error;
    expect(() => batch.kind(0)).toThrow(released);
    expect(() => batch.timestamp(0)).toThrow(released);
    expect(() => batch.event(0)).toThrow(released);
    expect(() => batch.copy()).toThrow(released);
    expect(() => part.event(0)).toThrow(released);
    expect(copy.events()).toEqual(before);
    for (const i of [99, -1, 0.5, NaN]) expect(() => copy.event(i)).toThrow(RangeError);
  });
});

test("process keys are reversible", () => {
  fc.assert(
    fc.property(fc.nat(0xffffffff), fc.nat(2 ** 21 - 1), (low, high) => {
      const key = processKey(low, high);
      expect([keyLow(key), keyHigh(key)]).toEqual([low, high]);
    }),
  );
});

test("minifloats round up, by at most 1/128, and are stable", () => {
  fc.assert(
    fc.property(fc.oneof(fc.nat(4000), fc.nat(MINIFLOAT_MAX)), (value) => {
      const bits = toMinifloat(value);
      const got = fromMinifloat(bits);
      expect(bits).toBeLessThan(4096);
      expect(got).toBeGreaterThanOrEqual(value);
      expect(got).toBeLessThanOrEqual(value * (1 + 1 / 128));
      if (value < 256) expect(got).toBe(value);
      expect(toMinifloat(got)).toBe(bits);
    }),
  );
  expect(fromMinifloat(toMinifloat(2 ** 60))).toBe(MINIFLOAT_MAX);
  expect(toMinifloat(-1)).toBe(0);
});
