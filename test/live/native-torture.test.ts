/**
 * The native tracer where it hurts: everybody who belongs to it is killed in the middle of a stream, dirty schedulers and odd schedulers do the
 * traced work, memory is short, traces come and go under full load. Afterwards the node lives, nothing of ours is left on it, and what was
 * counted is what happened. The long variant: `npm run stress -- native-torture`.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Session, SessionStatus } from "../../src/capture";
import { atom, Pid } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { eventually, startNode, type ErlNode, type ErlNodeOptions } from "../support/erl-node";
import {
  account,
  EVENTS_OF_A_SPAWN,
  SPAWNED,
  spawnAll,
  startSpawners,
  stopSpawners,
} from "../support/spawners";
import { attachTo, collect } from "../support/traced";

vi.setConfig({ testTimeout: 240_000 });

const nodes: ErlNode[] = [];
const folders: string[] = [];
afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.stop()));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

async function start(options: ErlNodeOptions = {}): Promise<ErlNode> {
  const node = await startNode(options);
  nodes.push(node);
  return node;
}

/** Processes that never rest: messages round a circle, children, garbage. They go on until `quiet`. */
const LOAD = `[register(list_to_atom("load_" ++ integer_to_list(I)), spawn(fun Loop() ->
  receive stop -> ok after 0 ->
    P = spawn(fun() -> receive {From, X} -> From ! {X, lists:seq(1, 100)} end end),
    P ! {self(), make_ref()}, receive {_, [_ | _]} -> ok end,
    _ = [binary:copy(<<I>>, 100) || _ <- lists:seq(1, 10)],
    Loop()
  end end)) || I <- lists:seq(1, 2)], ok`;
const QUIET = `[begin N = list_to_existing_atom("load_" ++ integer_to_list(I)), M = monitor(process, N), N ! stop, receive {'DOWN', M, _, _, _} -> ok end end || I <- lists:seq(1, 2)], ok`;
const EVERYTHING = {
  events: ["send", "receive", "procs", "gc", "running"],
  limits: { rate: Infinity, seconds: 120 },
} as const;

async function pidOf(session: Session, name: string): Promise<Pid> {
  const pid = await session.call("erlang", "whereis", [atom(name)]);
  if (!(pid instanceof Pid)) throw new Error(`no ${name}`);
  return pid;
}

const usage = (node: ErlNode): Promise<string> => node.eval("beamtrace_nif:usage()");

