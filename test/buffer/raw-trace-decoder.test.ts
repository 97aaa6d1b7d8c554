import { describe, expect, test } from "vitest";
import { Dictionary } from "../../src/buffer/dictionary";
import { EventBatch } from "../../src/buffer/event-batch";
import { EventFactory } from "../../src/buffer/event-factory";
import { RawTraceDecoder } from "../../src/buffer/raw-trace-decoder";
import { SlotBlock } from "../../src/buffer/slot-block";
import type { EventOf, TraceEvent } from "../../src/buffer/trace-event";
import { decode, encode } from "../../src/erlang/etf";
import { Atom, equals, Pid, Port, Reference, Tuple, type Term } from "../../src/erlang";
import { traceFixture, type FixtureName } from "./support/fixture";

function decodeFixture(name: FixtureName) {
  const fixture = traceFixture(name);
  const dictionary = new Dictionary();
  const decoder = new RawTraceDecoder({
    dictionary,
    node: fixture.node,
    flags: fixture.flags,
    payload: { maxBytes: 1 << 20 },
  });
  const block = new SlotBlock();
  for (const record of fixture.records) decoder.decode(record, block);
  const source = {
    node: fixture.node,
    creation: decoder.creation!,
    otp: fixture.otp,
    base: decoder.base!,
    timeOffset: fixture.timeOffset,
  };
  const batch = EventBatch.of(block, new EventFactory(dictionary, [source]));
  return {
    fixture,
    decoder,
    batch,
    events: batch.events(),
    tuples: fixture.records.map((r) => decode(r) as Tuple),
  };
}

const same = (a: unknown, b: Term) => equals(a as Term, b);

/** The tag of an event in the VM's own words. */
const tagOf = (event: TraceEvent) => event.kind.replace(/^port_/, "");

