/** How modules come back plain, byte for byte: after builds that were killed, without the manifest, and when nobody wants their events any more. */
import { once } from "node:events";
import { cp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { BeamFile } from "../../src/erlang";
import { readSiteTable } from "../../src/transform";
import {
  beamHashes,
  COMMAND,
  makeFolder,
  MIX_DEPENDENCY,
  mustRun,
  removeFolder,
  start,
  writeFiles,
} from "../support/build-project";
import "../support/erl-node";
import { instrumentedIn } from "../support/mix-project";

// A project that changes its options without a change of mix.exs, for which Mix would compile all anew.
const MIX_EXS = `defmodule Shop.MixProject do
  use Mix.Project
  def project do
    [app: :shop, version: "0.1.0", compilers: Mix.compilers() ++ [:beamtrace], beamtrace: elem(Code.eval_string(System.get_env("OPTIONS", "[]")), 0),
     deps: [${MIX_DEPENDENCY}, {:vendored, path: "vendored"}]]
  end
end
`;
const COUNT = 24;
const MODULES = Object.fromEntries(
  Array.from({ length: COUNT }, (_, i) => [
    `lib/m${i}.ex`,
    `defmodule M${i} do\n  def f(x), do: x + ${i}\n  def g(x), do: [f(x) | h(x)]\n  defp h(x), do: [x]\nend\n`,
  ]),
);
/** The transformer, up to the fiftieth packet that it writes: a build with it comes to about the middle, and no further. */
const STALLING = `import { spawn } from "node:child_process";
const child = spawn(process.execPath, [${JSON.stringify(COMMAND)}, "port"], { stdio: ["pipe", "pipe", "inherit"] });
process.stdin.pipe(child.stdin);
process.stdin.on("close", () => process.exit());
let bytes = Buffer.alloc(0);
let packets = 0;
child.stdout.on("data", (data) => {
  bytes = Buffer.concat([bytes, data]);
  while (bytes.length >= 4 && bytes.length >= 4 + bytes.readUInt32BE(0)) {
    const size = 4 + bytes.readUInt32BE(0);
    if (packets++ < 50) process.stdout.write(bytes.subarray(0, size));
    bytes = bytes.subarray(size);
  }
});
`;
const PLAN = { "beamtrace.json": '{"rules": [{"include": {}}]}' };

describe("a project whose plan is taken away", () => {
  let folder: string;
  let plain: Record<string, string>;
  const lib = (...path: string[]): string => join(folder, "_build/dev/lib", ...path);
  const manifest = (): string => lib("shop/.mix/compile.beamtrace");
  const mix = (args = "compile", options = "[]"): Promise<string> =>
    mustRun(["mix", ...args.split(" ")], folder, { OPTIONS: options });
  const hashes = (): Promise<Record<string, string>> => beamHashes(lib("shop/ebin"));

  const instrumented = async (application = "shop"): Promise<number> =>
    (await instrumentedIn(lib(application))).length;

  /** A build without the plan compiles nothing, and leaves what the compiler wrote, with nothing beside it. */
  async function comesBack(): Promise<void> {
    await rm(join(folder, "beamtrace.json"), { force: true });
    expect(await mix()).not.toMatch(/Compiling|Instrumented|warning/);
    expect(await hashes()).toEqual(plain);
    expect((await readdir(lib("shop/ebin"))).filter((name) => !/\.(beam|app)$/.test(name))).toEqual([]);
    expect(await readdir(lib("shop/.mix"))).not.toContain("compile.beamtrace.kept");
  }

  beforeAll(async () => {
    folder = await makeFolder({
      ...MODULES,
      "mix.exs": MIX_EXS,
      "stall.mjs": STALLING,
      "vendored/mix.exs":
        'defmodule Vendored.MixProject do\n  use Mix.Project\n  def project, do: [app: :vendored, version: "0.1.0"]\nend\n',
      "vendored/lib/vendored.ex":
        "defmodule Vendored do\n  def f(x), do: x\nend\ndefprotocol Vendored.Protocol do\n  def f(x)\nend\n",
    });
    await mix();
    plain = await hashes();
    expect(Object.keys(plain)).toHaveLength(COUNT);
  });
  afterAll(() => removeFolder(folder));

  /** Kills a build that has replaced some beams, and will not come to all. */
  async function kill(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    await writeFiles(folder, PLAN);
    const build = start(["mix", "compile"], folder, { OPTIONS: '[cli: "stall.mjs"]' });
    const ended = once(build, "exit");
    // Consolidated protocols are deleted and written while this looks.
    const done = async (): Promise<number> => (await instrumentedIn(lib("shop/ebin"))).length;
    try {
      while ((await done()) < 4) {
        if (build.exitCode !== null) throw new Error("the build came to its end");
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      process.kill(-(build.pid as number), signal);
      await ended;
    } finally {
      // It waits for good, and the next build for it.
      if (build.exitCode === null && build.signalCode === null)
        process.kill(-(build.pid as number), "SIGKILL");
    }
    const count = await done();
    expect(count).toBeGreaterThanOrEqual(4);
    expect(count).toBeLessThan(COUNT);
  }

  test("a build that is killed half way is made up for by the next, without the plan and with it", async () => {
    await kill("SIGKILL");
    await comesBack();
    await kill("SIGKILL");
    const text = await mix();
    expect(text).toMatch(/Instrumented \d+ modules of shop/);
    expect(text).not.toMatch(/Compiling|warning/);
    expect(await instrumented()).toBe(COUNT);
    await comesBack();
  });

  test("so is one that is told to end, and killed again while it was made up for", async () => {
    await kill("SIGTERM");
    await kill("SIGKILL");
    await comesBack();
  });

  describe("all that a build can leave when it is killed", () => {
    const kept = (): string => `${manifest()}.kept`;
    const half = (): string[] => Object.keys(plain).filter((_, i) => i % 2 === 0);
    const bytes: Record<string, Buffer> = {};
    beforeAll(async () => {
      for (const name of Object.keys(plain)) bytes[name] = await readFile(lib("shop/ebin", name));
    });

    const stages: Record<string, () => Promise<void>> = {
      "no manifest, some beams in place": async () => {
        await rm(manifest());
        for (const name of half()) await writeFile(lib("shop/ebin", name), bytes[name] ?? "");
      },
      "the manifest of the build before, all beams in place": async () => {
        await rename(join(folder, "before"), manifest());
      },
      "an empty manifest, and half files": async () => {
        await writeFile(manifest(), "");
        const some = (bytes["Elixir.M1.beam"] ?? Buffer.of()).subarray(0, 100);
        await writeFile(lib("shop/ebin/Elixir.M1.beam.beamtrace-4711"), some);
        await writeFile(join(kept(), "Elixir.M2.beam.beamtrace-47111"), some);
      },
      "a manifest that is none, and kept beams whose names say nothing": async () => {
        await writeFile(manifest(), "\x83h\x04none");
        for (const name of await readdir(kept())) if (name.includes("-")) await rm(join(kept(), name));
      },
      "plain beams kept, none replaced": async () => {
        await rm(manifest());
        for (const name of Object.keys(plain)) await writeFile(lib("shop/ebin", name), bytes[name] ?? "");
      },
    };
    test.each(Object.entries(stages))("%s", async (_, leave) => {
      for (const then of ["without the plan", "with the plan"]) {
        await rm(join(folder, "beamtrace.json"), { force: true });
        await mix();
        await cp(manifest(), join(folder, "before"));
        await writeFiles(folder, PLAN);
        await mix();
        expect(await instrumented()).toBe(COUNT);
        await leave();
        if (then === "with the plan") {
          await mix();
          expect(await instrumented()).toBe(COUNT);
        }
        await comesBack();
      }
    });
  });

  test("where the plain beams are lost it is said, until they are compiled anew", async () => {
    const told =
      /^warning: 24 modules of shop should be plain and stay instrumented \(M0, M1, M10 and 21 more\): what the compiler wrote is not kept any more\. To compile them anew: mix compile --force$/m;
    await writeFiles(folder, PLAN);
    await mix();
    await removeFolder(`${manifest()}.kept`);
    await rm(join(folder, "beamtrace.json"));
    expect(await mix()).toMatch(told);
    await rm(manifest());
    expect(await mix()).toMatch(told);
    expect(await mix()).toMatch(told);
    // A plan that instruments them needs no plain ones.
    await writeFiles(folder, PLAN);
    expect(await mix()).not.toMatch(/warning/);
    await rm(join(folder, "beamtrace.json"));
    expect(await mix()).toMatch(told);
    expect(await mix("compile --force")).not.toMatch(/warning/);
    expect(await hashes()).toEqual(plain);
  });

  test("a dependency that is wanted no longer comes back plain, with its protocols, also by mix clean", async () => {
    const before = await beamHashes(lib("vendored"));
    await writeFiles(folder, PLAN);
    const wanted = "[dependencies: [:vendored]]";
    expect(await mix("compile", wanted)).toMatch(/Instrumented 2 modules of vendored/);
    const all = await instrumented();
    expect(all).toBeGreaterThan(COUNT);
    await mix();
    expect(await beamHashes(lib("vendored"))).toEqual(before);
    expect(await instrumented()).toBe(COUNT);
    await mix("compile", wanted);
    expect(await instrumented()).toBe(all);
    await mix("compile", "[plan: false, dependencies: [:vendored]]");
    expect(await beamHashes(lib("vendored"))).toEqual(before);
    await mix("compile", wanted);
    await mix("clean", wanted);
    expect(await beamHashes(lib("vendored"))).toEqual(before);
    const left = await readdir(lib(), { recursive: true });
    expect(left.filter((name) => /^shop.*beamtrace/.test(name))).toEqual([]);
  });
});

test("in an umbrella a dependency stays instrumented while one of the applications wants it", async () => {
  const child = (name: string): string => `defmodule ${name}.MixProject do
  use Mix.Project
  def project do
    [app: :${name.toLowerCase()}, version: "0.1.0", build_path: "../../_build", deps_path: "../../deps", lockfile: "../../mix.lock",
     compilers: Mix.compilers() ++ [:beamtrace],
     beamtrace: [plan: "../../beamtrace.json", dependencies: if("${name}" in String.split(System.get_env("WANT", "")), do: [:vendored], else: [])],
     deps: [${MIX_DEPENDENCY}, {:vendored, path: "../../vendored"}]]
  end
end
`;
  const folder = await makeFolder({
    ...PLAN,
    "mix.exs": `defmodule Umbrella.MixProject do
  use Mix.Project
  def project, do: [apps_path: "apps", version: "0.1.0", deps: [${MIX_DEPENDENCY}]]
end
`,
    "apps/one/mix.exs": child("One"),
    "apps/one/lib/one.ex": "defmodule One do\n  def f(x), do: x\nend\n",
    "apps/two/mix.exs": child("Two"),
    "apps/two/lib/two.ex": "defmodule Two do\n  def f(x), do: x\nend\n",
    "vendored/mix.exs":
      'defmodule Vendored.MixProject do\n  use Mix.Project\n  def project, do: [app: :vendored, version: "0.1.0"]\nend\n',
    "vendored/lib/vendored.ex": "defmodule Vendored do\n  def f(x), do: x\nend\n",
  });
  try {
    const has = async (want: string): Promise<boolean> => {
      await mustRun(["mix", "compile"], folder, { WANT: want });
      const beam = await readFile(join(folder, "_build/dev/lib/vendored/ebin/Elixir.Vendored.beam"));
      return readSiteTable(BeamFile.read(beam)) !== undefined;
    };
    expect(await has("One Two")).toBe(true);
    expect(await has("Two")).toBe(true);
    expect(await has("One")).toBe(true);
    expect(await has("")).toBe(false);
  } finally {
    await removeFolder(folder);
  }
});