describe("who is killed under load", () => {
  test("the client, again and again, while it loads, traces and stops", async () => {
    const node = await start();
    const tmp = mkdtempSync("/tmp/beamtrace-torture-");
    folders.push(tmp);
    // Only this node's folders of libraries are looked at.
    await node.eval(`os:putenv("TMPDIR", "${tmp}"), ok`);
    await node.eval(LOAD);
    for (let round = 0; round < 4; round++) {
      const client = spawn(
        process.execPath,
        ["--import", "tsx", "test/support/victim-client.ts", node.name, node.cookie, String(node.epmdPort)],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      if (round % 2 === 0) await once(client.stdout, "data");
      // In the middle of loading: as soon as the module is there.
      else
        await eventually(
          () => node.eval("code:is_loaded(beamtrace_agent) =/= false"),
          (there) => there === "true",
          60_000,
        );
      client.kill("SIGKILL");
      await once(client, "exit");
      await expectClean(node, { modules: ["lists"], deadlineMs: 20_000 });
    }
    expect(readdirSync(tmp)).toEqual([]);
    await node.eval(QUIET);
  });

  test("the tracer's process: the trace ends, its memory is taken back, the next trace works", async () => {
    const node = await start();
    await node.eval(LOAD);
    const session = await attachTo(node, { tracer: "native" });
    for (let round = 0; round < 4; round++) {
      const trace = await session.trace(EVERYTHING);
      const seen = account(trace);
      await eventually(
        () => seen.counts.delivered,
        (count) => count > 1000,
      );
      await node.eval(
        `[exit(P, kill) || P <- processes(), {initial_call, {beamtrace_agent, rings_init, _}} <- [process_info(P, initial_call)]], ok`,
      );
      expect((await trace.ended).kind).toBe("tracer-died");
      await seen.done;
    }
    const last = await session.trace(EVERYTHING);
    // The last one's, and at most the one before it, whose memory the VM may not have let go of yet.
    const [, open = "", buried = ""] = /^\{(\d+),(\d+),/.exec(await usage(node)) ?? [];
    expect(Number(open)).toBe(1);
    expect(Number(buried)).toBeLessThanOrEqual(1);
    await last.stop();
    await session.close();
    await node.eval(QUIET);
    await expectClean(node, { deadlineMs: 20_000 });
  });

  test.each(["beamtrace_1", "beamtrace_janitor_1"])("%s", async (name) => {
    const node = await start();
    await node.eval(LOAD);
    const session = await attachTo(node, { tracer: "native" });
    const trace = await session.trace(EVERYTHING);
    const seen = account(trace);
    await eventually(
      () => seen.counts.delivered,
      (count) => count > 1000,
    );
    await node.eval(`exit(whereis(${name}), kill), ok`);
    if (name === "beamtrace_1") expect((await session.closed).kind).toBe("agent-lost");
    else {
      // Another janitor takes over, the stream goes on.
      const before = seen.counts.delivered;
      await eventually(
        () => seen.counts.delivered,
        (count) => count > before + 1000,
      );
    }
    await session.close();
    await node.eval(QUIET);
    await expectClean(node, { deadlineMs: 20_000 });
  });
});

describe("who does the work", () => {
  test("dirty schedulers: files, ciphers, collections of large heaps; every start has its end", async () => {
    const node = await start({ args: ["+SDcpu", "2:2", "+SDio", "4"] });
    const session = await attachTo(node, { tracer: "native" });
    const tmp = mkdtempSync("/tmp/beamtrace-torture-");
    folders.push(tmp);
    await node.eval(
      `[register(list_to_atom("dirty_" ++ integer_to_list(I)), spawn(fun() ->
         receive go -> ok end,
         File = "${tmp}/f" ++ integer_to_list(I),
         Live = lists:seq(1, 400000),
         [begin
            ok = file:write_file(File, binary:copy(<<I>>, 20000), [raw]), {ok, _} = file:read_file(File),
            _ = crypto:hash(sha256, binary:copy(<<I>>, 200000)),
            erlang:garbage_collect()
          end || _ <- lists:seq(1, 20)],
         receive stop -> _ = length(Live) end
       end)) || I <- lists:seq(1, 4)], ok`,
    );
    const pids = await Promise.all([1, 2, 3, 4].map((i) => pidOf(session, `dirty_${i}`)));
    const trace = await session.trace({
      processes: pids,
      events: ["gc", "running", "send", "receive", "procs"],
      scheduler: true,
      limits: { rate: Infinity, seconds: 120 },
    });
    const seen = collect(trace);
    await node.eval(
      `Ps = [whereis(list_to_existing_atom("dirty_" ++ integer_to_list(I))) || I <- [1, 2, 3, 4]],
       Ms = [monitor(process, P) || P <- Ps], [begin P ! go, P ! stop end || P <- Ps], [receive {'DOWN', M, _, _, _} -> ok end || M <- Ms]`,
    );
    await trace.stop();
    await seen.done;
    const starts = seen.events.filter(({ kind }) => kind === "gc_major_start").length;
    const ends = seen.events.filter(({ kind }) => kind === "gc_major_end").length;
    expect(starts).toBeGreaterThanOrEqual(80);
    // Two dirty schedulers share one ring: who finds it taken for too long gives the event up, and counts it.
    expect(Math.abs(ends - starts)).toBeLessThanOrEqual(trace.stats.lost);
    // How many, depends on how often the system takes a thread away while it has the ring.
    expect(trace.stats.lost).toBeLessThan(starts / 2);
    // A heap of this size is collected on a dirty scheduler, which has no number.
    const dirty = seen.events.filter((e) => e.kind === "gc_major_start" && e.scheduler === undefined).length;
    expect(dirty).toBeGreaterThan(0);
    await session.close();
    await expectClean(node);
  });

  test.each([
    ["one scheduler", ["+S", "1:1"]],
    ["more schedulers than 64, bound to processors where that can be", ["+S", "70:70", "+stbt", "db"]],
    ["one of many schedulers online", ["+S", "8:1"]],
  ])("%s: every spawn and exit accounted for", async (_, args) => {
    const node = await start({ args });
    const session = await attachTo(node, { tracer: "native" });
    const processes = await startSpawners(node, session, 4);
    const trace = await session.trace({ ...SPAWNED, processes });
    const seen = account(trace);
    await spawnAll(node, 4, 2_000);
    await trace.stop();
    await seen.done;
    expect(seen.counts.delivered + seen.counts.lost).toBe(EVENTS_OF_A_SPAWN * 4 * 2_000);
    expect(seen.counts.backwards).toBe(0);
    await stopSpawners(node, 4);
    await session.close();
    await expectClean(node);
  });

  test("schedulers go offline and come back while they are traced", async () => {
    const node = await start({ args: ["+S", "4:4"] });
    const session = await attachTo(node, { tracer: "native" });
    const processes = await startSpawners(node, session, 4);
    for (const online of [1, 4, 2]) {
      const trace = await session.trace({ ...SPAWNED, processes });
      const seen = account(trace);
      const spawning = spawnAll(node, 4, 5_000);
      await node.eval(`erlang:system_flag(schedulers_online, ${online})`);
      await spawning;
      await trace.stop();
      await seen.done;
      expect(seen.counts.delivered + seen.counts.lost).toBe(EVENTS_OF_A_SPAWN * 4 * 5_000);
      expect(seen.counts.backwards).toBe(0);
    }
    await stopSpawners(node, 4);
    await session.close();
    await expectClean(node);
  });
});

describe("short memory", () => {
  test("processes that exceed max_heap_size die traced", async () => {
    const node = await start();
    const session = await attachTo(node, { tracer: "native" });
    await node.eval(
      `register(greedy, spawn(fun Loop() -> receive stop -> ok; go ->
         {P, M} = spawn_opt(fun() -> (fun Eat(L) -> Eat([L | L]) end)([]) end,
           [monitor, {max_heap_size, #{size => 20000, kill => true, error_logger => false}}]),
         receive {'DOWN', M, _, P, killed} -> ok end, Loop() end end)), ok`,
    );
    const trace = await session.trace({
      processes: [await pidOf(session, "greedy")],
      events: ["procs", "gc"],
      inherit: "spawn",
      limits: { rate: Infinity },
    });
    const seen = collect(trace);
    await node.eval(
      `[greedy ! go || _ <- lists:seq(1, 50)], M = monitor(process, greedy), greedy ! stop, receive {'DOWN', M, _, _, _} -> ok end`,
    );
    await trace.stop();
    await seen.done;
    expect(seen.events.filter(({ kind }) => kind === "gc_max_heap_size")).toHaveLength(50);
    // Its own, too.
    expect(seen.events.filter(({ kind }) => kind === "exit")).toHaveLength(51);
    await session.close();
    await expectClean(node);
  });

  test("no memory for the rings: the portable tracer, with a warning", async () => {
    // Rings of 65 threads take 33 MiB.
    const node = await start({ args: ["+S", "64:2"] });
    const session = await attachTo(node);
    const statuses: SessionStatus[] = [];
    session.status$.subscribe((status) => statuses.push(status));
    await node.eval(LOAD);
    const kilobytes = Number(/VmData:\s+(\d+)/.exec(readFileSync(`/proc/${node.osPid}/status`, "utf8"))?.[1]);
    execFileSync("prlimit", ["--pid", String(node.osPid), `--data=${(kilobytes + 25 * 1024) * 1024}:`]);
    const trace = await session.trace(EVERYTHING);
    expect(trace.tracer).toMatchObject({
      kind: "portable",
      reason: expect.stringContaining("memory") as string,
    });
    expect(statuses.at(-1)).toMatchObject({ state: "warning", code: "BT_NATIVE_UNAVAILABLE" });
    const seen = account(trace);
    await eventually(
      () => seen.counts.delivered,
      (count) => count > 100,
    );
    await trace.stop();
    execFileSync("prlimit", ["--pid", String(node.osPid), "--data=unlimited:"]);
    await session.close();
    await node.eval(QUIET);
    await expectClean(node, { deadlineMs: 20_000 });
  });
});

test("traces start and stop under full load, two at once where the node has trace sessions", async () => {
  const node = await start();
  await node.eval(LOAD);
  const session = await attachTo(node, { tracer: "native" });
  const both = session.info.capabilities.traceSessions;
  const processes = await startSpawners(node, session, 4);
  for (let round = 0; round < 4; round++) {
    const first = await session.trace({ ...SPAWNED, processes });
    const second = both ? await session.trace({ ...SPAWNED, processes: processes.slice(2) }) : undefined;
    const noise = both
      ? await session.trace({ ...EVERYTHING, events: ["send", "receive", "procs", "running"] })
      : undefined;
    const counts = [account(first), ...(second === undefined ? [] : [account(second)])];
    await spawnAll(node, 4, 1_000);
    await Promise.all([first.stop(), second?.stop(), noise?.stop()]);
    await Promise.all(counts.map(({ done }) => done));
    expect(counts.map(({ counts: c }) => c.delivered + c.lost)).toEqual(
      counts.map((_, i) => EVENTS_OF_A_SPAWN * (4 - 2 * i) * 1_000),
    );
    expect(counts.map(({ counts: c }) => c.backwards)).toEqual(counts.map(() => 0));
  }
  expect(await usage(node)).toBe("{0,0,0}");
  await stopSpawners(node, 4);
  await session.close();
  await node.eval(QUIET);
  await expectClean(node, { deadlineMs: 20_000 });
});
