import { from, tap, lastValueFrom, of, toArray, type Observable } from "rxjs";
import { describe, expect, expectTypeOf, test } from "vitest";
import { Dictionary } from "../../src/buffer/dictionary";
import { EventBatch } from "../../src/buffer/event-batch";
import { EventFactory } from "../../src/buffer/event-factory";
import { EventWriter } from "../../src/buffer/event-writer";
import { byProcess, flatten, ofKind, rate, select } from "../../src/buffer/operators";
import { SlotBlock } from "../../src/buffer/slot-block";
import type { ExitEvent, ReceiveEvent, TraceEvent } from "../../src/buffer/trace-event";
import { Atom, Pid } from "../../src/erlang";

const NODE = "a@b";
const SOURCES = [{ node: NODE, creation: 1, otp: "27", base: 0n, timeOffset: 0n }];
const pid = (id: number) => new Pid(Atom.of(NODE), id, 0, 1);
const common = { source: 0, scheduler: undefined };
const shape = { type: "atom", size: 0, tags: ["x"] } as const;
const receive = (id: number, timestamp: number): ReceiveEvent => ({
  kind: "receive",
  ...common,
  timestamp,
  process: pid(id),
  shape,
  payload: undefined,
});
const exit = (id: number, timestamp: number): ExitEvent => ({
  kind: "exit",
  ...common,
  timestamp,
  process: pid(id),
  reason: shape,
  payload: undefined,
});
const gap = (count: number, timestamp: number): TraceEvent => ({
  kind: "gap",
  ...common,
  timestamp,
  process: undefined,
  hop: "link",
  count,
  from: undefined,
  to: undefined,
});

function batchOf(events: TraceEvent[]): EventBatch {
  const dictionary = new Dictionary();
  const writer = new EventWriter(dictionary, SOURCES, new SlotBlock());
  for (const event of events) writer.write(event);
  return EventBatch.of(writer.block, new EventFactory(dictionary, SOURCES));
}

const all = <T>(source: Observable<T>) => lastValueFrom(source.pipe(toArray()));

describe("operators", () => {
  test("ofKind narrows events and their type", async () => {
    const events = [receive(1, 1), exit(1, 2), gap(1, 3)];
    const got = await all(from(events).pipe(ofKind("exit", "receive")));
    expectTypeOf(got[0]!).toEqualTypeOf<
      (ReceiveEvent & { readonly kind: "receive" }) | (ExitEvent & { readonly kind: "exit" })
    >();
    expect(got).toEqual(events.slice(0, 2));
  });

  test("select keeps the batches that have something left", async () => {
    const got = await all(
      of(batchOf([receive(1, 1), exit(1, 2)]), batchOf([exit(3, 4)])).pipe(select("receive"), flatten()),
    );
    expect(got).toEqual([receive(1, 1)]);
  });

  test("flatten stops when nobody listens any more", () => {
    const seen: TraceEvent[] = [];
    const subscription = of(batchOf([receive(1, 1), receive(1, 2), receive(1, 3)]))
      .pipe(flatten())
      .subscribe((event) => {
        seen.push(event);
        queueMicrotask(() => subscription.unsubscribe());
      });
    expect(seen).toHaveLength(3);
  });

  test("byProcess gives each process its stream, which ends when it exits; gaps go to all", async () => {
    const events = [receive(1, 1), receive(2, 2), gap(5, 3), exit(1, 4), receive(1, 5), receive(2, 6)];
    const streams: { id: number; kinds: string[]; done: boolean }[] = [];
    await from(events)
      .pipe(byProcess())
      .forEach((group) => {
        const stream = { id: (group.process as Pid).id, kinds: [] as string[], done: false };
        streams.push(stream);
        group.subscribe({
          next: (event) => stream.kinds.push(event.kind),
          complete: () => (stream.done = true),
        });
      });
    expect(streams).toEqual([
      { id: 1, kinds: ["receive", "gap", "exit"], done: true },
      { id: 2, kinds: ["receive", "gap", "receive"], done: true },
      { id: 1, kinds: ["receive"], done: true },
    ]);
  });

  test("byProcess keeps nothing open of a process that has exited", async () => {
    const of1 = (kind: string): TraceEvent =>
      ({ ...receive(1, 0), kind, ...(kind === "unregister" && { name: "shop" }) }) as unknown as TraceEvent;
    // As the VM has it: the name goes after the exit. Then a process with the same pid begins.
    const events = ["register", "exit", "unregister", "spawned", "receive"].map(of1);
    const streams: { kinds: string[]; doneAt: number | undefined }[] = [];
    let at = 0;
    await from(events)
      .pipe(
        tap(() => void at++),
        byProcess(),
      )
      .forEach((group) => {
        const stream: (typeof streams)[number] = { kinds: [], doneAt: undefined };
        streams.push(stream);
        group.subscribe({
          next: (event) => stream.kinds.push(event.kind),
          complete: () => (stream.doneAt = at),
        });
      });
    expect(streams).toEqual([
      { kinds: ["register", "exit"], doneAt: 2 },
      { kinds: ["unregister"], doneAt: 3 },
      { kinds: ["spawned", "receive"], doneAt: 5 },
    ]);
  });

  test.each(["events", "batches"] as const)("rate counts by event time, over %s", async (form) => {
    const ms = 1e6;
    const events = [
      receive(1, 0.5 * ms),
      receive(2, 0.7 * ms),
      gap(9, 0.8 * ms),
      receive(1, 3.2 * ms),
      receive(2, 2.9 * ms),
    ];
    const windows = await all(
      form === "events"
        ? from(events).pipe(rate(1))
        : of(batchOf(events.slice(0, 2)), batchOf(events.slice(2))).pipe(rate(1)),
    );
    expect(windows.map(({ from, count, perSecond, lost }) => [from / ms, count, perSecond, lost])).toEqual([
      [0, 2, 2000, 9],
      [1, 0, 0, 0],
      [2, 0, 0, 0],
      [3, 2, 2000, 0],
    ]);
    expect(() => rate(0)).toThrow(RangeError);
  });
});
