/** What goes wrong, on real nodes: the client has a typed error or reason, and nothing of ours stays on the node. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RingBuffer, type TraceEvent } from "../../src/buffer";
import { attach, type Session, type Trace } from "../../src/capture";
import { tuple, atom, type BeamtraceError } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { eventually, freePort, startNode, type ErlNode } from "../support/erl-node";
import { startProxy } from "../support/tcp-proxy";
import { attachTo, collect } from "../support/traced";

let node: ErlNode;
beforeEach(async () => void (node = await startNode()));
afterEach(() => node.stop());

/** Some thousand messages a second until the node ends. */
const TRAFFIC = `[spawn(fun() -> P = spawn(fun Q() -> receive {ping, From, X} -> From ! {pong, X}, Q() end end),
  F = fun L() -> P ! {ping, self(), lists:seq(1, 5)}, receive {pong, _} -> ok end, timer:sleep(1), L() end, F() end) || _ <- lists:seq(1, 4)], ok`;
/** As many messages as the node can do. */
const FLOOD = `[spawn(fun() -> P = spawn(fun Q() -> receive {ping, From, X} -> From ! {pong, X}, Q() end end),
  F = fun L() -> P ! {ping, self(), 1}, receive {pong, _} -> L() end end, F() end) || _ <- lists:seq(1, 4)], ok`;

const code = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "resolved",
    (e: BeamtraceError) => e.code,
  );

/** Exact accounting at the end of a trace: what the tracer took = what was delivered + what is known to be lost. */
async function expectExact(trace: Trace, events: readonly TraceEvent[]): Promise<void> {
  const { node: stats } = trace.stats;
  const delivered = events.filter((e) => e.kind !== "gap" && e.kind !== "marker").length;
  const lost = events.reduce((sum, e) => sum + (e.kind === "gap" ? e.count : 0), 0);
  expect(stats.received).toBe(delivered + lost);
  expect(stats.shipped + stats.lostTracer + stats.lostLink).toBe(stats.received);
}

describe("attaching", () => {
  test("wrong cookie", async () => {
    expect(await code(attachTo(node, { cookie: "wrong" }))).toBe("BT_COOKIE_REJECTED");
    await expectClean(node);
  });
  test("no epmd", async () => {
    expect(await code(attachTo(node, { epmd: { port: await freePort() } }))).toBe("BT_EPMD_UNREACHABLE");
  });
  test("no such node", async () => {
    expect(await code(attach("nobody@127.0.0.1", { cookie: "x", epmd: { port: node.epmdPort } }))).toBe(
      "BT_NODE_NOT_FOUND",
    );
  });
  test("not an Erlang port", async () => {
    const server = createServer((socket) =>
      socket.end("HTTP/1.1 400 Bad Request\r\n\r\n").on("error", () => undefined),
    );
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    expect(
      await code(
        attach({ host: "127.0.0.1", port: (server.address() as AddressInfo).port }, { cookie: "x" }),
      ),
    ).toBe("BT_NOT_A_NODE");
    server.close();
  });
  test("aborted", async () => {
    expect(await code(attachTo(node, { signal: AbortSignal.abort() }))).toBe("BT_ABORTED");
    await expectClean(node);
  });
  test("absurd options", async () => {
    for (const bad of [
      { leaseMs: 0 },
      { callTimeoutMs: -1 },
      { tracer: "magic" as "auto" },
      { reattach: { attempts: 0 } },
    ]) {
      expect(await code(attachTo(node, bad))).toBe("BT_OPTION_INVALID");
    }
  });
});

