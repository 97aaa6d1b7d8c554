/** A session's life and that of its traces, on a real node. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RingBuffer } from "../../src/buffer";
import type { SessionStatus, TraceStats } from "../../src/capture";
import { atom, Pid, type BeamtraceError } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { eventually, startNode, type ErlNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";

let node: ErlNode;
beforeEach(async () => void (node = await startNode()));
afterEach(async () => {
  await expectClean(node);
  await node.stop();
});

const code = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "resolved",
    (e: BeamtraceError) => e.code,
  );
/** A process that receives whatever comes, under this name. */
const receiver = (name: string): Promise<string> =>
  node.eval(
    `register(${name}, spawn(fun L() -> receive stop -> ok; {ack, From} -> From ! acked, L(); _ -> L() end end)), ok`,
  );

/** A hundred messages and one that is answered: then the receiver has fetched them all. */
const HUNDRED = "[listener ! I || I <- lists:seq(1, 100)], listener ! {ack, self()}, receive acked -> ok end";

describe("session", () => {
  test("knows its node, and puts nothing into it before the first trace", async () => {
    const session = await attachTo(node);
    expect(session.info).toMatchObject({
      node: node.name,
      otp: Number((await node.eval("erlang:system_info(otp_release)")).replaceAll('"', "")),
      wordSize: 8,
      tracer: { kind: "native" },
    });
    expect(session.info.schedulersOnline).toBe(
      Number(await node.eval("erlang:system_info(schedulers_online)")),
    );
    expect(
      await node.eval(`[M || {M, _} <- code:all_loaded(), lists:prefix("beamtrace", atom_to_list(M))]`),
    ).toBe("[]");
    expect(await node.eval("nodes()")).toBe("[]");
    expect(await node.eval("nodes(hidden)")).toContain(session.info.self);
    await session.close();
  });

  test("status and closing show on both faces", async () => {
    const session = await attachTo(node);
    const seen: SessionStatus[] = [];
    const heard: SessionStatus[] = [];
    let completed = false;
    session.status$.subscribe({ next: (s) => seen.push(s), complete: () => (completed = true) });
    session.on("status", (s) => heard.push(s));
    const closed = new Promise((resolve) => session.on("closed", resolve));
    await session.close();
    await session.close();
    expect(seen.map((s) => s.state)).toEqual(["connected", "closed"]);
    expect(heard.map((s) => s.state)).toEqual(["closed"]);
    expect(completed).toBe(true);
    expect(await closed).toEqual({ kind: "closed" });
    expect(await session.closed).toEqual({ kind: "closed" });
    expect(await code(session.call("erlang", "node", []))).toBe("BT_CLOSED");
  });

  test("is disposed of at the end of a block, traces included", async () => {
    {
      await using session = await attachTo(node);
      await session.trace({ events: ["send"], calls: [{ module: "lists", function: "seq" }] });
    }
    await expectClean(node, { modules: ["lists"] });
  });

  test("an AbortSignal ends it", async () => {
    const controller = new AbortController();
    const session = await attachTo(node, { signal: controller.signal });
    const trace = await session.trace({ events: ["send"] });
    controller.abort();
    expect(await session.closed).toEqual({ kind: "aborted" });
    expect(trace.hasEnded).toBe(true);
  });

  test("calls return terms, and what raises there raises here", async () => {
    const session = await attachTo(node);
    expect(await session.call("erlang", "node", [])).toBe(atom(node.name));
    await expect(session.call("erlang", "error", [atom("oops")])).rejects.toMatchObject({
      code: "BT_REMOTE_ERROR",
      class: "error",
      reason: atom("oops"),
    });
    await expect(session.call("no_such_module", "f", [])).rejects.toMatchObject({ code: "BT_REMOTE_ERROR" });
    expect(await code(session.call("timer", "sleep", [atom("infinity")], { timeoutMs: 50 }))).toBe(
      "BT_TIMEOUT",
    );
    expect(
      await code(session.call("timer", "sleep", [atom("infinity")], { signal: AbortSignal.timeout(50) })),
    ).toBe("BT_ABORTED");
    await session.close();
  });

  test("messages and monitors", async () => {
    const session = await attachTo(node);
    await receiver("listener");
    const pid = await session.call("erlang", "whereis", [atom("listener")]);
    if (!(pid instanceof Pid)) throw new Error("no pid");
    const monitor = session.monitor(pid);
    session.send({ name: "listener" }, atom("stop"));
    expect((await monitor.down).reason).toBe(atom("normal"));
    await session.close();
  });
});

