/**
 * The flight recorder on real nodes: exact accounting, windows that are complete, and nothing left behind. Messages are binaries whose size is a
 * running number, so that the shapes alone show whether one is missing.
 */
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { filter, firstValueFrom, skipWhile } from "rxjs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openRecording } from "../../src/buffer";
import { type FlightRecorderOptions, type FlightRecording, type Session } from "../../src/capture";
import { atom } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { eventually, type ErlNode } from "../support/erl-node";
import {
  all,
  codeOf,
  endRecorded,
  eventsOf,
  expectNoHole,
  lossesOf,
  nodeHasLived,
  NUMBERS,
  numbers,
  send,
  sinkOnly,
  startRecorded,
} from "../support/recorded-node";
import { attachTo } from "../support/traced";

let node: ErlNode;
let session: Session;
beforeEach(async () => {
  ({ node, session } = await startRecorded());
});
afterEach(() => endRecorded({ node, session }));

describe("a snapshot", () => {
  test("has everything that fits, and can be taken again", async () => {
    const recorder = await session.flightRecorder(await sinkOnly(session));
    await send(node, 0, 5000);
    const first = await recorder.snapshot();
    expect(first).toMatchObject({
      number: 1,
      complete: true,
      before: 0,
      lost: 0,
      lostBefore: 0,
      events: 5001,
    });
    expect(first.trigger.kind).toBe("snapshot");
    const events = await eventsOf(first);
    expect(events).toHaveLength(5001);
    expect(numbers(events)).toHaveLength(5000);
    expectNoHole(numbers(events));
    // The rings were read, not emptied; and what was told before is told again.
    await send(node, 5000, 10);
    const second = await recorder.snapshot();
    expect(second.events).toBe(5012);
    expectNoHole(numbers(await eventsOf(second)));
    expect(numbers(await eventsOf(first))).toHaveLength(5000);
    await recorder.stop();
    expect(session.recorders).toEqual([]);
    expect(await codeOf(recorder.snapshot())).toBe("BT_TRACE_STOPPED");
  });

  test("of small rings has the newest, and what was overwritten is counted", async () => {
    const recorder = await session.flightRecorder(await sinkOnly(session, { keep: { bytes: 1 << 16 } }));
    await send(node, 0, 20_000);
    const recording = await recorder.snapshot();
    const events = await eventsOf(recording);
    expect(recording.before).toBeGreaterThan(10_000);
    expect(recording.before + recording.events + recording.lost + recording.lostBefore).toBe(20_001);
    expect(lossesOf(events)).toBe(recording.lost);
    expect(numbers(events).at(-1)).toBe(19_999 % NUMBERS);
    if (recording.lost + recording.lostBefore === 0) expectNoHole(numbers(events));
    for (const event of events) {
      expect(event.timestamp).toBeGreaterThanOrEqual(recording.from);
      expect(event.timestamp).toBeLessThanOrEqual(recording.to);
    }
  });

  test("of seconds leaves out what is older", async () => {
    const recorder = await session.flightRecorder(await sinkOnly(session, { keep: { seconds: 2 } }));
    await send(node, 0, 100);
    const early = await recorder.snapshot();
    await nodeHasLived(node, 2.1);
    await send(node, 100, 7);
    const late = await recorder.snapshot();
    expect(early).toMatchObject({ complete: true, events: 101 });
    expect(late).toMatchObject({ complete: true, events: 8, before: 101 });
    expect(late.to - late.from).toBe(2e9);
  });

  test("that reaches back less than was asked for is not complete, and says how much is missing", async () => {
    const recorder = await session.flightRecorder(
      await sinkOnly(session, { keep: { seconds: 2, bytes: 1 << 16 } }),
    );
    await nodeHasLived(node, 2.1);
    await send(node, 0, 5000);
    const recording = await recorder.snapshot();
    const [gap] = await eventsOf(recording);
    expect(recording.complete).toBe(false);
    if (gap?.kind !== "gap") throw new Error("no gap");
    // Counted from a moment before the window that was asked for, up to where it begins.
    expect(gap.count).toBeGreaterThan(0);
    expect(gap.count).toBeLessThanOrEqual(recording.before);
    expect(gap.from).toBeLessThanOrEqual(recording.trigger.at - 2e9);
    expect(gap.to).toBe(recording.from);
  });

  test("of more seconds than the recorder has lived is complete only if nothing was overwritten", async () => {
    const recorder = await session.flightRecorder(
      await sinkOnly(session, { keep: { seconds: 3600, bytes: 1 << 16 } }),
    );
    await send(node, 0, 10);
    expect(await recorder.snapshot()).toMatchObject({ complete: true, before: 0, events: 11 });
    await send(node, 0, 5000);
    const recording = await recorder.snapshot();
    expect(recording.complete).toBe(false);
    const [gap] = await eventsOf(recording);
    expect(gap).toMatchObject({ kind: "gap", count: recording.before });
  });

  test("while messages flood in: what it has is whole", { timeout: 60_000 }, async () => {
    const recorder = await session.flightRecorder(await sinkOnly(session, { keep: { bytes: 1 << 22 } }));
    await node.eval(`register(flood, spawn(fun() ->
      F = fun F(I) -> receive {stop, From} -> From ! {stopped, I} after 0 ->
        [sink ! binary:copy(<<0>>, J rem ${NUMBERS}) || J <- lists:seq(I, I + 99)], F(I + 100) end end, F(0) end)), ok`);
    await eventually(
      () => recorder.stats.received,
      (received) => received > 200_000,
      30_000,
    );
    const taken: FlightRecording[] = [];
    for (let i = 0; i < 5; i++) taken.push(await recorder.snapshot());
    const sent = Number(await node.eval(`flood ! {stop, self()}, receive {stopped, I} -> I end`));
    await send(node, sent, 1);
    taken.push(await recorder.snapshot());
    for (const recording of taken) {
      const events = await eventsOf(recording);
      expect(recording.events).toBeGreaterThan(10_000);
      expect(lossesOf(events)).toBe(recording.lost);
      if (recording.complete) expectNoHole(numbers(events));
    }
    const last = taken.at(-1);
    expect((last?.before ?? 0) + (last?.events ?? 0) + (last?.lost ?? 0) + (last?.lostBefore ?? 0)).toBe(
      sent + 2,
    );
    expect(taken.filter((each) => each.complete).length).toBeGreaterThan(0);
  });

  test(
    "while compiled code calls a traced function all the time: exact to the event",
    { timeout: 60_000 },
    async () => {
      const recorder = await session.flightRecorder({
        calls: [{ module: "lists", function: "last", arity: 1 }],
        keep: { bytes: 1 << 22 },
        limits: { rate: Infinity },
      });
      // Two processes in a loop of compiled code; each call of `lists:last/1` is one event.
      const work = node.eval(`L = lists:duplicate(500000, [1]),
      Ps = [spawn_monitor(fun() -> [lists:foreach(fun lists:last/1, L) || _ <- [1, 2, 3, 4]] end) || _ <- [1, 2]],
      [receive {'DOWN', M, _, P, normal} -> ok end || {P, M} <- Ps], ok`);
      let working = true;
      void work.then(() => (working = false));
      const taken: FlightRecording[] = [];
      while (working) taken.push(await recorder.snapshot());
      await work;
      const last = await recorder.snapshot();
      expect(taken.length).toBeGreaterThan(2);
      for (const recording of taken) {
        const events = await eventsOf(recording);
        expect(events.filter((e) => e.kind === "call")).toHaveLength(recording.events);
        expect(lossesOf(events)).toBe(recording.lost);
      }
      expect(last.before + last.events + last.lost + last.lostBefore).toBe(4_000_000);
      expect(taken.some((each) => each.complete && each.events > 10_000)).toBe(true);
    },
  );

  test("is a recording file when it is saved", async () => {
    const folder = await mkdtemp(join(tmpdir(), "beamtrace-recorder-"));
    try {
      const recorder = await session.flightRecorder({ events: ["send", "receive", "procs"] });
      await node.eval(`spawn(lists, seq, [1, 10]), sink ! {a, <<"b">>}`);
      await send(node, 0, 3000);
      const recording = await recorder.snapshot();
      await recorder.stop();
      await session.close();
      const summary = await recording.saveTo(join(folder, "shop.btrec"));
      await using file = await openRecording(summary.path);
      expect(file.complete).toBe(true);
      expect(file.sources).toEqual(recording.sources);
      expect(await all(file.events$)).toEqual(await eventsOf(recording));
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("its life", () => {
  test("two at a time, where the node allows it", async () => {
    const otp = Number((await node.eval("erlang:system_info(otp_release)")).replaceAll('"', ""));
    const first = await session.flightRecorder(await sinkOnly(session));
    const second = session.flightRecorder(await sinkOnly(session, { keep: { bytes: 1 << 16 } }));
    if (otp < 27) {
      expect(await codeOf(second)).toBe("BT_TRACER_BUSY");
      return;
    }
    await send(node, 0, 3000);
    const [a, b] = await Promise.all([first.snapshot(), (await second).snapshot()]);
    expect(a.events).toBe(3001);
    expect(b.before + b.events + b.lost + b.lostBefore).toBe(3001);
    await (await second).stop();
    expect((await first.snapshot()).events).toBe(3001);
  });

  test("with the socket in a worker", async () => {
    await session.close();
    session = await attachTo(node, { tracer: "native", worker: true });
    const recorder = await session.flightRecorder(
      await sinkOnly(session, { triggers: [{ on: "message", to: "sink" }] }),
    );
    const next = firstValueFrom(recorder.recordings$);
    await send(node, 0, 30_000);
    expect((await next).trigger.kind).toBe("message");
    const recording = await recorder.snapshot();
    const found = numbers(await eventsOf(recording));
    expect(found).toHaveLength(30_000);
    expectNoHole(found);
  });

  test("goes on, with empty rings, after the connection was lost and made again", async () => {
    await session.close();
    session = await attachTo(node, { tracer: "native", reattach: { minDelayMs: 20 } });
    const recorder = await session.flightRecorder({
      processes: { registered: ["sink"] },
      events: ["receive"],
      triggers: [{ on: "message", to: "sink" }],
      minIntervalMs: 0,
    });
    await send(node, 0, 10);
    await recorder.snapshot();
    const back = firstValueFrom(
      session.status$.pipe(
        skipWhile(({ state }) => state !== "reattaching"),
        filter(({ state }) => state === "connected"),
      ),
    );
    await node.eval("[erlang:disconnect_node(N) || N <- nodes(hidden)]");
    await back;
    const next = firstValueFrom(recorder.recordings$);
    await send(node, 0, 5);
    expect((await next).number).toBe(1);
    const recording = await recorder.snapshot();
    expect(recording.before + recording.events).toBe(6);
    expect(numbers(await eventsOf(recording))).toEqual([0, 1, 2, 3, 4]);
    expect(session.recorders).toEqual([recorder]);
  });

  test("a limit ends it, and says so", async () => {
    const recorder = await session.flightRecorder(await sinkOnly(session, { limits: { rate: 1000 } }));
    await send(node, 0, 20_000);
    expect(await recorder.ended).toMatchObject({ kind: "limit", limit: "rate" });
    await expectNoRecorder();
  });

  test("not without the native tracer, and not with more contents than it carries", async () => {
    const portable = await attachTo(node, { tracer: "portable" });
    expect(await codeOf(portable.flightRecorder({ events: ["procs"] }))).toBe("BT_NATIVE_UNAVAILABLE");
    await portable.close();
    expect(await codeOf(session.flightRecorder({ events: ["procs"], payload: { maxBytes: 40_000 } }))).toBe(
      "BT_NATIVE_UNAVAILABLE",
    );
    const misspelt = { events: ["procs"], keep: { second: 5 } } as FlightRecorderOptions;
    expect(await codeOf(session.flightRecorder(misspelt))).toBe("BT_TRACE_SPEC_INVALID");
    expect(await codeOf(session.flightRecorder({ events: ["procs"], keep: { bytes: 1 } }))).toBe(
      "BT_TRACE_SPEC_INVALID",
    );
  });

  test("a hundred recorders leave no memory", async () => {
    for (let i = 0; i < 100; i++) {
      const recorder = await session.flightRecorder(
        await sinkOnly(session, { triggers: [{ on: "message", to: "sink" }] }),
      );
      await send(node, 0, 10);
      expect((await recorder.snapshot()).before).toBe(0);
      await recorder.stop();
    }
    expect(await node.eval("beamtrace_nif:usage()")).toBe("{0,0,0}");
  });

  test("a client that is killed leaves nothing, alarms included", async () => {
    await session.close();
    const client = spawn(
      process.execPath,
      ["--import", "tsx", "test/support/victim-recorder.ts", node.name, node.cookie, String(node.epmdPort)],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    await new Promise<void>((resolve) => client.stdout.once("data", () => resolve()));
    expect(
      await node.eval('length([N || N <- registered(), lists:prefix("beamtrace", atom_to_list(N))]) > 0'),
    ).toBe("true");
    client.kill("SIGKILL");
    await expectClean(node, { modules: ["lists"], deadlineMs: 10_000 });
    expect(await node.eval("erlang:system_monitor()")).toBe("undefined");
  });

  async function expectNoRecorder(): Promise<void> {
    expect(session.recorders).toEqual([]);
    expect(await session.call("erlang", "whereis", [atom("beamtrace_legacy")])).toEqual(atom("undefined"));
  }
});
