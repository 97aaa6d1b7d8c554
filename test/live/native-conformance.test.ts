/**
 * Both tracers see the same: the same deterministic work is traced by each, and what comes is compared event for event,
 * process by process; only stamps, references and the numbers of processes differ between two runs.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { TraceEvent } from "../../src/buffer";
import { NATIVE_LIBRARIES } from "../../src/capture/native-code.generated";
import { nativeUpToDate } from "../../scripts/build-native";
import { matchSpec } from "../../src/capture";
import type { FlightRecorder, FlightRecorderOptions, Session, TraceOptions } from "../../src/capture";
import {
  atom,
  ErlMap,
  ImproperList,
  inspect,
  Pid,
  Port,
  Reference,
  Tuple,
  type Term,
} from "../../src/erlang";
import { expectClean } from "../support/clean";
import { startNode, type ErlNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";

let node: ErlNode;
const sessions: Partial<Record<"native" | "portable", Session>> = {};

beforeAll(async () => {
  node = await startNode();
  await node.eval(SUBJECT);
});
afterAll(async () => {
  await expectClean(node, { modules: ["lists", "maps"] });
  await node.stop();
});

/**
 * Work in one process; all that it starts has ended before the next step. No call to a process that ends after its
 * reply, as `gen_event:stop/1` makes: a caller that runs late receives the `DOWN` of the call's own monitor as well.
 * What is done to the peer by a signal (link, unlink) has been done, as its answer tells, before what is done to it at
 * once (unregister); and a monitor that could come too late would be told another reason.
 */
const WORK = `fun() ->
  Self = self(),
  Done = fun(P) -> M = monitor(process, P), receive {'DOWN', M, _, _, _} -> ok end end,
  Peer = spawn(fun F() -> receive {From, ping} -> From ! pong, F(); stop -> ok end end),
  register(conformance_peer, Peer),
  Ask = fun(P) -> P ! {Self, ping}, receive pong -> ok end end,
  Ask(Peer),
  conformance_peer ! {Self, ping}, receive pong -> ok end,
  {conformance_peer, node()} ! {Self, ping}, receive pong -> ok end,
  {nobody, 'nowhere@127.0.0.1'} ! [1, 2, 3],
  Alias = alias(), Alias ! {aliased, 1.5, <<1, 2, 3>>}, receive {aliased, _, _} -> ok end, unalias(Alias),
  Self ! #{a => 1}, receive #{} -> ok end,
  Self ! #{'__struct__' => 'Elixir.Conformance'}, receive #{'__struct__' := _} -> ok end,
  Self ! maps:from_list([{I, I} || I <- lists:seq(1, 100)]), receive #{} -> ok end,
  Self ! <<5:3>>, receive B when is_bitstring(B) -> ok end,
  Self ! binary:copy(<<1>>, 5000), receive B2 when is_binary(B2) -> ok end,
  Self ! (1 bsl 80), receive I3 when is_integer(I3) -> ok end,
  Self ! 1.5, receive F3 when is_float(F3) -> ok end,
  Self ! [], receive [] -> ok end, Self ! lists:seq(1, 100), receive [_ | _] -> ok end, Self ! [a | b], receive [_ | _] -> ok end,
  Self ! fun lists:map/2, receive F4 when is_function(F4) -> ok end,
  Self ! make_ref(), receive R5 when is_reference(R5) -> ok end,
  Self ! {}, receive {} -> ok end, Self ! {{a}, {b, 1}, 2}, receive {_, _, _} -> ok end,
  Self ! {'$gen_call', {Self, x}, {get, 1}}, receive {'$gen_call', _, _} -> ok end,
  Self ! {'$gen_cast', reset}, receive {'$gen_cast', _} -> ok end,
  Self ! hd(erlang:ports()), receive P6 when is_port(P6) -> ok end,
  _ = gen_server:call(kernel_sup, which_children),
  link(Peer), Ask(Peer), unlink(Peer), Ask(Peer), unregister(conformance_peer), Peer ! stop, Done(Peer),
  Peer ! {too, late},
  Done(spawn(lists, seq, [1, 3])),
  Done(proc_lib:spawn(lists, seq, [1, 3])),
  {_, Late} = spawn_monitor(fun() -> exit({shutdown, because}) end), receive {'DOWN', Late, _, _, _} -> ok end,
  Done(spawn(erlang, apply, [lists, seq, [1, 3]])),
  {ok, G} = gen_event:start(), exit(G, kill), Done(G),
  M = maps:from_list([{a, {ok, 1}}]), {ok, 1} = maps:get(a, M), (catch maps:get(b, M)),
  1 = lists:sum(lists:seq(1, 1)),
  (catch exit(Self, whatever_is_ignored_by_nobody_else)),
  ok end`;

