/**
 * What instrumenting every function of a Mix project adds to its build: `mix compile --force` with and without a plan in turn, the CPU time
 * of the VM, of Node, and the clock on the wall; and what a build adds where nothing, or one file, has changed.
 */
import { execFile } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";

import type { Row } from "../row";
import { bootstrap, formatEstimate, median } from "../server/statistics";
import { generatedSources } from "./generated-project";

const execute = promisify(execFile);
const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const MODULES = 100;
const TICKS_PER_SECOND = 100;

/** What one build used, in seconds. */
interface Build {
  readonly wall: number;
  readonly vm: number;
  readonly node: number;
}

/** Runs the command line as it is, and leaves behind what it used. */
const MEASURED = (usage: string): string => `import { appendFileSync, writeFileSync } from "node:fs";
writeFileSync(${JSON.stringify(`${usage}.started`)}, "");
process.once("exit", () => {
  const { user, system } = process.cpuUsage();
  appendFileSync(${JSON.stringify(usage)}, \`\${(user + system) / 1e6}\\n\`);
});
await import(${JSON.stringify(`${ROOT}/dist/cli/main.js`)});
`;

const MIX_EXS = `defmodule Big.MixProject do
  use Mix.Project
  def project do
    [app: :big, version: "0.1.0", compilers: Mix.compilers() ++ [:beamtrace],
     beamtrace: [cli: Path.expand("measured.mjs"), required: true],
     deps: [{:beamtrace, path: "${ROOT}/beam/mix", runtime: false}]]
  end
  def application, do: [extra_applications: [:logger]]
end
`;

/** A build of the project, with a plan or without, in a folder of its own. */
class Project {
  readonly folder: string;
  private readonly usage: string;

  constructor(parent: string, name: string, plan: object | undefined) {
    this.folder = join(parent, name);
    this.usage = join(this.folder, "usage");
    const files = { ...generatedSources(MODULES), "mix.exs": MIX_EXS, "measured.mjs": MEASURED(this.usage) };
    for (const [path, text] of Object.entries(files)) this.write(path, text);
    if (plan !== undefined) this.write("beamtrace.json", JSON.stringify(plan));
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(join(this.folder, path)), { recursive: true });
    writeFileSync(join(this.folder, path), text);
  }

  /** Builds, and gives what it took; `said` is what Mix printed. */
  async build(...args: string[]): Promise<Build & { readonly said: string }> {
    for (const file of [this.usage, `${this.usage}.started`]) rmSync(file, { force: true });
    const ticks = "IO.write(:stderr, File.read!('/proc/self/stat'))";
    const begin = process.hrtime.bigint();
    const { stdout, stderr } = await execute(
      "mix",
      ["do", "compile", ...args, ",", "run", "--no-start", "--no-compile", "-e", ticks.replaceAll("'", '"')],
      {
        cwd: this.folder,
        maxBuffer: 1 << 26,
        env: { ...process.env, LANG: "C.UTF-8" },
      },
    );
    const wall = Number(process.hrtime.bigint() - begin) / 1e9;
    const fields = /\(.*\) (.*)/.exec(stderr)?.[1]?.split(" ") ?? [];
    const vm = (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
    return { wall, vm, node: await this.nodeSeconds(), said: stdout };
  }

  /** CPU seconds of Node: 0 where it was not started. It writes them when it ends, just after the VM has closed its input. */
  private async nodeSeconds(): Promise<number> {
    if (!existsSync(`${this.usage}.started`)) return 0;
    for (let patience = 1000; patience > 0; patience--) {
      if (existsSync(this.usage) && readFileSync(this.usage, "utf8").endsWith("\n"))
        return Number(readFileSync(this.usage, "utf8"));
      await setTimeout(20);
    }
    throw new Error("node was started and did not end with the build");
  }

  /** Forgets what was instrumented, so that the next build does all of it. */
  forget(): void {
    const folder = join(this.folder, "_build/dev/lib/big/.mix");
    for (const name of readdirSync(folder))
      if (name.startsWith("compile.beamtrace")) rmSync(join(folder, name), { recursive: true });
  }

  beams(): Map<string, number> {
    const ebin = join(this.folder, "_build/dev/lib/big/ebin");
    return new Map(readdirSync(ebin).map((name) => [name, statSync(join(ebin, name)).ino]));
  }
}

/** CPU seconds that the BEAM takes to generate the code of the plain modules once more, from forms in memory, nothing put in: what no second pass can go below. */
async function codeGeneration(ebin: string): Promise<number> {
  const script = `
    modules = for file <- Path.wildcard(hd(System.argv()) <> "/*.beam") do
      {:ok, {module, [debug_info: {:debug_info_v1, backend, data}]}} = :beam_lib.chunks(to_charlist(file), [:debug_info])
      {:ok, forms} = backend.debug_info(:erlang_v1, module, data, [])
      {forms, elem(data, 1).compile_opts}
    end
    :erlang.statistics(:runtime)
    for {forms, options} <- modules do
      {:ok, core, _} = :v3_core.module(forms, options)
      passes = [:no_spawn_compiler_process, :from_core, :no_core_prepare, :no_auto_import, :return, :binary]
      {:ok, _, _, _} = :compile.noenv_forms(core, passes ++ options)
    end
    IO.write(elem(:erlang.statistics(:runtime), 1))`;
  const { stdout } = await execute("elixir", ["-e", script, ebin]);
  return Number(stdout) / 1000;
}

const percent = (samples: readonly number[]): string =>
  `${formatEstimate(
    bootstrap(
      samples.map((share) => share * 100),
      median,
    ),
    1,
  )} %`;

