/** An instrumented module is as the original to tools: cover counts the same lines, dialyzer says the same, it exports the same. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

import { type CompileServer, instrumentBeam } from "../../src/transform";
import { type ErlNode, startNode } from "../support/erl-node";
import { compileErlang, compileText, load, startCompiler, unload } from "../support/transform";

const SOURCE = `-module(tooled).
-export([count/1, wrong/0]).
-spec count(integer()) -> integer().
count(X) when X > 1 ->
    count(X - 1);
count(X) ->
    X.
never() -> [count(1)].
wrong() ->
    [count(ok) | never()].
`;
const VARIANTS = ["plain", "told"] as const;

let node: ErlNode;
let compiler: CompileServer;
let folder: string;

beforeAll(async () => {
  node = await startNode({ distributed: false });
  compiler = await startCompiler();
  folder = await mkdtemp(join(tmpdir(), "beamtrace-tools-"));
  await writeFile(join(folder, "tooled.erl"), SOURCE);
  const plain = await compileErlang(node, join(folder, "tooled.erl"));
  const { bytes, instrumented } = await instrumentBeam(plain, compiler);
  expect(instrumented.length).toBe(3);
  for (const [variant, beam] of [
    ["plain", plain],
    ["told", bytes],
  ] as const) {
    await mkdir(join(folder, variant));
    await writeFile(join(folder, variant, "tooled.beam"), beam);
  }
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
  await rm(folder, { recursive: true });
});

test("cover counts the same lines", async () => {
  const counts = (variant: string): Promise<string> =>
    node.eval(
      `{ok, tooled} = cover:compile_beam("${join(folder, variant, "tooled.beam")}"), 1 = tooled:count(5),
       {ok, Lines} = cover:analyse(tooled, calls, line), cover:reset(tooled), code:purge(tooled), Lines`,
    );
  const [plain, told] = [await counts("plain"), await counts("told")];
  expect(plain).toBe("[{{tooled,5},4},{{tooled,7},1},{{tooled,8},0},{{tooled,10},0}]");
  expect(told).toBe(plain);
});

test("dialyzer says the same", async ({ skip }) => {
  if ((await node.eval("code:which(dialyzer)")) === "non_existing") skip("no dialyzer on this release");
  const [plain, told] = await Promise.all(
    VARIANTS.map((variant) =>
      node.eval(
        `Plt = "${join(folder, variant, "plt")}", Kernel = filename:join([code:lib_dir(kernel), "ebin", "erl_boot_server.beam"]),
         dialyzer:run([{analysis_type, plt_build}, {files, [Kernel]}, {output_plt, Plt}]),
         Found = dialyzer:run([{analysis_type, succ_typings}, {files, ["${join(folder, variant, "tooled.beam")}"]}, {from, byte_code},
           {init_plt, Plt}, {check_plt, false}]),
         [dialyzer:format_warning(W) || W <- Found]`,
      ),
    ),
  );
  expect(plain).toContain("breaks the contract");
  expect(told).toBe(plain);
});

test.each([
  ["-export([f/1]).", "debug_info"],
  ["-compile(export_all). -export([f/1]).", "debug_info"],
  ["-compile([inline, export_all, nowarn_export_all]).", "debug_info"],
  ["-export([f/1]).", "debug_info, export_all"],
])("what a module exports is what it was: %s and compiled with %s", async (attribute, options) => {
  const source = `-module(exporting).\n${attribute}\nf(X) -> [g(X)].\ng(X) -> h(X), X.\nh(X) -> {X, k()}.\nk() -> a.\n`;
  const exported = async (beam: Uint8Array): Promise<string> => {
    await load(node, "exporting", beam);
    return node.eval("{exporting:f(1), lists:sort(exporting:module_info(exports))}");
  };
  const plain = await compileText(node, "exporting", source, options);
  const told = await instrumentBeam(plain, compiler, {
    select: ({ exported: all, function: name }) => all || name === "k",
  });
  expect(told.warnings).toEqual([]);
  const all = options.includes("export_all") || attribute.includes("export_all");
  expect(told.instrumented.map((f) => f.function)).toEqual(all ? ["f", "g", "h", "k"] : ["f", "k"]);
  expect(await exported(told.bytes)).toBe(await exported(plain));
  expect(await exported(plain)).toContain(all ? "{k,0}" : "[{f,1},{module_info");
  await unload(node, "exporting");
});