describe("traces", () => {
  test("unsubscribing does not stop a trace; subscribing again goes on", async () => {
    await receiver("listener");
    await using session = await attachTo(node);
    const trace = await session.trace({ processes: { registered: ["listener"] }, events: ["receive"] });
    let first = 0;
    const subscription = trace.events$.subscribe(() => (first += 1));
    await node.eval("listener ! a, ok");
    await eventually(
      () => first,
      (n) => n === 1,
    );
    subscription.unsubscribe();
    await node.eval("listener ! b, listener ! c, ok");
    await eventually(
      () => trace.stats.written,
      (n) => n === 3,
    );
    const seen = collect(trace);
    await seen.until((events) => events.length === 2);
    expect(first).toBe(1);
    await trace.stop();
    await seen.done;
  });

  test("what happens between the start and the subscription is not missed", async () => {
    await receiver("listener");
    await using session = await attachTo(node);
    const trace = await session.trace({ processes: { registered: ["listener"] }, events: ["receive"] });
    await node.eval(HUNDRED);
    await trace.stop();
    const seen = collect(trace);
    await seen.done;
    expect(seen.events).toHaveLength(101);
  });

  test("several subscribers see the same", async () => {
    await receiver("listener");
    await using session = await attachTo(node);
    const trace = await session.trace({ processes: { registered: ["listener"] }, events: ["receive"] });
    const [a, b] = [collect(trace), collect(trace)];
    await node.eval(HUNDRED);
    await trace.stop();
    await Promise.all([a.done, b.done]);
    expect(a.events).toHaveLength(101);
    expect(b.events).toEqual(a.events);
  });

  test("several traces one after the other, and into one ring", async () => {
    await receiver("listener");
    await using session = await attachTo(node);
    const ring = new RingBuffer({ capacity: 1024 });
    for (let i = 1; i <= 3; i++) {
      const trace = await session.trace({
        processes: { registered: ["listener"] },
        events: ["receive"],
        into: ring,
      });
      const seen = collect(trace);
      await node.eval(`[listener ! I || I <- lists:seq(1, ${i})], ok`);
      await seen.until((events) => events.length === i);
      await trace.stop();
      await seen.done;
      expect(seen.events).toHaveLength(i);
    }
    expect(ring.sources.list).toHaveLength(3);
  });

  test("two traces at once, each with its own events, where the node has sessions", async () => {
    await receiver("one");
    await receiver("two");
    await using session = await attachTo(node);
    const spec = (name: string): Parameters<typeof session.trace>[0] => ({
      processes: { registered: [name] },
      events: ["receive"],
    });
    const first = await session.trace(spec("one"));
    if (!session.info.capabilities.traceSessions) {
      expect(await code(session.trace(spec("two")))).toBe("BT_TRACER_BUSY");
      return;
    }
    const second = await session.trace(spec("two"));
    const [a, b] = [collect(first), collect(second)];
    await node.eval("one ! x, two ! y, two ! z, ok");
    await b.until((events) => events.length === 2);
    await a.until((events) => events.length === 1);
    await first.stop();
    await node.eval("two ! more, ok");
    await b.until((events) => events.length === 3);
  });

  test("an AbortSignal stops a trace and leaves the session", async () => {
    await using session = await attachTo(node);
    const controller = new AbortController();
    const trace = await session.trace({ events: ["send"], signal: controller.signal });
    controller.abort();
    expect(await trace.ended).toEqual({ kind: "stopped" });
    expect(session.traces).toEqual([]);
    expect(await session.call("erlang", "node", [])).toBe(atom(node.name));
    expect(await code(session.trace({ events: ["send"], signal: AbortSignal.abort() }))).toBe("BT_ABORTED");
  });

  test("figures come each second and at the end, and complete", async () => {
    await receiver("listener");
    await using session = await attachTo(node);
    const trace = await session.trace({ processes: { registered: ["listener"] }, events: ["receive"] });
    const stats: TraceStats[] = [];
    const done = trace.stats$.forEach((s) => void stats.push(s));
    await node.eval("[listener ! I || I <- lists:seq(1, 10)], ok");
    await eventually(
      () => stats.at(-1)?.node.received ?? 0,
      (n) => n === 10,
    );
    await trace.stop();
    await done;
    expect(stats.at(-1)).toMatchObject({
      node: { received: 10, shipped: 10, lostLink: 0, lostTracer: 0, traced: 1 },
      written: 10,
      lost: 0,
      lostRing: 0,
    });
  });

  test("processes of an application", async () => {
    await using session = await attachTo(node);
    const trace = await session.trace({ processes: { application: "kernel" }, events: ["receive"] });
    const seen = collect(trace);
    await node.eval("gen_server:call(kernel_sup, which_children), ok");
    await seen.until((events) => events.length > 0);
    expect(trace.stats.node.traced === 0 || trace.stats.node.traced > 10).toBe(true);
    await trace.stop();
    expect(trace.stats.node.traced).toBeGreaterThan(10);
  });
});
