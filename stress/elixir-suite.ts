/**
 * Elixir's own tests on an Elixir of which every module is instrumented, with the idle runtime and with the one that traces, against the same
 * tests on the plain one: as many tests, and the same ones fail. BEAMTRACE_ELIXIR_SUITES="eex,logger" narrows it.
 * BEAMTRACE_ELIXIR_FOLDER=FOLDER keeps trees, logs and outcomes there, for runs in pieces: after BEAMTRACE_ELIXIR_MINUTES no suite is begun.
 * The tests are run in a fixed order; some wait for milliseconds, so the file of one whose outcome differs is run again, on both.
 */
import { execFile, execFileSync, spawn, type ChildProcess } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Row } from "../bench/row";
import { sourceHash } from "../bench/transform/corpus/progress";
import { unpackedPackages } from "../bench/server/debian-packages";
import { ELIXIR_APPLICATIONS, elixirTree } from "../bench/transform/elixir-source";
import { instrumentBeam, startCompileServer } from "../src/transform";
import { RUNTIME_ON } from "../src/transform/beam-code.generated";
import { freePort } from "../test/support/erl-node";

const VARIANTS = ["plain", "idle", "tracing"] as const;
type Variant = (typeof VARIANTS)[number];
const SUITE_MS = 15 * 60_000;
const ROUNDS = 3;

interface Failure {
  readonly name: string;
  /** Where it is; empty when all of a module's tests failed at once. */
  readonly file: string;
}

interface Outcome {
  /** The line that sums up. */
  readonly summary: string;
  readonly tests: number;
  readonly failures: readonly Failure[];
  readonly seconds: number;
  /** Files that were run; all of them when empty. */
  readonly files: readonly string[];
}

interface Trees {
  readonly folder: string;
  /** Program that mix's tests copy; Debian has taken it out of the source. */
  readonly rebar: string;
  readonly modules: number;
  readonly functions: number;
}

const treeOf = (trees: Trees, variant: Variant): string =>
  join(trees.folder, variant === "plain" ? "plain" : "instrumented");

/** A plain tree and one whose beams are instrumented; those that are there are taken if the transformer is the same. */
async function makeTrees(folder: string): Promise<Trees> {
  const rebar = join(await unpackedPackages("rebar3", ["rebar3"]), "usr/bin/rebar3");
  const record = join(folder, "trees.json");
  const sources = sourceHash();
  if (existsSync(record)) {
    const known = JSON.parse(readFileSync(record, "utf8")) as Trees & { sources: string };
    if (known.sources === sources) return { ...known, rebar };
    rmSync(folder, { recursive: true });
    mkdirSync(folder);
  }
  await elixirTree(join(folder, "plain"));
  cpSync(join(folder, "plain"), join(folder, "instrumented"), { recursive: true });
  mkdirSync(join(folder, "runtime"));
  writeFileSync(join(folder, "runtime/beamtrace_rt.beam"), Buffer.from(RUNTIME_ON, "base64"));
  await using server = await startCompileServer({
    codePaths: ELIXIR_APPLICATIONS.map((name) => join(folder, "plain/lib", name, "ebin")),
  });
  const files = ELIXIR_APPLICATIONS.flatMap((name) => {
    const ebin = join(folder, "instrumented/lib", name, "ebin");
    return readdirSync(ebin)
      .filter((file) => file.endsWith(".beam"))
      .map((file) => join(ebin, file));
  });
  let functions = 0;
  for (const file of files) {
    const result = await instrumentBeam(readFileSync(file), server);
    functions += result.instrumented.length;
    writeFileSync(file, result.bytes);
  }
  const trees = { folder, rebar, modules: files.length, functions };
  writeFileSync(record, JSON.stringify({ ...trees, sources }));
  return trees;
}

function environment(trees: Trees, variant: Variant, epmdPort: number): NodeJS.ProcessEnv {
  const home = join(trees.folder, `home-${variant}`);
  mkdirSync(home, { recursive: true });
  const runtime = variant === "tracing" ? ` -pa ${join(trees.folder, "runtime")}` : "";
  return {
    ...{ PATH: process.env["PATH"], HOME: home, LANG: "C.UTF-8", LC_ALL: "C.UTF-8" },
    ...{ ERL_EPMD_PORT: String(epmdPort), ERL_CRASH_DUMP_BYTES: "0", ELIXIR_ASSERT_TIMEOUT: "2000" },
    REBAR3: trees.rebar,
    ELIXIR_ERL_OPTIONS: `-ex_unit seed 0${runtime}`,
  };
}

