/** The BEAM that compiles for a command: started when the first module needs it, with Elixir in its code path when there is one. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { debugInfo, type BeamFile } from "../erlang";
import { type CompileServer, startCompileServer } from "../transform";

const run = promisify(execFile);

/** Options of the command line. */
export interface ErlOptions {
  readonly erl: string | undefined;
  readonly codePaths: readonly string[];
}

/** Whether turning the module into forms takes Elixir. */
export function isElixir(beam: BeamFile): boolean {
  try {
    return debugInfo(beam).backend === "elixir_erl";
  } catch {
    return false;
  }
}

/** Elixir's ebin folder, as its own command tells it; undefined when there is none. */
async function elixirFolder(): Promise<string | undefined> {
  try {
    const { stdout } = await run("elixir", ["-e", "IO.write(:code.lib_dir(:elixir))"]);
    return stdout === "" ? undefined : `${stdout}/ebin`;
  } catch {
    return undefined;
  }
}

/** Starts the compile server. */
export async function startErl(options: ErlOptions, elixir: boolean): Promise<CompileServer> {
  const found = elixir && options.codePaths.length === 0 ? await elixirFolder() : undefined;
  return startCompileServer({
    ...(options.erl === undefined ? {} : { command: options.erl.split(" ") }),
    codePaths: [...options.codePaths, ...(found === undefined ? [] : [found])],
  });
}