describe.each([
  "phoenix-calls",
  "phoenix-gc",
  "phoenix-ports",
  "phoenix-running-scheduler",
  "phoenix-send-receive-procs",
  "phoenix-send-receive-procs-no-timestamp",
] as const)("%s", (name) => {
  const { fixture, decoder, events, tuples } = decodeFixture(name);

  test("every record becomes one event of its kind, in order", () => {
    const counts: Record<string, number> = {};
    for (const event of events) counts[tagOf(event)] = (counts[tagOf(event)] ?? 0) + 1;
    expect(counts).toEqual(fixture.countByTag);
    tuples.forEach((tuple, i) => expect(tagOf(events[i]!)).toBe((tuple.elements[2] as Atom).name));
  });

  test("process, stamp and scheduler are those of the record", () => {
    tuples.forEach((tuple, i) => {
      const event = events[i]!;
      expect(same(event.process, tuple.elements[1]!)).toBe(true);
      if (fixture.flags.includes("strict_monotonic_timestamp")) {
        const stamp = (tuple.elements.at(-1) as Tuple).elements[0] as bigint;
        expect(BigInt(event.timestamp) + decoder.base!).toBe(BigInt(stamp));
      } else expect(event.timestamp).toBe(i);
      expect(event.scheduler).toBe(
        fixture.flags.includes("scheduler_id") ? tuple.elements.at(-2) || undefined : undefined,
      );
    });
  });

  test("the rest of each record is in its event", () => {
    tuples.forEach((tuple, i) => {
      const event = events[i]!;
      const d1 = tuple.elements[3]!;
      const d2 = tuple.elements[4]!;
      const call = (mfa: { module: string; function: string; arity: number } | undefined, term: Term) => {
        const [m, f, a] = (term as Tuple).elements;
        expect(mfa).toEqual({
          module: (m as Atom).name,
          function: (f as Atom).name,
          arity: Array.isArray(a) ? a.length : a,
        });
      };
      switch (event.kind) {
        case "send":
        case "send_to_non_existing_process":
          expect(same(event.payload, d1)).toBe(true);
          expect(same(event.to, d2)).toBe(true);
          break;
        case "receive":
        case "exit":
        case "closed":
          expect(same(event.payload, d1)).toBe(true);
          break;
        case "call":
          call(event.mfa, d1);
          expect(same(event.payload, (d1 as Tuple).elements[2]!)).toBe(true);
          expect(event.shape).toMatchObject({ type: "args", size: event.mfa.arity });
          break;
        case "return_from":
          call(event.mfa, d1);
          expect(same(event.payload, d2)).toBe(true);
          break;
        case "exception_from":
          call(event.mfa, d1);
          expect(event.class).toBe(((d2 as Tuple).elements[0] as Atom).name);
          expect(same(event.payload, (d2 as Tuple).elements[1]!)).toBe(true);
          break;
        case "return_to":
        case "in":
        case "out":
        case "out_exited":
          if (d1 instanceof Tuple) call(event.mfa, d1);
          else expect(event.mfa).toBeUndefined();
          break;
        case "spawn":
          expect(same(event.child, d1)).toBe(true);
          call(event.mfa, d2);
          break;
        case "spawned":
          expect(same(event.parent, d1)).toBe(true);
          call(event.mfa, d2);
          break;
        case "link":
        case "unlink":
        case "getting_linked":
        case "getting_unlinked":
          expect(same(event.other, d1)).toBe(true);
          break;
        case "port_in":
        case "port_out":
          expect(event.operation).toBe(d1 instanceof Atom ? d1.name : undefined);
          break;
        case "open":
          expect(same(event.opener, d1)).toBe(true);
          expect(event.name).toBe((d2 as Atom).name);
          break;
        case "gc_minor_start":
        case "gc_minor_end":
        case "gc_major_start":
        case "gc_major_end":
          for (const pair of d1 as readonly Tuple[]) {
            const [key, value] = pair.elements as [Atom, number];
            const got = (event as unknown as Record<string, number>)[key.name]!;
            expect(got).toBeGreaterThanOrEqual(value);
            expect(got).toBeLessThanOrEqual(key.name.startsWith("bin_") ? value * (1 + 1 / 128) : value);
          }
          break;
        default:
          throw new Error(`no expectation for ${event.kind}`);
      }
    });
  });
});

