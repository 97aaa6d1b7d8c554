/** The Mix compiler on real projects: what it instruments, what it leaves, and that it does nothing when nothing has changed. */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { BeamFile } from "../../src/erlang";
import { readSiteTable } from "../../src/transform";
import {
  beamHashes,
  changed,
  fileStates,
  makeFolder,
  MIX_DEPENDENCY,
  mustRun,
  packInto,
  removeFolder,
  run,
  writeFiles,
} from "../support/build-project";
import { startNode } from "../support/erl-node";
import { ebin, instrumentedIn, mix, MIX_EXS, PLAN, SOURCES } from "../support/mix-project";
import { entriesOf } from "../support/told-events";
import { ELIXIR_EBIN } from "../support/transform";

const WITHOUT_COMPILER = MIX_EXS().replace(" ++ [:beamtrace]", "");

describe("a project", () => {
  let folder: string;
  let plain: Record<string, string>;

  beforeAll(async () => {
    folder = await makeFolder({ ...SOURCES, "mix.exs": WITHOUT_COMPILER });
    await mix(folder, "compile", { MIX_ENV: "prod" });
    plain = await beamHashes(join(folder, "_build/prod/lib/shop"));
    expect(Object.keys(plain)).toContain("consolidated/Elixir.Shop.Price.beam");
    await removeFolder(join(folder, "_build"));
  });
  afterAll(() => removeFolder(folder));

  const ALL = ["Shop.Cart", "Shop.Price.Integer", "Shop.Price.Map", "Shop.Price", "Shop.Store"].map(
    (m) => `Elixir.${m}.beam`,
  );

  test("without a plan, and in an environment that the plan does not name, every beam is what it was without beamtrace", async () => {
    await writeFiles(folder, { "mix.exs": MIX_EXS() });
    await mix(folder, "compile", { MIX_ENV: "prod" });
    expect(await beamHashes(join(folder, "_build/prod/lib/shop"))).toEqual(plain);
    await writeFiles(folder, { "beamtrace.json": PLAN });
    await mix(folder, "compile", { MIX_ENV: "prod" });
    await mix(folder, "compile --force", { MIX_ENV: "prod" });
    expect(await beamHashes(join(folder, "_build/prod/lib/shop"))).toEqual(plain);
  });

  test("its modules are instrumented, Erlang's and Elixir's, and the consolidated protocols", async () => {
    expect(await mix(folder, "compile")).toMatch(/Instrumented 6 modules of shop/);
    expect(await instrumentedIn(ebin(folder))).toEqual([...ALL, "shop_erl.beam"]);
    expect(await instrumentedIn(join(folder, "_build/dev/lib/shop/consolidated"))).toEqual([
      "Elixir.Shop.Price.beam",
    ]);
    const said = await mix(
      folder,
      "run -e IO.inspect([Shop.Cart.total([1,%{:price=>2}]),Protocol.consolidated?(Shop.Price)])",
    );
    expect(said).toMatch(/\[3, true\]/);
  });

  test("they tell of their calls", async () => {
    const node = await startNode({
      distributed: false,
      args: ["-pa", ELIXIR_EBIN, ebin(folder), join(folder, "_build/dev/lib/shop/consolidated")],
    });
    try {
      const told = await entriesOf(
        node,
        "3 = 'Elixir.Shop.Cart':total([1, #{price => 2}]), 4 = shop_erl:twice(2)",
      );
      const modules = [...new Set(told.map((entry) => entry.replace(/:\d+$/, "")))];
      expect(modules).toEqual([
        "Elixir.Shop.Cart",
        "Elixir.Shop.Price",
        "Elixir.Shop.Price.Integer",
        "Elixir.Shop.Price.Map",
        "shop_erl",
      ]);
    } finally {
      await node.stop();
    }
  });

  test("compiling again writes nothing", async () => {
    await mix(folder, "compile");
    const states = async (): Promise<Record<string, string>> => ({
      ...(await fileStates(ebin(folder))),
      ...(await fileStates(join(folder, "_build/dev/lib/shop/.mix"))),
    });
    const before = await states();
    expect(await mix(folder, "compile")).not.toMatch(/Instrumented/);
    const written = changed(before, await states());
    // Elixir 1.20 consolidates anew where there are path dependencies, changed or not; what it writes is put right without Node.
    expect(written.filter((name) => !/^compile\.(elixir|app_cache|beamtrace\.protocols)/.test(name))).toEqual(
      [],
    );
    expect(await instrumentedIn(join(folder, "_build/dev/lib/shop/consolidated"))).toEqual([
      "Elixir.Shop.Price.beam",
    ]);
  });

  test("a forced build that comes to the same code has the same beams, without the transformer", async () => {
    const before = await beamHashes(ebin(folder));
    const inode = async (): Promise<string | undefined> =>
      (await fileStates(ebin(folder)))["Elixir.Shop.Store.beam"];
    const state = await inode();
    expect(await mix(folder, "compile --force")).not.toMatch(/Instrumented/);
    expect(await inode()).not.toBe(state);
    expect(await beamHashes(ebin(folder))).toEqual(before);
    expect(await mix(folder, "run -e IO.inspect(Shop.Cart.total([1,2]))")).toMatch(/^3$/m);
  });

  test("a file that changes is compiled and instrumented alone", async () => {
    const before = await beamHashes(ebin(folder));
    const more = SOURCES["lib/shop/store.ex"].replace(
      "def put",
      "def get(store, key), do: store[key]\n  def put",
    );
    await writeFiles(folder, { "lib/shop/store.ex": more });
    expect(await mix(folder, "compile")).toMatch(/Instrumented 1 module of shop \(2 functions\)/);
    expect(changed(before, await beamHashes(ebin(folder)))).toEqual(["Elixir.Shop.Store.beam"]);
    await writeFiles(folder, { "lib/shop/store.ex": SOURCES["lib/shop/store.ex"] });
    await mix(folder, "compile");
    expect(await beamHashes(ebin(folder))).toEqual(before);
  });

  test("tests run on the modules of their own environment's plan", async () => {
    await writeFiles(folder, {
      "test/test_helper.exs": "ExUnit.start()",
      "test/cart_test.exs": `defmodule CartTest do
  use ExUnit.Case
  test "what is loaded is what was instrumented" do
    assert Shop.Cart.total([1, 2]) == 3
    helpers = fn module -> for {name, _} <- module.module_info(:functions), String.starts_with?("#{name}", "-beamtrace"), do: name end
    # Cover compiles from debug info: what it runs is its own.
    assert helpers.(Shop.Store) != [] or System.get_env("COVERED") != nil
    assert helpers.(Shop.Cart) == []
  end
end
`,
    });
    expect(await mix(folder, "test")).toMatch(/1 test, 0 failures|Result: 1 passed/);
    expect(await instrumentedIn(ebin(folder, "test"))).not.toContain("Elixir.Shop.Cart.beam");
    const { text } = await run(["mix", "test", "--cover"], folder, { COVERED: "1" });
    expect(text).toMatch(/1 test, 0 failures|Result: 1 passed/);
    expect(text).toMatch(/[1-9]\d*\.\d\d% \| Shop\.Cart/);
  });

  test("another plan starts from what the compiler wrote; without one that is what is left, byte for byte", async () => {
    await writeFiles(folder, { "beamtrace.json": '{"rules": [{"include": {"module": "Shop.Store"}}]}' });
    await mix(folder, "compile");
    expect(await instrumentedIn(join(folder, "_build/dev/lib/shop"))).toEqual([
      "ebin/Elixir.Shop.Store.beam",
    ]);
    await rm(join(folder, "beamtrace.json"));
    await mix(folder, "compile");
    expect(await beamHashes(join(folder, "_build/dev/lib/shop"))).toEqual(plain);
  });

  test("mix clean forgets", async () => {
    await writeFiles(folder, { "beamtrace.json": PLAN });
    await mix(folder, "compile");
    await mix(folder, "clean");
    const left = Object.keys(await fileStates(join(folder, "_build/dev/lib/shop")).catch(() => ({})));
    expect(left.filter((name) => /beamtrace|\.beam$/.test(name))).toEqual([]);
    expect(await mix(folder, "compile")).toMatch(/Instrumented 6 modules/);
  });

  test("a release holds the instrumented modules", async () => {
    await mix(folder, "release --overwrite --quiet", { MIX_ENV: "dev" });
    const release = join(folder, "_build/dev/rel/shop");
    const code = async (path: string): Promise<string> =>
      Buffer.from(BeamFile.read(await readFile(path)).chunk("Code") ?? []).toString("hex");
    for (const name of [...ALL, "shop_erl.beam"])
      expect([name, await code(join(release, "lib/shop-0.1.0/ebin", name))]).toEqual([
        name,
        await code(join(ebin(folder), name)),
      ]);
    const said = await mustRun(
      ["bin/shop", "eval", "IO.inspect(Shop.Cart.total([1, %{price: 2}]))"],
      release,
    );
    expect(said).toMatch(/^3$/m);
    const apps = Object.keys(await fileStates(join(release, "lib")));
    expect(apps.filter((name) => /^beamtrace/.test(name))).toEqual([]);
  });
});

