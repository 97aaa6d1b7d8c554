/** Where in the source an event is from, whatever becomes of the module: right, or not known; and so in recordings, for whoever reads them. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lastValueFrom, toArray } from "rxjs";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { openRecording, record, type TraceEvent } from "../../src/buffer";
import type { Session, TraceOptions } from "../../src/capture";
import { CALLBACK_TRACE, callbacks, type CompileServer, instrumentBeam } from "../../src/transform";
import { expectClean } from "../support/clean";
import { eventually, startNode, type ErlNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";
import { compileErlang, compileText, fixture, load, startCompiler, unload } from "../support/transform";

/** Each version has its functions at other lines, and other sites at the same places. */
const version = (functions: readonly string[]): string =>
  ["-module(moved).", "-export([first/0, loop/1]).", ...functions, ""].join("\n");
const ONE = version(["first() -> one.", "loop(P) ->", "  receive go -> P ! first(), loop(P) end."]);
const TWO = version(["loop(P) ->", "  receive go -> P ! first(), loop(P) end.", "", "first() -> two."]);
const TRACERS = ["native", "portable"] as const;

let node: ErlNode;
let compiler: CompileServer;
let session: Session;
let folder: string;
let one: Uint8Array;
let two: Uint8Array;

beforeAll(async () => {
  node = await startNode();
  compiler = await startCompiler();
  folder = await mkdtemp(join(tmpdir(), "beamtrace-sites-"));
  const instrumented = async (text: string): Promise<Uint8Array> =>
    (await instrumentBeam(await compileText(node, "moved", text), compiler)).bytes;
  one = await instrumented(ONE);
  two = await instrumented(TWO);
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
  await rm(folder, { recursive: true });
});
afterEach(async () => {
  await session.close();
  await expectClean(node);
});

/** Puts the module into its file, and loads it from there. */
async function deploy(beam: Uint8Array): Promise<void> {
  await writeFile(join(folder, "moved.beam"), beam);
  await node.eval(`code:purge(moved), {module, moved} = code:load_abs("${join(folder, "moved")}")`);
}
const places = (events: readonly TraceEvent[]): string[] =>
  events.flatMap((event) =>
    event.kind === "function_entry"
      ? [event.site === undefined ? "?" : `${event.site.function}:${event.site.line}`]
      : [],
  );
const asked = (modules: readonly string[]): boolean => modules.includes("moved");

describe.each(TRACERS)("with the %s tracer", (tracer) => {
  beforeEach(async () => {
    session = await attachTo(node, { tracer });
    await deploy(one);
  });

  test("a module that is loaded anew has its own sites, and its old code keeps those of its own", async () => {
    const trace = await session.trace({ instrumented: { modules: ["moved"] } });
    const collected = collect(trace);
    await node.eval(
      "P = spawn(fun() -> receive {from, F} -> moved:loop(F) end end), register(moved_old, P), P ! {from, self()}, P ! go, receive one -> ok end",
    );
    await deploy(two);
    // The first event of the new code makes the session ask.
    await node.eval("two = moved:first(), ok");
    await eventually(
      () => trace.sites.tables.filter(({ module }) => module === "moved").length,
      (count) => count === 2,
    );
    await node.eval("two = moved:first(), moved_old ! go, ok");
    await collected.until((events) => places(events).length >= 7);
    await trace.stop();
    await collected.done;
    const found = places(collected.events);
    // Loop and its callee in old code, the new code's first call as it was asked for, and then both in turn.
    expect(found.slice(0, 2)).toEqual(["loop:4", "first:3"]);
    expect(found.filter((place) => place === "first:6")).toHaveLength(1);
    expect(found.filter((place) => place === "?")).toHaveLength(1);
    expect(found.filter((place) => place === "first:3")).toHaveLength(2);
    expect(new Set(found)).toEqual(new Set(["loop:4", "first:3", "?", "first:6"]));
    await node.eval("exit(whereis(moved_old), kill), code:purge(moved)");
  });

  test("beams that are not those that run tell nothing wrong", async () => {
    const trace = await session.trace({ instrumented: { beams: [two] } });
    const collected = collect(trace);
    await node.eval("one = moved:first(), ok");
    await trace.stop();
    await collected.done;
    expect(places(collected.events)).toEqual(["?"]);
  });

  test("a recording has sites that nobody had asked for, from the first event on, also of a trace that ends at once", async () => {
    const path = join(folder, `${tracer}.btrec`);
    const trace = await session.trace({ instrumented: true });
    const recorded = record(trace, path);
    await node.eval("one = moved:first(), ok");
    await trace.stop();
    await session.close();
    await recorded;
    await using recording = await openRecording(path);
    const events = await lastValueFrom(recording.events$.pipe(toArray()));
    expect(places(events)).toEqual(["first:3"]);
  });

  test("a recording has the sites of each version of a module", async () => {
    const path = join(folder, `${tracer}-two.btrec`);
    const trace = await session.trace({ instrumented: true });
    const recorded = record(trace, path, { flushMs: 5 });
    await node.eval("one = moved:first(), ok");
    await eventually(
      () => trace.sites.modules,
      (modules) => asked(modules),
    );
    await deploy(two);
    await node.eval("two = moved:first(), ok");
    await trace.stop();
    await recorded;
    await using recording = await openRecording(path);
    const events = await lastValueFrom(recording.events$.pipe(toArray()));
    expect(places(events)).toEqual(["first:3", "first:6"]);
  });
});

