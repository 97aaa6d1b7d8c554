/** Callbacks that raise: exactly where they are wrapped, else by what their process does next; and never where they have not. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";

import { BeamFile, inspect } from "../../src/erlang";
import type { Session, TraceOptions } from "../../src/capture";
import {
  CALLBACK_TRACE,
  type CallbackEvent,
  type CompileServer,
  instrumentBeam,
  type InstrumentBeamOptions,
  readSiteTable,
} from "../../src/transform";
import { callbackLine, callbacksIn } from "../support/callbacks";
import { expectClean } from "../support/clean";
import { type ErlNode, startNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";
import { compileText, load, startCompiler, unload } from "../support/transform";

/** A server whose callbacks raise in every way, with or without `terminate`. */
const server = (terminates: boolean): string => `-module(raiser).
-behaviour(gen_server).
-export([start/0, init/1, handle_call/3, handle_cast/2, handle_info/2${terminates ? ", terminate/2" : ""}]).
start() -> gen_server:start(?MODULE, fine, []).
init(fine) -> {ok, #{count => 0}}.
handle_call({Class, Reason}, _From, _S) when Class =/= deep, Class =/= nested ->
    X = raise(Class, Reason), {reply, X, never};
handle_call({deep, N}, _From, S) -> Y = 1 + deep(N), {reply, Y, S};
handle_call({nested, R}, _From, S) -> Z = try handle_cast(R, S) catch error:E -> {caught, E} end, {reply, Z, S};
handle_call(self_terminate, _From, S) -> T = terminate(asked, S), {reply, T, S};
handle_call(count, _From, #{count := N} = S) -> {reply, N, S#{count := N + 1}}.
handle_cast(Reason, _S) -> error({cast, Reason}).
handle_info({own, Reason}, _S) -> exit(Reason);
handle_info(_, S) -> {noreply, S}.
terminate(_, _) -> bye.
raise(throw, R) -> throw({reply, R, #{count => 7}});
raise(exit, R) -> exit(R);
raise(error, R) -> error(R).
deep(0) -> error(bottom);
deep(N) -> 1 + deep(N - 1).
`;
const STATEM = `-module(raiser).
-behaviour(gen_statem).
-export([start/0, init/1, callback_mode/0, idle/3, terminate/3]).
start() -> gen_statem:start(?MODULE, [], []).
callback_mode() -> state_functions.
init([]) -> {ok, idle, #{}}.
idle({call, From}, hello, D) -> {keep_state, D, [{reply, From, hi}]};
idle(_, Reason, _D) -> error(Reason).
terminate(_, _, _) -> ok.
`;
const HANDLER = `-module(raiser).
-behaviour(gen_event).
-export([init/1, handle_event/2, handle_call/2, terminate/2]).
init(N) -> {ok, N}.
handle_event(bad, _) -> error(bad);
handle_event(_, N) -> {ok, N + 1}.
handle_call(_, N) -> {ok, N, N}.
terminate(_, _) -> gone.
`;

let node: ErlNode;
let compiler: CompileServer;
let session: Session;

beforeAll(async () => {
  node = await startNode();
  compiler = await startCompiler();
  session = await attachTo(node);
  await node.eval("logger:set_primary_config(level, none)");
});
afterAll(async () => {
  await session.close();
  await expectClean(node, { modules: ["beamtrace_rt"] });
  await compiler.close();
  await node.stop();
});
afterEach(() => unload(node, "raiser"));

/** What the callbacks did that expressions led to; `instrument` first, `options` of the trace. */
async function raised(
  source: string,
  expressions: string,
  instrument: InstrumentBeamOptions = {},
  options: TraceOptions = {},
): Promise<CallbackEvent[]> {
  const plain = await compileText(node, "raiser", source);
  const { bytes, warnings } = await instrumentBeam(plain, compiler, instrument);
  expect(warnings).toEqual([]);
  await load(node, "raiser", bytes);
  const trace = await session.trace({ ...CALLBACK_TRACE, ...options });
  const collected = collect(trace);
  await node.eval(`${expressions}, ok`);
  await trace.stop();
  await collected.done;
  return callbacksIn(collected.events, [readSiteTable(BeamFile.read(bytes))!]);
}
const lines = async (...args: Parameters<typeof raised>): Promise<string[]> =>
  (await raised(...args)).map(callbackLine);

/** Makes a call that fails, and waits until the server is gone. */
const failing = (request: string): string =>
  `{ok, P} = raiser:start(), M = monitor(process, P), {'EXIT', _} = (catch gen_server:call(P, ${request})),
   receive {'DOWN', M, process, P, _} -> ok end`;
const INIT = "init/1 ok; asked atom fine; - -> map 1";