/** What the VM says of itself under a variant: whether Enum is instrumented, and which runtime there is. */
function witness(trees: Trees, variant: Variant, epmdPort: number): string {
  const program = `
    Enum.map([1], & &1)
    told = Keyword.has_key?(Enum.module_info(:functions), :"-beamtrace-enter-")
    runtime = if :erlang.module_loaded(:beamtrace_rt), do: function_exported?(:beamtrace_rt, :entered, 4)
    IO.inspect({told, runtime})`;
  return execFileSync(join(treeOf(trees, variant), "bin/elixir"), ["-e", program], {
    env: environment(trees, variant, epmdPort),
    encoding: "utf8",
  }).trim();
}

const WITNESS: Readonly<Record<Variant, string>> = {
  plain: "{false, nil}",
  idle: "{true, false}",
  tracing: "{true, true}",
};

/** Runs tests of one application: those of the given files, or all. */
function runSuite(
  trees: Trees,
  variant: Variant,
  application: string,
  files: readonly string[],
  epmdPort: number,
): Promise<Outcome> {
  const tree = treeOf(trees, variant);
  const test = application === "elixir" ? "test/elixir" : "test";
  const wanted = files.length === 0 ? [`${test}/**/*_test.exs`] : files;
  const from = performance.now();
  return new Promise((resolve, reject) => {
    execFile(
      join(tree, "bin/elixir"),
      ["-r", `${test}/test_helper.exs`, ...wanted.flatMap((name) => ["-pr", name])],
      {
        cwd: join(tree, "lib", application),
        env: environment(trees, variant, epmdPort),
        maxBuffer: 1 << 28,
        timeout: SUITE_MS,
      },
      (error, stdout, stderr) => {
        writeFileSync(join(trees.folder, `${application}-${variant}.log`), stdout + stderr);
        const summaries = [...stdout.matchAll(/^(?:(\d+) doctests?, )?(\d+) tests?, \d+ failures?.*$/gm)];
        const [summary, doctests, tests] = summaries[summaries.length - 1] ?? [];
        if (summary === undefined) {
          reject(
            new Error(`${application} (${variant}): ${(stdout + stderr).slice(-1500)} ${String(error)}`),
          );
          return;
        }
        const failures = [
          ...stdout.matchAll(
            /^\s+\d+\) ((?:test|doctest|property) .*\)|.*: failure on setup_all.*)\n(?:\s+(\S+_test\.exs):\d+$)?/gm,
          ),
        ];
        resolve({
          summary,
          tests: Number(doctests ?? 0) + Number(tests),
          failures: failures
            .map(([, name = "", file = ""]) => ({ name, file }))
            .sort((a, b) => a.name.localeCompare(b.name)),
          seconds: (performance.now() - from) / 1000,
          files,
        });
      },
    );
  });
}

/** Tests that failed every time that they were run. */
const always = (outcomes: readonly Outcome[]): Failure[] =>
  (outcomes[0]?.failures ?? []).filter(({ name, file }) =>
    outcomes.every(
      ({ failures, files }) =>
        (files.length > 0 && !files.includes(file)) || failures.some((one) => one.name === name),
    ),
  );

/** Tests that failed every time in one and not in the other. */
const without = (failures: readonly Failure[], others: readonly Failure[]): Failure[] =>
  failures.filter(({ name }) => !others.some((one) => one.name === name));

/** Outcomes of an application's tests, the first ones those of earlier pieces. */
class Outcomes {
  private readonly file: string;
  private readonly known: Record<string, Outcome[]>;

  constructor({ folder }: Trees) {
    this.file = join(folder, "outcomes.json");
    this.known = existsSync(this.file)
      ? (JSON.parse(readFileSync(this.file, "utf8")) as Record<string, Outcome[]>)
      : {};
  }

  of(application: string, variant: Variant): readonly Outcome[] {
    return this.known[`${application} ${variant}`] ?? [];
  }

  add(application: string, variant: Variant, outcome: Outcome): void {
    (this.known[`${application} ${variant}`] ??= []).push(outcome);
    writeFileSync(this.file, JSON.stringify(this.known, null, 1));
  }
}

