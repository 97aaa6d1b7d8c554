/** The same session with socket and decoding in a worker thread: same events, same accounting, same clean-up. */
import { afterEach, beforeEach, expect, test } from "vitest";
import type { BeamtraceError } from "../../src/erlang";
import { atom } from "../../src/erlang";
import { RingBuffer } from "../../src/buffer";
import { expectClean } from "../support/clean";
import { startNode, type ErlNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";

let node: ErlNode;
beforeEach(async () => void (node = await startNode()));
afterEach(() => node.stop());

test("calls, monitors and output cross the thread", async () => {
  const session = await attachTo(node, { worker: true });
  const output: string[] = [];
  session.output$.subscribe((text) => output.push(text));
  expect(await session.call("lists", "seq", [1, 5])).toEqual([1, 2, 3, 4, 5]);
  await session.call("io", "put_chars", [[104, 105]]);
  expect(output.join("")).toContain("hi");
  const monitor = session.monitor("no_such_name");
  expect((await monitor.down).reason).toBe(atom("noproc"));
  await session.close();
  await expectClean(node);
});

test("events arrive complete and in order", async () => {
  const session = await attachTo(node, { worker: true });
  await node.eval(`register(subject, spawn(fun L() -> receive stop -> ok; _ -> L() end end)), ok`);
  const trace = await session.trace({ processes: { registered: ["subject"] }, events: ["receive", "exit"] });
  const seen = collect(trace);
  await node.eval(`[subject ! {n, I} || I <- lists:seq(1, 50000)], subject ! stop, ok`);
  await seen.until((events) => events.some((e) => e.kind === "exit"));
  await trace.stop();
  await seen.done;
  expect(seen.events.filter((e) => e.kind === "receive")).toHaveLength(50_001);
  expect(trace.stats.node.received).toBe(50_002);
  expect(seen.events.every((e, i) => i === 0 || e.timestamp >= (seen.events[i - 1]?.timestamp ?? 0))).toBe(
    true,
  );
  await session.close();
  await expectClean(node);
});

test("a ring of one's own is filled by the worker", async () => {
  const ring = new RingBuffer({ capacity: 1 << 12, overflow: "overwrite-oldest" });
  const session = await attachTo(node, { worker: true });
  const trace = await session.trace({ processes: "new", events: ["spawned", "exit"], into: ring });
  const seen = collect(trace);
  await node.eval(`[spawn(fun() -> ok end) || _ <- lists:seq(1, 100)], ok`);
  await seen.until((events) => events.filter((e) => e.kind === "exit").length >= 100);
  await session.close();
  expect(ring.stats().written).toBeGreaterThanOrEqual(200);
  await expectClean(node);
});

test("the lease is renewed while the main thread is busy", async () => {
  const session = await attachTo(node, { worker: true, leaseMs: 600 });
  await node.eval(`register(subject, spawn(fun L() -> receive stop -> ok; _ -> L() end end)), ok`);
  const trace = await session.trace({ processes: { registered: ["subject"] }, events: ["receive", "exit"] });
  const seen = collect(trace);
  // This thread does nothing for several leases.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000);
  expect(await session.call("erlang", "is_alive", [])).toBe(atom("true"));
  expect(trace.hasEnded).toBe(false);
  await node.eval(`subject ! stop, ok`);
  await seen.until((events) => events.some((e) => e.kind === "exit"));
  await session.close();
  await expectClean(node);
});

test("errors have their class and code", async () => {
  const code = (promise: Promise<unknown>): Promise<string> =>
    promise.then(
      () => "resolved",
      (e: BeamtraceError) => e.code,
    );
  expect(await code(attachTo(node, { worker: true, cookie: "wrong" }))).toBe("BT_COOKIE_REJECTED");
  expect(await code(attachTo(node, { worker: true, signal: AbortSignal.abort() }))).toBe("BT_ABORTED");
  const session = await attachTo(node, { worker: true });
  node.kill("SIGKILL");
  expect((await session.closed).kind).toBe("connection-lost");
});
