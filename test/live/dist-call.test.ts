import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RemoteError, type NodeLink } from "../../src/erlang/dist";
import { atom, binary, charlist, tuple, type Pid, type Term } from "../../src/erlang/term";
import { eventually, startNode, type ErlNode } from "../support/erl-node";
import { connectTo, evalOn } from "./dist-eval";

let node: ErlNode;
let link: NodeLink;

beforeAll(async () => {
  node = await startNode();
  link = await connectTo(node);
});
afterAll(async () => {
  await link.close();
  await node.stop();
});

const INFINITY = atom("infinity");

function failure(promise: Promise<unknown>): Promise<RemoteError> {
  return promise.then(
    () => expect.unreachable("it should have failed"),
    (error: unknown) => error as RemoteError,
  );
}

function sleepers(): Promise<string> {
  return node.eval(
    "length([P || P <- processes(), process_info(P, current_function) =:= {current_function, {timer, sleep, 1}}])",
  );
}

describe.each(["spawn", "rex"] as const)("by %s", (method) => {
  const call = (module: string, fn: string, args: Term[]): Promise<Term> =>
    link.call(module, fn, args, { method, timeoutMs: 30_000 });

  test("a value", async () => {
    expect(await call("erlang", "node", [])).toBe(atom(node.name));
    expect(await call("lists", "reverse", [[1, atom("a"), binary("b")]])).toEqual([
      binary("b"),
      atom("a"),
      1,
    ]);
  });

  test("exit and error", async () => {
    expect(await failure(call("erlang", "exit", [tuple(atom("bad"), 1)]))).toMatchObject({
      code: "BT_REMOTE_ERROR",
      class: "exit",
      reason: tuple(atom("bad"), 1),
    });
    const error = await failure(call("erlang", "error", [atom("boom")]));
    expect(error).toBeInstanceOf(RemoteError);
    expect(error).toMatchObject({ class: "error", reason: atom("boom") });
    expect(error.message).toContain("erlang:error/1");
    expect(Array.isArray(error.stacktrace)).toBe(true);
  });

  test("a function that does not exist", async () => {
    const error = await failure(call("lists", "no_such_function", [1]));
    expect(error).toMatchObject({ class: "error", reason: atom("undef") });
    expect(error.message).toContain("undef");
    expect(await failure(call("no_such_module", "f", []))).toMatchObject({ reason: atom("undef") });
  });

  test("one hundred at the same time", async () => {
    const calls = Array.from({ length: 100 }, (_, n) => call("erlang", "abs", [-n]));
    expect(await Promise.all(calls)).toEqual(Array.from({ length: 100 }, (_, n) => n));
  });

  test("time-out and abort", async () => {
    const late = link.call("timer", "sleep", [3_600_000], { method, timeoutMs: 50 });
    await expect(late).rejects.toMatchObject({ code: "BT_TIMEOUT" });
    const controller = new AbortController();
    const call = link.call("timer", "sleep", [3_600_000], { method, signal: controller.signal });
    controller.abort(new Error("because"));
    await expect(call).rejects.toMatchObject({ code: "BT_ABORTED", cause: new Error("because") });
    const never = link.call("timer", "sleep", [INFINITY], { method, signal: AbortSignal.abort() });
    await expect(never).rejects.toMatchObject({ code: "BT_ABORTED" });
    // Those by spawn_request are gone; rex has no way to stop one: end them here.
    if (method === "spawn") await eventually(sleepers, (v) => v === "0");
    else
      await node.eval(
        "[exit(P, kill) || P <- processes(), process_info(P, current_function) =:= {current_function, {timer, sleep, 1}}]",
      );
  });

  test("300 kB and 20 MB both ways", async () => {
    for (const size of [300_000, 20_000_000]) {
      const bytes = new Uint8Array(size).fill(7);
      bytes[size - 1] = 9;
      const back = (await call("binary", "copy", [bytes, 1])) as Uint8Array;
      expect(Buffer.compare(back, bytes)).toBe(0);
    }
  });
});