/** Messages of all kinds of terms, to itself; each is also an argument and a reason. The last ones are larger than any limit here. */
const CONTENTS = `fun() ->
  Self = self(),
  Bytes = list_to_binary(lists:seq(0, 255)),
  Cut = fun(Skip, Bits) -> <<_:Skip/bitstring, B:Bits/bitstring, _/bitstring>> = Bytes, B end,
  Grown = lists:foldl(fun(I, Acc) -> <<Acc/binary, I>> end, <<>>, lists:seq(1, 100)),
  Pairs = [{I, I * I} || I <- lists:seq(1, 200)],
  Nested = fun F(0) -> []; F(N) when N rem 3 =:= 0 -> {F(N - 1)}; F(N) when N rem 3 =:= 1 -> [a, F(N - 1)]; F(N) -> #{N => F(N - 1)} end,
  Remote = fun(Tag, Rest) -> binary_to_term(<<131, Tag, 119, 14, "other@10.0.0.1", Rest/binary>>) end,
  Terms = [
    a, 'true', '', list_to_atom([16#3bb, 16#431]), list_to_atom([233, 232]), [], {}, #{}, <<>>,
    0, 255, 256, -1, 1 bsl 31, -(1 bsl 31), -(1 bsl 31) - 1, (1 bsl 59) - 1, -(1 bsl 59), 1 bsl 59, 1 bsl 64, -(1 bsl 100), 1 bsl 2047, 1 bsl 2048,
    1.5, -0.0, 1.0e300, "text", [a | b], [1, 2 | <<3>>], [[[]], {[]}, [{}]],
    <<1, 2, 3>>, Bytes, Grown, Cut(3, 61), Cut(8, 800), Cut(5, 800), Cut(5, 803), <<5:3>>,
    {secret, <<"never seen">>}, {<<"secret">>, <<"never seen">>}, {"secret", shown}, {secret, "shown", 3},
    #{secret => <<"never seen">>, other => shown}, [{secret, "never seen"}, {key, {secret, "never seen"}}], #{<<"secret">> => <<"never seen">>},
    #{a => 1, {b} => [c], "list" => 1.5, 1 => #{2 => #{}}}, maps:from_list(Pairs), maps:from_list([{integer_to_binary(I), [I]} || {I, _} <- Pairs]),
    list_to_tuple(lists:seq(1, 50)), list_to_tuple(lists:duplicate(300, x)), Nested(30), Nested(90),
    fun lists:map/2, fun() -> Bytes end, fun(X) -> {X, Self} end, [fun erlang:self/0, fun() -> 1 end],
    Self, hd(erlang:ports()), Remote(88, <<1:32, 2:32, 3:32>>), Remote(88, <<(1 bsl 30):32, 2:32, 3:32>>), Remote(120, <<7:64, 3:32>>),
    {reply, make_ref(), erlang:make_ref()}, {atomics:new(1, [])}, {alias, erlang:alias()},
    lists:seq(1, 3000), lists:duplicate(2000, {a, <<"b">>, 1.5}), binary:copy(Bytes, 100), maps:from_list([{I, Bytes} || I <- lists:seq(1, 100)])
  ],
  lists:foreach(fun(T) -> Self ! {content, T}, receive {content, _} -> ok end, _ = lists:last([T]) end, Terms),
  Done = fun(P) -> M = monitor(process, P), receive {'DOWN', M, _, _, _} -> ok end end,
  Done(spawn(fun() -> exit({because, Terms}) end)),
  (catch maps:get(Pairs, #{})),
  lists:seq(1, 20),
  ok end`;

const SUBJECT = `register(conformance_keeper, spawn(fun K() ->
  receive {start, Name, From} ->
    P = spawn(fun() -> receive {go, F} -> F() end end), register(Name, P), From ! {started, P}, K()
  end end)), ok`;

/** Runs the work in a new process, traced if `start` traces it. */
async function run(
  name: string,
  trace: (pid: Pid) => Promise<void>,
  session: Session,
  work = WORK,
): Promise<void> {
  await node.eval(
    `conformance_keeper ! {start, ${name}, self()}, receive {started, _} -> ok end, process_flag(trap_exit, true)`,
  );
  const pid = await session.call("erlang", "whereis", [atom(name)]);
  if (!(pid instanceof Pid)) throw new Error("no subject");
  await trace(pid);
  await node.eval(
    `Subject = whereis(${name}), Mon = monitor(process, Subject), Subject ! {go, ${work}}, receive {'DOWN', Mon, _, _, _} -> ok end`,
  );
}