interface Pair {
  readonly plain: Build;
  readonly told: Build;
}

/** Builds of both projects in turn. */
async function pairs(
  plain: Project,
  told: Project,
  rounds: number,
  build: (project: Project, round: number) => Promise<Build>,
): Promise<Pair[]> {
  const result: Pair[] = [];
  for (let round = 0; round < rounds; round++) {
    // Who comes first changes, so that neither always meets what the other left in caches.
    const [first, second] = round % 2 === 0 ? [plain, told] : [told, plain];
    const a = await build(first, round);
    const b = await build(second, round);
    result.push(round % 2 === 0 ? { plain: a, told: b } : { plain: b, told: a });
  }
  return result;
}

function shareRow(what: string, target: number | undefined, samples: readonly number[], detail: string): Row {
  const value = median(samples);
  return {
    what,
    target: target === undefined ? "" : `≤ ${target * 100} %`,
    measured: `${percent(samples)}${detail}`,
    value,
    ok: target === undefined || value <= target,
  };
}

const seconds = (values: readonly number[]): string => `${median(values).toFixed(2)} s`;

export async function run(quick: boolean): Promise<Row[]> {
  const parent = mkdtempSync(join(tmpdir(), "beamtrace-build-time-"));
  try {
    const plain = new Project(parent, "plain", undefined);
    const told = new Project(parent, "told", { rules: [{ include: {} }] });
    await plain.build();
    const [, modules = "", functions = ""] =
      /Instrumented (\d+) modules of big \((\d+) functions\)/.exec((await told.build()).said) ?? [];
    if (Number(modules) < MODULES) throw new Error(`only ${modules} modules were instrumented`);
    const anew = (project: Project): Promise<Build> => {
      project.forget();
      return project.build("--force");
    };
    const full = await pairs(plain, told, quick ? 5 : 15, anew);
    if (full.some((pair) => pair.told.node === 0)) throw new Error("a build did not transform");
    const all = (pick: (pair: Pair) => number): number[] => full.map(pick);
    const again: number[] = [];
    for (let round = 0; round < 3; round++)
      again.push(await codeGeneration(join(plain.folder, "_build/dev/lib/big/ebin")));
    const rows: Row[] = [
      shareRow(
        `${modules} modules, ${functions} functions: CPU of Node over that of the build`,
        0.1,
        all((p) => p.told.node / p.plain.vm),
        ` (${seconds(all((p) => p.told.node))} over ${seconds(all((p) => p.plain.vm))})`,
      ),
      shareRow(
        "CPU added in all, Node and the second code generation",
        0.6,
        all((p) => (p.told.vm + p.told.node) / p.plain.vm - 1),
        "",
      ),
      shareRow(
        "for comparison: the code generation of the plain modules alone",
        undefined,
        again.map((cpu) => cpu / median(all((p) => p.plain.vm))),
        " of the build's CPU",
      ),
      shareRow(
        "time added on the clock",
        0.6,
        all((p) => p.told.wall / p.plain.wall - 1),
        ` (${seconds(all((p) => p.plain.wall))} → ${seconds(all((p) => p.told.wall))})`,
      ),
    ];
    const optimised = new Project(parent, "optimised", { optimize: true, rules: [{ include: {} }] });
    await optimised.build();
    const slower = await pairs(plain, optimised, quick ? 3 : 9, anew);
    rows.push(
      shareRow(
        "for comparison: optimised, as outside of dev: CPU added in all",
        undefined,
        slower.map((p) => (p.told.vm + p.told.node) / p.plain.vm - 1),
        "",
      ),
    );
    const forced = await pairs(plain, told, quick ? 5 : 11, (project) => project.build("--force"));
    rows.push({
      ...shareRow(
        "forced again, the code is the same: CPU added in all",
        undefined,
        forced.map((p) => (p.told.vm + p.told.node) / p.plain.vm - 1),
        `; Node was started by ${forced.filter((p) => p.told.node > 0).length} of ${forced.length} builds`,
      ),
      ok: forced.every((p) => p.told.node === 0),
    });
    const before = told.beams();
    const idle = await pairs(plain, told, quick ? 5 : 11, (project) => project.build());
    const rewritten = [...told.beams()].filter(([name, inode]) => before.get(name) !== inode);
    const started = idle.filter((pair) => pair.told.node > 0);
    rows.push({
      what: "nothing has changed: beams written, Node processes started",
      target: "0, 0",
      measured: `${rewritten.length}, ${started.length}; CPU of the VM ${formatEstimate(
        bootstrap(
          idle.map((p) => 1000 * (p.told.vm - p.plain.vm)),
          median,
        ),
        0,
      )} ms over plain`,
      value: rewritten.length + started.length,
      ok: rewritten.length === 0 && started.length === 0,
    });
    const source = generatedSources(MODULES)["lib/big/part_0.ex"] ?? "";
    const settled = told.beams();
    const one = await pairs(plain, told, quick ? 5 : 11, (project, round) => {
      project.write(
        "lib/big/part_0.ex",
        source.replace("  def matrix", `  def round_${round}, do: ${round}\n\n  def matrix`),
      );
      return project.build();
    });
    const others = [...told.beams()].filter(([name, inode]) => settled.get(name) !== inode);
    rows.push({
      what: "one file has changed: other beams written",
      target: "0",
      measured: `${others.length - 1}; ${formatEstimate(
        bootstrap(
          one.map((p) => 1000 * (p.told.wall - p.plain.wall)),
          median,
        ),
        0,
      )} ms on the clock over plain`,
      value: others.length - 1,
      ok: others.length === 1,
    });
    return rows;
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
}
