/** What instrumented code tells, through a session: both tracers give the same, sites are known, limits hold, and nothing stays on the node. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { firstValueFrom, toArray } from "rxjs";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { BeamFile, inspect, type Term } from "../../src/erlang";
import { pairCalls, readSiteTable, siteNumber, SITES_MAX, type TraceEvent } from "../../src/buffer";
import type { AttachOptions, Session, TraceOptions } from "../../src/capture";
import { type CompileServer, instrumentBeam } from "../../src/transform";
import { expectClean } from "../support/clean";
import { eventually, startNode, type ErlNode } from "../support/erl-node";
import { TOLD_FUNCTIONS } from "../support/told-events";
import { attachTo, collect } from "../support/traced";
import { compileText, load, startCompiler } from "../support/transform";

const SOURCE = `-module(told).
-export([add/2, loop/1, pick/1, risky/1, many/7, none/0, turns/1, first/1]).
${TOLD_FUNCTIONS}risky(X) -> Y = add(X, 1), Y + 1.
many(A, B, C, D, E, F, G) -> {A, B, C, D, E, F, G}.
none() -> #{}.
turns(0) -> process_info(self(), [stack_size, total_heap_size]);
turns(N) -> turns(N - 1).
first([X]) -> X.
`;
const TRACERS = ["native", "portable"] as const;
type Tracer = (typeof TRACERS)[number];

let node: ErlNode;
let compiler: CompileServer;
let beam: Uint8Array;
let folder: string;
let legacy: boolean;

beforeAll(async () => {
  node = await startNode();
  legacy = Number(await node.eval("list_to_integer(erlang:system_info(otp_release))")) < 27;
  compiler = await startCompiler();
  folder = await mkdtemp(join(tmpdir(), "beamtrace-instrumented-"));
  beam = (await instrumentBeam(await compileText(node, "told", SOURCE), compiler)).bytes;
  await writeFile(join(folder, "told.beam"), beam);
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
  await rm(folder, { recursive: true });
});
beforeEach(async () => {
  await load(node, "told", beam);
});

const sessions: Session[] = [];
async function attached(options: AttachOptions = {}): Promise<Session> {
  const session = await attachTo(node, options);
  sessions.push(session);
  return session;
}
// Also after a test that has failed.
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

/** Also where there is old code. */
async function gone(module: string): Promise<void> {
  await node.eval(`code:purge(${module}), code:delete(${module}), code:purge(${module})`);
}

const WORK = `(catch told:add({x, 1}, b)), told:loop(3), told:pick({ok, 3}), told:pick(a), told:pick(b), told:pick([1]),
  (catch told:risky(a)), told:many({m, 1}, b, 3, 4, 5, 6, 7), told:none(),
  Remote = fun(Tag) -> binary_to_term(<<131, Tag, 119, 14, "other@10.0.0.1", 1:32, 2:32, 3:32>>) end,
  [told:first([T]) || T <- [
    a, {}, {a}, {ok, 1}, {1, b}, {'$gen_call', {self(), x}, {get, 1}}, 0, 1 bsl 64, 1.5, [], [1, 2 | 3], lists:seq(1, 100), #{}, #{a => 1, b => 2},
    maps:from_list([{I, I} || I <- lists:seq(1, 100)]), #{'__struct__' => s}, <<>>, <<1, 2>>, <<5:3>>, binary:part(binary:copy(<<1>>, 200), 3, 100),
    self(), hd(erlang:ports()), make_ref(), Remote(88), fun lists:map/2, fun() -> ok end]]`;
const RUNTIME =
  "case erlang:module_loaded(beamtrace_rt) of true -> element(3, beamtrace_rt:info()); false -> absent end";

async function told(tracer: Tracer, options: TraceOptions = {}, work = WORK): Promise<TraceEvent[]> {
  const session: Session = await attached({ tracer });
  try {
    const trace = await session.trace({ instrumented: true, ...options });
    expect(trace.tracer.kind).toBe(tracer);
    const collected = collect(trace);
    await node.eval(`${work}, ok`);
    await trace.stop();
    await collected.done;
    return collected.events;
  } finally {
    await session.close();
  }
}

