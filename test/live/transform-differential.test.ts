/** A program behaves the same plain and instrumented: results, exceptions with their stack traces, messages, dictionaries, memory. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { BeamFile } from "../../src/erlang";
import { instrumentBeam } from "../../src/transform";
import { RUNTIME_OFF, RUNTIME_ON } from "../../src/transform/beam-code.generated";
import type { CompileServer } from "../../src/transform";
import { type ErlNode, startNode } from "../support/erl-node";
import { compileErlang, compileText, fixture, load, startCompiler, unload } from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;
let otp: number;

beforeAll(async () => {
  node = await startNode({ distributed: false });
  compiler = await startCompiler();
  otp = Number((await compiler.versions()).otp);
  await load(node, "harness", await compileErlang(node, fixture("harness.erl")));
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
});

const RUNTIMES = [
  ["without the runtime", undefined],
  ["with the runtime that does nothing", RUNTIME_OFF],
  ["with the runtime that traces", RUNTIME_ON],
] as const;

async function outcome(module: string): Promise<string[]> {
  const text = await node.eval(`[lists:flatten(io_lib:format("~0tp", [R])) || R <- harness:run(${module})]`);
  return JSON.parse(text) as string[];
}

describe.each([
  ["subject", 25],
  ["subject_servers", 25],
  // `maybe` is a feature to be switched on before.
  ["subject_maybe", 27],
  ["subject_29", 29],
])("%s", (module, since) => {
  test.each([
    ...RUNTIMES.map(([how, runtime]) => [how, runtime, true] as const),
    ["with the runtime that traces, not optimized", RUNTIME_ON, false] as const,
  ])("behaves the same %s", async (_, runtime, optimize) => {
    if (otp < since) return;
    const plain = await compileErlang(node, fixture(`${module}.erl`));
    const { bytes, instrumented, refused } = await instrumentBeam(plain, compiler, { optimize });
    expect(refused).toEqual([]);
    expect(instrumented.length).toBeGreaterThan(5);
    // Without optimisation more frames are in stack traces: those of callers of functions that never return.
    const peer = optimize
      ? plain
      : await compileErlang(node, fixture(`${module}.erl`), "debug_info, no_ssa_opt");
    await load(node, module, peer);
    const before = await outcome(module);
    await load(node, module, bytes);
    await (runtime === undefined ? unload(node, "beamtrace_rt") : load(node, "beamtrace_rt", runtime));
    const after = await outcome(module);
    expect(after).toEqual(before);
    expect(before.join("\n")).toMatch(/badarith/);
    await unload(node, module);
    await unload(node, "beamtrace_rt");
  });
});

test.each(RUNTIMES)("a callback that calls itself keeps its memory %s", async (_, runtime) => {
  const plain = await compileErlang(node, fixture("subject_servers.erl"));
  const { bytes } = await instrumentBeam(plain, compiler, { callbacks: { maxBytes: 64 } });
  await load(node, "subject_servers", bytes);
  await (runtime === undefined ? unload(node, "beamtrace_rt") : load(node, "beamtrace_rt", runtime));
  const sizes = (turns: number): Promise<string> =>
    node.eval(
      // Given back before the answer: the process that evaluates ends a moment after it.
      `register(observer, self()), Sizes = subject_servers:memory(${turns}), unregister(observer), Sizes`,
    );
  const few = await sizes(10);
  const stack = (text: string): string => /stack_size,(\d+)/.exec(text)?.[1] ?? "none";
  expect(stack(few)).toMatch(/^\d+$/);
  expect(stack(await sizes(1_000_000))).toBe(stack(few));
  await unload(node, "subject_servers");
  await unload(node, "beamtrace_rt");
});

test("instrumenting again gives the same bytes, and what is not code survives", async () => {
  const plain = await compileErlang(node, fixture("subject.erl"));
  const once = await instrumentBeam(plain, compiler);
  const twice = await instrumentBeam(once.bytes, compiler);
  expect(Buffer.compare(twice.bytes, once.bytes)).toBe(0);
  const attributes = (): Promise<string> =>
    node.eval(
      "{subject:module_info(attributes), subject:module_info(compile), subject:module_info(exports)}",
    );
  await load(node, "subject", plain);
  const before = await attributes();
  await load(node, "subject", once.bytes);
  expect(await attributes()).toBe(before);
  await unload(node, "subject");
});

test("without anything to instrument the bytes are those that were given", async () => {
  const plain = await compileErlang(node, fixture("subject.erl"));
  const { bytes, instrumented } = await instrumentBeam(plain, compiler, { select: () => false });
  expect(instrumented).toEqual([]);
  expect(Buffer.compare(bytes, plain)).toBe(0);
});

test("code that is not optimized is other code, larger, with the same sites", async () => {
  const plain = await compileErlang(node, fixture("subject.erl"));
  const quick = await instrumentBeam(plain, compiler, { optimize: false });
  const full = await instrumentBeam(plain, compiler);
  const code = ({ bytes }: { readonly bytes: Uint8Array }): number =>
    BeamFile.read(bytes).chunk("Code")?.length ?? NaN;
  expect(code(quick)).toBeGreaterThan(code(full));
  expect(quick.table).toEqual(full.table);
});

test.each(RUNTIMES)("a server loop of many iterations keeps its memory %s", async (_, runtime) => {
  const { bytes } = await instrumentBeam(await compileErlang(node, fixture("subject.erl")), compiler);
  await load(node, "subject", bytes);
  await (runtime === undefined ? unload(node, "beamtrace_rt") : load(node, "beamtrace_rt", runtime));
  const sizes = async (iterations: number): Promise<{ stack: number; heap: number }> => {
    const text = await node.eval(`subject:pid_loop(${iterations})`);
    const [, stack, heap] = /stack_size,(\d+)\},\{total_heap_size,(\d+)/.exec(text) ?? [];
    return { stack: Number(stack), heap: Number(heap) };
  };
  const few = await sizes(1_000);
  const many = await sizes(3_000_000);
  expect(many.stack).toBe(few.stack);
  expect(many.heap).toBeLessThanOrEqual(few.heap * 4);
  const served = await node.eval(
    "P = self(), S = spawn(fun() -> subject:loop(300000, P) end), M = monitor(process, S), receive {'DOWN', M, _, _, R} -> R end",
  );
  expect(served).toBe("normal");
  await unload(node, "subject");
  await unload(node, "beamtrace_rt");
});

test("no warning is new where what calls a helper is unused", async () => {
  const text = "-module(idle).\n-export([used/1]).\nused(X) -> X + 1.\nunused() -> idle:used(1).\n";
  const { warnings } = await instrumentBeam(await compileText(node, "idle", text), compiler);
  expect(warnings.map(({ message }) => message)).toEqual([
    expect.stringMatching(/^function unused\/0 is unused/),
  ]);
});

test("no warning is new where functions without specs or docs are warned about", async () => {
  const options = "debug_info, warn_missing_spec_all, warn_missing_doc";
  const attribute = "-compile([warn_missing_spec]).\n";
  const text = `-module(unsaid).\n${attribute}-export([said/1]).\n-spec said(term()) -> term().\nsaid(X) -> unsaid(X).\nunsaid(X) -> [X].\n`;
  const { warnings } = await instrumentBeam(await compileText(node, "unsaid", text, options), compiler, {
    embedSites: true,
  });
  expect(warnings).toEqual([]);
});
