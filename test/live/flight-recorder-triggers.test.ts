/** What makes a flight recorder keep its window, on real nodes: every trigger, when it fires and when not. */
import { filter, firstValueFrom } from "rxjs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { matchSpec, type FlightRecording, type Session } from "../../src/capture";
import { inspect, Pid } from "../../src/erlang";
import { eventually, type ErlNode } from "../support/erl-node";
import {
  codeOf,
  endRecorded,
  eventsOf,
  numbers,
  send,
  sinkOnly,
  startRecorded,
} from "../support/recorded-node";

let node: ErlNode;
let session: Session;
beforeEach(async () => {
  ({ node, session } = await startRecorded());
});
afterEach(() => endRecorded({ node, session }));

describe("a trigger", () => {
  test("call: with arguments that match, where the trace wants other things of the same function", async () => {
    const recorder = await session.flightRecorder({
      calls: [{ module: "lists", function: "seq", returns: true }],
      triggers: [
        { on: "call", module: "lists", function: "seq", arity: 2, matchSpec: matchSpec.call([1, 33]) },
      ],
    });
    const next = firstValueFrom(recorder.recordings$);
    await node.eval("lists:seq(1, 3), lists:seq(1, 33), lists:seq(1, 5, 2)");
    const recording = await next;
    const { trigger } = recording;
    if (trigger.kind !== "call") throw new Error(`triggered by ${trigger.kind}`);
    expect(trigger.trigger).toMatchObject({ on: "call", function: "seq" });
    const events = (await eventsOf(recording)).filter(
      (e) =>
        "process" in e && e.process !== undefined && inspect(e.process) === inspect(trigger.process as Pid),
    );
    // Up to the trigger: the call before it with its result, and itself.
    expect(events.map((e) => e.kind)).toEqual(["call", "return_from", "call"]);
    expect(events.at(-1)?.timestamp).toBe(trigger.at);
    // What comes after it is there as well, with results.
    const later = await recorder.snapshot();
    const kinds = (await eventsOf(later)).map((e) => e.kind);
    expect(kinds.filter((kind) => kind === "call")).toHaveLength(3);
    expect(kinds.filter((kind) => kind === "return_from")).toHaveLength(3);
  });

  test("exit: an abnormal reason, and no other", async () => {
    const recorder = await session.flightRecorder({ events: ["receive"], triggers: [{ on: "exit" }] });
    const next = firstValueFrom(recorder.recordings$);
    await node.eval(`Done = fun(R) -> {P, M} = spawn_monitor(fun() -> exit(R) end), receive {'DOWN', M, _, P, _} -> ok end end,
      [Done(R) || R <- [normal, shutdown, {shutdown, because}]], Done(crashed)`);
    const recording = await next;
    expect(recording.trigger.kind).toBe("exit");
    const exits = (await eventsOf(recording)).filter((e) => e.kind === "exit");
    expect(exits.at(-1)?.timestamp).toBe(recording.trigger.at);
    expect(exits.at(-1)?.reason?.tags).toEqual(["crashed"]);
    expect(exits.some((e) => e.reason?.tags[0] === "shutdown")).toBe(true);
    expect((await recorder.snapshot()).suppressed).toBe(0);
  });

  test("message: to a registered name, also when another process has taken it", async () => {
    const recorder = await session.flightRecorder({
      processes: "none",
      events: ["receive"],
      triggers: [{ on: "message", to: "alarm_bell" }],
      minIntervalMs: 0,
    });
    const fired: FlightRecording[] = [];
    recorder.recordings$
      .pipe(filter((each) => each.trigger.kind === "message"))
      .subscribe((each) => void fired.push(each));
    const bell = `register(alarm_bell, spawn(fun L() -> receive stop -> ok; _ -> L() end end)), ok`;
    for (const _ of [1, 2]) {
      const before = fired.length;
      await node.eval(bell);
      // The name is looked up on the node now and then.
      await eventually(
        async () => {
          await node.eval("alarm_bell ! ring");
          return fired.length;
        },
        (count) => count > before,
      );
      await node.eval(
        `M = monitor(process, alarm_bell), alarm_bell ! stop, receive {'DOWN', M, _, _, _} -> ok end`,
      );
      // The recorder has seen that the name is free.
      await recorder.snapshot();
    }
    const owners = fired.map((each) => "process" in each.trigger && inspect(each.trigger.process as Pid));
    expect(new Set(owners).size).toBe(2);
    const [first] = fired;
    const rings = (await eventsOf(first as FlightRecording)).filter((e) => e.kind === "receive");
    expect(rings.at(-1)?.timestamp).toBe(first?.trigger.at);
  });

  test("alarm: of the system monitor", async () => {
    const recorder = await session.flightRecorder({
      events: ["procs"],
      triggers: [{ on: "alarm", largeHeapBytes: 1 << 22, longGcMs: 60_000 }],
    });
    const next = firstValueFrom(recorder.recordings$);
    await node.eval(`{P, M} = spawn_monitor(fun() -> L = lists:seq(1, 2000000), exit({length, length(L)}) end),
      receive {'DOWN', M, _, P, _} -> ok end`);
    const recording = await next;
    if (recording.trigger.kind !== "alarm") throw new Error(`triggered by ${recording.trigger.kind}`);
    expect(recording.trigger.alarm).toBe("large_heap");
    expect(recording.trigger.process).toBeInstanceOf(Pid);
    expect((await eventsOf(recording)).some((e) => e.kind === "spawned")).toBe(true);
  });

  test("alarm: a system monitor of another process is not taken away", async () => {
    await node.eval(
      `P = spawn(fun() -> receive stop -> ok end end), register(watcher, P), erlang:system_monitor(P, [{long_gc, 500}])`,
    );
    const starting = session.flightRecorder({
      events: ["procs"],
      triggers: [{ on: "alarm", longGcMs: 100 }],
    });
    const otp = Number((await node.eval("erlang:system_info(otp_release)")).replaceAll('"', ""));
    expect(await codeOf(starting)).toBe(otp < 28 ? "BT_SYSTEM_MONITOR_BUSY" : "resolved");
    expect(await node.eval("{P, [{long_gc, 500}]} = erlang:system_monitor(), P =:= whereis(watcher)")).toBe(
      "true",
    );
    await session.close();
    expect(await node.eval("{P, [{long_gc, 500}]} = erlang:system_monitor(), P =:= whereis(watcher)")).toBe(
      "true",
    );
    await node.eval("erlang:system_monitor(undefined)");
  });

  test("a storm of them makes one recording; the others are counted", async () => {
    const recorder = await session.flightRecorder({
      processes: "none",
      events: ["receive"],
      triggers: [{ on: "message", to: "sink" }],
      minIntervalMs: 600_000,
    });
    const seen: FlightRecording[] = [];
    recorder.recordings$.subscribe((recording) => void seen.push(recording));
    await send(node, 0, 10_000);
    await eventually(
      () => seen.length,
      (count) => count > 0,
    );
    await send(node, 10_000, 10_000);
    const last = await recorder.snapshot();
    expect(seen.map((each) => each.trigger.kind)).toEqual(["message", "snapshot"]);
    // One of 20,002 messages has made the recording.
    expect((seen[0]?.suppressed ?? 0) + last.suppressed).toBe(20_001);
  });

  test("`after` puts into the recording what follows the trigger", async () => {
    const recorder = await session.flightRecorder(
      await sinkOnly(session, {
        events: ["receive", "procs"],
        processes: "all",
        triggers: [{ on: "exit" }],
        after: { seconds: 2 },
      }),
    );
    const next = firstValueFrom(recorder.recordings$);
    await node.eval(
      `{P, M} = spawn_monitor(fun() -> exit(crashed) end), receive {'DOWN', M, _, P, _} -> ok end`,
    );
    await send(node, 0, 10);
    const recording = await next;
    expect(recording.to - recording.trigger.at).toBe(2e9);
    expect(
      numbers((await eventsOf(recording)).filter((e) => e.timestamp > recording.trigger.at)).length,
    ).toBe(10);
  });
});
