/**
 * Instruments an application's modules and counts. Modules go in batches; of every third batch the same forms are also compiled as they are,
 * right before or right after, so that the two compilations can be compared.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { BeamFile, BeamtraceError } from "../../../src/erlang";
import { type CompileServer, instrumentBeam, recompile } from "../../../src/transform";
import { cpuTime } from "../../server/cpu-time";
import type { Application } from "./modules";

const BATCH = 12;
const AT_A_TIME = 3;
const COMPARED_EVERY = 3;

/** What instrumenting an application came to. */
export interface Tally {
  modules: number;
  instrumented: number;
  /** Modules that have no function that could be instrumented. */
  untouched: number;
  functions: number;
  sites: number;
  warnings: number;
  bytesBefore: number;
  bytesAfter: number;
  codeBefore: number;
  codeAfter: number;
  /** Seconds of this process's CPU, of the compile server's, and of the clock. */
  ownCpu: number;
  beamCpu: number;
  seconds: number;
  /** Of the batches that were compared: the whole of instrumenting, and compiling the same forms plain (both in the server only). */
  comparedBeamCpu: number;
  comparedOwnCpu: number;
  plainBeamCpu: number;
  refusedFunctions: Record<string, number>;
  /** Modules that were refused, by reason. */
  refused: Record<string, string[]>;
  failed: string[];
}

export function emptyTally(): Tally {
  return {
    ...{ modules: 0, instrumented: 0, untouched: 0, functions: 0, sites: 0, warnings: 0 },
    ...{ bytesBefore: 0, bytesAfter: 0, codeBefore: 0, codeAfter: 0 },
    ...{ ownCpu: 0, beamCpu: 0, seconds: 0, comparedBeamCpu: 0, comparedOwnCpu: 0, plainBeamCpu: 0 },
    ...{ refusedFunctions: {}, refused: {}, failed: [] },
  };
}

const codeSize = (bytes: Uint8Array): number => BeamFile.read(bytes).chunk("Code")?.length ?? 0;

/** Why a module was refused, without what is its own. */
function reasonOf(error: BeamtraceError): string {
  if (error.code === "BT_NO_DEBUG_INFO") return "no debug info";
  return `${error.code}: ${error.message.slice(0, 200)}`;
}

async function instrumentOne(file: string, server: CompileServer, out: string, tally: Tally): Promise<void> {
  const bytes = readFileSync(file);
  tally.modules++;
  try {
    const result = await instrumentBeam(bytes, server, { runtime: "present" });
    for (const { reason } of result.refused)
      tally.refusedFunctions[reason] = (tally.refusedFunctions[reason] ?? 0) + 1;
    if (result.instrumented.length === 0) tally.untouched++;
    else {
      tally.instrumented++;
      tally.functions += result.instrumented.length;
      tally.sites += result.table.sites.length;
      tally.bytesBefore += bytes.length;
      tally.bytesAfter += result.bytes.length;
      tally.codeBefore += codeSize(bytes);
      tally.codeAfter += codeSize(result.bytes);
    }
    const added = result.warnings.filter(({ message }) => /beamtrace/i.test(message));
    tally.warnings += added.length;
    for (const { message } of added.slice(0, 2)) console.error(`  warning: ${basename(file)}: ${message}`);
    writeFileSync(join(out, basename(file)), result.bytes);
  } catch (error) {
    const refusal = error instanceof BeamtraceError && error.code !== "BT_COMPILE_FAILED";
    if (refusal) (tally.refused[reasonOf(error)] ??= []).push(basename(file, ".beam"));
    else tally.failed.push(`${basename(file)}: ${(error as Error).message.slice(0, 500)}`);
  }
}

/** Does `one` to all files, a few at a time. */
async function each(files: readonly string[], one: (file: string) => Promise<void>): Promise<void> {
  const queue = [...files];
  const work = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) await one(file);
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, work));
}

const plain = async (file: string, server: CompileServer): Promise<void> => {
  try {
    await recompile(BeamFile.read(readFileSync(file)), server);
  } catch {
    // What can't be compiled plain is counted where it is instrumented.
  }
};

/** Instruments all modules of the application; what came out lies in `out`. */
export async function instrumentAll(
  { files }: Application,
  server: CompileServer,
  out: string,
): Promise<Tally> {
  const tally = emptyTally();
  let batches = 0;
  const cost = async (work: () => Promise<void>): Promise<{ own: number; beam: number; clock: number }> => {
    const from = { own: process.cpuUsage(), beam: cpuTime(server.pid), clock: performance.now() };
    await work();
    const { user, system } = process.cpuUsage(from.own);
    return {
      own: (user + system) / 1e6,
      beam: (cpuTime(server.pid) - from.beam) / 1e6,
      clock: (performance.now() - from.clock) / 1000,
    };
  };
  for (let at = 0; at < files.length; at += BATCH) {
    const batch = files.slice(at, at + BATCH);
    const compared = batches % COMPARED_EVERY === 0;
    const plainFirst = batches % (2 * COMPARED_EVERY) === 0;
    batches++;
    const comparison = async (): Promise<void> => {
      tally.plainBeamCpu += (await cost(() => each(batch, (file) => plain(file, server)))).beam;
    };
    if (compared && plainFirst) await comparison();
    const used = await cost(() => each(batch, (file) => instrumentOne(file, server, out, tally)));
    if (compared && !plainFirst) await comparison();
    tally.ownCpu += used.own;
    tally.beamCpu += used.beam;
    tally.seconds += used.clock;
    if (compared) {
      tally.comparedBeamCpu += used.beam;
      tally.comparedOwnCpu += used.own;
    }
  }
  return tally;
}
