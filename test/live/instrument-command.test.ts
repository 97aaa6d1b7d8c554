/** The command `beamtrace instrument` on real beams: in place, into a folder, looked at only, and with input that makes no sense. */
import { copyFile, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { BeamFile } from "../../src/erlang";
import { readSiteTable } from "../../src/transform";
import {
  beamHashes,
  changed,
  COMMAND,
  fileStates,
  makeFolder,
  mustRun,
  type Outcome,
  removeFolder,
  writeFiles,
} from "../support/build-project";
import { type ErlNode, startNode } from "../support/erl-node";
import { entriesOf } from "../support/told-events";
import { ELIXIR_EBIN } from "../support/transform";

const root = process.env["BEAMTRACE_OTP_ROOT"] ?? "";
/** The release under test compiles; the command itself runs here. */
const ERL = root === "" ? [] : ["--erl", `chroot ${root} erl`, "--code-path", ELIXIR_EBIN];

let folder: string;
let plain: Record<string, string>;

/** Runs the command in the folder. */
function beamtrace(...args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    void import("node:child_process").then(({ execFile }) =>
      execFile(process.execPath, [COMMAND, ...args], { cwd: folder }, (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code), text: `${stdout}${stderr}` }),
      ),
    );
  });
}
const instrument = (...args: string[]): Promise<Outcome> => beamtrace("instrument", ...args, ...ERL);
const plan = (value: unknown): Promise<void> => writeFile(join(folder, "plan.json"), JSON.stringify(value));
const ALL = { rules: [{ include: {} }] };

beforeAll(async () => {
  folder = await makeFolder({
    "src/cart.erl": `-module(cart).
-behaviour(gen_server).
-beamtrace([{add, 2}]).
-export([init/1, handle_call/3, handle_cast/2, add/2, loop/1]).
init(X) -> {ok, X}.
handle_call(get, _From, S) -> {reply, S, S}.
handle_cast(_, S) -> {noreply, S}.
add(A, B) -> twice(A) + B.
twice(A) -> 2 * A.
loop(0) -> done;
loop(N) -> loop(N - 1).
`,
    "src/till.erl": "-module(till).\n-export([f/1, sum/2]).\nf(X) -> X.\nsum(A, B) -> A + B.\n",
    "src/bare.erl": "-module(bare).\n-export([f/1]).\nf(X) -> X.\n",
    "shop-1.0/ebin/shop.app": '{application, shop, [{vsn, "1.0"}]}.\n',
  });
  await mkdir(join(folder, "kept"));
  await mustRun(["erlc", "+debug_info", "-o", "kept", "src/cart.erl", "src/till.erl"], folder);
  await mustRun(["erlc", "-o", "kept", "src/bare.erl"], folder);
  plain = await beamHashes(join(folder, "kept"));
});
afterAll(() => removeFolder(folder));

beforeEach(async () => {
  for (const name of ["cart.beam", "till.beam"])
    await copyFile(join(folder, "kept", name), join(folder, "shop-1.0/ebin", name));
});

const ebin = "shop-1.0/ebin";
const hashes = (): Promise<Record<string, string>> => beamHashes(join(folder, ebin));