describe("the connection goes away", () => {
  test("the node is killed mid-trace: streams complete, reasons are told", async () => {
    const session = await attachTo(node);
    await node.eval(TRAFFIC);
    const trace = await session.trace({ events: ["send", "receive"] });
    const seen = collect(trace);
    await seen.until((e) => e.length > 100);
    node.kill("SIGKILL");
    expect((await session.closed).kind).toBe("connection-lost");
    expect((await trace.ended).kind).toBe("session-closed");
    await seen.done;
    expect(await code(session.call("erlang", "node", []))).toBe("BT_CLOSED");
    expect(await code(session.trace({ events: ["send"] }))).toBe("BT_CLOSED");
  });

  test("the client is killed with -9 mid-trace", async () => {
    await node.eval(TRAFFIC);
    const client = spawn(
      process.execPath,
      ["--import", "tsx", "test/support/victim-client.ts", node.name, node.cookie, String(node.epmdPort)],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    await once(client.stdout, "data");
    expect(
      await node.eval(
        'length([M || {M, _} <- code:all_loaded(), lists:prefix("beamtrace", atom_to_list(M))])',
      ),
    ).not.toBe("0");
    client.kill("SIGKILL");
    await once(client, "exit");
    await expectClean(node, { modules: ["lists"] });
  });

  test("the socket is cut in the middle of a frame", async () => {
    const proxy = await startProxy(node);
    const session = await attach({ host: "127.0.0.1", port: proxy.port }, { cookie: node.cookie });
    await node.eval(TRAFFIC);
    const trace = await session.trace({ events: ["send", "receive"] });
    const seen = collect(trace);
    await seen.until((e) => e.length > 100);
    proxy.cutAfter(1234);
    expect((await session.closed).kind).toBe("connection-lost");
    await seen.done;
    await expectClean(node);
    await proxy.close();
  });

  test("the network goes silent: the lease fires on the node", async () => {
    const proxy = await startProxy(node);
    const session = await attach(
      { host: "127.0.0.1", port: proxy.port },
      { cookie: node.cookie, leaseMs: 1000, callTimeoutMs: 2000 },
    );
    await node.eval(TRAFFIC);
    const trace = await session.trace({ events: ["send"], calls: [{ module: "lists", function: "seq" }] });
    await collect(trace).until((e) => e.length > 10);
    proxy.stall();
    // The connection itself looks alive to the node, so its hidden peer stays; everything of ours must go within the lease.
    await eventually(
      () => node.eval(`[M || {M, _} <- code:all_loaded(), lists:prefix("beamtrace", atom_to_list(M))]`),
      (left) => left === "[]",
      3000,
    );
    await proxy.close();
    await session.close();
    await expectClean(node, { modules: ["lists"] });
  });

  test.each(["a ring of its own", "a given ring"])(
    "re-attachment goes on after the connection was cut, with a gap that says so (%s)",
    async (kind) => {
      const proxy = await startProxy(node);
      const session = await attach(
        { host: "127.0.0.1", port: proxy.port },
        { cookie: node.cookie, reattach: { minDelayMs: 20 } },
      );
      await node.eval(TRAFFIC);
      const ring = kind === "a given ring" ? { into: new RingBuffer() } : {};
      const trace = await session.trace({ events: ["send", "receive"], ...ring });
      const id = trace.id;
      const seen = collect(trace);
      const states: string[] = [];
      session.status$.subscribe((s) => states.push(s.state));
      await seen.until((e) => e.length > 100);
      proxy.cutAfter(100);
      await seen.until((e) => {
        const gap = e.findIndex((x) => x.kind === "gap" && x.hop === "reattach");
        return gap >= 0 && e.length > gap + 100;
      });
      expect(trace.id).not.toBe(id);
      expect(states).toContain("reattaching");
      expect(states.at(-1)).toBe("connected");
      await session.close();
      await proxy.close();
      await expectClean(node);
    },
  );
});

describe("on the node", () => {
  let session: Session;
  beforeEach(async () => void (session = await attachTo(node)));
  afterEach(async () => {
    await session.close();
    await expectClean(node, { modules: ["lists"] });
  });

  test("unknown module and function suggest near names", async () => {
    const unknown = session.trace({ calls: [{ module: "list", function: "seq" }] });
    await expect(unknown).rejects.toMatchObject({
      code: "BT_NO_MATCH",
      suggestions: expect.arrayContaining(["lists"]) as unknown,
    });
    const typo = session.trace({ calls: [{ module: "lists", function: "sec", arity: 2 }] });
    await expect(typo).rejects.toMatchObject({
      code: "BT_NO_MATCH",
      suggestions: expect.arrayContaining(["seq/2"]) as unknown,
    });
  });

  test("invalid specs are refused before anything is sent", async () => {
    const bad: [Parameters<Session["trace"]>[0], string][] = [
      [{ events: ["all" as "send"] }, "BT_TRACE_SPEC_INVALID"],
      [{ events: [] }, "BT_TRACE_SPEC_INVALID"],
      [{ events: ["sendd" as "send"] }, "BT_TRACE_SPEC_INVALID"],
      [{ events: ["call"] }, "BT_TRACE_SPEC_INVALID"],
      [{ events: ["send"], limits: { seconds: 0 } }, "BT_LIMIT_INVALID"],
      [{ events: ["send"], limits: { rate: -5 } }, "BT_LIMIT_INVALID"],
      [{ events: ["send"], limits: { overhead: 2 } }, "BT_LIMIT_INVALID"],
      [
        {
          events: ["send"],
          limits: { rate: Infinity, seconds: Infinity, memory: Infinity, queue: Infinity },
        },
        "BT_LIMIT_INVALID",
      ],
      [{ calls: [{ module: "_" }] }, "BT_LIMIT_INVALID"],
      [{ calls: [{ module: "lists", arity: 2 }] }, "BT_TRACE_SPEC_INVALID"],
      [{ events: ["send"], payload: { maxBytes: 0 } }, "BT_TRACE_SPEC_INVALID"],
      [{ events: ["send"], wat: 1 } as never, "BT_TRACE_SPEC_INVALID"],
      [{ processes: { registered: ["no_such_name_here"] }, events: ["send"] }, "BT_PROCESS_INVALID"],
      [{ processes: { application: "no_such_app" }, events: ["send"] }, "BT_PROCESS_INVALID"],
      [
        { calls: [{ module: "lists", function: "seq", matchSpec: [tuple(atom("nonsense"))] }] },
        "BT_MATCH_SPEC_INVALID",
      ],
    ];
    for (const [spec, expected] of bad)
      expect([spec, await code(session.trace(spec))]).toEqual([spec, expected]);
  });

  test("beamtrace's own processes and modules are not traced", async () => {
    // The holder stays when its trace has ended.
    await (await session.trace({ events: ["send"], processes: "new" })).stop();
    expect(await code(session.trace({ events: ["send"], processes: { registered: ["beamtrace_1"] } }))).toBe(
      "BT_TRACE_SELF",
    );
    expect(await code(session.trace({ calls: [{ module: "beamtrace_tracer" }] }))).toBe(
      "BT_TRACE_SPEC_INVALID",
    );
  });

  test("our own calls and connection make no events", async () => {
    const trace = await session.trace({
      processes: "all",
      events: ["procs", "send", "receive", "running", "gc"],
    });
    const seen = collect(trace);
    const ours = await session.call("erlang", "self", []);
    for (let i = 0; i < 50; i++) await session.call("lists", "seq", [1, 100]);
    await trace.stop();
    await seen.done;
    const self = session.info.self;
    const bad = seen.events.filter(
      (e) =>
        JSON.stringify(e, (_k, v: unknown) => (typeof v === "bigint" ? String(v) : v)).includes(self) &&
        e.kind !== "send",
    );
    expect(bad).toEqual([]);
    expect(ours).toBeDefined();
    expect(trace.stats.node.filtered).toBeGreaterThan(0);
  });

  test("calls under a trace of messages make no events and raise as ever", async () => {
    const trace = await session.trace({ processes: "all", events: ["send", "receive"] });
    const seen = collect(trace);
    for (let i = 0; i < 20; i++)
      await session.call("gen_server", "call", [atom("kernel_sup"), atom("which_children")]);
    await expect(session.call("erlang", "error", [atom("oops")])).rejects.toMatchObject({
      code: "BT_REMOTE_ERROR",
      class: "error",
      reason: atom("oops"),
    });
    expect(await code(session.call("timer", "sleep", [60_000], { timeoutMs: 50 }))).toBe("BT_TIMEOUT");
    await trace.stop();
    await seen.done;
    // The server's own messages are events; the caller's are not.
    const asked = seen.events.filter((e) => e.kind === "send" && e.shape.tags[0] === "$gen_call");
    expect(asked).toEqual([]);
    expect(seen.events.some((e) => e.kind === "receive" && e.shape.tags[0] === "$gen_call")).toBe(true);
  });

  test("a limit stops the trace once, says which, and leaves the session alive", async () => {
    await node.eval(TRAFFIC);
    const trace = await session.trace({ events: ["send", "receive"], limits: { events: 5000 } });
    const seen = collect(trace);
    expect(await trace.ended).toMatchObject({ kind: "limit", limit: "events", allowed: 5000 });
    await seen.done;
    await expectExact(trace, seen.events);
    const rate = await session.trace({ events: ["send", "receive"], limits: { rate: 100 } });
    expect(await rate.ended).toMatchObject({ kind: "limit", limit: "rate" });
    const seconds = await session.trace({ events: ["send"], limits: { seconds: 1 } });
    expect(await seconds.ended).toMatchObject({ kind: "limit", limit: "seconds" });
  });

  test("a slow consumer loses events to gaps that add up exactly", async () => {
    await node.eval(FLOOD);
    // The native tracer's bound is its rings, not a queue: test/live/native-overload.test.ts.
    await session.close();
    session = await attachTo(node, { tracer: "portable" });
    const trace = await session.trace({
      events: ["send", "receive"],
      limits: { queue: 4000, rate: Infinity, seconds: 30 },
    });
    const events: TraceEvent[] = [];
    let slow = true;
    const done = trace.batches$.forEach((batch) => {
      for (const event of batch) events.push(event);
      const end = performance.now() + (slow ? 60 : 0);
      while (performance.now() < end);
    });
    await Promise.race([
      trace.ended,
      eventually(
        () => trace.stats.node,
        (s) => s.lostLink + s.lostTracer > 0,
        20_000,
      ),
    ]);
    slow = false;
    await trace.stop();
    await done;
    expect(trace.stats.node.lostLink + trace.stats.node.lostTracer).toBeGreaterThan(0);
    await expectExact(trace, events);
  });

  test("a subscriber that takes its time does not keep the lease from being renewed", async () => {
    await node.eval(FLOOD);
    await using short = await attachTo(node, { leaseMs: 1000 });
    const trace = await short.trace({
      events: ["send", "receive"],
      limits: { rate: Infinity, seconds: 30, queue: Infinity, memory: Infinity },
    });
    // Twice the lease, in pieces that each leave it time.
    let batches = 0;
    const done = trace.batches$.forEach(() => {
      batches += 1;
      const end = performance.now() + (batches <= 20 ? 100 : 0);
      while (performance.now() < end);
    });
    await eventually(
      () => batches,
      (count) => count > 20,
      20_000,
    );
    expect(trace.hasEnded).toBe(false);
    await trace.stop();
    await done;
    expect(await trace.ended).toEqual({ kind: "stopped" });
  });

  test("a process with a million queued messages is not held up", async () => {
    await node.eval(
      `P = spawn(fun() -> receive go -> receive stop -> ok end end end), register(hoarder, P), [P ! {m, I} || I <- lists:seq(1, 1000000)], ok`,
    );
    const trace = await session.trace({
      processes: { registered: ["hoarder"] },
      events: ["send", "receive"],
    });
    const seen = collect(trace);
    await node.eval("hoarder ! go, ok");
    await seen.until((e) => e.length >= 1);
    await trace.stop();
    // Its receive looks through the million first.
    await eventually(
      () => node.eval("element(2, process_info(whereis(hoarder), message_queue_len))"),
      (length) => length === "1000000",
    );
    await node.eval("exit(whereis(hoarder), kill)");
  });

  test("a 200 MB message becomes a shape", async () => {
    await node.eval(
      `register(big, spawn(fun L() -> receive {go, Bin} -> byte_size(Bin), L(); _ -> L() end end)), ok`,
    );
    const trace = await session.trace({ processes: { registered: ["big"] }, events: ["receive"] });
    const seen = collect(trace);
    await node.eval(
      `big ! {go, binary:copy(<<0>>, 200 * 1024 * 1024)}, big ! binary:copy(<<0>>, 200 * 1024 * 1024), ok`,
    );
    const events = await seen.until((e) => e.length >= 2);
    expect(events).toMatchObject([
      { shape: { type: "tuple", size: 2, tags: ["go"] } },
      { shape: { type: "binary", size: 200 * 1024 * 1024 } },
    ]);
    await trace.stop();
    await node.eval("exit(whereis(big), kill)");
  });

  test("an exit storm of 100,000 processes is delivered or accounted for", async () => {
    const trace = await session.trace({
      processes: "new",
      events: ["spawned", "exit"],
      limits: { rate: Infinity, queue: 1_000_000 },
    });
    const seen = collect(trace);
    await node.eval(
      `P = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, 100000)], [X ! stop || X <- P], ok`,
    );
    await eventually(
      () => node.eval("erlang:system_info(process_count)"),
      (n) => Number(n) < 1000,
      30_000,
    );
    await trace.stop({ timeoutMs: 30_000 });
    await seen.done;
    await expectExact(trace, seen.events);
    const lost = seen.events.reduce((sum, e) => sum + (e.kind === "gap" ? e.count : 0), 0);
    const counted = seen.events.filter((e) => e.kind === "exit" || e.kind === "spawned").length;
    expect(counted + lost).toBeGreaterThanOrEqual(200_000);
  });

  test("a foreign module of the agent's name is left alone", async () => {
    await node.eval(
      `{ok, M, B} = compile:forms([{attribute,1,module,beamtrace_agent},{attribute,1,export,[{mine,0}]},{function,1,mine,0,[{clause,1,[],[],[{atom,1,yes}]}]}], []), code:load_binary(M, "mine.erl", B)`,
    );
    expect(await code(session.trace({ events: ["send"] }))).toBe("BT_AGENT_CLASH");
    expect(await node.eval("beamtrace_agent:mine()")).toBe("yes");
    await node.eval("code:delete(beamtrace_agent), code:purge(beamtrace_agent)");
  });

  test("another tool's trace is respected", async () => {
    await node.eval(
      `T = spawn(fun L() -> receive _ -> L() end end), register(other_tool, T), erlang:trace(whereis(init), true, [send, {tracer, T}])`,
    );
    if (session.info.capabilities.traceSessions) {
      const trace = await session.trace({ events: ["send"] });
      await trace.stop();
      expect(await node.eval("erlang:trace_info(whereis(init), flags)")).toBe("{flags,[send]}");
    } else {
      expect(await code(session.trace({ events: ["send"] }))).toBe("BT_TRACER_BUSY");
      expect(await node.eval("erlang:trace_info(whereis(init), flags)")).toBe("{flags,[send]}");
      const trace = await session.trace({ events: ["send"], takeOver: true });
      await trace.stop();
    }
    await node.eval("erlang:trace(all, false, [all]), exit(whereis(other_tool), kill)");
  });

  test("a reloaded module is traced again, and an event says so", async () => {
    const compile = (value: number): Promise<string> =>
      node.eval(
        `{ok, M, B} = compile:forms([{attribute,1,module,reloadee},{attribute,1,export,[{f,0}]},{function,1,f,0,[{clause,1,[],[],[{integer,1,${value}}]}]}], []), code:purge(M), {module, _} = code:load_binary(M, "reloadee.erl", B), ok`,
      );
    await compile(1);
    const trace = await session.trace({ calls: [{ module: "reloadee", function: "f", arity: 0 }] });
    const seen = collect(trace);
    await node.eval("reloadee:f()");
    await seen.until((e) => e.some((x) => x.kind === "call"));
    await compile(2);
    await seen.until((e) => e.some((x) => x.kind === "marker" && x.name === "module_reloaded"));
    const before = seen.events.length;
    await node.eval("reloadee:f()");
    await seen.until((e) => e.slice(before).some((x) => x.kind === "call"));
    await trace.stop();
    await node.eval("code:purge(reloadee), code:delete(reloadee), code:purge(reloadee)");
  });

  test("killing the holder ends the session with its reason; killing a tracer ends that trace", async () => {
    const trace = await session.trace({ events: ["send"], calls: [{ module: "lists", function: "seq" }] });
    await node.eval(
      `[exit(P, kill) || P <- processes(), {initial_call, {beamtrace_agent, F, _}} <- [process_info(P, initial_call)], F =:= tracer_init orelse F =:= rings_init]`,
    );
    expect((await trace.ended).kind).toBe("tracer-died");
    const again = await session.trace({ events: ["send"], calls: [{ module: "lists", function: "seq" }] });
    await node.eval("exit(whereis(beamtrace_1), kill)");
    expect((await session.closed).kind).toBe("agent-lost");
    expect((await again.ended).kind).toBe("session-closed");
  });
});
