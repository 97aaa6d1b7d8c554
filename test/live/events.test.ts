/** Each kind of event on a real node: what happened there is what arrives, once, in per-process order. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { EventKind, EventOf, TraceEvent } from "../../src/buffer";
import type { Session } from "../../src/capture";
import { atom, equals, inspect, Pid, tuple } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { startNode, type ErlNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";

let node: ErlNode;
let session: Session;

beforeAll(async () => {
  node = await startNode();
  session = await attachTo(node);
});
afterEach(async () => {
  for (const trace of session.traces) await trace.stop();
});
afterAll(async () => {
  await session.close();
  await expectClean(node, { modules: ["lists", "maps"] });
  await node.stop();
});

/** A process on the node that evaluates funs sent to it; its pid. */
async function subject(): Promise<Pid> {
  const name = `subject_${Math.floor(Math.random() * 1e9)}`;
  await node.eval(
    `P = spawn(fun L() -> receive {run, F} -> F(), L(); stop -> ok end end), register(${name}, P)`,
  );
  const pid = await session.call("erlang", "whereis", [atom(name)]);
  if (!(pid instanceof Pid)) throw new Error("no subject");
  names.set(pid, name);
  return pid;
}
const names = new Map<Pid, string>();
const run = (pid: Pid, body: string): Promise<string> =>
  node.eval(`${names.get(pid)} ! {run, fun() -> ${body} end}, ok`);
const kinds = (events: readonly TraceEvent[]): string[] => events.map((e) => e.kind);
const find = <K extends EventKind>(events: readonly TraceEvent[], kind: K): EventOf<K> => {
  const event = events.find((e) => e.kind === kind);
  if (event === undefined) throw new Error(`no ${kind} among ${kinds(events).join(" ")}`);
  return event as EventOf<K>;
};

describe("processes", () => {
  test("spawn and spawned name both processes, the function, and the initial call behind proc_lib", async () => {
    const pid = await subject();
    const trace = await session.trace({
      processes: [pid],
      events: ["spawn", "spawned", "exit"],
      inherit: "spawn",
    });
    const seen = collect(trace);
    await run(pid, "proc_lib:spawn(lists, seq, [1, 3])");
    const events = await seen.until((e) => e.some((x) => x.kind === "exit"));
    const spawn = find(events, "spawn");
    const spawned = find(events, "spawned");
    expect(equals(spawn.process, pid)).toBe(true);
    expect(equals(spawn.child, spawned.process)).toBe(true);
    expect(equals(spawned.parent, pid)).toBe(true);
    expect(spawn.mfa.module).toBe("proc_lib");
    expect(spawn.initialCall).toEqual({ module: "lists", function: "seq", arity: 2 });
    expect(find(events, "exit").reason.tags).toEqual(["normal"]);
    expect(events.every((e) => e.timestamp >= 0 || e.kind === "gap")).toBe(true);
  });

  test("link, unlink and their other sides", async () => {
    const a = await subject();
    const b = await subject();
    const trace = await session.trace({
      processes: [a, b],
      events: ["link", "unlink", "getting_linked", "getting_unlinked"],
    });
    const seen = collect(trace);
    await run(a, `link(whereis(${names.get(b)})), unlink(whereis(${names.get(b)}))`);
    const events = await seen.until((e) => e.length >= 4);
    expect(kinds(events).sort()).toEqual(["getting_linked", "getting_unlinked", "link", "unlink"]);
    expect(equals(find(events, "link").other, b)).toBe(true);
    expect(equals(find(events, "getting_linked").other, a)).toBe(true);
  });

  test("register and unregister", async () => {
    const a = await subject();
    const trace = await session.trace({ processes: [a], events: ["register", "unregister"] });
    const seen = collect(trace);
    await run(
      a,
      `unregister(${names.get(a)}), register(other_name, self()), unregister(other_name), register(${names.get(a)}, self())`,
    );
    const events = await seen.until((e) => e.length >= 4);
    expect(kinds(events)).toEqual(["unregister", "register", "unregister", "register"]);
    expect(find(events, "register").name).toBe("other_name");
  });

  test("an exit reason comes as shape with its leading atoms", async () => {
    const a = await subject();
    const trace = await session.trace({ processes: [a], events: ["exit"] });
    const seen = collect(trace);
    await run(a, "exit({shutdown, {because, 1}})");
    const [event] = await seen.until((e) => e.length >= 1);
    expect(event).toMatchObject({
      kind: "exit",
      reason: { type: "tuple", size: 2, tags: ["shutdown", "because"] },
    });
  });
});