/** One line an event, calls numbered in order. */
function lines(events: readonly TraceEvent[]): string[] {
  const ids = new Map<number, number>();
  return events.flatMap((event) => {
    if (!("callId" in event)) return [];
    if (!ids.has(event.callId)) ids.set(event.callId, ids.size + 1);
    const shape =
      "shape" in event ? ` ${event.shape.type}/${event.shape.size}[${event.shape.tags.join()}]` : "";
    const { site } = event;
    const at =
      site === undefined ? "" : ` ${site.kind} ${site.function}/${site.arity}.${site.clause}:${site.line}`;
    const place = event.siteNumber % SITES_MAX;
    return [`${ids.get(event.callId)} ${event.kind} ${event.module}#${place}${at}${shape}`];
  });
}

describe("both tracers", () => {
  test.each([
    ["with shapes", {}],
    ["without", { payload: "none" }],
    ["with scheduler ids", { scheduler: true }],
    ["of one module among others", { instrumented: { modules: ["told", "nobody"] } }],
    ["only entries", { events: ["function_entry"] }],
  ] as const)("tell the same of the same work, %s", async (_, options) => {
    const portable = await told("portable", options);
    const native = await told("native", options);
    expect(lines(native).length).toBeGreaterThan(10);
    expect(lines(native)).toEqual(lines(portable));
    for (const event of native) if ("scheduler" in options) expect(event.scheduler).toBeGreaterThan(0);
    await expectClean(node);
  });

  test.each(TRACERS)("say where in the source, the %s one", async (tracer) => {
    const table = readSiteTable(BeamFile.read(beam));
    const events = await told(tracer, { instrumented: { beams: [beam] } }, "told:pick(b)");
    expect(lines(events)).toEqual([
      "1 function_entry told#10 entry pick/1.3:12 args/1[b]",
      "2 function_entry told#0 entry add/2.1:3 args/2[]",
      "2 function_return told#1 return add/2.1:4 integer/0[]",
      "1 function_tail_call told#12 tail pick/1.3:15",
      "3 function_entry told#0 entry add/2.1:3 args/2[]",
      "3 function_return told#1 return add/2.1:4 integer/0[]",
    ]);
    for (const event of events)
      if ("site" in event) expect(event.site).toEqual(table?.sites[event.siteNumber % SITES_MAX]);
  });

  test.each(TRACERS)(
    "tell of exceptions with their class where functions are wrapped, the %s one",
    async (tracer) => {
      const { bytes } = await instrumentBeam(await compileText(node, "told", SOURCE), compiler, {
        exceptions: "wrap",
      });
      await load(node, "told", bytes);
      const events = await told(tracer, { instrumented: { beams: [bytes] } }, "(catch told:risky(a))");
      expect(lines(events).map((line) => line.replace(/#\d+/, ""))).toEqual([
        "1 function_entry told entry risky/1.1:17 args/1[a]",
        "2 function_entry told entry add/2.1:3 args/2[a]",
        "2 function_exception told return add/2.1:4 atom/0[badarith]",
        "1 function_exception told return risky/1.1:17 atom/0[badarith]",
      ]);
      expect(events.flatMap((e) => (e.kind === "function_exception" ? [e.class] : []))).toEqual([
        "error",
        "error",
      ]);
    },
  );

  test.each(TRACERS)("take the processes that are asked for, the %s one", async (tracer) => {
    await node.eval(
      "register(told_one, spawn(fun L() -> receive {go, F} -> told:none(), F ! done, L() end end)), ok",
    );
    const work = "told:none(), told_one ! {go, self()}, receive done -> ok end";
    const events = await told(tracer, { processes: { registered: ["told_one"] } }, work);
    expect(lines(events)).toHaveLength(2);
    await node.eval("exit(whereis(told_one), kill)");
  });

  test.each(TRACERS)("stop at the limit of events exactly, the %s one", async (tracer) => {
    const session = await attached({ tracer });
    const trace = await session.trace({ instrumented: true, limits: { events: 7 } });
    const collected = collect(trace);
    await node.eval("told:loop(100), ok");
    expect(await trace.ended).toMatchObject({ kind: "limit", limit: "events" });
    await collected.done;
    expect(lines(collected.events)).toHaveLength(7);
    await eventually(
      () => node.eval(RUNTIME),
      (build) => build === "off",
    );
    await session.close();
  });

  test.each(TRACERS)("never tell of what beamtrace itself runs, the %s one", async (tracer) => {
    const session = await attached({ tracer });
    const trace = await session.trace({ instrumented: true });
    const collected = collect(trace);
    await session.call("told", "none", []);
    await node.eval("told:none(), ok");
    await trace.stop();
    await collected.done;
    expect(lines(collected.events)).toHaveLength(2);
    await session.close();
  });
});

test.each(["native", "portable"] as const)(
  "contents travel by the %s tracer, cut and redacted",
  async (tracer) => {
    const session = await attached({ tracer });
    const trace = await session.trace({ instrumented: true, payload: { maxBytes: 64 } });
    expect(trace.tracer.kind).toBe(tracer);
    const collected = collect(trace);
    await node.eval("told:many(1, #{password => x}, 3, 4, 5, 6, 7), told:add(1, 2)");
    await trace.stop();
    await collected.done;
    const payloads = collected.events.flatMap((e) => ("payload" in e && "callId" in e ? [e.payload] : []));
    expect(payloads).toHaveLength(4);
    expect(inspect(payloads[0] as Term, { notation: "erlang" })).toBe(
      "[1,#{password => '[redacted]'},3,4,5,6,7]",
    );
    expect(payloads[2]).toEqual([1, 2]);
    expect(payloads[3]).toBe(2);
    await session.close();
  },
);

test.each([
  ["new processes only", { processes: "new" }, /processes: "new"/],
  ["inheriting", { inherit: "spawn" }, /inherit/],
  ["a sample", { sampling: { processes: 0.5 } }, /sampling/],
  ["a budget", { limits: { overhead: 0.02 } }, /overhead/],
] as const)(
  "what only trace flags can do is the portable tracer's, or refused: %s",
  async (_, options, reason) => {
    const auto = await attached();
    const trace = await auto.trace({ instrumented: true, ...options });
    expect(trace.tracer.kind).toBe("portable");
    expect(trace.tracer.reason).toMatch(reason);
    await trace.stop();
    await auto.close();
    const native = await attached({ tracer: "native" });
    await expect(native.trace({ instrumented: true, ...options })).rejects.toMatchObject({
      code: "BT_NATIVE_UNAVAILABLE",
      message: expect.stringMatching(reason) as string,
    });
    await native.close();
    await expectClean(node);
  },
);

test("sites come from the module's file if it is of the code that runs, or from the module itself", async () => {
  const session = await attached();
  const trace = await session.trace({ instrumented: true });
  // Loaded from memory: its events have numbers.
  expect(await trace.sites.load()).toEqual(["told"]);
  const { version } = readSiteTable(BeamFile.read(beam))!;
  expect(trace.sites.find("told", siteNumber(version, 0))).toBeUndefined();
  await node.eval(`code:purge(told), {module, told} = code:load_abs("${join(folder, "told")}")`);
  expect(await trace.sites.load()).toEqual([]);
  expect(trace.sites.find("told", siteNumber(version, 0))).toMatchObject({
    function: "add",
    arity: 2,
    line: 3,
  });
  await trace.stop();

  const plain = await compileText(node, "told", SOURCE);
  const { bytes, table } = await instrumentBeam(plain, compiler, { embedSites: true });
  await load(node, "told", bytes);
  const named = await session.trace({ instrumented: { modules: ["told"] } });
  expect(named.sites.find("told", siteNumber(table.version, 1))).toEqual(table.sites[1]);
  const collected = collect(named);
  await node.eval("told:none()");
  await named.stop();
  await collected.done;
  expect(lines(collected.events)[0]).toMatch(/entry none\/0\.1:19/);
  await session.close();
});

test("of a module that answers calls of functions it has not, sites come from its file, and it is not called", async () => {
  const source = `-module(answers).
-export([f/1, '$handle_undefined_function'/2]).
f(X) -> [X].
'$handle_undefined_function'(F, A) -> persistent_term:put(answers_asked, F), {undef, F, A}.
`;
  const { bytes } = await instrumentBeam(await compileText(node, "answers", source), compiler);
  await writeFile(join(folder, "answers.beam"), bytes);
  await node.eval(`{module, answers} = code:load_abs("${join(folder, "answers")}")`);
  const session = await attached();
  const trace = await session.trace({ instrumented: { modules: ["answers"] } });
  const collected = collect(trace);
  await node.eval("answers:f(1)");
  await trace.stop();
  await collected.done;
  await session.close();
  expect(lines(collected.events)[0]).toMatch(/entry f\/1\.1:3/);
  expect(await node.eval("persistent_term:get(answers_asked, nothing)")).toBe("nothing");
  await gone("answers");
});

test("an event's module is asked for when the first object is made", async () => {
  await node.eval(`code:purge(told), {module, told} = code:load_abs("${join(folder, "told")}")`);
  const session = await attached();
  const trace = await session.trace({ instrumented: true });
  const collected = collect(trace);
  await node.eval("told:none()");
  await eventually(
    () => trace.sites.modules,
    (modules) => modules.includes("told"),
  );
  await node.eval("told:none()");
  await trace.stop();
  await collected.done;
  expect(lines(collected.events).at(-1)).toMatch(/return none\/0/);
  await session.close();
});

test("entries and ends are calls with durations, and who goes on without a return has seen an exception", async () => {
  const session = await attached();
  const trace = await session.trace({ instrumented: { beams: [beam] } });
  const calls = firstValueFrom(trace.events$.pipe(pairCalls(), toArray()));
  await node.eval("told:pick({ok, 1}), (catch told:risky(a)), told:loop(1)");
  await trace.stop();
  const ended = (await calls).map((c) => `${c.entry.site?.function} ${c.end} ${c.duration !== undefined}`);
  expect(ended.sort()).toEqual(
    [
      ...["pick tail_call true", "add return true", "loop tail_call true", "loop return true"],
      // Nobody above them is instrumented: nothing says that they have ended, until the stream does.
      ...["add open false", "risky open false"],
    ].sort(),
  );
  await session.close();
});

describe("the runtime", () => {
  test.each(TRACERS)("is what it was after a trace, %s: nothing where no code needs it", async (tracer) => {
    await gone("told");
    await gone("beamtrace_rt");
    const session = await attached({ tracer });
    const trace = await session.trace({ instrumented: true });
    expect(await node.eval(RUNTIME)).not.toBe("absent");
    await trace.stop();
    expect(await node.eval(RUNTIME)).toBe("absent");
    // With instrumented code there the idle one stays.
    await load(node, "told", beam);
    const again = await session.trace({ instrumented: true });
    await again.stop();
    expect(await node.eval(RUNTIME)).toBe("off");
    await session.close();
    await expectClean(node);
  });

  test("is off again after close() and detach without stop()", async () => {
    const session = await attached();
    await session.trace({ instrumented: true });
    expect(await node.eval(RUNTIME)).not.toBe("off");
    await session.close();
    await eventually(
      () => node.eval(RUNTIME),
      (build) => build === "off",
    );
    await expectClean(node);
  });

  test.each(TRACERS)("is off again when the client is killed with -9, %s", async (tracer) => {
    await node.eval(
      "register(told_work, spawn(fun W() -> told:loop(5), receive stop -> ok after 1 -> W() end end)), ok",
    );
    const client = spawn(
      process.execPath,
      [
        ...["--import", "tsx", "test/support/victim-instrumented.ts"],
        ...[node.name, node.cookie, String(node.epmdPort), tracer],
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    await once(client.stdout, "data");
    expect(await node.eval(RUNTIME)).not.toBe("off");
    client.kill("SIGKILL");
    await once(client, "exit");
    await eventually(
      () => node.eval(RUNTIME),
      (build) => build === "off",
    );
    await node.eval("told_work ! stop");
    await expectClean(node);
  });

  test("is off again when its process is killed, which ends the traces", async () => {
    const session = await attached();
    const trace = await session.trace({ instrumented: true });
    await node.eval("exit(whereis(beamtrace_runtime), kill)");
    expect((await trace.ended).kind).toBe("tracer-died");
    await eventually(
      () => node.eval(RUNTIME),
      (build) => build === "off",
    );
    await session.close();
    await expectClean(node);
  });

  test("of somebody else is left alone", async () => {
    await load(
      node,
      "beamtrace_rt",
      await compileText(node, "beamtrace_rt", "-module(beamtrace_rt).\n-export([f/0]).\nf() -> 1.\n"),
    );
    const session = await attached();
    await expect(session.trace({ instrumented: true })).rejects.toMatchObject({
      code: "BT_RUNTIME_CLASH",
      message: expect.stringContaining("beamtrace_rt") as string,
    });
    await session.close();
    expect(await node.eval("beamtrace_rt:f()")).toBe("1");
    await gone("beamtrace_rt");
    await expectClean(node);
  });

  test("serves several traces at once, of both tracers where the release can", async () => {
    const [first, second] = [await attached({ tracer: "native" }), await attached()];
    const one = await first.trace({ instrumented: true });
    if (legacy) {
      await expect(second.trace({ instrumented: true })).rejects.toMatchObject({ code: "BT_TRACER_BUSY" });
    } else {
      const seen = collect(one);
      const two = await second.trace({ instrumented: true });
      const three = await second.trace({ instrumented: true, payload: { maxBytes: 40_000 } });
      expect([two.tracer.kind, three.tracer.kind]).toEqual(["native", "portable"]);
      const others = [collect(two), collect(three)];
      await node.eval("told:none(), told:loop(2), ok");
      await two.stop();
      await three.stop();
      await node.eval("told:none(), ok");
      await one.stop();
      for (const { done } of [seen, ...others]) await done;
      expect(others.map(({ events }) => lines(events).length)).toEqual([8, 8]);
      expect(lines(seen.events)).toHaveLength(10);
    }
    await first.close();
    await second.close();
    expect(await node.eval(RUNTIME)).toBe("off");
    await expectClean(node);
  });
});

test("a flight recorder keeps what instrumented code tells", async () => {
  const session = await attached();
  const recorder = await session.flightRecorder({ instrumented: true, keep: { bytes: 1 << 20 } });
  await node.eval("told:loop(3), ok");
  const recording = await recorder.snapshot();
  const events = await firstValueFrom(recording.events$.pipe(toArray()));
  expect(lines(events)).toHaveLength(8);
  await recorder.stop();
  expect(await node.eval(RUNTIME)).toBe("off");
  await expect(session.flightRecorder({ instrumented: true, inherit: "spawn" })).rejects.toMatchObject({
    code: "BT_NATIVE_UNAVAILABLE",
  });
  await session.close();
  await expectClean(node);
});

describe("code that runs meanwhile", () => {
  test("never fails while traces start and stop a hundred times", async () => {
    await node.eval(`Main = self(), register(told_hammer, spawn(fun() ->
        Workers = [spawn_link(fun W() ->
          done = told:loop(50), {a} = told:pick(a), 2 = told:add(1, 2), #{} = told:none(), {'EXIT', _} = (catch told:risky(a)),
          receive after 1 -> W() end
        end) || _ <- lists:seq(1, 8)],
        receive {stop, From} -> [begin unlink(P), exit(P, kill) end || P <- Workers], From ! stopped end
      end)), Main ! ok, ok`);
    for (const tracer of TRACERS) {
      const session = await attached({ tracer, callTimeoutMs: 60_000 });
      for (let i = 0; i < 50; i++) {
        const trace = await session.trace({ instrumented: true, limits: { events: 2000, rate: Infinity } });
        await firstValueFrom(trace.batches$);
        await trace.stop();
      }
      await session.close();
    }
    // A worker that fails takes all with it.
    expect(await node.eval("told_hammer ! {stop, self()}, receive stopped -> ok end")).toBe("ok");
    expect(await node.eval(RUNTIME)).toBe("off");
    await expectClean(node);
  });

  test.each(TRACERS)("keeps a loop's memory under a %s trace", async (tracer) => {
    const session = await attached({ tracer });
    const turns = tracer === "native" ? 3_000_000 : 30_000;
    const sizes = async (count: number): Promise<number[]> =>
      [...(await node.eval(`told:turns(${count})`)).matchAll(/,(\d+)\}/g)].map((m) => Number(m[1]));
    const trace = await session.trace({ instrumented: true, limits: { rate: Infinity } });
    const [stack = 0, heap = 0] = await sizes(1000);
    const [stackAfter = 1, heapAfter = 1] = await sizes(turns);
    expect(stackAfter).toBe(stack);
    expect(heapAfter).toBeLessThanOrEqual(4 * heap);
    await trace.stop();
    await session.close();
  });
});