/** Runs the tests on all variants, once, and again those whose outcome differs; false when there was no time for all of it. */
async function runVariants(
  trees: Trees,
  application: string,
  known: Outcomes,
  epmdPort: number,
  endsAt: number,
): Promise<boolean> {
  const differing = (variant: Variant): Failure[] => {
    const [here, plain] = [always(known.of(application, variant)), always(known.of(application, "plain"))];
    return [...without(here, plain), ...without(plain, here)];
  };
  for (let round = 0; round < ROUNDS; round++) {
    const different = round === 0 ? [] : VARIANTS.flatMap(differing);
    if (round > 0 && different.length === 0) break;
    const places = different.map(({ file }) => file);
    const files = places.includes("") ? [] : [...new Set(places)];
    for (const variant of VARIANTS) {
      if (known.of(application, variant).length > round) continue;
      if (performance.now() > endsAt) return false;
      const outcome = await runSuite(trees, variant, application, files, epmdPort);
      known.add(application, variant, outcome);
      console.error(
        `  ${application} (${variant}): ${outcome.summary}, ${outcome.seconds.toFixed(0)} s ${files.join(", ")}`,
      );
      for (const { name } of outcome.failures) console.error(`    failed: ${name}`);
    }
  }
  return true;
}

async function compareSuite(
  trees: Trees,
  application: string,
  known: Outcomes,
  epmdPort: number,
  endsAt: number,
): Promise<Row[]> {
  const finished = await runVariants(trees, application, known, epmdPort, endsAt);
  if (!finished)
    return [
      {
        what: `${application}'s tests, instrumented`,
        target: "as on the plain one",
        measured: "not all run yet; the next run with the same BEAMTRACE_ELIXIR_FOLDER goes on",
        ...{ value: 0, ok: false },
      },
    ];
  const outcomes = {
    plain: known.of(application, "plain"),
    idle: known.of(application, "idle"),
    tracing: known.of(application, "tracing"),
  };
  const [plain] = outcomes.plain;
  if (plain === undefined) throw new Error("no outcome");
  return (["idle", "tracing"] as const).map((variant) => {
    const [first] = outcomes[variant];
    const other = without(always(outcomes[variant]), always(outcomes.plain));
    const tests = first?.tests ?? 0;
    for (const { name } of other) console.error(`  ${application} (${variant}) only: ${name}`);
    const rounds = outcomes[variant].length;
    return {
      what: `${application}'s tests, instrumented, ${variant} runtime`,
      target: "as on the plain one",
      measured: `${first?.summary ?? "–"}; plain: ${plain.summary}; ${other.length} that fail only here${rounds > 1 ? ` (in each of ${rounds} runs)` : ""}; ${(first?.seconds ?? 0).toFixed(0)} s (${plain.seconds.toFixed(0)} s)`,
      value: other.length,
      ok: other.length === 0 && tests === plain.tests,
    };
  });
}

export async function run(): Promise<Row[]> {
  const chosen = process.env["BEAMTRACE_ELIXIR_SUITES"]?.split(",");
  const suites = ELIXIR_APPLICATIONS.filter((name) => chosen?.includes(name) !== false);
  const kept = process.env["BEAMTRACE_ELIXIR_FOLDER"];
  const folder = kept ?? mkdtempSync(join(tmpdir(), "beamtrace-elixir-suite-"));
  mkdirSync(folder, { recursive: true });
  const remove = (): void => {
    if (kept === undefined) rmSync(folder, { recursive: true, force: true });
  };
  process.once("exit", remove);
  const endsAt = performance.now() + Number(process.env["BEAMTRACE_ELIXIR_MINUTES"] ?? Infinity) * 60_000;
  const epmdPort = await freePort();
  let epmd: ChildProcess | undefined;
  try {
    const trees = await makeTrees(folder);
    // The tests talk to nodes by name: an epmd of their own, that ends with them.
    epmd = spawn("epmd", ["-port", String(epmdPort), "-address", "127.0.0.1"], { stdio: "ignore" });
    for (const variant of VARIANTS) {
      const seen = witness(trees, variant, epmdPort);
      if (seen !== WITNESS[variant])
        throw new Error(`under ${variant} the VM says ${seen}, not ${WITNESS[variant]}`);
    }
    console.error(`  ${trees.modules} modules, ${trees.functions} functions instrumented`);
    const rows: Row[] = [];
    const known = new Outcomes(trees);
    for (const application of suites)
      rows.push(...(await compareSuite(trees, application, known, epmdPort, endsAt)));
    return rows;
  } finally {
    epmd?.kill();
    remove();
    process.off("exit", remove);
  }
}