describe("messages", () => {
  test("send tells receiver and shape; names, pids and aliases are told apart", async () => {
    const a = await subject();
    const b = await subject();
    const trace = await session.trace({ processes: [a], events: ["send"] });
    const seen = collect(trace);
    const name = names.get(b) ?? "";
    await run(
      a,
      `B = whereis(${name}), B ! {hello, 1}, ${name} ! [1, 2, 3], B ! <<"bytes">>, Alias = alias(), Alias ! #{a => 1}, B ! 12345678901234567890`,
    );
    // The interpreted fun may load a module on its way; that is not what is looked for here.
    const own = (all: readonly TraceEvent[]): readonly TraceEvent[] =>
      all.filter((e) => !(e.kind === "send" && ["code_server", "code_call"].includes(e.shape.tags[0] ?? "")));
    const events = own(await seen.until((e) => own(e).length >= 5));
    expect(events).toMatchObject([
      { kind: "send", shape: { type: "tuple", size: 2, tags: ["hello"] } },
      { kind: "send", shape: { type: "list", size: 3, tags: [] } },
      { kind: "send", shape: { type: "binary", size: 5 } },
      { kind: "send", shape: { type: "map", size: 1 } },
      { kind: "send", shape: { type: "integer" } },
    ]);
    const to = events.map((e) => (e.kind === "send" ? e.to : undefined));
    expect(equals(to[0] ?? 0, b)).toBe(true);
    expect(inspect(to[1] ?? 0)).toBe(name);
    expect(inspect(to[3] ?? 0)).toMatch(/^#Ref</);
  });

  test("a gen_server call shows the request's own tag", async () => {
    const a = await subject();
    const trace = await session.trace({ processes: [a], events: ["send", "receive"] });
    const seen = collect(trace);
    await run(a, "gen_server:call(kernel_sup, which_children)");
    const events = await seen.until((e) =>
      e.some((x) => x.kind === "send" && x.shape.tags[0] === "$gen_call"),
    );
    expect(find(events, "send").shape.tags).toEqual(["$gen_call", "which_children"]);
  });

  test("sending to a process that has ended is told apart", async () => {
    const a = await subject();
    const trace = await session.trace({ processes: [a], events: ["send"] });
    const seen = collect(trace);
    await run(
      a,
      "P = spawn(fun() -> ok end), M = monitor(process, P), receive {'DOWN', M, _, _, _} -> P ! late end",
    );
    const events = await seen.until((e) => e.some((x) => x.kind === "send_to_non_existing_process"));
    expect(find(events, "send_to_non_existing_process").shape.tags).toEqual(["late"]);
  });

  test("receive comes once per message, in order", async () => {
    const a = await subject();
    const trace = await session.trace({ processes: [a], events: ["receive"] });
    const seen = collect(trace);
    await node.eval(`[${names.get(a)} ! {n, I} || I <- lists:seq(1, 2000)], ok`);
    const events = await seen.until((e) => e.length >= 2000);
    expect(events).toHaveLength(2000);
    expect(events.every((e, i) => i === 0 || e.timestamp >= (events[i - 1]?.timestamp ?? 0))).toBe(true);
  });

  test("contents travel when asked for, cut and redacted on the node", async () => {
    const a = await subject();
    const trace = await session.trace({ processes: [a], events: ["receive"], payload: { maxBytes: 200 } });
    const seen = collect(trace);
    await node.eval(
      `${names.get(a)} ! {login, #{user => <<"ann">>, password => <<"secret1">>}}, ${names.get(a)} ! {big, binary:copy(<<"x">>, 100000)}`,
    );
    const events = await seen.until((e) => e.length >= 2);
    const [login, big] = events.map((e) => (e.kind === "receive" ? e.payload : undefined));
    const text = inspect(login ?? 0);
    expect(text).toContain("ann");
    expect(text).not.toContain("secret1");
    expect(inspect(big ?? 0).length).toBeLessThan(400);
  });

  test("without asking, no content leaves the node", async () => {
    const a = await subject();
    const trace = await session.trace({ processes: [a], events: ["receive"] });
    const seen = collect(trace);
    await node.eval(`${names.get(a)} ! {login, <<"topsecret">>}`);
    const [event] = await seen.until((e) => e.length >= 1);
    expect(event).toMatchObject({ kind: "receive", payload: undefined });
  });
});

describe("calls", () => {
  test("call, return_from and exception_from with class", async () => {
    const a = await subject();
    const trace = await session.trace({
      processes: [a],
      calls: [{ module: "maps", function: "get", arity: 2, exceptions: true, caller: true }],
    });
    expect(trace.matched).toBe(1);
    const seen = collect(trace);
    await run(a, "M = maps:from_list([{a, {ok, 1}}]), maps:get(a, M), catch maps:get(b, M)");
    const events = await seen.until((e) => e.some((x) => x.kind === "exception_from"));
    const mfa = { module: "maps", function: "get", arity: 2 };
    expect(events).toMatchObject([
      { kind: "call", mfa, shape: { type: "args", size: 2, tags: ["a"] } },
      { kind: "return_from", mfa, shape: { type: "tuple", size: 2, tags: ["ok"] } },
      { kind: "call", mfa },
      { kind: "exception_from", mfa, class: "error", shape: { type: "tuple", tags: ["badkey", "b"] } },
    ]);
    expect(find(events, "call").caller).toBeDefined();
  });

  test("arguments and results travel when asked for", async () => {
    const a = await subject();
    const trace = await session.trace({
      processes: [a],
      calls: [{ module: "lists", function: "seq", arity: 2, returns: true }],
      payload: { maxBytes: 1000 },
    });
    const seen = collect(trace);
    await run(a, "lists:seq(1, 3)");
    const events = await seen.until((e) => e.some((x) => x.kind === "return_from"));
    expect(find(events, "call").payload).toEqual([1, 3]);
    expect(find(events, "return_from").payload).toEqual([1, 2, 3]);
  });

  test("return_to tells where control goes", async () => {
    const a = await subject();
    const trace = await session.trace({
      processes: [a],
      events: ["call", "return_to"],
      calls: [
        { module: "lists", function: "seq", arity: 2 },
        { module: "lists", function: "sum", arity: 1 },
      ],
    });
    const seen = collect(trace);
    await run(a, "lists:sum(lists:seq(1, 3)) + 1");
    const events = await seen.until((e) => kinds(e).filter((k) => k === "return_to").length >= 2);
    expect(kinds(events).slice(0, 2)).toEqual(["call", "return_to"]);
  });

  test("a match specification decides on the node", async () => {
    const a = await subject();
    const spec = [tuple([atom("$1"), atom("_")], [tuple(atom(">"), atom("$1"), 5)], [])];
    const trace = await session.trace({
      processes: [a],
      calls: [{ module: "lists", function: "seq", arity: 2, matchSpec: spec }],
    });
    const seen = collect(trace);
    await run(a, "lists:seq(1, 2), lists:seq(7, 8), lists:seq(2, 3), lists:seq(6, 9)");
    await seen.until((e) => e.length >= 2);
    await trace.stop();
    await seen.done;
    expect(kinds(seen.events)).toEqual(["call", "call"]);
  });
});

describe("scheduling, memory, ports", () => {
  test("in and out alternate, with scheduler ids", async () => {
    const a = await subject();
    const trace = await session.trace({ processes: [a], events: ["running"] });
    const seen = collect(trace);
    await run(a, "[erlang:yield() || _ <- lists:seq(1, 20)]");
    const events = await seen.until((e) => e.length >= 20);
    const first = kinds(events)[0];
    expect(kinds(events).every((k, i) => (k === first) === (i % 2 === 0))).toBe(true);
    expect(events.every((e) => "scheduler" in e && (e.scheduler ?? 0) >= 1)).toBe(true);
  });

  test("garbage collections come in pairs, with sizes in words", async () => {
    const a = await subject();
    const trace = await session.trace({ processes: [a], events: ["gc"] });
    const seen = collect(trace);
    await run(a, "erlang:garbage_collect()");
    const events = await seen.until((e) => e.some((x) => x.kind === "gc_major_end"));
    const end = find(events, "gc_major_end");
    expect(end.heap_block_size).toBeGreaterThan(0);
    expect(kinds(events).filter((k) => k.endsWith("_start")).length).toBe(
      kinds(events).filter((k) => k.endsWith("_end")).length,
    );
  });

  test("ports: opened, used, closed", async () => {
    const trace = await session.trace({ processes: "none", ports: "new", events: ["ports"] });
    const seen = collect(trace);
    await node.eval(`P = open_port({spawn, "cat"}, []), port_close(P), ok`);
    const events = await seen.until((e) => e.some((x) => x.kind === "closed"));
    expect(find(events, "open").name).toBe("cat");
    expect(find(events, "closed").reason.tags).toEqual(["normal"]);
  });
});