describe("RawTraceDecoder", () => {
  const pid = new Pid(Atom.of("a@b"), 77, 1, 5);
  const a = (name: string) => Atom.of(name);
  const t = (...elements: Term[]) => new Tuple(elements);

  function one(flags: string[], ...terms: Term[]): TraceEvent[] {
    const dictionary = new Dictionary();
    const decoder = new RawTraceDecoder({ dictionary, node: "a@b", flags, payload: "shape" });
    const block = new SlotBlock();
    for (const term of terms) decoder.decode(encode(term), block);
    const source = { node: "a@b", creation: 5, otp: "", base: decoder.base ?? 0n, timeOffset: 0n };
    return EventBatch.of(block, new EventFactory(dictionary, [source])).events();
  }

  test("computes shapes by the agent's rules", () => {
    const shapes = (...messages: Term[]) =>
      one([], ...messages.map((m) => t(a("trace"), pid, a("receive"), m))).map(
        (e) => (e as EventOf<"receive">).shape,
      );
    const ref = new Reference(a("a@b"), 5, [1, 2, 3]);
    expect(
      shapes(
        a("stop"),
        t(a("$gen_call"), t(pid, ref), t(a("checkout"), 1)),
        t(a("$gen_cast"), a("flush")),
        t(a("DOWN"), ref, a("process"), pid, a("normal")),
        t(ref, a("ok")),
        t(a("a"), t(a("b"), 1)),
        [1, 2, 3],
        [a("x"), a("y")],
        [],
        new Uint8Array(9),
        12,
        2n ** 70n,
        pid,
        new Port(a("a@b"), 3, 5),
        t(),
      ),
    ).toEqual([
      { type: "atom", size: 0, tags: ["stop"] },
      { type: "tuple", size: 3, tags: ["$gen_call", "checkout"] },
      { type: "tuple", size: 2, tags: ["$gen_cast", "flush"] },
      { type: "tuple", size: 5, tags: ["DOWN"] },
      { type: "tuple", size: 2, tags: ["", "ok"] },
      { type: "tuple", size: 2, tags: ["a", "b"] },
      { type: "list", size: 3, tags: [] },
      { type: "list", size: 2, tags: [] },
      { type: "nil", size: 0, tags: [] },
      { type: "binary", size: 9, tags: [] },
      { type: "integer", size: 0, tags: [] },
      { type: "integer", size: 0, tags: [] },
      { type: "pid", size: 0, tags: [] },
      { type: "port", size: 0, tags: [] },
      { type: "tuple", size: 0, tags: [] },
    ]);
  });

  test("reads wall-clock stamps, plain monotonic stamps across zero, and skips a match spec's message", () => {
    const wall = one(
      ["timestamp"],
      t(a("trace_ts"), pid, a("exit"), a("normal"), t(1700, 1, 5)),
      t(a("trace_ts"), pid, a("exit"), a("normal"), t(1700, 1, 7)),
    );
    expect(wall.map((e) => e.timestamp)).toEqual([0, 2000]);
    const monotonic = one(
      ["monotonic_timestamp", "scheduler_id", "call", "arity"],
      t(a("trace_ts"), pid, a("call"), t(a("m"), a("f"), 2), 3, -576460752303423488n),
      t(a("trace_ts"), pid, a("call"), t(a("m"), a("f"), 2), a("said"), 4, -576460752303423400n),
      t(a("trace_ts"), pid, a("call"), t(a("m"), a("f"), 2), 3, -576460740000000000n),
    );
    expect(monotonic.map((e) => e.timestamp)).toEqual([0, 88, 12303423488]);
    expect(monotonic.map((e) => e.scheduler)).toEqual([3, 4, 3]);
    expect(monotonic[0]).toMatchObject({
      mfa: { module: "m", function: "f", arity: 2 },
      shape: { type: "none" },
    });
  });

  test("keeps what it does not know as unknown, and drops as a gap", () => {
    const odd = t(a("seq_trace"), 17, a("x"));
    const events = one([], t(a("trace"), pid, a("new_in_otp_40"), 1), odd, t(a("drop"), 12));
    expect(events.map((e) => e.kind)).toEqual(["unknown", "unknown", "gap"]);
    expect(same((events[1] as EventOf<"unknown">).payload, odd)).toBe(true);
    expect(events[2]).toMatchObject({ hop: "tracer", count: 12 });
  });

  test("says what a proc_lib process really runs", () => {
    const spawned = one(
      [],
      t(
        a("trace"),
        pid,
        a("spawned"),
        pid,
        t(a("proc_lib"), a("init_p"), [
          pid,
          [],
          a("gen"),
          a("init_it"),
          [a("gen_server"), pid, pid, a("Elixir.Shop.Cart"), [], []],
        ]),
      ),
      t(
        a("trace"),
        pid,
        a("spawned"),
        pid,
        t(a("proc_lib"), a("init_p"), [
          pid,
          [],
          a("gen"),
          a("init_it"),
          [a("gen_server"), pid, pid, a("supervisor"), t(a("self"), a("Elixir.Shop.Sup"), []), []],
        ]),
      ),
      t(a("trace"), pid, a("spawned"), pid, t(a("proc_lib"), a("init_p"), [pid, [], a("m"), a("f"), [1, 2]])),
      t(a("trace"), pid, a("spawned"), pid, t(a("m"), a("f"), [])),
    );
    expect(spawned.map((e) => (e as EventOf<"spawned">).initialCall)).toEqual([
      { module: "Elixir.Shop.Cart", function: "init", arity: 1 },
      { module: "Elixir.Shop.Sup", function: "init", arity: 1 },
      { module: "m", function: "f", arity: 2 },
      undefined,
    ]);
  });
});