test("a thrown term", async () => {
  expect(await failure(link.call("erlang", "throw", [charlist("ball")]))).toMatchObject({
    class: "throw",
    reason: charlist("ball"),
  });
});

test("the process that runs it is killed", async () => {
  const error = await failure(evalOn(link, "exit(self(), kill), receive after infinity -> ok end"));
  expect(error).toMatchObject({ class: "exit", reason: atom("killed") });
});

test("arguments that are no terms reject, nothing is sent, the link goes on", async () => {
  await expect(link.call("erlang", "abs", ["x" as unknown as Term])).rejects.toMatchObject({
    code: "BT_NOT_ENCODABLE",
  });
  expect(await link.call("erlang", "abs", [-3])).toBe(3);
});

test("a 200 MB binary arrives whole", async () => {
  const bytes = (await link.call("binary", "copy", [binary("0123456789"), 20_000_000])) as Uint8Array;
  expect(bytes.length).toBe(200_000_000);
  for (let at = 0; at < bytes.length; at += 9_999_991) expect(bytes[at]).toBe(0x30 + (at % 10));
});

test("a 200 MB binary is sent whole", async () => {
  const bytes = Buffer.alloc(200_000_000, "0123456789");
  expect(await link.call("erlang", "md5", [bytes])).toEqual(
    new Uint8Array((await import("node:crypto")).createHash("md5").update(bytes).digest()),
  );
});

describe("output of what we start", () => {
  test("goes to onOutput, in order, from whoever prints", async () => {
    let text = "";
    const from = new Set<Pid>();
    const off = link.onOutput((part, pid) => {
      text += part;
      from.add(pid);
    });
    await link.call("io", "format", [charlist("~s ~ts~n"), [charlist("a"), [0x20ac]]]);
    await link.call("io", "put_chars", [binary("grüße\n")]);
    await link.call("io", "put_chars", [atom("standard_io"), [[0x1f600], binary("\n")]]);
    await link.call("io", "write", [tuple(atom("x"), 1)]);
    await link.call("io", "nl", []);
    await evalOn(
      link,
      '[io:format("~w ", [N]) || N <- lists:seq(1, 50)], spawn(fun() -> io:fwrite("child") end)',
    );
    await eventually(
      () => text,
      (t) => t.endsWith("child"),
    );
    const numbers = Array.from({ length: 50 }, (_, n) => `${n + 1} `).join("");
    expect(text).toBe(`a €\ngrüße\n😀\n{x,1}\n${numbers}child`);
    expect(from.size).toBeGreaterThan(1);
    off();
    await link.call("io", "put_chars", [binary("unheard")]);
    expect(text).toMatch(/child$/);
  });

  test("input and device options are refused, bad characters too", async () => {
    const notSupported = tuple(atom("error"), atom("enotsup"));
    expect(await link.call("io", "get_line", [charlist("> ")])).toEqual(notSupported);
    expect(await link.call("io", "getopts", [])).toEqual(notSupported);
    expect(await link.call("io", "setopts", [[atom("binary")]])).toEqual(notSupported);
    const request = `R = make_ref(), G = group_leader(), G ! {io_request, self(), R, Req}, receive {io_reply, R, A} -> A end`;
    const ask = (req: Term): Promise<Term> => evalOn(link, request, { Req: req });
    const badarg = tuple(atom("error"), atom("badarg"));
    expect(await ask(tuple(atom("put_chars"), atom("unicode"), new Uint8Array([0xff])))).toEqual(badarg);
    expect(await ask(tuple(atom("put_chars"), atom("unicode"), atom("io_lib"), atom("nope"), []))).toEqual(
      atom("ok"),
    );
    const off = link.onOutput(() => undefined);
    expect(await ask(tuple(atom("put_chars"), atom("unicode"), atom("io_lib"), atom("nope"), []))).toEqual(
      badarg,
    );
    expect(
      await ask(tuple(atom("requests"), [tuple(atom("put_chars"), atom("unicode"), [65]), atom("x")])),
    ).toEqual(notSupported);
    expect(await ask(atom("nonsense"))).toEqual(notSupported);
    off();
  });
});
