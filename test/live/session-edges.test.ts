/** What a session does when things happen at the same time, half way, or in a listener of the user's. */
import { filter, firstValueFrom } from "rxjs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RingBuffer, type TraceEvent } from "../../src/buffer";
import { attach } from "../../src/capture";
import { atom, binary, tuple, type Pid } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { eventually, startNode, type ErlNode } from "../support/erl-node";
import { startProxy } from "../support/tcp-proxy";
import { attachTo, collect } from "../support/traced";

let node: ErlNode;
beforeAll(async () => void (node = await startNode()));
afterAll(() => node.stop());

const SPAWN = "spawn(fun() -> ok end), ok";
const closed = expect.objectContaining({ code: "BT_CLOSED" }) as Error;

/** Uncaught exceptions while `run` runs; they do not end the test. */
async function uncaughtDuring(run: () => Promise<void>): Promise<string[]> {
  const uncaught: string[] = [];
  const listener = (error: Error): void => void uncaught.push(error.message);
  const others = {
    uncaughtException: process.listeners("uncaughtException"),
    unhandledRejection: process.listeners("unhandledRejection"),
  };
  for (const event of ["uncaughtException", "unhandledRejection"] as const) {
    process.removeAllListeners(event);
    process.on(event as "uncaughtException", listener);
  }
  try {
    await run();
    await new Promise((resolve) => setImmediate(resolve));
  } finally {
    for (const event of ["uncaughtException", "unhandledRejection"] as const) {
      process.removeAllListeners(event);
      for (const other of others[event]) process.on(event as "uncaughtException", other as () => void);
    }
  }
  return uncaught;
}

describe("closing", () => {
  test("goes on when listeners throw, and tells the reason", async () => {
    const uncaught = await uncaughtDuring(async () => {
      const session = await attachTo(node);
      for (const event of ["status", "traceEnded", "closed"] as const)
        session.on(event, () => {
          throw new Error(`thrown in ${event}`);
        });
      const trace = await session.trace({ events: ["spawn"] });
      await trace.stop();
      await session.close();
      expect(await session.closed).toEqual({ kind: "closed" });
    });
    expect(uncaught.sort()).toEqual(["thrown in closed", "thrown in status", "thrown in traceEnded"]);
    await expectClean(node);
  });

  test("refuses a ring that is closed, and options that do not exist, before anything is on the node", async () => {
    const ring = new RingBuffer({ capacity: 64 });
    ring.close();
    await using session = await attachTo(node);
    await expect(session.trace({ events: ["spawn"], into: ring })).rejects.toMatchObject({
      code: "BT_OPTION_INVALID",
      message: expect.stringContaining("closed") as string,
    });
    const misspelled = { leaseMS: 5_000 };
    await expect(attach(node.name, { ...misspelled, cookie: node.cookie })).rejects.toMatchObject({
      code: "BT_OPTION_INVALID",
      message: expect.stringContaining("did you mean leaseMs?") as string,
    });
    await session.close();
    await expectClean(node);
  });

  test("refuses a trace that comes later, and one that is on its way", async () => {
    const session = await attachTo(node);
    await session.trace({ events: ["exit"] }).then((trace) => trace.stop());
    const call = session.call("timer", "sleep", [60_000]);
    const starting = session.trace({ events: ["spawn"] });
    const outcomes = Promise.allSettled([call, starting, Promise.resolve().then(() => session.close())]);
    const later = Promise.resolve().then(() => session.trace({ events: ["spawn"] }));
    await expect(later).rejects.toEqual(closed);
    const [called, started] = await outcomes;
    expect(called).toMatchObject({ status: "rejected" });
    // It may have begun: then it has ended with the session.
    if (started.status === "fulfilled") expect(started.value.hasEnded).toBe(true);
    else expect(started.reason).toEqual(closed);
    await expectClean(node);
  });
});

test("after a trace was aborted amid its start the next one can begin", async () => {
  await using session = await attachTo(node);
  await session.trace({ events: ["exit"] }).then((trace) => trace.stop());
  for (let i = 0; i < 10; i++) {
    const aborting = new AbortController();
    const starting = session.trace({ events: ["spawn"], signal: aborting.signal });
    // The request is out once the session has taken note of the trace.
    await eventually(
      () => session.traces.length,
      (traces) => traces > 0,
    );
    aborting.abort();
    await starting.catch((error: unknown) => expect(error).toMatchObject({ code: "BT_ABORTED" }));
    const next = await session.trace({ events: ["exit"] });
    await next.stop();
  }
  expect(session.traces).toEqual([]);
});