describe("inferred", () => {
  test.each([
    ["{error, oops}", "tuple 2 error oops", "tuple 2 oops"],
    ["{exit, oops}", "tuple 2 exit oops", "atom oops"],
    ["{deep, 50}", "tuple 2 deep", "tuple 2 bottom"],
    // No clause takes it.
    ["unheard", "atom unheard", "tuple 2 function_clause"],
  ])("from terminate, which is called with the reason: %s", async (request, asked, why) => {
    const expected =
      request === "unheard"
        ? [INIT, "terminate/2 value; asked tuple 2 function_clause; answers atom bye; map 1 -> -"]
        : [
            INIT,
            `handle_call/3 exception by terminate; asked ${asked}; called; because ${why}; map 1 -> -`,
            `terminate/2 value; asked ${why}; answers atom bye; map 1 -> -`,
          ];
    // What no clause takes was not entered: it is terminate that tells.
    expect(await lines(server(true), failing(request))).toEqual(expected);
  });

  test("from the exit of the process, where there is no terminate and the trace has exits", async () => {
    const work = failing("{error, oops}");
    expect(await lines(server(false), work, {}, { events: ["function_exception", "exit"] })).toEqual([
      INIT,
      "handle_call/3 exception by exit; asked tuple 2 error oops; called; because tuple 2 oops; map 1 -> -",
    ]);
    // Without them nothing shows.
    expect(await lines(server(false), work)).toEqual([INIT]);
  });

  test("from the next callback, where the behaviour has caught it", async () => {
    const work = `{ok, P} = raiser:start(), thrown = gen_server:call(P, {throw, thrown}), 7 = gen_server:call(P, count), gen_server:stop(P)`;
    expect(await lines(server(true), work)).toEqual([
      INIT,
      "handle_call/3 exception by callback; asked tuple 2 throw thrown; called; map 1 -> -",
      "handle_call/3 reply; asked atom count; called; answers integer; map 1 -> map 1; changed count",
      "terminate/2 value; asked atom normal; answers atom bye; map 1 -> -",
    ]);
  });

  test("from the callback around it", async () => {
    const work = `{ok, P} = raiser:start(), {caught, {cast, x}} = gen_server:call(P, {nested, x}), gen_server:stop(P)`;
    expect(await lines(server(true), work)).toEqual([
      INIT,
      "handle_cast/2 exception by caller; asked atom x; map 1 -> -",
      "handle_call/3 reply; asked tuple 2 nested x; called; answers tuple 2 caught cast; map 1 -> map 1; changed",
      "terminate/2 value; asked atom normal; answers atom bye; map 1 -> -",
    ]);
  });

  test("not of a callback that calls terminate itself, nor of any that returns", async () => {
    const work = `{ok, P} = raiser:start(), bye = gen_server:call(P, self_terminate), [gen_server:call(P, count) || _ <- lists:seq(1, 50)], gen_server:stop(P)`;
    const found = await raised(server(true), work, {}, { events: ["function_exception", "exit"] });
    expect(found.filter(({ outcome }) => outcome === "exception")).toEqual([]);
    expect(found).toHaveLength(54);
    for (const { began, timestamp } of found) expect(began).toBeLessThanOrEqual(timestamp);
  });

  test("with values, where those were asked for", async () => {
    const [, failed] = await raised(server(true), failing("{error, oops}"), { callbacks: { maxBytes: 200 } });
    expect(failed).toMatchObject({
      outcome: "exception",
      exception: { evidence: "terminate", class: undefined },
    });
    expect(inspect(failed!.values!.trigger!)).toBe("{error,oops}");
    expect(inspect(failed!.values!.before!)).toBe("#{count => 0}");
    expect(inspect(failed!.values!.reason!)).toMatch(/^\{oops,\[\{raiser,raise,2/);
  });

  test("of a state machine, and of a handler of events, whose process goes on", async () => {
    const statem = `{ok, P} = raiser:start(), hi = gen_statem:call(P, hello), M = monitor(process, P), gen_statem:cast(P, bad), receive {'DOWN', M, _, _, _} -> ok end`;
    expect(await lines(STATEM, statem)).toEqual([
      "init/1 ok; asked nil; - -> idle; - -> map",
      "StateName/3 keep_state; asked atom hello; as call; called; answers atom hi; idle -> idle; map -> map; changed",
      "StateName/3 exception by terminate; asked atom bad; as cast; because atom bad; idle -> -; map -> -",
      "terminate/3 value; asked atom bad; answers atom ok; idle -> -; map -> -",
    ]);
    const handler = `{ok, P} = gen_event:start(), ok = gen_event:add_handler(P, raiser, 0), ok = gen_event:sync_notify(P, fine), ok = gen_event:sync_notify(P, bad), gen_event:stop(P)`;
    expect(await lines(HANDLER, handler)).toEqual([
      "init/1 ok; asked integer; - -> integer",
      "handle_event/2 ok; asked atom fine; integer -> integer",
      "handle_event/2 exception by terminate; asked atom bad; because tuple 2 error EXIT; integer -> -",
      "terminate/2 value; asked tuple 2 error EXIT; answers atom gone; integer -> -",
    ]);
  });
});

describe('with exceptions: "wrap"', () => {
  const wrap: InstrumentBeamOptions = { exceptions: "wrap", callbacks: { maxBytes: 100 } };

  test("it is told: class, reason, what it was asked, and the state", async () => {
    const work = `{ok, P} = raiser:start(), thrown = gen_server:call(P, {throw, thrown}), {'EXIT', _} = (catch gen_server:call(P, {exit, oops}))`;
    const found = await raised(
      server(true),
      `${work}, M = monitor(process, P), receive {'DOWN', M, _, _, _} -> ok end`,
      wrap,
    );
    expect(found.map(callbackLine)).toEqual([
      INIT,
      "handle_call/3 exception by function throw; asked tuple 2 throw thrown; called; because tuple 3 reply thrown; map 1 -> -",
      "handle_call/3 exception by function exit; asked tuple 2 exit oops; called; because atom oops; map 1 -> -",
      "terminate/2 value; asked atom oops; answers atom bye; map 1 -> -",
    ]);
    const [, , failed] = found;
    expect(failed?.site).toMatchObject({ kind: "return", function: "handle_call", clause: 1 });
    expect(inspect(failed!.values!.reason!)).toBe("oops");
    expect(failed!.began).toBeLessThanOrEqual(failed!.timestamp);
  });

  test("each has one event, also where the exit of the process says the same", async () => {
    const found = await lines(server(true), failing("{deep, 5}"), wrap, {
      events: ["function_exception", "exit"],
    });
    expect(found.filter((line) => line.includes("exception"))).toEqual([
      "handle_call/3 exception by function error; asked tuple 2 deep; called; because atom bottom; map 1 -> -",
    ]);
  });
});