test("functions are marked by use Beamtrace", async () => {
  const folder = await makeFolder({
    "mix.exs": MIX_EXS(),
    "beamtrace.json": '{"rules": [{"include": {"attribute": "@beamtrace"}}]}',
    "lib/marked.ex": `defmodule Marked do
  use Beamtrace
  @beamtrace true
  def add(a, b \\\\ 1), do: a + b
  def sub(a, b), do: a - b
  @beamtrace true
  defp secret(a), do: a
  def open(a), do: secret(a)
end
defmodule Named do
  use Beamtrace, only: [b: 1]
  def a(x), do: x
  def b(x), do: x
end
defmodule Whole do
  use Beamtrace, all: true
  def a(x), do: x
end
defmodule Not do
  def a(x), do: x
end
`,
  });
  try {
    await mix(folder, "compile");
    const functions = async (module: string): Promise<string[]> => {
      const bytes = await readFile(join(ebin(folder), `Elixir.${module}.beam`));
      const sites = readSiteTable(BeamFile.read(bytes))?.sites ?? [];
      return [...new Set(sites.map((site) => `${site.function}/${site.arity}`))].sort();
    };
    expect(await functions("Marked")).toEqual(["add/2", "secret/1"]);
    expect(await functions("Named")).toEqual(["b/1"]);
    expect(await functions("Whole")).toEqual(["__info__/1", "a/1"]);
    expect(await functions("Not")).toEqual([]);
  } finally {
    await removeFolder(folder);
  }
});

