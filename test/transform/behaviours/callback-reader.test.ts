/** Callbacks out of call events: what belongs together becomes one, what has no end is given as it is, nothing is kept for long. */
import { from, lastValueFrom, toArray } from "rxjs";
import { describe, expect, test } from "vitest";

import type { CallEvent, GapEvent, Site, SiteTable, Timestamp, TraceEvent } from "../../../src/buffer";
import { atom, Pid, type Term, tuple } from "../../../src/erlang";
import { type CallbackEvent, CallbackReader, callbacks, siteTables } from "../../../src/transform";

const site = (
  id: number,
  fun: string,
  kind: Site["kind"],
  trigger: "call" | "continuation",
  callee?: string,
): Site => ({
  ...{ id, kind, function: fun, arity: 2, clause: 1, file: "m.erl", line: id, column: 0, arguments: [] },
  callback: { behaviour: "gen_server", name: trigger === "call" ? "handle_call/3" : `${fun}/2`, trigger },
  ...(callee === undefined ? {} : { callee }),
});
const TABLE: SiteTable = {
  module: "m",
  version: 0,
  sites: [
    site(0, "handle_call", "return", "call"),
    site(1, "handle_call", "tail", "call", "go/2"),
    site(2, "go", "entry", "continuation"),
    site(3, "go", "return", "continuation"),
    site(4, "go", "tail", "continuation", "on/2"),
    site(5, "on", "entry", "continuation"),
    site(6, "on", "return", "continuation"),
    site(7, "handle_call", "tail", "call"),
  ],
};

const node = atom("n@h");
const pid = new Pid(node, 1, 0, 1);
const other = new Pid(node, 2, 0, 1);
let clock = 0;
function event(process: Pid, frame: number, number: number, summary: Term): CallEvent {
  return {
    ...{
      kind: "call",
      timestamp: clock++ as Timestamp,
      source: 0,
      scheduler: undefined,
      process,
      caller: undefined,
    },
    mfa: { module: "beamtrace_rt", function: "called_back", arity: 4 },
    shape: { type: "args", size: 4, tags: [] },
    payload: [frame, atom("m"), number, summary],
  };
}
const none = atom("none");
const shape = (...tags: string[]): Term => tuple(atom("tuple"), 2, tags.map(atom));
/** `{Outcome, Trigger, Caller, Reply, Reason, Next, Names, Before, After, Changes, Assigns, Values}` */
const summary = (outcome: string, trigger: Term = none, reply: Term = none, changes: Term = none): Term =>
  tuple(
    ...[atom(outcome), trigger, none, reply, none, [], tuple([], [])],
    ...[shape("state"), outcome === "tail_call" ? none : shape("state"), changes, none, []],
  );
const ended = (process: Pid, frame: number, number: number, outcome = "reply"): CallEvent =>
  event(
    process,
    frame,
    number,
    summary(outcome, shape("asked", String(frame)), shape("answer", String(frame))),
  );
const left = (process: Pid, frame: number, number: number): CallEvent =>
  event(process, frame, number, summary("tail_call", shape("asked", String(frame))));
const enters = (process: Pid, frame: number, number: number): CallEvent =>
  event(process, frame, number, atom("continues"));
const gap: GapEvent = {
  ...{ kind: "gap", timestamp: 0 as Timestamp, source: 0, scheduler: undefined },
  ...{ hop: "tracer", count: 1, from: 0 as Timestamp, to: 0 as Timestamp },
} as GapEvent;

const text = ({ outcome, trigger, reply, site: at }: CallbackEvent): string =>
  `${at.function} ${outcome} ${trigger?.tags[1] ?? "-"} ${reply?.tags[1] ?? "-"}`;
/** What comes with each event, and what at the end. */
function read(...events: readonly TraceEvent[]): string[][] {
  const reader = new CallbackReader(siteTables([TABLE]));
  return [...events.map((one) => reader.push(one)), reader.end()].map((found) => found.map(text));
}

describe("a callback", () => {
  test("that returns is given at once", () => {
    expect(read(ended(pid, 1, 0))).toEqual([["handle_call reply 1 1"], []]);
  });

  test("that goes on in another function is one with what that answers", () => {
    expect(read(left(pid, 1, 1), enters(pid, 2, 2), ended(pid, 2, 3))).toEqual([
      [],
      [],
      ["go reply 1 2"],
      [],
    ]);
  });

  test("also by way of several functions", () => {
    expect(
      read(left(pid, 1, 1), enters(pid, 2, 2), left(pid, 2, 4), enters(pid, 3, 5), ended(pid, 3, 6)),
    ).toEqual([[], [], [], [], ["on reply 1 3"], []]);
  });

  test("that goes on outside of its module is given as it is", () => {
    expect(read(left(pid, 1, 7))).toEqual([["handle_call tail_call 1 -"], []]);
  });

  test("of which no more is heard is given before the next one, and at the end", () => {
    expect(read(left(pid, 1, 1), ended(pid, 2, 0), left(pid, 3, 1), enters(pid, 4, 2))).toEqual([
      ...[[], ["handle_call tail_call 1 -", "handle_call reply 2 2"], [], []],
      ["handle_call tail_call 3 -"],
    ]);
  });
});

describe("a function that could finish a callback", () => {
  test("says nothing when no callback has left for it", () => {
    expect(read(enters(pid, 2, 2), ended(pid, 2, 3))).toEqual([[], [], []]);
  });

  test("is not taken for it within another process, another function, or the frame that is", () => {
    expect(read(left(pid, 1, 1), enters(other, 2, 2), ended(other, 2, 3))).toEqual([
      ...[[], [], [], ["handle_call tail_call 1 -"]],
    ]);
    expect(read(left(pid, 1, 1), enters(pid, 2, 5))).toEqual([[], ["handle_call tail_call 1 -"], []]);
    expect(
      read(left(pid, 1, 1), enters(pid, 2, 2), enters(pid, 3, 2), ended(pid, 3, 3), ended(pid, 2, 3)),
    ).toEqual([[], [], [], [], ["go reply 1 2"], []]);
  });
});

test("after a gap nothing is put together", () => {
  expect(read(left(pid, 1, 1), gap, enters(pid, 2, 2), ended(pid, 2, 3))).toEqual([
    ...[[], ["handle_call tail_call 1 -"], [], [], []],
  ]);
});

test("what is pending is bounded", () => {
  const reader = new CallbackReader(siteTables([TABLE]));
  const given = Array.from({ length: 10_010 }, (_, i) => reader.push(left(new Pid(node, i, 0, 1), i, 1)));
  expect(given.flat().map(text).slice(0, 2)).toEqual([
    "handle_call tail_call 0 -",
    "handle_call tail_call 1 -",
  ]);
  expect(given.flat()).toHaveLength(10);
  expect(reader.end()).toHaveLength(10_000);
});

test("as an operator; other events, unknown modules and payloads that were cut say nothing", async () => {
  const cut = { ...ended(pid, 1, 0), payload: undefined };
  const unknown = { ...ended(pid, 1, 0), payload: [1, atom("other"), 0, summary("reply")] };
  const half = { ...ended(pid, 1, 0), payload: [1, atom("m"), 0, atom("[trimmed]")] };
  const call = { ...ended(pid, 1, 0), mfa: { module: "m", function: "f", arity: 4 } };
  const events$ = from([cut, unknown, half, call, ended(pid, 1, 0), left(pid, 2, 1)]);
  const found = await lastValueFrom(events$.pipe(callbacks(siteTables([TABLE])), toArray()));
  expect(found.map(text)).toEqual(["handle_call reply 1 1", "handle_call tail_call 2 -"]);
});
