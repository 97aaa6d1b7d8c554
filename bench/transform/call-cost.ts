/**
 * What an instrumented call costs while nobody traces, and under a session's trace, native and portable, that ships its events, against the same
 * function plain and against OTP's own call trace with return; and the memory of a server loop of 100 million instrumented turns. One node,
 * short blocks in turn: plain, instrumented, plain. A round's blocks fit into the rings, and the next round waits until they have been shipped: a
 * lost event would cost less.
 *
 * A processor of a virtual machine is often half of a core, whose other half is somebody else's: then all that is not waiting takes up to twice as
 * long, in turns of milliseconds to minutes. The plain blocks on both sides of an instrumented one show it. What a call costs is taken where both
 * took hardly more than the fastest hundredth of all plain blocks; the figure of all blocks stands beside it.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { instrumentBeam, startCompileServer } from "../../src/transform";
import type { Trace } from "../../src/capture";
import { RUNTIME_OFF } from "../../src/transform/beam-code.generated";
import { eventually, startNode, type ErlNode } from "../../test/support/erl-node";
import { attachTo } from "../../test/support/traced";
import type { Row } from "../row";
import { bootstrap, formatEstimate, medianEstimate, quantile } from "../server/statistics";

/** The functions under test; the loops around them are never instrumented. */
const source = (module: string): string => `-module(${module}).
-export([leaf/2, pass/2, blocks/3, in_turn/5, turns/1]).
leaf(X, Y) -> {X + Y, Y}.
pass(X, Y) -> leaf2(X, Y).
leaf2(X, Y) -> {X, Y}.
loop_leaf(0) -> ok;
loop_leaf(N) -> leaf(N, N), loop_leaf(N - 1).
loop_pass(0) -> ok;
loop_pass(N) -> pass(N, N), loop_pass(N - 1).
%% Nanoseconds a call of Blocks blocks of the one module, each followed by one of the other, and of one more of the first.
in_turn(Which, Other, Blocks, N, M) ->
    [lists:append(blocks(Which, 1, N), Other:blocks(Which, 1, M)) || _ <- lists:seq(1, Blocks)] ++ [blocks(Which, 1, N)].
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

/** An instrumented block between two plain ones: nanoseconds a call. */
interface Block {
  readonly told: number;
  readonly plain: readonly [before: number, after: number];
}

/** Blocks of the plain and of the instrumented module in turn, of so many calls each. */
async function inTurn(
  node: ErlNode,
  which: string,
  blocks: number,
  plain: number,
  told: number,
): Promise<Block[]> {
  const times = (
    JSON.parse(
      await node.eval(`lists:append(cost_plain:in_turn(${which}, cost_told, ${blocks}, ${plain}, ${told}))`),
    ) as number[]
  ).values();
  const next = (): number => times.next().value ?? NaN;
  const found: Block[] = [];
  for (let before = next(); found.length < blocks;) {
    const told = next();
    const after = next();
    found.push({ told, plain: [before, after] });
    before = after;
  }
  return found;
}

/** How much slower than the fastest hundredth a plain block may be where the core is taken to be the VM's alone. */
const ALONE = 1.05;

/** Nanoseconds that an instrumented call takes more than a plain one: where nobody else was on the core, and in all blocks. */
function addedBy(blocks: readonly Block[]): { alone: number[]; all: number[] } {
  const least = quantile(
    blocks.flatMap((block) => block.plain),
    0.01,
  );
  const added = ({ told, plain }: Block): number => told - (plain[0] + plain[1]) / 2;
  return {
    alone: blocks.filter((block) => Math.max(...block.plain) <= ALONE * least).map(added),
    all: blocks.map(added),
  };
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

const meanEstimate = (values: readonly number[]) =>
  bootstrap(values, (samples) => samples.reduce((sum, value) => sum + value, 0) / samples.length);

/** A trace of everything that the instrumented module tells, and how many events have come. */
interface Told {
  readonly trace: Trace;
  readonly delivered: () => number;
  close(): Promise<void>;
}

async function traced(node: ErlNode, tracer: "native" | "portable"): Promise<Told> {
  const session = await attachTo(node, { tracer });
  let delivered = 0;
  const trace = await session.trace({
    instrumented: true,
    limits: { rate: Infinity, seconds: 3600 },
  });
  trace.batches$.subscribe((batch) => (delivered += batch.length));
  return { trace, delivered: () => delivered, close: () => session.close() };
}

/** Calls of a plain block under a trace, where an instrumented one has fewer: what is on the core may change within a block that takes long. */
const PLAIN_CALLS = 1_000;

/** Rounds of blocks in turn; under a trace, each waits until its events are here. */
async function rounds(
  node: ErlNode,
  count: number,
  which: "leaf" | "pass",
  blocks: number,
  calls: number,
  told?: Told,
): Promise<Block[]> {
  const found: Block[] = [];
  const perCall = which === "leaf" ? 2 : 4;
  for (let round = 0; round < count; round++) {
    const before = told?.delivered() ?? 0;
    found.push(...(await inTurn(node, which, blocks, told ? PLAIN_CALLS : calls, calls)));
    if (told)
      await eventually(
        () => told.delivered() - before,
        (delivered) => delivered >= blocks * calls * perCall,
        30_000,
      );
  }
  if (told) {
    const { lost, node: figures } = told.trace.stats;
    if (lost > 0 || figures.lostTracer > 0)
      throw new Error(`${lost} events were lost: the figure would be too low`);
  }
  return found;
}

/** Nanoseconds of the VM's CPU for each event, draining and sending included, over many short blocks with and without the trace's module. */
async function cpuPerEvent(node: ErlNode, told: Told, rounds: number, calls: number): Promise<number[]> {
  const costs: number[] = [];
  const blocks = 40;
  for (let round = 0; round < rounds; round++) {
    const before = told.delivered();
    const cpu = async (module: string): Promise<number> =>
      Number(
        await node.eval(
          `statistics(runtime), [begin ${module}:blocks(leaf, 1, ${calls}), timer:sleep(20) end || _ <- lists:seq(1, ${blocks})], element(2, statistics(runtime))`,
        ),
      );
    const plain = await cpu("cost_plain");
    const with_ = await cpu("cost_told");
    costs.push(((with_ - plain) * 1e6) / (blocks * calls * 2));
    await eventually(
      () => told.delivered() - before,
      (count) => count >= blocks * calls * 2,
      30_000,
    );
  }
  return costs;
}

/** Stack and heap of a process after so many turns of the instrumented loop. */
async function sizes(node: ErlNode, turns: number): Promise<number[]> {
  return [...(await node.eval(`cost_told:turns(${turns})`)).matchAll(/,(\d+)\}/g)].map((m) => Number(m[1]));
}

async function loop(node: ErlNode, turns: number, how: string): Promise<Row> {
  const [stack = 0, heap = 0] = await sizes(node, 1000);
  const [stackAfter = 1, heapAfter = 1] = await sizes(node, turns);
  return {
    what: `a loop of ${turns / 1e6} million instrumented turns, ${how}`,
    target: "stack and heap as after 1,000",
    measured: `stack ${stack} → ${stackAfter} words, heap ${heap} → ${heapAfter} words`,
    value: stackAfter,
    ok: stackAfter === stack && heapAfter <= 4 * heap,
  };
}

export async function run(quick: boolean, tell: (row: Row) => void = () => undefined): Promise<Row[]> {
  const node = await startNode();
  try {
    await prepare(node);
    const count = quick ? 60 : 300;
    const turns = quick ? 10_000_000 : 100_000_000;
    const rows: Row[] = [];
    const add = (row: Row): void => {
      rows.push(row);
      tell(row);
    };
    const cost = (what: string, blocks: readonly Block[], target?: number): void => {
      const { alone, all } = addedBy(blocks);
      const estimate = medianEstimate(alone);
      add({
        what,
        target: target === undefined ? "" : `≤ ${target} ns`,
        measured: `${alone.length > 0 ? formatEstimate(estimate) : "?"} ns a call over plain, in ${alone.length} of ${all.length} blocks; in all ${formatEstimate(medianEstimate(all))}`,
        value: estimate.value,
        ok: target === undefined || estimate.value <= target,
      });
    };
    await load(node, "beamtrace_rt", RUNTIME_OFF);
    cost("tracing off: entry and return", await rounds(node, count, "leaf", 30, 5_000), 5);
    cost(
      "tracing off: tail call (two instrumented frames)",
      await rounds(node, count, "pass", 30, 5_000),
      10,
    );
    add(await loop(node, turns, "nobody traces"));

    const native = await traced(node, "native");
    cost("native trace that ships: entry and return", await rounds(node, count, "leaf", 37, 400, native), 60);
    cost(
      "native trace that ships: tail call (two instrumented frames)",
      await rounds(node, count, "pass", 37, 200, native),
    );
    const otp = medianEstimate(await otpCallTrace(node, 5_000));
    add({
      ...{ what: "for comparison: OTP's call trace with return", target: "", ok: true, value: otp.value },
      measured: `${formatEstimate(otp, 0)} ns a call`,
    });
    // The VM counts its CPU in steps of 10 ms: a mean, not a median.
    const cpu = meanEstimate(await cpuPerEvent(node, native, quick ? 8 : 30, 2_500));
    add({
      ...{
        what: "native trace that ships: CPU of the VM, draining and sending included",
        target: "",
        ok: true,
      },
      ...{ measured: `${formatEstimate(cpu)} ns an event`, value: cpu.value },
    });
    add(await loop(node, turns, "native trace"));
    await native.close();

    const portable = await traced(node, "portable");
    cost("portable trace that ships: entry and return", await rounds(node, count, "leaf", 8, 400, portable));
    await portable.close();
    return rows;
  } finally {
    await node.stop();
  }
}
