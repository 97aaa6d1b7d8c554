/**
 * Callbacks of Elixir's behaviours say what they did: GenServer and Supervisor as they run; Phoenix's and Plug's, which can't be had here, of
 * modules with their behaviours whose callbacks are called as Phoenix calls them. Modules that `use` Agent or Task go on as they did; what runs
 * there is told by Elixir's own modules.
 */
import { readFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import type { Session, Trace } from "../../src/capture";
import { BeamFile, inspect } from "../../src/erlang";
import {
  CALLBACK_TRACE,
  type CallbackEvent,
  type CompileServer,
  instrumentBeam,
  readSiteTable,
  type SiteTable,
} from "../../src/transform";
import { callbackLine, callbacksIn } from "../support/callbacks";
import { expectClean } from "../support/clean";
import { type ErlNode, startNode } from "../support/erl-node";
import { attachTo, collect, type Collected } from "../support/traced";
import { compileElixir, ELIXIR_EBIN, fixture, load, startCompiler } from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;
let session: Session;
let trace: Trace;
let collected: Collected;
const tables: SiteTable[] = [];

beforeAll(async () => {
  node = await startNode({ args: ["-pa", ELIXIR_EBIN, "-elixir", "ansi_enabled", "false"] });
  compiler = await startCompiler();
  session = await attachTo(node);
  const beams = await compileElixir(node, readFileSync(fixture("behaviours.ex"), "utf8"));
  expect(beams.size).toBe(8);
  for (const [module, plain] of beams) {
    const { bytes, warnings, refused } = await instrumentBeam(plain, compiler);
    expect([warnings, refused]).toEqual([[], []]);
    tables.push(readSiteTable(BeamFile.read(bytes)) as SiteTable);
    await load(node, `'${module}'`, bytes);
  }
});
afterAll(async () => {
  await session.close();
  await expectClean(node, { modules: ["beamtrace_rt"] });
  await compiler.close();
  await node.stop();
});
beforeEach(async () => {
  trace = await session.trace(CALLBACK_TRACE);
  collected = collect(trace);
});
afterEach(async () => {
  await trace.stop();
});

/** The callbacks that an expression led to. */
async function called(expression: string): Promise<CallbackEvent[]> {
  await node.eval(expression);
  await trace.stop();
  await collected.done;
  return callbacksIn(collected.events, tables);
}
const lines = async (expression: string): Promise<string[]> => (await called(expression)).map(callbackLine);

test("GenServer", async () => {
  const newer = Number((await compiler.versions()).otp) >= 27;
  expect(
    await lines(`{ok, P} = 'Elixir.Bt.Stack':start([]), ok = gen_server:call(P, {push, 1}), ok = gen_server:call(P, {push, 2}),
      6 = gen_server:call(P, {sum, 2}), gen_server:cast(P, clear), {error, negative} = gen_server:call(P, {sum, 0})`),
  ).toEqual([
    "init/1 ok; asked nil; then continue {atom,0,[count]}; - -> map 4 Elixir.Bt.Stack",
    "handle_continue/2 noreply; asked atom count; map 4 Elixir.Bt.Stack -> map 4 Elixir.Bt.Stack; changed",
    "handle_call/3 reply; asked tuple 2 push; called; answers atom ok; map 4 Elixir.Bt.Stack -> map 4 Elixir.Bt.Stack; changed items",
    "handle_call/3 reply; asked tuple 2 push; called; answers atom ok; map 4 Elixir.Bt.Stack -> map 4 Elixir.Bt.Stack; changed items",
    "handle_call/3 reply; asked tuple 2 sum; called; answers integer; map 4 Elixir.Bt.Stack -> map 4 Elixir.Bt.Stack; changed",
    "handle_cast/2 noreply; asked atom clear; map 4 Elixir.Bt.Stack -> map 4 Elixir.Bt.Stack; changed items",
    // Since Elixir 1.15 `with … else` ends in the call of a fun.
    newer
      ? "handle_call/3 tail_call; asked tuple 2 sum; called; map 4 Elixir.Bt.Stack -> -"
      : "handle_call/3 stop; asked tuple 2 sum; called; answers tuple 2 error negative; because atom negative; map 4 Elixir.Bt.Stack -> map 4 Elixir.Bt.Stack; changed",
    "terminate/2 value; asked atom negative; answers atom negative; map 4 Elixir.Bt.Stack -> -",
  ]);
});

test("a GenServer that ends in tail calls of its own functions", async () => {
  expect(
    await lines(
      `{ok, P} = 'Elixir.Bt.Stack':start([1]), 1 = gen_server:call(P, pop), nil = gen_server:call(P, pop), gen_server:stop(P)`,
    ),
  ).toEqual([
    "init/1 ok; asked list 1; then continue {atom,0,[count]}; - -> map 4 Elixir.Bt.Stack",
    "handle_continue/2 noreply; asked atom count; map 4 Elixir.Bt.Stack -> map 4 Elixir.Bt.Stack; changed touched",
    "handle_call/3 reply; asked atom pop; called; answers integer; map 4 Elixir.Bt.Stack -> map 4 Elixir.Bt.Stack; changed items",
    "handle_call/3 noreply; asked atom pop; called; then hibernate true; map 4 Elixir.Bt.Stack -> map 4 Elixir.Bt.Stack; changed",
    "terminate/2 value; asked atom normal; answers atom normal; map 4 Elixir.Bt.Stack -> -",
  ]);
});

test("Supervisor", async () => {
  expect(await lines(`{ok, P} = 'Elixir.Bt.Tree':start(), unlink(P), exit(P, kill)`)).toEqual([
    "init/1 tail_call; asked integer; - -> -",
  ]);
});

test("modules that use Agent and Task have no callbacks, and do what they did", async () => {
  expect(
    await lines(`{ok, P} = 'Elixir.Bt.Count':start_link(1), 1 = 'Elixir.Bt.Count':add(P, 2), 3 = 'Elixir.Bt.Count':add(P, 1), 'Elixir.Agent':stop(P),
      {ok, _} = 'Elixir.Bt.Job':start_link({self(), 2}), receive {done, 4} -> ok end`),
  ).toEqual([]);
});

describe("Elixir's own servers, instrumented", () => {
  const SERVERS = ["Elixir.Agent.Server", "Elixir.Task.Supervised"];
  beforeAll(async () => {
    for (const module of SERVERS) {
      const text = await node.eval(`{_, B, _} = code:get_object_code('${module}'), base64:encode(B)`);
      const plain = Buffer.from(/^<<"(.*)">>$/.exec(text)?.[1] ?? "", "base64");
      const { bytes, warnings } = await instrumentBeam(plain, compiler);
      expect(warnings).toEqual([]);
      tables.push(readSiteTable(BeamFile.read(bytes)) as SiteTable);
      await load(node, `'${module}'`, bytes);
    }
  });
  afterAll(async () => {
    for (const module of SERVERS)
      await node.eval(
        `code:purge('${module}'), {module, _} = code:load_file('${module}'), code:purge('${module}')`,
      );
  });

  test("agents are servers whose state is the agent's", async () => {
    const events =
      await called(`{ok, P} = 'Elixir.Bt.Count':start_link(1), 1 = 'Elixir.Bt.Count':add(P, 2), ok = 'Elixir.Agent':update(P, fun(N) -> #{n => N} end),
      ok = 'Elixir.Agent':cast(P, fun(#{n := N}) -> #{n => N + 1} end), 4 = 'Elixir.Agent':get(P, fun(#{n := N}) -> N end), 'Elixir.Agent':stop(P)`);
    expect(events.map(callbackLine)).toEqual([
      "init/1 ok; asked fun; - -> integer",
      "handle_call/3 reply; asked tuple 2 get_and_update; called; answers integer; integer -> integer",
      "handle_call/3 reply; asked tuple 2 update; called; answers atom ok; integer -> map 1",
      "handle_cast/2 noreply; asked tuple 2 cast; map 1 -> map 1; changed n",
      "handle_call/3 reply; asked tuple 2 get; called; answers integer; map 1 -> map 1; changed",
      "terminate/2 value; asked atom normal; answers atom ok; map 1 -> -",
    ]);
    expect(new Set(events.map(({ behaviour, module }) => `${behaviour} ${module}`))).toEqual(
      new Set(["Agent Elixir.Agent.Server"]),
    );
  });

  test("tasks say what they run, for whom, and what came of it, however they were started", async () => {
    const events =
      await called(`{ok, _} = 'Elixir.Bt.Job':start_link({self(), 2}), receive {done, 4} -> ok end,
      42 = 'Elixir.Task':await('Elixir.Task':async(fun() -> 42 end)),
      {ok, S} = 'Elixir.Task.Supervisor':start_link(), {a, b} = 'Elixir.Task':await('Elixir.Task.Supervisor':async(S, fun() -> {a, b} end)),
      unlink(S), exit(S, shutdown), self()`);
    expect(events.map(callbackLine)).toEqual([
      "invoke_mfa/2 value; asked tuple 3 Elixir.Bt.Job run; called; answers tuple 2 done; - -> -",
      "invoke_mfa/2 value; asked tuple 3 erlang apply; called; answers integer; - -> -",
      "invoke_mfa/2 value; asked tuple 3 erlang apply; called; answers tuple 2 a b; - -> -",
    ]);
    expect(new Set(events.map(({ behaviour }) => behaviour))).toEqual(new Set(["Task"]));
    // All of them are for the process that asked, and run in others.
    expect(new Set(events.map(({ caller }) => caller && inspect(caller))).size).toBe(1);
    expect(new Set(events.map(({ process }) => process)).size).toBe(3);
  });

  test("a task that raises shows by its exit", async () => {
    await trace.stop();
    trace = await session.trace({ ...CALLBACK_TRACE, events: ["function_exception", "exit"] });
    collected = collect(trace);
    expect(
      await lines(
        `logger:set_primary_config(level, none), {ok, P} = 'Elixir.Task':start(fun() -> error(oops) end), M = monitor(process, P), receive {'DOWN', M, _, _, _} -> ok end`,
      ),
    ).toEqual([
      expect.stringMatching(
        /^invoke_mfa\/2 exception by exit; asked tuple 3 erlang apply; called; because tuple 2 oops; - -> -$/,
      ),
    ]);
  });
});

const socket =
  "#{'__struct__' => 'Elixir.Phoenix.LiveView.Socket', assigns => #{count => 1, '__changed__' => #{}}, id => 1}";

test("LiveView", async () => {
  expect(
    await lines(`S = ${socket}, M = 'Elixir.Bt.Live', {ok, S1, _} = M:mount(#{}, #{<<"user">> => bob}, S), {noreply, S1} = M:handle_params(#{}, <<"/">>, S1),
      {noreply, S2} = M:handle_event(<<"inc">>, #{<<"by">> => 2}, S1), {reply, _, S2} = M:handle_event(<<"ask">>, #{}, S2),
      {noreply, S3} = M:handle_info({set, 7}, S2), {noreply, S4} = M:handle_async(load, {ok, [a]}, S3), M:render(maps:get(assigns, S4))`),
  ).toEqual([
    "mount/3 ok; asked map; map 3 Elixir.Phoenix.LiveView.Socket -> map 3 Elixir.Phoenix.LiveView.Socket; changed assigns; assigns user",
    "handle_params/3 noreply; asked map; map 3 Elixir.Phoenix.LiveView.Socket -> map 3 Elixir.Phoenix.LiveView.Socket; changed; assigns",
    "handle_event/3 noreply; asked binary 3; map 3 Elixir.Phoenix.LiveView.Socket -> map 3 Elixir.Phoenix.LiveView.Socket; changed assigns; assigns count",
    "handle_event/3 reply; asked binary 3; answers map 1; map 3 Elixir.Phoenix.LiveView.Socket -> map 3 Elixir.Phoenix.LiveView.Socket; changed; assigns",
    "handle_info/2 noreply; asked tuple 2 set; map 3 Elixir.Phoenix.LiveView.Socket -> map 3 Elixir.Phoenix.LiveView.Socket; changed assigns; assigns count",
    "handle_async/3 noreply; asked atom load; map 3 Elixir.Phoenix.LiveView.Socket -> map 3 Elixir.Phoenix.LiveView.Socket; changed assigns; assigns rows",
    "render/1 value; asked map 4; answers tuple 2 rendered; - -> -",
  ]);
});

test("LiveComponent, Channel, Plug", async () => {
  expect(
    await lines(`S = ${socket}, C = 'Elixir.Bt.Card', {ok, S1} = C:mount(S), {ok, S2} = C:update(#{title => <<"t">>}, S1),
      {noreply, S3} = C:handle_event(<<"toggle">>, #{}, S2), true = C:render(maps:get(assigns, S3)),
      R = 'Elixir.Bt.Room', J = #{'__struct__' => 'Elixir.Phoenix.Socket', joined => false, assigns => #{}},
      {ok, _, J1} = R:join(<<"room:1">>, #{}, J), {error, _} = R:join(<<"other">>, #{}, J), {reply, _, J1} = R:handle_in(<<"ping">>, #{}, J1),
      {noreply, J1} = R:handle_out(<<"news">>, #{}, J1), {stop, normal, _, J1} = R:handle_in(<<"leave">>, #{}, J1),
      'Elixir.Bt.Header':call(#{'__struct__' => 'Elixir.Plug.Conn', headers => [], assigns => #{}}, 'Elixir.Bt.Header':init(<<"x">>))`),
  ).toEqual([
    "mount/1 ok; asked -; map 3 Elixir.Phoenix.LiveView.Socket -> map 3 Elixir.Phoenix.LiveView.Socket; changed assigns; assigns open",
    "update/2 ok; asked map 1; map 3 Elixir.Phoenix.LiveView.Socket -> map 3 Elixir.Phoenix.LiveView.Socket; changed assigns; assigns title",
    "handle_event/3 noreply; asked binary 6; map 3 Elixir.Phoenix.LiveView.Socket -> map 3 Elixir.Phoenix.LiveView.Socket; changed assigns; assigns open",
    "render/1 value; asked map 4; answers atom true; - -> -",
    "join/3 ok; asked binary 6; answers map; map 3 Elixir.Phoenix.Socket -> map 3 Elixir.Phoenix.Socket; changed joined; assigns",
    "join/3 error; asked binary 5; because map 1; map 3 Elixir.Phoenix.Socket -> -",
    "handle_in/3 reply; asked binary 4; answers tuple 2 ok; map 3 Elixir.Phoenix.Socket -> map 3 Elixir.Phoenix.Socket; changed; assigns",
    "handle_out/3 noreply; asked binary 4; map 3 Elixir.Phoenix.Socket -> map 3 Elixir.Phoenix.Socket; changed; assigns",
    "handle_in/3 stop; asked binary 5; answers tuple 2 ok; because atom normal; map 3 Elixir.Phoenix.Socket -> map 3 Elixir.Phoenix.Socket; changed; assigns",
    "init/1 value; asked binary 1; answers binary 1; - -> -",
    "call/2 value; asked binary 1; map 3 Elixir.Plug.Conn -> map 3 Elixir.Plug.Conn; changed headers; assigns",
  ]);
});
