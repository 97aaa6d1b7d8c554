/**
 * Modules that nobody here wrote: all of Erlang/OTP's, Elixir's, RabbitMQ's and ejabberd's as Debian ships them, each read, instrumented,
 * compiled and loaded into fresh nodes, on every release there is a root for. A failure is a failure; a refusal is listed with its reason.
 * --quick takes every 24th module. BEAMTRACE_CORPUS="25:stdlib,kernel;29:elixir" narrows it to releases and applications.
 * BEAMTRACE_CORPUS_FILE=FILE keeps the results of each application and goes on from there; BEAMTRACE_CORPUS_MINUTES=4 ends such a run in time.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { startCompileServer } from "../../src/transform";
import type { Row } from "../row";
import { emptyTally, instrumentAll, type Tally } from "./corpus/instrument-all";
import { type Loaded, loadAll } from "./corpus/load-all";
import { type Application, applications, GROUPS, type Release, releases, seenFrom } from "./corpus/modules";
import { inRoot } from "./corpus/packages";
import { type ApplicationResult, Progress } from "./corpus/progress";

const QUICK_EVERY = 24;
const SHARE = 0.1;
/** Modules that are loaded into one node at most, unless a single application has more. */
const BUNDLE = 100;

/** All the applications as one, of which a few modules are taken. */
function sampled(all: readonly Application[]): Application[] {
  return GROUPS.map((group): Application => {
    const files = all.filter((one) => one.group === group).flatMap((one) => one.files);
    return { name: "sample", group, ebin: "", files: files.filter((_, i) => i % QUICK_EVERY === 0) };
  });
}

async function corpusOn(
  release: Release,
  all: readonly Application[],
  chosen: readonly Application[],
  progress: Progress,
  endsAt: number,
): Promise<void> {
  const todo = chosen.filter(({ group, name }) => progress.get(release.release, group, name) === undefined);
  if (todo.length === 0 || performance.now() > endsAt) return;
  const paths = (wanted: (one: Application) => boolean): string[] =>
    all.filter(wanted).map(({ ebin }) => seenFrom(release.root, ebin));
  await using server = await startCompileServer({
    command: inRoot(release.root, "erl"),
    codePaths: paths(({ group }) => group === "Elixir"),
  });
  const needed = paths((one) => one.group !== "Erlang/OTP" || one.ebin.includes("beamtrace-corpus"));
  const parent = release.root === "/" ? tmpdir() : join(release.root, "tmp");
  for (const bundle of bundles(todo)) {
    if (performance.now() > endsAt) return;
    const out = mkdtempSync(join(parent, "beamtrace-corpus-"));
    try {
      const tallies = [];
      for (const application of bundle) tallies.push(await instrumentAll(application, server, out));
      const results = await loadAll(release, out, needed);
      for (const [i, { name, group, files }] of bundle.entries()) {
        const tally = tallies[i] as Tally;
        const loaded: Loaded = { loaded: 0, failsAsPlain: 0, failed: [] };
        for (const module of files.map((file) => basename(file, ".beam"))) {
          const result = results.get(module);
          if (result === "loaded") loaded.loaded++;
          else if (result === "as_plain") loaded.failsAsPlain++;
          else if (result !== undefined)
            loaded.failed.push(`${module} is not loaded: ${result.slice(0, 300)}`);
        }
        progress.put({ release: release.release, group, application: name, tally, loaded });
        console.error(
          `  OTP ${release.release} ${group} ${name}: ${tally.modules} modules, ${tally.seconds.toFixed(1)} s`,
        );
        for (const line of [...tally.failed, ...loaded.failed])
          console.error(`  OTP ${release.release} ${name}: FAILED ${line}`);
      }
    } finally {
      rmSync(out, { recursive: true, force: true });
    }
  }
}

/** Applications that are loaded into one node: small ones of the same group, none of which has a module of another's name. */
function bundles(todo: readonly Application[]): Application[][] {
  const made: Application[][] = [];
  let names = new Set<string>();
  for (const application of todo) {
    const own = application.files.map((file) => basename(file));
    const last = made.at(-1);
    const fits = names.size + own.length <= BUNDLE && !own.some((name) => names.has(name));
    if (last !== undefined && last[0]?.group === application.group && fits) {
      last.push(application);
      own.forEach((name) => names.add(name));
    } else {
      made.push([application]);
      names = new Set(own);
    }
  }
  return made;
}

function sum(results: readonly ApplicationResult[]): Tally & { loaded: number; asPlain: number } {
  const total = { ...emptyTally(), loaded: 0, asPlain: 0 };
  for (const { tally, loaded } of results) {
    for (const [key, value] of Object.entries(tally))
      if (typeof value === "number") (total as unknown as Record<string, number>)[key]! += value;
    for (const [reason, count] of Object.entries(tally.refusedFunctions))
      total.refusedFunctions[reason] = (total.refusedFunctions[reason] ?? 0) + count;
    for (const [reason, names] of Object.entries(tally.refused))
      total.refused[reason] = [...(total.refused[reason] ?? []), ...names];
    total.failed.push(...tally.failed, ...loaded.failed);
    total.loaded += loaded.loaded;
    total.asPlain += loaded.failsAsPlain;
  }
  return total;
}

