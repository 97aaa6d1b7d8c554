/** Callbacks of real servers say what they did: who asked what, what was answered, what became of the state. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import type { Session, Trace } from "../../src/capture";
import { inspect, type Term } from "../../src/erlang";
import { BeamFile } from "../../src/erlang";
import {
  CALLBACK_TRACE,
  type CallbackEvent,
  callbacks,
  type CompileServer,
  instrumentBeam,
  type InstrumentBeamOptions,
  readSiteTable,
  type SiteTable,
} from "../../src/transform";
import { callbackLine, callbacksIn } from "../support/callbacks";
import { expectClean } from "../support/clean";
import { type ErlNode, startNode } from "../support/erl-node";
import { attachTo, collect, type Collected } from "../support/traced";
import { compileErlang, fixture, load, startCompiler, unload } from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;
let session: Session;
let trace: Trace;
let collected: Collected;
/** The process on the node that ran the last expressions. */
let client: string;
const tables: SiteTable[] = [];

beforeAll(async () => {
  node = await startNode();
  compiler = await startCompiler();
  session = await attachTo(node);
});
afterAll(async () => {
  await session.close();
  await expectClean(node, { modules: ["beamtrace_rt"] });
  await compiler.close();
  await node.stop();
});

async function instrumented(module: string, options: InstrumentBeamOptions = {}): Promise<void> {
  const plain = await compileErlang(node, fixture(`${module}.erl`));
  const { bytes, warnings } = await instrumentBeam(plain, compiler, options);
  expect(warnings).toEqual([]);
  tables.splice(0, tables.length, readSiteTable(BeamFile.read(bytes)) as SiteTable);
  await load(node, module, bytes);
}

beforeEach(async () => {
  trace = await session.trace(CALLBACK_TRACE);
  collected = collect(trace);
});
afterEach(async () => {
  await trace.stop();
  await collected.done;
});

const callbacksSoFar = (): CallbackEvent[] => callbacksIn(collected.events, tables);

/** Runs expressions on the node and gives the callbacks that they led to, once the one that `last` names is among them. */
async function called(expressions: string, last = "terminate/2"): Promise<CallbackEvent[]> {
  client = await node.eval(`${expressions}, pid_to_list(self())`);
  await collected.until(() => callbacksSoFar().some(({ callback }) => callback === last));
  return callbacksSoFar();
}

const text = (term: Term | undefined): string => (term === undefined ? "-" : inspect(term));
const lines = (events: readonly CallbackEvent[]): string[] => events.map(callbackLine);

