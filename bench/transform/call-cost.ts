/**
 * What an instrumented call costs while nobody traces, and with the tracing runtime, against the same function plain and against
 * OTP's own call trace with return; and the memory of a server loop of 100 million instrumented turns. One node, short blocks in turn.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { instrumentBeam, startCompileServer } from "../../src/transform";
import { RUNTIME_OFF, RUNTIME_ON } from "../../src/transform/beam-code.generated";
import { startNode, type ErlNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { formatEstimate, medianEstimate } from "../server/statistics";

/** The functions under test; the loops around them are never instrumented. */
const source = (module: string): string => `-module(${module}).
-export([leaf/2, pass/2, blocks/3, turns/1]).
leaf(X, Y) -> {X + Y, Y}.
pass(X, Y) -> leaf2(X, Y).
leaf2(X, Y) -> {X, Y}.
loop_leaf(0) -> ok;
loop_leaf(N) -> leaf(N, N), loop_leaf(N - 1).
loop_pass(0) -> ok;
loop_pass(N) -> pass(N, N), loop_pass(N - 1).
%% Nanoseconds a call of each of Blocks blocks.
blocks(Which, Blocks, N) ->
    F = case Which of leaf -> fun loop_leaf/1; pass -> fun loop_pass/1 end,
    [begin T = erlang:monotonic_time(nanosecond), F(N), (erlang:monotonic_time(nanosecond) - T) / N end || _ <- lists:seq(1, Blocks)].
turns(0) -> process_info(self(), [stack_size, total_heap_size, memory]);
turns(N) -> case N rem 2 of 0 -> turns(N - 1); 1 -> step(N) end.
step(N) -> N > 0 andalso turns(N - 1).
`;

const INSTRUMENTED = new Set(["leaf", "pass", "leaf2", "turns", "step"]);

async function load(node: ErlNode, module: string, beam: string): Promise<void> {
  const loaded = await node.eval(
    `code:purge(${module}), code:load_binary(${module}, "${module}.beam", base64:decode("${beam}"))`,
  );
  if (loaded !== `{module,${module}}`) throw new Error(loaded);
}

async function prepare(node: ErlNode): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "beamtrace-call-cost-"));
  await using compiler = await startCompileServer();
  try {
    for (const module of ["cost_plain", "cost_told"]) {
      writeFileSync(join(folder, `${module}.erl`), source(module));
      execFileSync("erlc", ["+debug_info", "-o", folder, join(folder, `${module}.erl`)]);
      const plain = readFileSync(join(folder, `${module}.beam`));
      const bytes =
        module === "cost_plain"
          ? plain
          : (await instrumentBeam(plain, compiler, { select: (f) => INSTRUMENTED.has(f.function) })).bytes;
      await load(node, module, Buffer.from(bytes).toString("base64"));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Added nanoseconds a call, block by block, of the instrumented over the plain one. */
async function added(node: ErlNode, which: string, rounds: number, calls: number): Promise<number[]> {
  const text = await node.eval(
    `lists:append([begin
       [P | _] = lists:sort(cost_plain:blocks(${which}, 3, ${calls})),
       [T | _] = lists:sort(cost_told:blocks(${which}, 3, ${calls})),
       [T - P]
     end || _ <- lists:seq(1, ${rounds})])`,
  );
  return JSON.parse(text) as number[];
}

/** Nanoseconds a call of the plain function under OTP's call trace with return, sent to a tracer that throws all away. */
async function otpCallTrace(node: ErlNode, calls: number): Promise<number[]> {
  const text = await node.eval(
    `Tracer = spawn(fun() -> process_flag(message_queue_data, off_heap), F = fun G() -> receive stop -> ok; _ -> G() end end, F() end),
     1 = erlang:trace_pattern({cost_plain, leaf, 2}, [{'_', [], [{return_trace}]}], [local]),
     1 = erlang:trace(self(), true, [call, {tracer, Tracer}]),
     R = cost_plain:blocks(leaf, 20, ${calls}),
     erlang:trace(self(), false, [call]), erlang:trace_pattern({cost_plain, leaf, 2}, false, [local]), Tracer ! stop, R`,
  );
  return JSON.parse(text) as number[];
}

export async function run(quick: boolean): Promise<Row[]> {
  const node = await startNode({ distributed: false });
  try {
    await prepare(node);
    const rounds = quick ? 60 : 300;
    const calls = 50_000;
    const rows: Row[] = [];
    const cost = async (what: string, which: string, target: number | undefined): Promise<void> => {
      const estimate = medianEstimate(await added(node, which, rounds, calls));
      rows.push({
        what,
        target: target === undefined ? "" : `≤ ${target} ns`,
        measured: `${formatEstimate(estimate)} ns a call over plain`,
        value: estimate.value,
        ok: target === undefined || estimate.value <= target,
      });
    };
    await load(node, "beamtrace_rt", RUNTIME_OFF);
    await cost("tracing off: entry and return", "leaf", 5);
    await cost("tracing off: tail call (two instrumented frames)", "pass", 10);
    await load(node, "beamtrace_rt", RUNTIME_ON);
    await cost("tracing runtime, process not traced: entry and return", "leaf", undefined);
    const otp = medianEstimate(await otpCallTrace(node, 5_000));
    rows.push({
      ...{ what: "for comparison: OTP's call trace with return", target: "", ok: true, value: otp.value },
      measured: `${formatEstimate(otp, 0)} ns a call`,
    });
    for (const [name, runtime] of [["off", RUNTIME_OFF] as const, ["on", RUNTIME_ON] as const]) {
      await load(node, "beamtrace_rt", runtime);
      const turns = quick || name === "on" ? 10_000_000 : 100_000_000;
      const sizes = async (count: number): Promise<number[]> =>
        [...(await node.eval(`cost_told:turns(${count})`)).matchAll(/,(\d+)\}/g)].map((m) => Number(m[1]));
      const [stack = 0, heap = 0] = await sizes(1000);
      const [stackAfter = 1, heapAfter = 1] = await sizes(turns);
      rows.push({
        what: `a loop of ${turns / 1e6} million instrumented turns, runtime ${name}`,
        target: "stack and heap as after 1,000",
        measured: `stack ${stack} → ${stackAfter} words, heap ${heap} → ${heapAfter} words`,
        value: stackAfter,
        ok: stackAfter === stack && heapAfter <= 4 * heap,
      });
    }
    return rows;
  } finally {
    await node.stop();
  }
}
