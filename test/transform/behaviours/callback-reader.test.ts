/** Callbacks out of call events: what belongs together becomes one, what has no end is given as it is, nothing is kept for long. */
import { from, lastValueFrom, toArray } from "rxjs";
import { describe, expect, test } from "vitest";

import type {
  CallbackTrigger,
  CallEvent,
  ExitEvent,
  GapEvent,
  Site,
  SiteTable,
  Timestamp,
  TraceEvent,
} from "../../../src/buffer";
import { atom, Pid, type Term, tuple } from "../../../src/erlang";
import { type CallbackEvent, CallbackReader, callbacks, siteTables } from "../../../src/transform";

const site = (
  id: number,
  fun: string,
  kind: Site["kind"],
  trigger: CallbackTrigger,
  callee?: string,
): Site => ({
  ...{ id, kind, function: fun, arity: 2, clause: 1, file: "m.erl", line: id, column: 0, arguments: [] },
  callback: { behaviour: "gen_server", name: `${fun}/2`, trigger },
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
    site(8, "terminate", "return", "terminate"),
    site(9, "handle_call", "entry", "call"),
    site(10, "terminate", "entry", "terminate"),
    site(11, "handle_info", "entry", "info"),
    site(12, "handle_info", "return", "info"),
    site(13, "init", "entry", "init"),
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
/** A callback begins, called by a module of OTP, or of its own. */
const begins = (process: Pid, frame: number, number = 9, by = "gen_server"): CallEvent =>
  event(
    process,
    frame,
    number,
    tuple(
      ...[atom("begins"), shape("asked", String(frame)), none, none, none, [tuple(atom("by"), atom(by))]],
      ...[tuple([], []), shape("state"), none, none, none, []],
    ),
  );
const told = (process: Pid, frame: number, number: number): CallEvent =>
  event(
    process,
    frame,
    number,
    tuple(
      ...[atom("exception"), shape("asked", String(frame)), none, none, shape("why")],
      ...[[tuple(atom("class"), atom("throw"))], tuple([], []), shape("state"), none, none, none, []],
    ),
  );
const exits = (process: Pid): ExitEvent => ({
  ...{ kind: "exit", timestamp: clock++ as Timestamp, source: 0, scheduler: undefined, process },
  ...{ reason: { type: "tuple", size: 2, tags: ["crashed"] }, payload: undefined },
});
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

describe("a callback that raises", () => {
  /** Outcome, evidence, what it was asked and why. */
  const outcomes = (...events: readonly TraceEvent[]): string[] => {
    const reader = new CallbackReader(siteTables([TABLE]));
    return [...events.flatMap((one) => reader.push(one)), ...reader.end()].map((found) =>
      [
        ...[found.callback, found.outcome, found.exception?.evidence, found.exception?.class],
        ...[found.trigger?.tags[1], found.reason?.tags[0]],
      ]
        .filter((part) => part !== undefined)
        .join(" "),
    );
  };

  test("and tells of it, does so with class and reason", () => {
    expect(outcomes(begins(pid, 1), told(pid, 1, 0))).toEqual([
      "handle_call/2 exception function throw 1 why",
    ]);
  });

  test("shows when the behaviour calls terminate, with the reason that that gets", () => {
    const events = [begins(pid, 1), begins(pid, 2, 10), ended(pid, 2, 8, "value"), exits(pid)];
    expect(outcomes(...events)).toEqual(["handle_call/2 exception terminate 1 asked", "terminate/2 value 2"]);
  });

  test("shows when the behaviour calls the next one, whichever", () => {
    const next = [begins(pid, 2, 11), ended(pid, 2, 12, "noreply")];
    expect(outcomes(begins(pid, 1), ...next)).toEqual([
      ...["handle_call/2 exception callback 1", "handle_info/2 noreply 2"],
    ]);
  });

  test("shows when its process exits, with the reason of that", () => {
    expect(outcomes(begins(pid, 1), exits(other), exits(pid))).toEqual([
      "handle_call/2 exception exit 1 crashed",
    ]);
  });

  test("within another that goes on, shows when that ends", () => {
    const nested = begins(pid, 2, 11, "m");
    expect(outcomes(begins(pid, 1), nested, ended(pid, 1, 0))).toEqual([
      ...["handle_info/2 exception caller 2", "handle_call/2 reply 1"],
    ]);
  });

  test("in the function that it went on to, is one with it", () => {
    const gone = [begins(pid, 1), left(pid, 1, 1), enters(pid, 2, 2)];
    expect(outcomes(...gone, exits(pid))).toEqual(["handle_call/2 exception exit 1 crashed"]);
    expect(outcomes(...gone, begins(pid, 3, 10))).toEqual(["handle_call/2 exception terminate 1 asked"]);
    // Whether that was entered at all is not known where it may not be instrumented.
    expect(outcomes(begins(pid, 1), left(pid, 1, 1), exits(pid))).toEqual(["handle_call/2 tail_call 1"]);
  });

  test("is not said of one that calls others itself, has not ended, or is behind a gap", () => {
    const own = [
      begins(pid, 2, 10, "m"),
      ended(pid, 2, 8, "value"),
      begins(pid, 3, 9, "helper"),
      ended(pid, 3, 0),
    ];
    expect(outcomes(begins(pid, 1), ...own, ended(pid, 1, 0))).toEqual([
      ...["terminate/2 value 2", "handle_call/2 reply 3", "handle_call/2 reply 1"],
    ]);
    expect(outcomes(begins(pid, 1))).toEqual([]);
    expect(outcomes(begins(pid, 1), gap, exits(pid))).toEqual([]);
    // A server's loop may be entered in `init`.
    expect(outcomes(begins(pid, 1, 13), begins(pid, 2), ended(pid, 2, 0))).toEqual(["handle_call/2 reply 2"]);
  });

  test("leaves nothing behind: what is open is bounded", () => {
    const reader = new CallbackReader(siteTables([TABLE]));
    for (let i = 0; i < 10_010; i++) reader.push(begins(new Pid(node, i, 0, 1), i));
    expect(reader.push(exits(new Pid(node, 5, 0, 1)))).toEqual([]);
    for (let i = 0; i < 100; i++) reader.push(begins(pid, i, 9, "m"));
    expect(reader.push(exits(pid))).toHaveLength(64);
  });
});

test("a callback says when it began", () => {
  const reader = new CallbackReader(siteTables([TABLE]));
  const [began, end] = [begins(pid, 1), ended(pid, 1, 0)];
  expect([began, end].flatMap((one) => reader.push(one))).toMatchObject([
    { began: began.timestamp, timestamp: end.timestamp },
  ]);
  expect(reader.push(ended(pid, 5, 0))).toMatchObject([{ began: undefined }]);
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