describe("in place", () => {
  test("what rules include is instrumented, all else is not touched; again changes nothing; without rules it is as before", async () => {
    await plan({ rules: [{ exclude: { function: "twice/1" } }, { include: { behaviour: "GenServer" } }] });
    const first = await instrument(ebin, "--plan", "plan.json");
    expect(first).toMatchObject({ code: 0 });
    expect(first.text).toMatch(/cart\s+instrumented\s+5\s+0/);
    expect(first.text).toMatch(/2 modules: 1 instrumented \(5 functions\), 1 not touched/);
    const after = await hashes();
    expect(changed(plain, { ...plain, ...after })).toEqual(["cart.beam"]);
    const states = await fileStates(join(folder, ebin));
    expect((await instrument(ebin, "--plan", "plan.json")).code).toBe(0);
    expect(changed(states, await fileStates(join(folder, ebin)))).toEqual([]);
    await plan({ rules: [{ include: { module: "nothing" } }] });
    expect((await instrument(ebin, "--plan", "plan.json")).text).toMatch(/1 plain again/);
    expect({ ...plain, ...(await hashes()) }).toEqual(plain);
  });

  test("instrumented functions tell, and only they", async () => {
    await plan({
      rules: [
        { include: { attribute: "-beamtrace" } },
        { include: { module: "till", visibility: "exported", arity: 2 } },
      ],
    });
    expect((await instrument(ebin, "--plan", "plan.json")).code).toBe(0);
    const node: ErlNode = await startNode({ distributed: false, args: ["-pa", join(folder, ebin)] });
    try {
      const told = await entriesOf(
        node,
        "7 = cart:add(2, 3), done = cart:loop(3), 3 = till:f(till:sum(1, 2))",
      );
      const sites = async (module: string): Promise<string[]> =>
        (readSiteTable(BeamFile.read(await readFile(join(folder, ebin, `${module}.beam`))))?.sites ?? []).map(
          (site) => `${site.function}/${site.arity}`,
        );
      const names = await Promise.all(
        told.map(async (entry) => {
          const [module = "", site = ""] = entry.split(":");
          return `${module}:${(await sites(module))[Number(site)]}`;
        }),
      );
      expect(names).toEqual(["cart:add/2", "till:sum/2"]);
    } finally {
      await node.stop();
    }
  });

  test("mode and neighbours of a file stay", async () => {
    await plan(ALL);
    const before = await stat(join(folder, ebin, "cart.beam"));
    expect((await instrument(join(ebin, "cart.beam"), "--plan", "plan.json")).code).toBe(0);
    expect((await stat(join(folder, ebin, "cart.beam"))).mode).toBe(before.mode);
    expect((await readdir(join(folder, ebin))).sort()).toEqual(["cart.beam", "shop.app", "till.beam"]);
    expect((await hashes())["till.beam"]).toBe(plain["till.beam"]);
  });
});

test("--out writes all modules there and leaves those given alone", async () => {
  await plan({ rules: [{ include: { application: "shop", function: "add" } }] });
  expect((await instrument(ebin, "--plan", "plan.json", "--out", "out/deep")).code).toBe(0);
  expect({ ...plain, ...(await hashes()) }).toEqual(plain);
  const out = await beamHashes(join(folder, "out/deep"));
  expect(Object.keys(out)).toEqual(["cart.beam", "till.beam"]);
  expect(out["till.beam"]).toBe(plain["till.beam"]);
  expect(out["cart.beam"]).not.toBe(plain["cart.beam"]);
});

test("--check says what each rule matches, and what one that matches nothing may have meant; nothing is written", async () => {
  await plan({
    rules: [
      { exclude: { function: "lop" } },
      { include: { module: "cort" } },
      { include: { module: "cart", function: "handle_*" } },
      { include: { module: "cart", behaviour: "gen_server", arity: 3 } },
    ],
  });
  const { code, text } = await instrument(ebin, "--plan", "plan.json", "--check");
  expect(code).toBe(0);
  expect(text).toMatch(/rule 1 .*\n {2}matches nothing\n {2}no function is called lop; did you mean loop/);
  expect(text).toMatch(/rule 2 .*\n {2}matches nothing\n {2}no module is called cort; did you mean cart\?/);
  expect(text).toMatch(/rule 3 .*\n {2}includes cart: handle_call\/3 handle_cast\/2/);
  expect(text).toMatch(/rule 4 .*\n {2}matches 1 more, about which an earlier rule decides/);
  expect(text).toMatch(/2 of 8 functions in 2 modules would be instrumented/);
  expect({ ...plain, ...(await hashes()) }).toEqual(plain);
});

test("--diff shows what would be put in, as Erlang; nothing is written", async () => {
  await plan({ rules: [{ include: { function: "add" }, exceptions: "infer" }] });
  const { code, text } = await instrument(ebin, "--plan", "plan.json", "--diff");
  expect(code).toBe(0);
  expect(text).toMatch(/^--- cart \(original\)\n\+\+\+ cart \(instrumented\)/);
  expect(text).toMatch(/^\+ {4}BeamtraceId = '-beamtrace-enter-'\(cart, \d+, A, B\)/m);
  expect(text).not.toMatch(/till/);
  expect({ ...plain, ...(await hashes()) }).toEqual(plain);
});

