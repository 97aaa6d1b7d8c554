/**
 * Modules that nobody here wrote: all of OTP's and Elixir's that a machine has, each read, instrumented, compiled and loaded into
 * a fresh node, on every release there is a root for. A failure is a failure; a refusal is listed with its reason.
 * BEAMTRACE_CORPUS="25:stdlib,kernel;29:elixir" narrows it to applications; --quick takes every eighth module.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";

import { BeamFile, BeamtraceError } from "../../src/erlang";
import { instrumentBeam, startCompileServer, type CompileServer } from "../../src/transform";
import { RUNTIME_OFF, RUNTIME_ON } from "../../src/transform/beam-code.generated";
import type { Row } from "../row";

const LIBRARIES = ["usr/lib/erlang/lib", "usr/lib/elixir/lib"];
const TICKS = 100;

interface Release {
  readonly release: string;
  readonly root: string;
}

function releases(): Release[] {
  const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "beamtrace");
  const others = ["27", "29"].map((release) => ({ release, root: join(cache, `otp-${release}`) }));
  return [{ release: "25", root: "/" }, ...others.filter(({ root }) => existsSync(root))];
}

const command = (root: string, program: string): string[] =>
  root === "/" ? [program] : ["chroot", root, program];

interface Module {
  readonly application: string;
  readonly file: string;
}

function modules(root: string, wanted: ReadonlySet<string> | undefined): Module[] {
  return LIBRARIES.flatMap((library) =>
    (existsSync(join(root, library)) ? readdirSync(join(root, library)) : []).flatMap((folder) => {
      const application = folder.replace(/-[\d.]+$/, "");
      const ebin = join(root, library, folder, "ebin");
      if (wanted?.has(application) === false || !existsSync(ebin)) return [];
      return readdirSync(ebin)
        .filter((name) => name.endsWith(".beam"))
        .map((name) => ({ application, file: join(ebin, name) }));
    }),
  );
}

/** CPU seconds that a process has used. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

interface Tally {
  modules: number;
  functions: number;
  sites: number;
  warnings: number;
  bytesBefore: number;
  bytesAfter: number;
  codeBefore: number;
  codeAfter: number;
  readonly refusedFunctions: Map<string, number>;
  readonly refused: string[];
  readonly failed: string[];
}

/** Instruments all modules, a few at a time; what came out lies in `out` by application. */
async function instrumentAll(list: readonly Module[], server: CompileServer, out: string): Promise<Tally> {
  const tally: Tally = {
    ...{ modules: 0, functions: 0, sites: 0, warnings: 0 },
    ...{ bytesBefore: 0, bytesAfter: 0, codeBefore: 0, codeAfter: 0 },
    ...{ refusedFunctions: new Map(), refused: [], failed: [] },
  };
  const queue = [...list];
  const work = async (): Promise<void> => {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) {
      const { application, file } = one;
      const bytes = readFileSync(file);
      tally.modules++;
      try {
        const result = await instrumentBeam(bytes, server, { runtime: "present" });
        tally.functions += result.instrumented.length;
        tally.sites += result.table.sites.length;
        tally.bytesBefore += bytes.length;
        tally.bytesAfter += result.bytes.length;
        tally.codeBefore += BeamFile.read(bytes).chunk("Code")?.length ?? 0;
        tally.codeAfter += BeamFile.read(result.bytes).chunk("Code")?.length ?? 0;
        for (const { reason } of result.refused)
          tally.refusedFunctions.set(reason, (tally.refusedFunctions.get(reason) ?? 0) + 1);
        const foreign = result.warnings.filter(({ message }) => /beamtrace/i.test(message));
        tally.warnings += foreign.length;
        for (const { message } of foreign.slice(0, 2)) console.error(`  warning: ${application} ${message}`);
        writeFileSync(join(out, `${application}@${basename(file)}`), result.bytes);
      } catch (error) {
        const refusal = error instanceof BeamtraceError && error.code !== "BT_COMPILE_FAILED";
        const text = `${application} ${basename(file)}: ${(error as Error).message.slice(0, 500)}`;
        (refusal ? tally.refused : tally.failed).push(text);
      }
    }
  };
  await Promise.all([work(), work(), work()]);
  return tally;
}

/** Loads one application's modules into a fresh node, over those it runs on, and answers which of them it refused. */
const LOAD = `
  {ok, Dir} = init:get_argument(corpus), [[D, App]] = Dir,
  Runtime = base64:decode(os:getenv("BEAMTRACE_RUNTIME")),
  {module, _} = code:load_binary(beamtrace_rt, "beamtrace_rt.erl", Runtime),
  Files = lists:sort(filelib:wildcard(filename:join(D, App ++ "@*.beam"))),
  Beams = [begin {ok, B} = file:read_file(F), {F, B} end || F <- Files],
  %% The preloaded ones are the VM itself: the loader is asked, but they are not put in place.
  Preloaded = erlang:pre_loaded(),
  Bad = lists:append([begin
    [_, Name] = string:split(filename:basename(F, ".beam"), "@"),
    M = list_to_atom(Name),
    code:unstick_mod(M),
    Result = case lists:member(M, Preloaded) of
      true -> case erlang:prepare_loading(M, B) of {error, W} -> {error, W}; _ -> {module, M} end;
      false -> code:load_binary(M, Name ++ ".beam", B)
    end,
    case Result of
      {module, M} -> [];
      {error, Why} ->
        %% A module whose on_load fails here fails so from its own file too.
        Plain = case code:which(M) of P when is_list(P) -> code:load_file(M); _ -> none end,
        case Plain of {error, Why} -> []; _ -> [{M, Why}] end
    end
  end || {F, B} <- Beams]),
  io:format("~nBAD ~0tp LOADED ~w~n", [Bad, length(Beams)]), halt(0).`;

