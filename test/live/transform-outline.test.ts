/** Modules are instrumented from outlines as from their whole forms, byte for byte, and of what is kept for an outline nothing stays behind. */
import { readFileSync } from "node:fs";

import { afterAll, beforeAll, expect, test } from "vitest";

import { BeamFile, debugInfo, encode, isAbstractCode, moduleName } from "../../src/erlang";
import {
  type CompileServer,
  formsFromTerm,
  formsToTerm,
  instrumentForms,
  type InstrumentOptions,
} from "../../src/transform";
import { COMPILER } from "../../src/transform/beam-code.generated";
import { type ErlNode, startNode } from "../support/erl-node";
import {
  compileElixir,
  compileErlang,
  ELIXIR_EBIN,
  fixture,
  load,
  startCompiler,
  unload,
} from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;
let otp: number;

beforeAll(async () => {
  node = await startNode({ distributed: false, args: ["-pa", ELIXIR_EBIN] });
  compiler = await startCompiler();
  otp = Number((await compiler.versions()).otp);
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
});

const OPTIONS: readonly InstrumentOptions[] = [
  {},
  { exceptions: "wrap" },
  { callbacks: "none", select: ({ arity }) => arity % 2 === 0 },
  { callbacks: { maxBytes: 64 }, select: ({ exported }) => (exported ? { exceptions: "wrap" } : true) },
];

const dbgi = (beam: BeamFile): readonly [string, Uint8Array] => {
  const info = debugInfo(beam);
  return [isAbstractCode(info) ? "erl_abstract_code" : info.backend, beam.chunk("Dbgi") as Uint8Array];
};

/** Instruments from the one and from the other, and says how many bytes the forms took each time. */
async function expectSame(bytes: Uint8Array): Promise<{ whole: number; outline: number }> {
  const beam = BeamFile.read(bytes);
  const module = moduleName(beam);
  const [backend, chunk] = dbgi(beam);
  const sizes = { whole: 0, outline: 0 };
  for (const options of OPTIONS) {
    const made = [];
    for (const detail of ["whole", "outline"] as const) {
      const given = await compiler.forms(module, backend, chunk, detail);
      sizes[detail] = encode(given.forms).length;
      const { forms, compileOptions, ...rest } = instrumentForms(formsFromTerm(given.forms), options);
      const job = { ...given, module, backend, options: [...given.options, ...compileOptions] };
      const { beam: code, warnings } = await compiler.compile({ ...job, forms: formsToTerm(forms) });
      made.push({ code: Buffer.from(code).toString("base64"), warnings, ...rest });
    }
    expect(made[1]).toEqual(made[0]);
  }
  return sizes;
}

test.each([
  // It has names like those that are put in, and so is looked at whole.
  ["subject", 25, true],
  ["subject_servers", 25, false],
  ["subject_maybe", 27, false],
  ["subject_29", 29, false],
  ["harness", 25, false],
])("fixture %s", async (name, since, isWhole) => {
  if (otp < since) return;
  const sizes = await expectSame(await compileErlang(node, fixture(`${name}.erl`)));
  if (isWhole) expect(sizes.outline).toBe(sizes.whole);
  else expect(sizes.outline).toBeLessThan(sizes.whole);
});

test.each(["subject.ex", "behaviours.ex"])("modules of %s", async (name) => {
  const modules = await compileElixir(node, readFileSync(fixture(name), "utf8"));
  expect(modules.size).toBeGreaterThan(0);
  for (const bytes of modules.values()) await expectSame(bytes);
});

const THEIRS = [
  ...["lists", "gen_server", "io_lib_pretty", "shell"],
  ...["Enum", "Agent", "Agent.Server", "Task.Supervised", "DynamicSupervisor", "Macro"].map(
    (name) => `Elixir.${name}`,
  ),
];

test.each(THEIRS)("module %s of the release", async (name) => {
  const text = await node.eval(`{ok, B} = file:read_file(code:which('${name}')), base64:encode(B)`);
  const sizes = await expectSame(Buffer.from(text.slice(3, -3), "base64"));
  // Who may be an agent is looked at whole.
  if (name.startsWith("Elixir.Agent")) expect(sizes.outline).toBe(sizes.whole);
  else expect(sizes.outline).toBeLessThan(sizes.whole);
});

test("what is kept for an outline goes when it is taken, forgotten, or its owner ends", async () => {
  await load(node, "beamtrace_compiler", COMPILER);
  const beam = BeamFile.read(await compileErlang(node, fixture("harness.erl")));
  const [backend, chunk] = dbgi(beam);
  const text = await node.eval(
    `Outline = {outline, ${moduleName(beam).name}, ${backend}, base64:decode("${Buffer.from(chunk).toString("base64")}")},
     Kept = fun(Owner) -> {ok, #{kept := K} = Given} = beamtrace_compiler:answer(Outline, Owner), {K, monitor(process, K), Given} end,
     Ends = fun(Ref) -> receive {'DOWN', Ref, _, _, Why} -> Why after 5000 -> kept end end,
     {K1, R1, _} = Kept(self()), {ok, _} = beamtrace_compiler:answer({forget, K1}, self()),
     {K2, R2, Given} = Kept(self()),
     Job = (maps:with([forms, options], Given))#{module => harness, backend => ${backend}, kept => K2},
     {ok, #{beam := Code}} = beamtrace_compiler:answer({compile, Job}, self()), {ok, {harness, _}} = beam_lib:version(Code),
     Owner = spawn(fun() -> receive stop -> ok end end), {_, R3, _} = Kept(Owner), Owner ! stop,
     {error, Again} = beamtrace_compiler:answer({compile, Job}, self()),
     {Ends(R1), Ends(R2), Ends(R3), binary:match(Again, <<"parts_gone">>) =/= nomatch}`,
  );
  expect(text).toBe("{normal,normal,normal,true}");
  await unload(node, "beamtrace_compiler");
});