const many = (names: readonly string[]): string =>
  names.length > 6 ? `${names.slice(0, 6).join(", ")} …` : names.join(", ");

/** Rows that say whether all went well, one a group. */
function groupRow(on: string, group: string, results: readonly ApplicationResult[], expected: number): Row {
  const total = sum(results);
  const refused = Object.entries(total.refused);
  const refusals = refused.reduce((n, [, names]) => n + names.length, 0);
  const done = total.loaded + total.asPlain + refusals;
  const parts = [
    `${total.modules} modules of ${results.length} applications: ${total.loaded} loaded (${total.untouched} of them have nothing to instrument)`,
    ...(total.asPlain > 0 ? [`${total.asPlain} whose on_load fails here, plain too`] : []),
    ...refused.map(([reason, names]) => `${names.length} refused, ${reason} (${many(names)})`),
    `${total.failed.length} failures`,
    ...(total.modules < expected ? [`${expected - total.modules} modules not yet tried`] : []),
  ];
  return {
    what: `${on}: ${group}`,
    target: "no failure",
    measured: parts.join("; "),
    value: total.failed.length,
    ok: total.failed.length === 0 && done === expected,
  };
}

function figures(on: string, results: readonly ApplicationResult[]): Row[] {
  const total = sum(results);
  const report = (what: string, measured: string, value: number): Row => ({
    ...{ what: `${on}: ${what}`, target: "", measured, value, ok: true },
  });
  const left = Object.entries(total.refusedFunctions).map(([reason, count]) => `${count} × ${reason}`);
  const share = total.ownCpu / (total.ownCpu + total.beamCpu);
  const added = (total.comparedBeamCpu + total.comparedOwnCpu) / total.plainBeamCpu;
  const megabytes = total.bytesBefore / 1e6;
  return [
    {
      what: `${on}: warnings about what was added`,
      target: "none",
      ...{ measured: String(total.warnings), value: total.warnings, ok: total.warnings === 0 },
    },
    {
      what: `${on}: TypeScript's share of the CPU time`,
      target: `≤ ${SHARE * 100} %`,
      measured: `${(100 * share).toFixed(1)} % (${total.ownCpu.toFixed(1)} s of ${(total.ownCpu + total.beamCpu).toFixed(1)} s)`,
      ...{ value: share, ok: share <= SHARE },
    },
    report(
      "functions and sites",
      `${total.functions} functions, ${total.sites} sites; left alone: ${left.join("; ") || "none"}`,
      total.functions,
    ),
    report(
      "speed",
      `${(total.modules / total.seconds).toFixed(1)} modules/s, ${(megabytes / total.seconds).toFixed(2)} MB/s of beams by the clock; the transformer alone ${(total.modules / total.ownCpu).toFixed(0)} modules, ${(megabytes / total.ownCpu).toFixed(1)} MB a second of CPU`,
      total.modules / total.seconds,
    ),
    report(
      "CPU time against compiling the same forms plain",
      `× ${added.toFixed(2)} (every third batch: ${total.plainBeamCpu.toFixed(1)} s plain; compiler × ${(total.comparedBeamCpu / total.plainBeamCpu).toFixed(2)}, TypeScript ${total.comparedOwnCpu.toFixed(1)} s)`,
      added,
    ),
    report(
      "size",
      `code × ${(total.codeAfter / total.codeBefore).toFixed(2)}, file × ${(total.bytesAfter / total.bytesBefore).toFixed(2)}`,
      total.codeAfter / total.codeBefore,
    ),
  ];
}

/** `25:stdlib,kernel;29` as releases with applications, or all of them. */
function selection(
  text: string | undefined,
): ReadonlyMap<string, ReadonlySet<string> | undefined> | undefined {
  if (text === undefined) return undefined;
  return new Map(
    text.split(";").map((part) => {
      const [release = "", apps] = part.split(":");
      return [release, apps === undefined ? undefined : new Set(apps.split(","))];
    }),
  );
}

export async function run(quick: boolean): Promise<Row[]> {
  const wanted = selection(process.env["BEAMTRACE_CORPUS"]);
  const progress = new Progress(quick ? undefined : process.env["BEAMTRACE_CORPUS_FILE"]);
  const minutes = Number(process.env["BEAMTRACE_CORPUS_MINUTES"] ?? Infinity);
  const endsAt = performance.now() + minutes * 60_000;
  const rows: Row[] = [];
  for (const release of releases()) {
    if (wanted?.has(release.release) === false) continue;
    const names = wanted?.get(release.release);
    const all = await applications(release);
    const named = all.filter(({ name }) => names?.has(name) !== false);
    const chosen = quick ? sampled(named) : named;
    await corpusOn(release, all, chosen, progress, endsAt);
    const on = `OTP ${release.release}`;
    const results = chosen.flatMap(({ group, name }) => progress.get(release.release, group, name) ?? []);
    for (const group of GROUPS) {
      const expected = chosen
        .filter((one) => one.group === group)
        .reduce((n, { files }) => n + files.length, 0);
      if (expected === 0) continue;
      rows.push(
        groupRow(
          on,
          group,
          results.filter((one) => one.group === group),
          expected,
        ),
      );
    }
    if (results.length > 0) rows.push(...figures(on, results));
  }
  return rows;
}