test("environments: the one asked for; one must be named; a slip is noticed", async () => {
  await plan({ environments: { dev: { rules: [{ include: { module: "till" } }] }, prod: {} } });
  expect((await instrument(ebin, "--plan", "plan.json")).text).toMatch(/say which: dev, prod/);
  expect((await instrument(ebin, "--plan", "plan.json", "--env", "prod")).text).toMatch(/0 instrumented/);
  expect((await instrument(ebin, "--plan", "plan.json", "--env", "pord")).text).toMatch(
    /did you mean prod\?/,
  );
  expect({ ...plain, ...(await hashes()) }).toEqual(plain);
  expect((await instrument(ebin, "--plan", "plan.json", "--env", "dev")).text).toMatch(/1 instrumented/);
});

test("modules of Elixir, without being told where Elixir is", async () => {
  await writeFiles(folder, {
    "el/shop.ex":
      "defmodule Shop do\n  use GenServer\n  def init(x), do: {:ok, x}\n  def add(a, b \\\\ 1), do: a + b\nend\n",
  });
  await mustRun(["elixirc", "-o", "el", "el/shop.ex"], folder);
  await plan({ rules: [{ include: { module: "Shop", behaviour: "gen_server", function: "add" } }] });
  const { code, text } = await instrument("el", "--plan", "plan.json");
  expect([code, text]).toEqual([0, expect.stringMatching(/Shop\s+instrumented\s+2/)]);
});

describe("what makes no sense", () => {
  test("modules that can't be instrumented: a line each, they stay, the others are done, exit code 1", async () => {
    await plan(ALL);
    await mkdir(join(folder, "mixed"), { recursive: true });
    for (const name of ["bare.beam", "cart.beam"])
      await copyFile(join(folder, "kept", name), join(folder, "mixed", name));
    await writeFile(join(folder, "mixed/broken.beam"), "FOR1 nonsense");
    const { code, text } = await instrument("mixed", "--plan", "plan.json");
    expect(code).toBe(1);
    expect(text).toMatch(/src\/bare\.erl: bare: module bare .*compile it with debug_info/);
    expect(text).toMatch(/mixed\/broken\.beam: broken: .*at byte 4/);
    expect(text).toMatch(/2 modules stay as before/);
    expect(text).toMatch(/3 modules: 1 instrumented/);
    const after = await beamHashes(join(folder, "mixed"));
    expect(after["bare.beam"]).toBe(plain["bare.beam"]);
    expect(after["cart.beam"]).not.toBe(plain["cart.beam"]);
    // A module that no rule names need not have debug info.
    await plan({ rules: [{ include: { module: "cart" } }] });
    expect((await instrument("mixed/bare.beam", "mixed/cart.beam", "--plan", "plan.json")).code).toBe(0);
  });

  test("the command line, the plan, the files: one message, exit code 2", async () => {
    await plan(ALL);
    const failures: [string[], RegExp][] = [
      [["instrument"], /EBIN: name at least one folder/],
      [["instrument", ebin], /--plan: name the plan file/],
      [["instrument", ebin, "--plam", "x"], /--plam: there is no such option; did you mean --plan/],
      [["instrument", ebin, "--plan", "nix.json"], /nix\.json: there is no such file/],
      [["instrument", "nix", "--plan", "plan.json"], /there is no nix/],
      [["instrument", ".", "--plan", "plan.json"], /no \.beam files in \.; there are in/],
      [["instrument", ebin, "--plan", "plan.json", "--check", "--diff"], /not together/],
      [["instrument", ebin, "--plan", "plan.json", "--check", "--out", "x"], /--check writes nothing/],
      [
        ["instrument", ebin, "--plan", "plan.json", "--erl", "no-such-erl"],
        /no-such-erl.* could not be started/,
      ],
      [["instrumnet"], /there is no command instrumnet; did you mean instrument/],
      [[], /usage: beamtrace/],
    ];
    for (const [args, message] of failures) {
      const { code, text } = await beamtrace(...args);
      expect([args, code, text]).toEqual([args, 2, expect.stringMatching(message)]);
      expect(text).not.toMatch(/\bat .*\.js:\d+/);
    }
    expect({ ...plain, ...(await hashes()) }).toEqual(plain);
  });

  test("--help is no failure", async () => {
    for (const args of [["--help"], ["instrument", "--help"], ["port", "--help"]])
      expect(await beamtrace(...args)).toMatchObject({
        code: 0,
        text: expect.stringMatching(/^usage:/) as string,
      });
  });
});