describe("an umbrella", () => {
  let folder: string;
  const child = (name: string, dependencies = ""): string => `defmodule ${name}.MixProject do
  use Mix.Project
  def project do
    [app: :${name.toLowerCase()}, version: "0.1.0", build_path: "../../_build", config_path: "../../config/config.exs", deps_path: "../../deps", lockfile: "../../mix.lock",
     compilers: Mix.compilers() ++ [:beamtrace], beamtrace: [plan: "../../beamtrace.json", dependencies: [:vendored]],
     deps: [${MIX_DEPENDENCY}, {:vendored, path: "../../vendored"}${dependencies}]]
  end
  def application, do: [extra_applications: [:logger]]
end
`;

  beforeAll(async () => {
    folder = await makeFolder({
      "mix.exs": `defmodule Umbrella.MixProject do
  use Mix.Project
  def project do
    [apps_path: "apps", version: "0.1.0", deps: [${MIX_DEPENDENCY}], beamtrace: [plan: "beamtrace.json"],
     aliases: [compile: ["compile", "beamtrace.protocols"]]]
  end
end
`,
      "beamtrace.json": JSON.stringify({
        rules: [
          { exclude: { function: "__*__" } },
          { include: { application: ["one", "vendored"] } },
          { include: { module: "Two.Told" } },
        ],
      }),
      "config/config.exs": "import Config\n",
      "apps/one/mix.exs": child("One"),
      "apps/one/lib/one.ex":
        "defprotocol One do\n  def go(x)\nend\ndefmodule One.Other do\n  def f(x), do: x\nend\n",
      "apps/two/mix.exs": child("Two", ", {:one, in_umbrella: true}"),
      "apps/two/lib/two.ex":
        "defimpl One, for: Atom do\n  def go(x), do: Vendored.f(x)\nend\ndefmodule Two.Told do\n  def f(x), do: x\nend\n",
      "vendored/mix.exs": `defmodule Vendored.MixProject do
  use Mix.Project
  def project, do: [app: :vendored, version: "0.1.0"]
end
`,
      "vendored/lib/vendored.ex": "defmodule Vendored do\n  def f(x), do: x\nend\n",
    });
  });
  afterAll(() => removeFolder(folder));

  test("its applications, requested dependencies and consolidated protocols are instrumented, by one plan", async () => {
    const text = await mix(folder, "compile");
    expect(text).toMatch(/Instrumented 2 modules of one/);
    expect(await instrumentedIn(join(folder, "_build/dev"))).toEqual(
      [
        "lib/one/ebin/Elixir.One.Other.beam",
        "lib/one/ebin/Elixir.One.beam",
        "lib/two/ebin/Elixir.Two.Told.beam",
        "lib/vendored/ebin/Elixir.Vendored.beam",
      ]
        .concat(["consolidated/Elixir.One.beam"])
        .sort(),
    );
    expect(await mix(folder, "run -e IO.inspect({One.go(:x),Protocol.consolidated?(One)})")).toMatch(
      /\{:x, true\}/,
    );
  });

  test("compiling again writes nothing, and from within one application neither", async () => {
    await mix(folder, "compile");
    const before = await beamHashes(join(folder, "_build"));
    const states = await fileStates(join(folder, "_build/dev/lib/one/ebin"));
    expect(await mix(folder, "compile")).not.toMatch(/Instrumented/);
    expect(await mix(join(folder, "apps/two"), "compile")).not.toMatch(
      /Instrumented . modules? of (one|two|vendored)\b.*\n.*ebin/,
    );
    expect(changed(states, await fileStates(join(folder, "_build/dev/lib/one/ebin")))).toEqual([]);
    const after = await beamHashes(join(folder, "_build"));
    for (const [path, hash] of Object.entries(before)) expect([path, after[path]]).toEqual([path, hash]);
  });
});

test("it works out of node_modules, from what npm packs", async () => {
  const folder = await makeFolder({
    ...SOURCES,
    "mix.exs": MIX_EXS().replace(
      MIX_DEPENDENCY,
      '{:beamtrace, path: "node_modules/beamtrace/beam/mix", runtime: false}',
    ),
    "beamtrace.json": PLAN,
  });
  try {
    await packInto(join(folder, "node_modules"));
    const packed = await fileStates(join(folder, "node_modules/beamtrace"));
    expect(await mix(folder, "compile")).toMatch(/Instrumented 6 modules of shop/);
    expect(changed(packed, await fileStates(join(folder, "node_modules/beamtrace")))).toEqual([]);
  } finally {
    await removeFolder(folder);
  }
});