describe("gen_server", () => {
  beforeAll(() => instrumented("bt_counter"));
  afterAll(() => unload(node, "bt_counter"));

  test("handle_call: message, caller, reply and what changed", async () => {
    const events =
      await called(`{ok, P} = bt_counter:start({map, 1}), 5 = element(2, gen_server:call(P, {add, 4})),
      5 = gen_server:call(P, get), gen_server:call(P, stop)`);
    expect(lines(events)).toEqual([
      "init/1 ok; asked tuple 2 map; - -> map 3",
      "handle_call/3 reply; asked tuple 2 add; called; answers tuple 2 count; map 3 -> map 3; changed count",
      "handle_call/3 reply; asked atom get; called; answers integer; map 3 -> map 3; changed",
      "handle_call/3 stop; asked atom stop; called; answers atom stopping; because atom normal; map 3 -> map 3; changed",
      "terminate/2 value; asked atom normal; answers atom done; map 3 -> -",
    ]);
    const [, add] = events;
    expect(add).toMatchObject({ behaviour: "gen_server", module: "bt_counter", source: 0 });
    expect(add?.site).toMatchObject({ kind: "return", function: "handle_call", clause: 1, line: 20 });
    expect(client).toBe(`"<0.${add?.caller?.id}.${add?.caller?.serial}>"`);
    expect(add?.changes?.rebuilt).toEqual([]);
    expect(add?.values).toBeUndefined();
  });

  test("every way to come back", async () => {
    const events =
      await called(`{ok, P} = bt_counter:start({continue, 1}), answered = gen_server:call(P, later),
      ok = gen_server:call(P, {drop, warm}), gen_server:cast(P, {put, k, 1}), P ! timeout, P ! {other, 1},
      gen_server:cast(P, halt)`);
    expect(lines(events)).toEqual([
      "init/1 ok; asked tuple 2 continue; then continue {tuple,2,[warm,up]}; - -> map 1",
      "handle_continue/2 noreply; asked tuple 2 warm up; map 1 -> map 2; changed warm",
      "handle_call/3 noreply; asked atom later; called; map 2 -> map 3; changed waiting",
      "handle_info/2 noreply; asked tuple 2 answer; map 3 -> map 2; changed waiting",
      "handle_call/3 reply; asked tuple 2 drop warm; called; answers atom ok; then hibernate true; map 2 -> map 1; changed warm",
      "handle_cast/2 noreply; asked tuple 3 put k; map 1 -> map 2; changed k",
      "handle_info/2 noreply; asked atom timeout; then timeout infinity; map 2 -> map 2; changed",
      "handle_info/2 noreply; asked tuple 2 other; map 2 -> map 2; changed",
      "handle_cast/2 stop; asked atom halt; because tuple 2 shutdown halted; map 2 -> map 2; changed",
      "terminate/2 value; asked tuple 2 shutdown halted; answers atom done; map 2 -> -",
    ]);
    expect(events[6]?.site.line).toBeGreaterThan(events[5]?.site.line ?? 0);
  });

  test("what is equal is no change, what is too large to compare is rebuilt", async () => {
    const events = await called(
      `{ok, P} = bt_counter:start({map, 1}), gen_server:call(P, rebuild), gen_server:stop(P)`,
    );
    expect(lines(events)[1]).toBe(
      "handle_call/3 reply; asked atom rebuild; called; answers atom ok; then timeout 60000; map 3 -> map 3; changed note; rebuilt big",
    );
  });

  test("of tuples the positions that changed", async () => {
    const events = await called(
      `{ok, P} = bt_counter:start({tuple, 1}), gen_server:call(P, {second, x}), gen_server:stop(P)`,
    );
    expect(lines(events)[1]).toBe(
      "handle_call/3 reply; asked tuple 2 second x; called; answers nil; tuple 4 state -> tuple 4 state; changed 3",
    );
  });

  test("starts that fail say why; a crash shows, and its stack trace is the plain one", async () => {
    const events = await called(
      `logger:set_primary_config(level, none), ignore = bt_counter:start(never), {error, bad} = bt_counter:start(bad),
       {ok, P} = bt_counter:start({map, 1}), {'EXIT', {{crashed, _}, _}} = (catch gen_server:call(P, crash))`,
    );
    expect(lines(events)).toEqual([
      "init/1 ignore; asked atom never; - -> -",
      "init/1 stop; asked atom bad; because atom bad; - -> -",
      "init/1 ok; asked tuple 2 map; - -> map 3",
      "handle_call/3 exception by terminate; asked atom crash; called; because tuple 2 crashed; map 3 -> -",
      "terminate/2 value; asked tuple 2 crashed; answers atom done; map 3 -> -",
    ]);
  });

  test("what a callback hands on to another function of its module is answered there", async () => {
    const events =
      await called(`{ok, P} = bt_counter:start({map, 1}), {delegated, x} = gen_server:call(P, {delegated, x}),
      {looped, 3} = gen_server:call(P, {loop, 5}), {nested, 1} = gen_server:call(P, {nested, 1}), ok = gen_server:call(P, elsewhere),
      {'EXIT', _} = (catch gen_server:call(P, {loop, fail}))`);
    expect(lines(events)).toEqual([
      "init/1 ok; asked tuple 2 map; - -> map 3",
      "handle_call/3 reply; asked tuple 2 delegated x; called; answers tuple 2 delegated x; map 3 -> map 3; changed note",
      // The state that came to the end of the loop is not the one that the callback had: no saying what changed.
      "handle_call/3 reply; asked tuple 2 loop; called; answers tuple 2 looped; map 3 -> map 4",
      "handle_call/3 reply; asked tuple 2 nested; called; answers tuple 2 nested; map 4 -> map 5; changed nested",
      // Handed on to a fun, and to what raised.
      "handle_call/3 tail_call; asked atom elsewhere; called; map 5 -> -",
      "handle_call/3 exception by terminate; asked tuple 2 loop fail; called; because tuple 2 told_to; map 5 -> -",
      "terminate/2 value; asked tuple 2 told_to; answers atom done; map 5 -> -",
    ]);
    const [, delegated] = events;
    expect(delegated?.site).toMatchObject({ kind: "return", function: "delegated", arity: 3 });
    expect(delegated?.values).toBeUndefined();
  });

  test("many keys: so many are looked at, and it says that there are more", async () => {
    const events = await called(`{ok, P} = bt_counter:start({map, 1}),
      [gen_server:cast(P, {put, I, I}) || I <- lists:seq(1, 200)], gen_server:stop(P)`);
    const puts = events.filter(({ callback }) => callback === "handle_cast/2");
    expect(puts).toHaveLength(200);
    expect(puts[20]?.changes).toEqual({ changed: [21], rebuilt: [], complete: true });
    expect(puts[199]?.changes?.complete).toBe(false);
  });
});