async function traced(
  tracer: "native" | "portable",
  options: Omit<TraceOptions, "processes" | "inherit" | "limits">,
  work = WORK,
): Promise<TraceEvent[]> {
  const session = await attachTo(node, { tracer });
  sessions[tracer] = session;
  try {
    // Once without a trace: all code is loaded then.
    await run(`warm_${tracer}`, () => Promise.resolve(), session, work);
    let collected: ReturnType<typeof collect> | undefined;
    await run(
      "conformance_subject",
      async (pid) => {
        const trace = await session.trace({ processes: [pid], inherit: "spawn", ...options });
        expect(trace.tracer.kind).toBe(tracer);
        collected = collect(trace);
      },
      session,
      work,
    );
    for (const trace of session.traces) {
      await trace.stop();
      expect(trace.stats.node.received).toBe(trace.stats.written - trace.stats.lost);
    }
    await collected?.done;
    return collected?.events ?? [];
  } finally {
    await session.close();
  }
}

/** The same work, kept by a flight recorder and read out of the rings at the end. */
async function recorded(
  options: Omit<FlightRecorderOptions, "processes" | "inherit">,
  work = WORK,
): Promise<TraceEvent[]> {
  const session = await attachTo(node, { tracer: "native" });
  try {
    await run("warm_recorder", () => Promise.resolve(), session, work);
    let recorder: FlightRecorder | undefined;
    await run(
      "conformance_subject",
      async (pid) =>
        void (recorder = await session.flightRecorder({ processes: [pid], inherit: "spawn", ...options })),
      session,
      work,
    );
    const recording = await recorder?.snapshot();
    expect(recording).toMatchObject({ complete: true, before: 0, lost: 0, lostBefore: 0 });
    const events: TraceEvent[] = [];
    await recording?.events$.forEach((event) => void events.push(event));
    return events;
  } finally {
    await session.close();
  }
}

/** What the same work must give again. Processes are named by the order in which the subject meets them. */
function comparable(events: readonly TraceEvent[]): Map<string, unknown[]> {
  const names = new Map<string, string>();
  const nameOf = (pid: Pid): string => {
    const key = `${pid.node.name} ${pid.id}.${pid.serial}`;
    let name = names.get(key);
    if (name === undefined) names.set(key, (name = `process ${names.size}`));
    return name;
  };
  const subject = events.flatMap((e) => ("process" in e && e.process instanceof Pid ? [e.process] : []))[0];
  const plain = (value: unknown): unknown => {
    if (value instanceof Pid) return nameOf(value);
    if (value instanceof Port) return "port";
    if (value instanceof Reference) return `reference of ${value.numbers.length}`;
    if (typeof value === "bigint") return `${value}`;
    if (value instanceof Tuple) return { tuple: value.elements.map(plain) };
    // In which order a map's pairs come depends on what the map was made of.
    if (value instanceof ErlMap)
      return {
        map: [...value.entries()].map(plain).sort((a, b) => (inspectPlain(a) < inspectPlain(b) ? -1 : 1)),
      };
    if (value instanceof ImproperList) return { list: value.elements.map(plain), tail: plain(value.tail) };
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value !== "object" || value === null) return value;
    if (Object.getPrototypeOf(value) !== Object.prototype) return inspect(value as Term);
    return Object.fromEntries(
      Object.entries(value)
        .filter(([key]) => !["timestamp", "scheduler", "source"].includes(key))
        .map(([key, each]) => [key, plain(each)]),
    );
  };
  const result = new Map<string, unknown[]>();
  const inOrder = [...events].sort((a, b) => {
    const own = (e: TraceEvent): number =>
      Number(!("process" in e && inspect(e.process ?? 0) === inspect(subject ?? 0)));
    return own(a) - own(b);
  });
  for (const event of inOrder) {
    const name = "process" in event && event.process instanceof Pid ? nameOf(event.process) : event.kind;
    const list = result.get(name) ?? [];
    list.push(plain(event));
    result.set(name, list);
  }
  return result;
}

const inspectPlain = (value: unknown): string => JSON.stringify(value);
const payloads = (events: readonly TraceEvent[]): number =>
  events.filter((e) => "payload" in e && e.payload !== undefined).length;
const eventNames = (events: readonly TraceEvent[]): Set<string> => new Set(events.map((e) => e.kind));

