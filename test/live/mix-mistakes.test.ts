/** What goes wrong in a build of Mix: what is told, what becomes of the modules, and that the build goes on. */
import { createHash } from "node:crypto";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { beamHashes, makeFolder, removeFolder, run, writeFiles } from "../support/build-project";
import "../support/erl-node";
import { ebin, instrumentedIn, mix, MIX_EXS, PLAN, SOURCES } from "../support/mix-project";

describe("what goes wrong", () => {
  let folder: string;

  beforeAll(async () => {
    folder = await makeFolder({ ...SOURCES, "mix.exs": MIX_EXS(), "beamtrace.json": PLAN });
  });
  afterAll(() => removeFolder(folder));

  test("a module that can't be instrumented stays as it is, with a diagnostic, and the build goes on", async () => {
    await writeFiles(folder, {
      "src/shop_none.erl": `-module(shop_none).
-compile([{debug_info, {shop_none, none}}]).
-export([debug_info/4, f/1]).
debug_info(_, _, _, _) -> {error, missing}.
f(X) -> X.
`,
    });
    const text = await mix(folder, "compile");
    expect(text).toMatch(/Instrumented 6 modules/);
    expect(text).toMatch(/warning: shop_none is not instrumented: [^\n]*\n\s*src\/shop_none\.erl/);
    // It is said again, by a build that has nothing to do.
    expect(await mix(folder, "compile")).toMatch(/warning: shop_none is not instrumented/);
    expect(await instrumentedIn(ebin(folder))).not.toContain("shop_none.beam");
    const diagnostics = await mix(folder, "run -e IO.inspect(Mix.Tasks.Compile.Beamtrace.diagnostics())");
    expect(diagnostics).toMatch(/%Mix\.Task\.Compiler\.Diagnostic\{/);
    expect(diagnostics).toMatch(/compiler_name: "beamtrace"/);
    expect(diagnostics).toMatch(/file: ".*src\/shop_none\.erl"/);
    await rm(join(folder, "src/shop_none.erl"));
    expect(await mix(folder, "compile")).not.toMatch(/warning: shop_none/);
  });

  test("a module that can't be written stays as it is, is told, and is tried again", async () => {
    await removeFolder(join(folder, "_build"));
    await rm(join(folder, "beamtrace.json"));
    await mix(folder, "compile");
    const before = await beamHashes(ebin(folder));
    const digest = createHash("md5").update(await readFile(join(ebin(folder), "Elixir.Shop.Store.beam")));
    const kept = join(folder, "_build/dev/lib/shop/.mix/compile.beamtrace.kept");
    // A folder where its plain beam would be kept: it can't be, whoever runs this.
    await mkdir(join(kept, `${digest.digest("hex").toUpperCase()}.beam/in`), { recursive: true });
    await writeFiles(folder, { "beamtrace.json": PLAN });
    const told =
      /warning: Shop\.Store stays as it was: .*Elixir\.Shop\.Store\.beam can't be written: .*director/;
    const text = await mix(folder, "compile");
    expect(text).toMatch(/Instrumented 5 modules of shop/);
    expect(text).toMatch(told);
    expect(await mix(folder, "compile")).toMatch(told);
    const after = await beamHashes(ebin(folder));
    expect(after["Elixir.Shop.Store.beam"]).toBe(before["Elixir.Shop.Store.beam"]);
    await removeFolder(kept);
    const now = await mix(folder, "compile");
    expect(now).toMatch(/Instrumented 1 module of shop \(1 functions\)/);
    expect(now).not.toMatch(/Compiling|warning/);
  });

  test("a folder that can't be made is told, and the build goes on", async () => {
    await removeFolder(join(folder, "_build"));
    await writeFiles(folder, { "_build/dev/lib/shop/.mix/compile.beamtrace.kept": "" });
    expect(await mix(folder, "compile")).toMatch(
      /warning: nothing is instrumented: .*compile\.beamtrace\.kept can't be made: /,
    );
    await rm(join(folder, "_build/dev/lib/shop/.mix/compile.beamtrace.kept"));
    expect(await mix(folder, "compile")).toMatch(/Instrumented 6 modules of shop/);
  });

  test("a plan that makes no sense, or is missing, is told, with what became of the modules; nothing is touched", async () => {
    const before = await beamHashes(ebin(folder));
    await writeFiles(folder, { "beamtrace.json": '{"rules": [{"include": {"modul": "x"}}]}' });
    const text = await mix(folder, "compile");
    expect(text).toMatch(/warning: nothing is instrumented anew: .*beamtrace\.json has a mistake/);
    expect(text).toMatch(
      /^6 modules that have not changed keep the events that they had; all others have none\.$/m,
    );
    expect(text).toMatch(/rule 1 .*did you mean "module"\?/);
    expect(await beamHashes(ebin(folder))).toEqual(before);
    await writeFiles(folder, { "mix.exs": MIX_EXS("beamtrace: [required: true],") });
    expect((await run(["mix", "compile"], folder)).code).not.toBe(0);
    // All are compiled anew, as the project's file has changed, and stay plain.
    await writeFiles(folder, { "mix.exs": MIX_EXS('beamtrace: [plan: "other.json"],') });
    expect(await mix(folder, "compile --force")).toMatch(
      /warning: nothing is instrumented: plan .*other\.json: no such file or directory\n {2}other\.json$/m,
    );
    expect(await instrumentedIn(ebin(folder))).toEqual([]);
  });

  test("without Node the build goes on, or fails when it is required", async () => {
    // What was instrumented before would be put in place again without it.
    await removeFolder(join(folder, "_build"));
    await writeFiles(folder, {
      "beamtrace.json": PLAN,
      "mix.exs": MIX_EXS('beamtrace: [node: "no-such-node"],'),
    });
    const text = await mix(folder, "compile --force");
    expect(text).toMatch(
      /warning: nothing is instrumented: there is no program no-such-node: install Node\.js/,
    );
    expect(await instrumentedIn(ebin(folder))).toEqual([]);
    await writeFiles(folder, { "mix.exs": MIX_EXS('beamtrace: [node: "no-such-node", required: true],') });
    expect((await run(["mix", "compile"], folder)).code).not.toBe(0);
  });

  test("a transformer that dies leaves the modules alone", async () => {
    await writeFiles(folder, {
      "die.mjs": "process.stdin.once('data', () => process.exit(7));",
      "mix.exs": MIX_EXS('beamtrace: [cli: "die.mjs"],'),
    });
    const text = await mix(folder, "compile --force");
    expect(text).toMatch(/nothing is instrumented: the transformer ended with code 7/);
    expect(await instrumentedIn(ebin(folder))).toEqual([]);
  });

  test("an unknown option is named, with the one that was meant; a value that can't be, with what can", async () => {
    await writeFiles(folder, {
      "mix.exs": MIX_EXS('beamtrace: elem(Code.eval_string(System.get_env("OPTIONS")), 0),'),
    });
    const said = async (options: string): Promise<string> => {
      const { code, text } = await run(["mix", "compile"], folder, { OPTIONS: options });
      expect(code).not.toBe(0);
      return text.replace("Generated shop app\n", "").trim();
    };
    expect(await said('[plans: "x"]')).toBe("** (Mix) beamtrace has no option :plans, did you mean :plan?");
    const file = "the name of a file, or false";
    for (const [options, message] of [
      ["[plan: :foo]", `:plan must be ${file}, not :foo`],
      ["[plan: 3]", `:plan must be ${file}, not 3`],
      ["[plan: true]", `:plan must be ${file}, not true`],
      ['[plan: ""]', `:plan must be ${file}, not ""`],
      ["[environment: {1}]", ":environment must be an atom or a string, not {1}"],
      ['[dependencies: ["x"]]', ':dependencies must be :all or a list of applications (atoms), not ["x"]'],
      ["[dependencies: :x]", ":dependencies must be :all or a list of applications (atoms), not :x"],
      ["[node: 1]", ":node must be the name of a program, or its path, not 1"],
      ["[required: 1]", ":required must be true or false, not 1"],
      [":foo", ":beamtrace of the project must be a keyword list, not :foo"],
    ] as const)
      expect(await said(options)).toBe(`** (Mix) beamtrace: ${message}`);
  });
});
