/** The check for leftovers must itself find what it looks for: each kind is planted once. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectClean, leftovers } from "../support/clean";
import { startNode, type ErlNode } from "../support/erl-node";

let node: ErlNode;
beforeAll(async () => void (node = await startNode()));
afterAll(() => node.stop());

test("an untouched node is clean", async () => {
  expect(await leftovers(node, ["lists"])).toBe("[]");
});

test("flags, breakpoints, names and processes are found", async () => {
  await node.eval(`P = spawn(fun() -> receive stop -> ok end end), register(beamtrace_1, P), erlang:trace(P, true, [send, {tracer, whereis(init)}]),
    erlang:trace_pattern({lists, seq, 2}, true, [local]), erlang:trace(new_processes, true, [procs, {tracer, whereis(init)}])`);
  const left = await leftovers(node, ["lists"]);
  expect(left).toContain("{flags,");
  expect(left).toContain("{new_processes,[procs]}");
  expect(left).toContain("{name,beamtrace_1}");
  expect(left).toContain("{breakpoint,{lists,seq,2},local}");
  await node.eval(
    `erlang:trace(all, false, [all]), erlang:trace_pattern({'_', '_', '_'}, false, [local]), beamtrace_1 ! stop`,
  );
  expect(await leftovers(node, ["lists"])).toBe("[]");
});

test("a module of ours is found", async () => {
  await node.eval(
    `{ok, M, B} = compile:forms([{attribute,1,module,beamtrace_agent}], []), code:load_binary(M, "x", B)`,
  );
  expect(await leftovers(node)).toContain("{module,beamtrace_agent}");
  await node.eval(`code:delete(beamtrace_agent), code:purge(beamtrace_agent)`);
  expect(await leftovers(node)).toBe("[]");
});

test("a trace session is found where there are sessions", async () => {
  if ((await node.eval("code:which(trace)")) === "non_existing") return;
  await node.eval(
    `Me = self(), spawn(fun() -> register(keeper, self()), S = apply(trace, session_create, [beamtrace, self(), []]), Me ! kept, receive stop -> S end end), receive kept -> ok end`,
  );
  expect(await leftovers(node)).toContain("session");
  await node.eval(`M = monitor(process, keeper), keeper ! stop, receive {'DOWN', M, _, _, _} -> ok end`);
  await expectClean(node);
});