test("as a stream, with the sites that the session knows", async () => {
  const plain = await compileErlang(node, fixture("bt_counter.erl"));
  const { bytes } = await instrumentBeam(plain, compiler);
  await load(node, "bt_counter", bytes);
  await trace.stop();
  await using own = await session.trace({
    ...CALLBACK_TRACE,
    instrumented: { modules: ["bt_counter"], beams: [bytes] },
  });
  const found: string[] = [];
  const done = own.events$
    .pipe(callbacks(own.sites))
    .forEach(({ callback, outcome, site }) => void found.push(`${callback} ${outcome} ${site.line}`));
  await node.eval(
    "{ok, P} = bt_counter:start({map, 1}), {delegated, 1} = gen_server:call(P, {delegated, 1})",
  );
  await own.stop();
  await done;
  expect(found).toEqual([
    expect.stringMatching(/^init\/1 ok \d+$/),
    expect.stringMatching(/^handle_call\/3 reply \d+$/),
  ]);
  await unload(node, "bt_counter");
});

describe("values", () => {
  beforeAll(() => instrumented("bt_counter", { callbacks: { maxBytes: 64 } }));
  afterAll(() => unload(node, "bt_counter"));

  test("travel when asked for, cut, without what is under the keys to redact", async () => {
    const events = await called(`{ok, P} = bt_counter:start({tuple, lists:seq(1, 100)}), gen_server:stop(P),
      {ok, Q} = bt_counter:start({continue, 1}), gen_server:cast(Q, {put, password, <<"hunter2">>}), gen_server:stop(Q)`);
    await collected.until((all) => all.filter((event) => event.kind === "call").length === 12);
    const [init] = events;
    const put = callbacksSoFar().find(({ callback }) => callback === "handle_cast/2");
    expect(text(init?.values?.trigger)).toBe("{tuple,[1,2,3,4,5,'[trimmed]']}");
    expect(text(init?.values?.after)).toMatch(/^\{state,\[1,2,.*trimmed/);
    expect(init?.values?.before).toBeUndefined();
    expect(text(put?.values?.trigger)).toBe('{put,password,<<"hunter2">>}');
    expect(text(put?.values?.after)).toMatch(/password => '\[redacted\]'/);
    expect(put?.changes?.changed.map(text)).toEqual(["password"]);
  });
});

describe("callbacks: none", () => {
  beforeAll(() => instrumented("bt_counter", { callbacks: "none" }));
  afterAll(() => unload(node, "bt_counter"));

  test("makes them functions like any other", async () => {
    await node.eval("{ok, P} = bt_counter:start({map, 1}), gen_server:stop(P)");
    expect(tables[0]?.sites.filter((site) => site.callback !== undefined)).toEqual([]);
    await trace.stop();
    await collected.done;
    expect(collected.events.filter((event) => event.kind === "call")).toEqual([]);
  });
});

describe("gen_statem", () => {
  afterAll(() => unload(node, "bt_door").then(() => unload(node, "bt_lamp")));

  test("state functions", async () => {
    await instrumented("bt_door");
    const events = await called(
      `{ok, P} = bt_door:start(), ok = bt_door:put(P, colour, red), gen_statem:cast(P, reset), gen_statem:cast(P, open),
       more = gen_statem:call(P, {type, 1}), opened = gen_statem:call(P, {type, 2}),
       P ! sesame, bye = gen_statem:call(P, stop)`,
      "terminate/3",
    );
    expect(lines(events)).toEqual([
      "init/1 ok; asked tuple 2; - -> locked; - -> map 2",
      "StateName/3 keep_state; asked atom locked; as enter; locked -> locked; map 2 -> map 2; changed",
      "StateName/3 keep_state; asked tuple 3 put colour; as call; called; answers atom ok; locked -> locked; map 2 -> map 3; changed colour",
      "StateName/3 repeat_state; asked atom reset; as cast; locked -> locked; map 3 -> map 3; changed",
      "StateName/3 keep_state; asked atom locked; as enter; locked -> locked; map 3 -> map 3; changed",
      "StateName/3 keep_state_and_data; asked atom open; as cast; then postpone true; locked -> locked; map 3 -> map 3; changed",
      "StateName/3 keep_state; asked tuple 2 type; as call; called; answers atom more; locked -> locked; map 3 -> map 3; changed typed",
      "StateName/3 next_state; asked tuple 2 type; as call; called; answers atom opened; then state_timeout 60000; then generic_timeout {beep,50000}; locked -> open; map 3 -> map 3; changed",
      "StateName/3 keep_state_and_data; asked atom locked; as enter; open -> open; map 3 -> map 3; changed",
      "StateName/3 keep_state_and_data; asked atom open; as cast; then next_event {internal,{atom,0,[ring]}}; open -> open; map 3 -> map 3; changed",
      "StateName/3 next_state; asked atom ring; as internal; open -> locked; map 3 -> map 4; changed rung",
      "StateName/3 keep_state; asked atom open; as enter; locked -> locked; map 4 -> map 4; changed typed",
      "StateName/3 next_state; asked atom sesame; as info; then hibernate true; locked -> open; map 4 -> map 4; changed",
      "StateName/3 keep_state_and_data; asked atom locked; as enter; open -> open; map 4 -> map 4; changed",
      "StateName/3 stop_and_reply; asked atom stop; as call; called; answers atom bye; because atom normal; open -> open; map 4 -> map 5; changed stopped",
      "terminate/3 value; asked atom normal; answers atom ok; open -> -; map 5 -> -",
    ]);
  });

  test("one function for all events", async () => {
    await instrumented("bt_lamp");
    const events = await called(
      `{ok, P} = bt_lamp:start(), 1 = gen_statem:call(P, press), 1 = gen_statem:call(P, press), M = monitor(process, P),
       gen_statem:cast(P, die), receive {'DOWN', M, _, _, {shutdown, died}} -> ok end`,
      "handle_event/4",
    );
    expect(lines(events)).toEqual([
      "init/1 ok; asked nil; then timeout 50000; - -> {tuple,2,[off]}; - -> tuple 2 data",
      "handle_event/4 next_state; asked atom press; as call; called; answers integer; {tuple,2,[off]} -> {tuple,2,[on]}; tuple 2 data -> tuple 2 data; changed 2",
      "handle_event/4 next_state; asked atom press; as call; called; answers integer; {tuple,2,[on]} -> {tuple,2,[off]}; tuple 2 data -> tuple 2 data; changed",
      "handle_event/4 stop; asked atom die; as cast; because tuple 2 shutdown died; {tuple,2,[off]} -> {tuple,2,[off]}; tuple 2 data -> tuple 2 data; changed",
    ]);
  });
});

describe("gen_event", () => {
  beforeAll(() => instrumented("bt_ear"));
  afterAll(() => unload(node, "bt_ear"));

  test("handlers", async () => {
    const events = await called(`{ok, P} = gen_event:start(), ok = gen_event:add_handler(P, bt_ear, 0),
      ok = gen_event:sync_notify(P, {sound, bell}), ok = gen_event:sync_notify(P, silence), 1 = gen_event:call(P, bt_ear, heard),
      P ! x, 1 = gen_event:call(P, bt_ear, go), gen_event:stop(P)`);
    expect(lines(events)).toEqual([
      "init/1 ok; asked integer; - -> map 1",
      "handle_event/2 ok; asked tuple 2 sound bell; map 1 -> map 2; changed heard last",
      "handle_event/2 ok; asked atom silence; then hibernate true; map 2 -> map 2; changed",
      "handle_call/2 ok; asked atom heard; answers integer; map 2 -> map 2; changed",
      "handle_info/2 ok; asked atom x; map 2 -> map 2; changed",
      "handle_call/2 remove_handler; asked atom go; answers integer; map 2 -> -",
      "terminate/2 value; asked atom remove_handler; answers atom gone; map 2 -> -",
    ]);
  });
});

describe("application and supervisor", () => {
  beforeAll(() => instrumented("bt_shop_app"));
  afterAll(() => unload(node, "bt_shop_app"));

  test("start, children, stop", async () => {
    const events = await called(
      `ok = application:load({application, bt_shop, [{vsn, "1"}, {modules, []}, {registered, []}, {applications, [kernel, stdlib]}, {mod, {bt_shop_app, 1}}]}),
       ok = application:start(bt_shop), ok = application:stop(bt_shop), ok = application:unload(bt_shop)`,
      "stop/1",
    );
    expect(lines(events)).toEqual([
      "init/1 ok; asked integer; - -> tuple 2",
      "start/2 ok; asked integer; answers pid; - -> map 1",
      "prep_stop/1 value; asked -; map 1 -> map 2; changed stopping",
      "stop/1 value; asked -; answers atom ok; map 2 -> -",
    ]);
  });
});
