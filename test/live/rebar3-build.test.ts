/** The rebar3 plugin on a real project: what it instruments, what it leaves, and that it does nothing when nothing has changed. */
import { readFile, rm, symlink, unlink, utimes } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { BeamFile } from "../../src/erlang";
import { readSiteTable } from "../../src/transform";
import {
  beamHashes,
  changed,
  fileStates,
  hasProgram,
  makeFolder,
  mustRun,
  PROJECT,
  removeFolder,
  run,
  writeFiles,
} from "../support/build-project";
import { startNode } from "../support/erl-node";
import { entriesOf } from "../support/told-events";

// Deterministic: without, a beam holds the path and the options that it was compiled with.
const CONFIG = (options = ""): string => `{erl_opts, [debug_info, deterministic]}.
{project_plugins, [rebar3_beamtrace]}.
{provider_hooks, [{post, [{compile, beamtrace}]}]}.
{beamtrace, [${options}]}.
{eunit_opts, [verbose]}.
`;
const PLAN = JSON.stringify({
  rules: [{ include: { application: ["one", "two"] } }],
  environments: { dev: {}, test: { rules: [{ exclude: { module: "one" } }] } },
});
const app = (name: string): string =>
  `{application, ${name}, [{description, "d"}, {vsn, "1.0.0"}, {applications, [kernel, stdlib]}]}.\n`;