describe("the native tracer sees what the portable one sees", () => {
  test("messages, lives and links of processes", async () => {
    const events = ["send", "receive", "procs"] as const;
    const portable = await traced("portable", { events });
    const native = await traced("native", { events });
    expect(eventNames(native).size).toBeGreaterThanOrEqual(12);
    expect(withoutFuns(comparable(native))).toEqual(withoutFuns(comparable(portable)));
  });

  test("calls, results, exceptions and callers", async () => {
    const options = {
      events: ["call", "return_to"],
      calls: [
        { module: "maps", function: "get", arity: 2, exceptions: true, caller: true },
        { module: "lists", function: "seq", returns: true },
        { module: "lists", function: "sum", arity: 1 },
      ],
    } as const;
    const portable = await traced("portable", options);
    const native = await traced("native", options);
    expect([...eventNames(native)].sort()).toEqual(["call", "exception_from", "return_from", "return_to"]);
    expect(comparable(native)).toEqual(comparable(portable));
  });

  test("with rings that overwrite the oldest, and kept by a flight recorder", async () => {
    const options = {
      events: ["send", "receive", "procs", "call"],
      calls: [
        { module: "maps", function: "get", arity: 2, exceptions: true, caller: true },
        { module: "lists", function: "seq", returns: true },
      ],
    } as const;
    const portable = withoutFuns(comparable(await traced("portable", options)));
    const overwriting = await traced("native", { ...options, overflow: "overwrite-oldest" });
    expect(withoutFuns(comparable(overwriting))).toEqual(portable);
    const kept = await recorded({
      ...options,
      triggers: [
        {
          on: "call",
          module: "maps",
          function: "get",
          arity: 2,
          matchSpec: matchSpec.call([atom("nobody"), atom("calls")]),
        },
      ],
    });
    expect(withoutFuns(comparable(kept))).toEqual(portable);
  });

  test("without shapes", async () => {
    const options = {
      events: ["call", "send"],
      payload: "none",
      calls: [{ module: "lists", function: "seq", returns: true }],
    } as const;
    const portable = await traced("portable", options);
    const native = await traced("native", options);
    expect(comparable(native)).toEqual(comparable(portable));
  });
});

describe("contents are what the portable tracer makes of them", () => {
  const events = ["send", "receive", "procs", "call"] as const;
  const calls = [
    { module: "maps", function: "get", arity: 2, exceptions: true, caller: true },
    { module: "lists", function: "seq", returns: true },
    { module: "lists", function: "last", arity: 1, returns: true },
  ];
  const whole = { events, calls, payload: { maxBytes: 4096, redact: ["secret"] } } as const;

  test("whole, of messages, arguments, results and reasons", async () => {
    const portable = await traced("portable", whole, CONTENTS);
    const native = await traced("native", whole, CONTENTS);
    expect(payloads(native)).toBeGreaterThan(200);
    expect(native.some((e) => "payload" in e && inspect(e.payload as Term).includes("never seen"))).toBe(
      false,
    );
    expect(withoutFuns(comparable(native))).toEqual(withoutFuns(comparable(portable)));
  });

  test.each([16, 40, 100, 333])("cut at %i bytes", async (maxBytes) => {
    const options = { ...whole, payload: { maxBytes, redact: ["secret"] } };
    const portable = await traced("portable", options, CONTENTS);
    const native = await traced("native", options, CONTENTS);
    expect(withoutFuns(comparable(native))).toEqual(withoutFuns(comparable(portable)));
  });

  test("with rings that overwrite the oldest, and kept by a flight recorder", async () => {
    const portable = withoutFuns(comparable(await traced("portable", whole, CONTENTS)));
    const overwriting = await traced("native", { ...whole, overflow: "overwrite-oldest" }, CONTENTS);
    expect(withoutFuns(comparable(overwriting))).toEqual(portable);
    const nobody = matchSpec.call([atom("nobody"), atom("calls")]);
    const triggers = [{ on: "call", module: "maps", function: "get", arity: 2, matchSpec: nobody }] as const;
    const kept = await recorded({ ...whole, triggers }, CONTENTS);
    expect(payloads(kept)).toBeGreaterThan(200);
    expect(withoutFuns(comparable(kept))).toEqual(portable);
  });

  test("more than the library carries is the portable tracer's, which says so", async () => {
    const session = await attachTo(node, { tracer: "auto" });
    try {
      expect(session.info.tracer.kind).toBe("native");
      const pid = await session.call("erlang", "whereis", [atom("kernel_sup")]);
      if (!(pid instanceof Pid)) throw new Error("no kernel");
      const options = { processes: [pid], events: ["receive"] } as const;
      const large = await session.trace({ ...options, payload: { maxBytes: 32_769 } });
      expect(large.tracer).toMatchObject({ kind: "portable" });
      expect(large.tracer.reason).toContain("32768 bytes");
      await large.stop();
      const small = await session.trace({ ...options, payload: { maxBytes: 32_768 } });
      expect(small.tracer.kind).toBe("native");
      await small.stop();
    } finally {
      await session.close();
    }
  });
});

test("the libraries in the package are those of the sources", () => {
  expect(nativeUpToDate()).toBe(true);
  expect(NATIVE_LIBRARIES.map((library) => library.platform)).toContain("linux-x64");
});

/** The native tracer does not read the names of local funs. */
function withoutFuns(all: Map<string, unknown[]>): Map<string, unknown[]> {
  return new Map(
    [...all].map(([name, events]) => [
      name,
      events.map((event) => {
        const e = event as { initialCall?: { function: string } };
        return e.initialCall?.function.startsWith("-") ? { ...e, initialCall: undefined } : e;
      }),
    ]),
  );
}