async function loadAll(
  release: Release,
  out: string,
  applications: readonly string[],
): Promise<{ readonly loaded: number; readonly failed: string[] }> {
  const run = promisify(execFile);
  let loaded = 0;
  const failed: string[] = [];
  for (const application of applications) {
    for (const [mode, runtime] of [
      ["off", RUNTIME_OFF],
      ["on", RUNTIME_ON],
    ] as const) {
      const [program = "erl", ...leading] = command(release.root, "erl");
      const elixir = readdirSync(join(release.root, LIBRARIES[1]!)).map((a) => `/${LIBRARIES[1]}/${a}/ebin`);
      const inside = release.root === "/" ? out : out.slice(release.root.length);
      const args = ["-noshell", "-noinput", "-pa", ...elixir, "-corpus", inside, application, "-eval", LOAD];
      const { stdout } = await run(program, [...leading, ...args], {
        env: { ...process.env, BEAMTRACE_RUNTIME: runtime, ERL_CRASH_DUMP_BYTES: "0" },
        maxBuffer: 1 << 26,
        timeout: 120_000,
      }).catch((error: Error & { stdout?: string }) => ({
        stdout: `${error.stdout ?? ""} ${error.message.slice(-300)}`,
      }));
      const [, bad, count] = /BAD (.*) LOADED (\d+)\n/.exec(stdout) ?? [];
      if (bad === undefined) failed.push(`${application} (${mode}): the node died: ${stdout.slice(-600)}`);
      else if (bad !== "[]") failed.push(`${application} (${mode}): ${bad.slice(0, 600)}`);
      if (mode === "on") loaded += Number(count ?? 0);
    }
  }
  return { loaded, failed };
}

async function corpusOn(
  release: Release,
  wanted: ReadonlySet<string> | undefined,
  quick: boolean,
): Promise<Row[]> {
  const list = modules(release.root, wanted).filter((_, i) => !quick || i % 8 === 0);
  if (list.length === 0) return [];
  const parent = release.root === "/" ? tmpdir() : join(release.root, "tmp");
  const out = mkdtempSync(join(parent, "beamtrace-corpus-"));
  const codePaths = readdirSync(join(release.root, LIBRARIES[1]!)).map((a) => `/${LIBRARIES[1]}/${a}/ebin`);
  const server = await startCompileServer({ command: command(release.root, "erl"), codePaths });
  try {
    const start = { own: process.cpuUsage(), beam: cpuSeconds(server.pid), at: performance.now() };
    const tally = await instrumentAll(list, server, out);
    const { user, system } = process.cpuUsage(start.own);
    const own = (user + system) / 1e6;
    const beam = cpuSeconds(server.pid) - start.beam;
    const seconds = (performance.now() - start.at) / 1000;
    const applications = [...new Set(list.map(({ application }) => application))];
    const { loaded, failed } = await loadAll(release, out, applications);
    for (const line of [...tally.refused, ...tally.failed, ...failed])
      console.error(`  OTP ${release.release}: ${line}`);
    const reasons = [...tally.refusedFunctions].map(([reason, count]) => `${count} × ${reason}`).join("; ");
    const on = `OTP ${release.release}`;
    const report = (what: string, measured: string, value: number): Row => ({
      ...{ what: `${on}: ${what}`, target: "", measured, value, ok: true },
    });
    const failures = tally.failed.length + failed.length;
    return [
      {
        what: `${on}: modules instrumented, compiled and loaded`,
        target: "no failure",
        measured: `${loaded} of ${tally.modules}, ${failures} failures, ${tally.refused.length} refused`,
        ...{ value: failures, ok: failures === 0 && loaded + tally.refused.length === tally.modules },
      },
      {
        what: `${on}: warnings about what was added`,
        target: "none",
        measured: String(tally.warnings),
        ...{ value: tally.warnings, ok: tally.warnings === 0 },
      },
      report(
        "functions and sites",
        `${tally.functions} functions, ${tally.sites} sites; left alone: ${reasons || "none"}`,
        tally.functions,
      ),
      report(
        "speed",
        `${(tally.modules / seconds).toFixed(1)} modules/s, ${(tally.bytesBefore / seconds / 1e6).toFixed(2)} MB/s of beams`,
        tally.modules / seconds,
      ),
      report(
        "TypeScript's share of the CPU time",
        `${((100 * own) / (own + beam)).toFixed(1)} % (${own.toFixed(1)} s of ${(own + beam).toFixed(1)} s)`,
        own / (own + beam),
      ),
      report(
        "size",
        `code × ${(tally.codeAfter / tally.codeBefore).toFixed(2)}, file × ${(tally.bytesAfter / tally.bytesBefore).toFixed(2)}`,
        tally.codeAfter / tally.codeBefore,
      ),
    ];
  } finally {
    await server.close();
    rmSync(out, { recursive: true, force: true });
  }
}

export async function run(quick: boolean): Promise<Row[]> {
  const chosen = process.env["BEAMTRACE_CORPUS"];
  const wanted = new Map(
    chosen?.split(";").map((part) => {
      const [release = "", apps] = part.split(":");
      return [release, apps === undefined ? undefined : new Set(apps.split(","))];
    }),
  );
  const rows: Row[] = [];
  for (const release of releases()) {
    if (chosen !== undefined && !wanted.has(release.release)) continue;
    rows.push(...(await corpusOn(release, wanted.get(release.release), quick)));
  }
  return rows;
}