describe("a flight recorder's recordings", () => {
  const snapshot = async (
    options: TraceOptions["instrumented"],
    work: () => Promise<unknown>,
  ): Promise<string> => {
    session = await attachTo(node);
    const recorder = await session.flightRecorder({ instrumented: options!, keep: { bytes: 1 << 20 } });
    await work();
    const recording = await recorder.snapshot();
    const path = join(folder, `flight-${Math.random()}.btrec`);
    expect(places(await lastValueFrom(recording.events$.pipe(toArray())))).toHaveLength(2);
    await recorder.stop();
    await recording.saveTo(path);
    await using saved = await openRecording(path);
    return places(await lastValueFrom(saved.events$.pipe(toArray()))).join(" ");
  };

  test("have them too, as do the files that they are saved to", async () => {
    await deploy(one);
    const work = () => node.eval("one = moved:first(), one = moved:first(), ok");
    expect(await snapshot(true, work)).toBe("first:3 first:3");
  });

  test("know named modules from the start, and both versions where one is loaded meanwhile", async () => {
    await deploy(one);
    const work = async (): Promise<void> => {
      await node.eval("one = moved:first(), ok");
      await deploy(two);
      await node.eval("two = moved:first(), ok");
    };
    expect(await snapshot({ modules: ["moved"] }, work)).toBe("first:3 first:6");
  });

  test("do not take the sites of the code that runs for those of code that is gone", async () => {
    await deploy(one);
    const work = async (): Promise<void> => {
      await node.eval("one = moved:first(), ok");
      await deploy(two);
      await node.eval("two = moved:first(), ok");
    };
    expect(await snapshot(true, work)).toBe("? first:6");
  });
});

test("callbacks out of a recording are those of the trace", async () => {
  session = await attachTo(node);
  const { bytes } = await instrumentBeam(await compileErlang(node, fixture("bt_counter.erl")), compiler);
  await load(node, "bt_counter", bytes);
  const path = join(folder, "callbacks.btrec");
  const trace = await session.trace({ ...CALLBACK_TRACE, instrumented: { beams: [bytes] } });
  const live: string[] = [];
  const line = (event: { callback: string; outcome: string; site: { line: number } }): string =>
    `${event.callback} ${event.outcome} ${event.site.line}`;
  const done = trace.events$.pipe(callbacks(trace.sites)).forEach((event) => void live.push(line(event)));
  const recorded = record(trace, path);
  await node.eval(
    "{ok, P} = bt_counter:start({map, 1}), {delegated, 1} = gen_server:call(P, {delegated, 1}), gen_server:stop(P)",
  );
  await trace.stop();
  await done;
  await recorded;
  await using recording = await openRecording(path);
  const found: string[] = [];
  await recording.events$.pipe(callbacks(recording.sites)).forEach((event) => void found.push(line(event)));
  expect(live).toHaveLength(3);
  expect(found).toEqual(live);
  await unload(node, "bt_counter");
});
