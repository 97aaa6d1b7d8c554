/**
 * A copy of a server's folder of which every module is instrumented. With BEAMTRACE_SERVER_FOLDER=FOLDER copies stay there and are made in
 * pieces of BEAMTRACE_SERVER_MINUTES; they hold for the sources of the transformer as they were. A module that a piece was ended in is done
 * again: instrumenting starts from the same debug info.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { instrumentBeam, startCompileServer } from "../../src/transform";
import { sourceHash } from "./corpus/progress";

const AT_A_TIME = 3;
/** Modules after which what is done is written down. */
const NOTED_EVERY = 50;

/** What a copy came to. */
export interface InstrumentedCopy {
  /** Stands for `/` or for the server's folder, as the original does. */
  readonly home: string;
  /** Modules with instrumented functions. */
  readonly modules: number;
  readonly functions: number;
  readonly refused: readonly string[];
  /** Modules that there was no time for. */
  readonly left: number;
}

interface State {
  readonly sources: string;
  /** Functions instrumented by file, or why the module was refused. */
  readonly files: Record<string, number | string>;
}

function knownState(file: string, sources: string): State {
  if (!existsSync(file)) return { sources, files: {} };
  const known = JSON.parse(readFileSync(file, "utf8")) as State;
  return known.sources === sources ? known : { sources, files: {} };
}

/** Copies `from` into `folder`, or goes on with the copy that is there. */
export async function instrumentedCopy(
  from: string,
  folder: string,
  minutes: number,
): Promise<InstrumentedCopy> {
  const endsAt = performance.now() + minutes * 60_000;
  const home = join(folder, "server");
  const record = join(folder, "modules.json");
  const state = knownState(record, sourceHash());
  if (!existsSync(home) || Object.keys(state.files).length === 0) {
    mkdirSync(folder, { recursive: true });
    for (const old of [home, `${home}.new`]) rmSync(old, { recursive: true, force: true });
    cpSync(from, `${home}.new`, { recursive: true, verbatimSymlinks: true });
    renameSync(`${home}.new`, home);
  }
  const note = (): void => writeFileSync(record, JSON.stringify(state));
  const queue = (readdirSync(home, { recursive: true }) as string[])
    .filter((name) => name.endsWith(".beam") && !(name in state.files))
    .sort();
  if (queue.length > 0) {
    await using server = await startCompileServer();
    const work = async (): Promise<void> => {
      while (performance.now() < endsAt) {
        const name = queue.shift();
        if (name === undefined) return;
        const file = join(home, name);
        try {
          const { bytes, instrumented } = await instrumentBeam(readFileSync(file), server);
          writeFileSync(file, bytes);
          state.files[name] = instrumented.length;
        } catch (error) {
          state.files[name] = (error as Error).message.slice(0, 150);
        }
        if (queue.length % NOTED_EVERY === 0) note();
      }
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, work));
    note();
  }
  const done = Object.entries(state.files);
  const counts = done.flatMap(([, result]) => (typeof result === "number" && result > 0 ? [result] : []));
  return {
    home,
    modules: counts.length,
    functions: counts.reduce((sum, count) => sum + count, 0),
    refused: done.flatMap(([name, result]) => (typeof result === "string" ? [`${name}: ${result}`] : [])),
    left: queue.length,
  };
}