describe("calls while a trace runs", () => {
  test("a time limit beyond what timers take is none", async () => {
    await using session = await attachTo(node);
    const trace = await session.trace({ events: ["spawn"] });
    for (const timeoutMs of [2 ** 31, 1e15, Infinity])
      expect(await session.call("erlang", "node", [], { timeoutMs })).toBe(atom(node.name));
    await expect(session.call("erlang", "node", [], { timeoutMs: NaN })).rejects.toMatchObject({
      code: "BT_OPTION_INVALID",
    });
    expect(trace.hasEnded).toBe(false);
  });

  test("one that can't be encoded fails alone, and nothing of it is left to fail when the node dies", async () => {
    const mortal = await startNode();
    const uncaught = await uncaughtDuring(async () => {
      const session = await attachTo(mortal);
      await session.trace({ events: ["spawn"] });
      await expect(session.call("erlang", "node", [0.5])).rejects.toMatchObject({ code: "BT_NOT_ENCODABLE" });
      mortal.kill("SIGKILL");
      expect(await session.closed).toMatchObject({ kind: "connection-lost" });
    });
    expect(uncaught).toEqual([]);
  });

  test("the longest limits are accepted, and longer ones do not reach the node", async () => {
    await using session = await attachTo(node);
    const long = { seconds: 1e9, events: Number.MAX_SAFE_INTEGER, memory: Number.MAX_SAFE_INTEGER };
    const trace = await session.trace({ events: ["spawn"], limits: long });
    await expect(session.trace({ events: ["exit"], limits: { seconds: 1e15 } })).rejects.toMatchObject({
      code: "BT_LIMIT_INVALID",
    });
    expect(trace.hasEnded).toBe(false);
  });
});

describe("attaching again", () => {
  test.each([false, true])(
    "any number of times, also when it fails half way (worker: %s)",
    async (worker) => {
      const proxy = await startProxy(node);
      const session = await attach(
        { host: "127.0.0.1", port: proxy.port },
        { cookie: node.cookie, worker, reattach: { attempts: 50, minDelayMs: 50, maxDelayMs: 100 } },
      );
      const states: string[] = [];
      session.status$.subscribe(({ state }) => states.push(state));
      const trace = await session.trace({ events: ["spawn"], limits: { seconds: 120 } });
      let events: TraceEvent[] = [];
      trace.events$.subscribe((event) => events.push(event));
      for (const bytes of [500, 1500, 2500]) {
        states.length = 0;
        events = [];
        proxy.cutAfter(1);
        await node.eval(SPAWN);
        await eventually(
          () => states,
          (s) => s.includes("reattaching"),
        );
        // Not "closed": the session lives.
        await expect(session.call("erlang", "node", [])).rejects.toMatchObject({
          code: "BT_CONNECTION_LOST",
        });
        proxy.cutAfter(bytes);
        await eventually(
          () => states.at(-1),
          (state) => state === "connected",
          20_000,
        );
        await eventually(
          () => node.eval(SPAWN).then(() => events),
          (all) => all.some((event) => event.kind === "spawn"),
        );
        expect(states.filter((state) => state === "reattaching").length).toBeGreaterThan(1);
        expect(trace.hasEnded).toBe(false);
        expect(session.traces).toEqual([trace]);
        const ring = trace.ring.stats();
        for (const reader of ring.readers)
          expect(reader.read + reader.dropped + reader.pending).toBe(ring.written);
      }
      await session.close();
      expect(await trace.ended).toEqual({ kind: "stopped" });
      await expectClean(node);
      await proxy.close();
    },
    90_000,
  );

  test("a trace that the node now refuses ends, the session goes on", async () => {
    const name = `edge${process.pid}`;
    let mortal = await startNode({ name, cookie: "edge" });
    const session = await attachTo(mortal, {
      reattach: { attempts: 100, minDelayMs: 50, maxDelayMs: 200 },
    });
    const init = (await session.call("erlang", "whereis", [atom("init")])) as Pid;
    const trace = await session.trace({ events: ["send"], processes: [init] });
    await mortal.stop();
    mortal = await startNode({ name, cookie: "edge" });
    expect(await trace.ended).toMatchObject({ kind: "refused", code: "BT_PROCESS_INVALID" });
    await firstValueFrom(session.status$.pipe(filter(({ state }) => state === "connected")));
    expect(await session.call("erlang", "node", [])).toBe(atom(mortal.name));
    await session.close();
    await expectClean(mortal);
    await mortal.stop();
  }, 60_000);
});

test("a ring for one producer is not fed by two threads", async () => {
  const ring = new RingBuffer();
  await using here = await attachTo(node);
  await using there = await attachTo(node, { worker: true });
  const first = await there.trace({ events: ["spawn"], into: ring });
  await expect(here.trace({ events: ["spawn"], into: ring, takeOver: true })).rejects.toMatchObject({
    code: "BT_RING_INVALID",
    option: "into",
  });
  await first.stop();
  // One after the other is fine, there and back again.
  for (const session of [here, there, here]) {
    const trace = await session.trace({ events: ["spawn"], into: ring });
    const { until } = collect(trace);
    await node.eval(SPAWN);
    await until((all) => all.some((event) => event.kind === "spawn"));
    await trace.stop();
  }
});

test("takeOver does not silence a trace of the same session", async () => {
  await using session = await attachTo(node);
  const first = await session.trace({ events: ["spawn"] });
  const { until, events } = collect(first);
  const second = session.trace({ events: ["exit"], takeOver: true });
  // Where there are trace sessions both run.
  if (!session.info.capabilities.traceSessions)
    await expect(second).rejects.toMatchObject({ code: "BT_TRACER_BUSY" });
  await Promise.allSettled([second]);
  const before = events.length;
  await node.eval(SPAWN);
  await until((all) => all.slice(before).some((event) => event.kind === "spawn"));
});

test("what is no destination is refused", async () => {
  await using session = await attachTo(node);
  expect(() => session.send("shop" as never, tuple(binary("x")))).toThrow(
    expect.objectContaining({ code: "BT_OPTION_INVALID" }) as Error,
  );
});