// Debian's other suites have it as a package, but not every root that is there already.
describe.skipIf(!hasProgram("rebar3"))("a project of two applications", () => {
  let folder: string;
  let plain: Record<string, string>;

  beforeAll(async () => {
    folder = await makeFolder({
      "rebar.config": CONFIG().replace(/^.*(plugin|hook).*\n/gm, ""),
      "apps/one/src/one.app.src": app("one"),
      "apps/one/src/one.erl": `-module(one).
-export([f/1]).
-ifdef(TEST).
-include_lib("eunit/include/eunit.hrl").
f_test() -> 4 = f(2).
-endif.
f(X) -> two:twice(X).
`,
      "apps/two/src/two.app.src": app("two"),
      "apps/two/src/two.erl": "-module(two).\n-export([twice/1]).\ntwice(X) -> 2 * X.\n",
    });
    await rebar3("compile");
    plain = await beamHashes(join(folder, "_build/default/lib"));
    expect(Object.keys(plain)).toEqual(["one/ebin/one.beam", "two/ebin/two.beam"]);
    await rm(join(folder, "_build"), { recursive: true });
    await writeFiles(folder, { "rebar.config": CONFIG(), "_checkouts/.keep": "" });
    await symlink(join(PROJECT, "beam/rebar3"), join(folder, "_checkouts/rebar3_beamtrace"));
  });
  afterAll(() => removeFolder(folder));

  /** rebar3 compares times in whole seconds: what is written in the second of the last build it takes for old. */
  let clock = 0;
  async function edit(path: string, text: string): Promise<void> {
    await writeFiles(folder, { [path]: text });
    clock = Math.max(clock, Date.now() / 1000) + 2;
    await utimes(join(folder, path), clock, clock);
  }

  const rebar3 = (...args: string[]): Promise<string> => mustRun(["rebar3", ...args], folder);
  const lib = (profile = "default"): string => join(folder, "_build", profile, "lib");
  async function instrumented(profile = "default"): Promise<string[]> {
    const found: string[] = [];
    for (const path of Object.keys(await beamHashes(lib(profile))))
      if (readSiteTable(BeamFile.read(await readFile(join(lib(profile), path)))) !== undefined)
        found.push(path);
    return found;
  }

  test("without a plan every beam is what it was without beamtrace", async () => {
    expect(await rebar3("compile")).not.toMatch(/Instrumented|not instrumented/);
    expect(await beamHashes(lib())).toEqual(plain);
  });

  test("its modules are instrumented, tell of their calls, and doing it again writes nothing", async () => {
    await writeFiles(folder, { "beamtrace.json": PLAN });
    const text = await rebar3("compile");
    expect(text).toMatch(/Instrumented 1 modules of one/);
    expect(text).toMatch(/Instrumented 1 modules of two/);
    expect(await instrumented()).toEqual(["one/ebin/one.beam", "two/ebin/two.beam"]);
    const node = await startNode({
      distributed: false,
      args: ["-pa", join(lib(), "one/ebin"), join(lib(), "two/ebin")],
    });
    try {
      expect(await entriesOf(node, "4 = one:f(2)")).toEqual(["one:0", "two:0"]);
    } finally {
      await node.stop();
    }
    const before = {
      ...(await fileStates(lib())),
      ...(await fileStates(join(folder, "_build/default/beamtrace"))),
    };
    expect(await rebar3("compile")).not.toMatch(/Instrumented/);
    const after = {
      ...(await fileStates(lib())),
      ...(await fileStates(join(folder, "_build/default/beamtrace"))),
    };
    expect(changed(before, after).filter((path) => /\.beam$|^(one|two)$/.test(path))).toEqual([]);
  });

  test("a file that changes is compiled and instrumented alone", async () => {
    const before = await beamHashes(lib());
    await edit("apps/two/src/two.erl", "-module(two).\n-export([twice/1]).\ntwice(X) -> X + X.\n");
    const text = await rebar3("compile");
    expect(text).toMatch(/Instrumented 1 modules of two/);
    expect(text).not.toMatch(/modules of one/);
    expect(changed(before, await beamHashes(lib()))).toEqual(["two/ebin/two.beam"]);
    await edit("apps/two/src/two.erl", "-module(two).\n-export([twice/1]).\ntwice(X) -> 2 * X.\n");
    await rebar3("compile");
    expect(await beamHashes(lib())).toEqual(before);
  });

  test("the last profile is the plan's environment, in which tests run", async () => {
    expect(await rebar3("eunit")).toMatch(/Test passed|All 1 tests? passed|1 tests?, 0 failures/);
    expect(await instrumented("test")).toEqual(["two/ebin/two.beam"]);
    await rebar3("as", "prod", "compile");
    expect(await instrumented("prod")).toEqual([]);
    expect(await beamHashes(lib("prod"))).toEqual(plain);
  });

  test("a module that can't be instrumented stays as it is, with a diagnostic, and the build goes on", async () => {
    await writeFiles(folder, {
      "apps/two/src/bare.erl":
        "-module(bare).\n-compile([{debug_info, {bare, none}}]).\n-export([debug_info/4]).\ndebug_info(_, _, _, _) -> {error, missing}.\n",
    });
    expect(await rebar3("compile")).toMatch(/bare is not instrumented: [^\n]*\n\s*.*bare\.beam/);
    await unlink(join(folder, "apps/two/src/bare.erl"));
    await rebar3("compile");
  });

  test("without the plan the beams are what the compiler wrote", async () => {
    await rm(join(folder, "beamtrace.json"));
    await rebar3("compile");
    const { "two/ebin/bare.beam": _, ...left } = await beamHashes(lib());
    expect(left).toEqual(plain);
  });

  test("without Node, with a plan that makes no sense or an unknown option the build goes on, or fails when it is required", async () => {
    await writeFiles(folder, { "beamtrace.json": PLAN, "rebar.config": CONFIG('{node, "no-such-node"}') });
    expect(await rebar3("compile")).toMatch(/nothing is instrumented: there is no program no-such-node/);
    await writeFiles(folder, { "beamtrace.json": "{}", "rebar.config": CONFIG("{required, true}") });
    const refused = await run(["rebar3", "compile"], folder);
    expect(refused.code).not.toBe(0);
    expect(refused.text).toMatch(/nothing is instrumented: .*\n.*it has no .*rules/);
    await writeFiles(folder, { "rebar.config": CONFIG("{plans, x}") });
    expect((await run(["rebar3", "compile"], folder)).text).toMatch(
      /beamtrace has no option plans; there are: plan,/,
    );
  });

  test("a value that an option can't have is told, with what it can have", async () => {
    const applications = "all or a list of applications (atoms)";
    for (const [options, message] of [
      ["[{dependencies, foo}]", `beamtrace: dependencies must be ${applications}, not foo`],
      ['[{dependencies, ["foo"]}]', `beamtrace: dependencies must be ${applications}, not ["foo"]`],
      ["[{plan, 3}]", "beamtrace: plan must be the name of a file, or false, not 3"],
      ['[{plan, ""}]', "beamtrace: plan must be the name of a file, or false, not []"],
      ["[{environment, {1}}]", "beamtrace: environment must be an atom or a string, not {1}"],
      ["[{required, 1}]", "beamtrace: required must be true or false, not 1"],
      ["foo", "beamtrace must be a list of options {Name, Value}, not foo"],
      ["[plan]", "beamtrace must be a list of options {Name, Value}, not plan"],
    ] as const) {
      await writeFiles(folder, {
        "rebar.config": CONFIG().replace("{beamtrace, []}", `{beamtrace, ${options}}`),
      });
      const { code, text } = await run(["rebar3", "compile"], folder);
      expect(code).not.toBe(0);
      expect(text).toContain(`${message}\n`);
    }
  });

  test("what is wanted no longer comes back plain, also after a build that was killed; where it can't, it is told", async () => {
    const kept = join(folder, "_build/default/beamtrace/dep.kept");
    const dep = async (options: string): Promise<string> => {
      await writeFiles(folder, {
        "rebar.config": CONFIG(options).replace(
          "[rebar3_beamtrace]}.",
          "[rebar3_beamtrace]}.\n{deps, [dep]}.",
        ),
      });
      return rebar3("compile");
    };
    await writeFiles(folder, {
      "_checkouts/dep/src/dep.app.src": app("dep"),
      "_checkouts/dep/src/dep.erl": "-module(dep).\n-export([f/1]).\nf(X) -> X.\n",
      "_checkouts/dep/rebar.config": "{erl_opts, [debug_info, deterministic]}.\n",
      "beamtrace.json": '{"rules": [{"include": {}}]}',
    });
    await dep("{plan, false}");
    const checkout = join(folder, "_build/default/checkouts");
    const before = await beamHashes(join(checkout, "dep"));
    expect(Object.keys(before)).toEqual(["ebin/dep.beam"]);
    expect(await dep("{dependencies, [dep]}")).toMatch(/Instrumented 1 modules of dep/);
    expect(await beamHashes(join(checkout, "dep"))).not.toEqual(before);
    await unlink(join(folder, "_build/default/beamtrace/dep"));
    await dep("");
    expect(await beamHashes(join(checkout, "dep"))).toEqual(before);
    await dep("{dependencies, [dep]}");
    await rm(kept, { recursive: true });
    const told =
      /of dep these modules should be plain and stay instrumented: dep\. .*: delete \S+checkouts\/dep\/ebin, then/;
    expect(await dep("")).toMatch(told);
    expect(await dep("")).toMatch(told);
    await rm(join(checkout, "dep/ebin"), { recursive: true });
    expect(await dep("")).not.toMatch(told);
    expect(await beamHashes(join(checkout, "dep"))).toEqual(before);
  });
});
