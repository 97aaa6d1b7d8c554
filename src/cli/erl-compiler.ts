/** The BEAM that compiles for a command: started when the first module needs it, with Elixir in its code path when there is one. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { BeamFile, BeamtraceError, debugInfo, OptionError, type Term } from "../erlang";
import { type Compiler, type CompileServer, startCompileServer } from "../transform";

const run = promisify(execFile);

/** Options of the command line. */
export interface ErlOptions {
  readonly erl: string | undefined;
  readonly codePaths: readonly string[];
}

const ELIXIR_BACKEND = "elixir_erl";

/** Whether turning the module into forms takes Elixir. */
export function isElixir(bytes: Uint8Array): boolean {
  try {
    return debugInfo(BeamFile.read(bytes)).backend === ELIXIR_BACKEND;
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

/** The compiler of a command: a compile server that is started when it is first needed. Who makes it closes it. */
export class ErlCompiler implements Compiler {
  private server: Promise<Running> | undefined;
  private readonly options: ErlOptions;
  private readonly needsElixir: () => boolean;
  private missed = false;

  /** @param needsElixir - whether any module is Elixir's. Asked once, at the start. */
  constructor(options: ErlOptions, needsElixir: () => boolean) {
    this.options = options;
    this.needsElixir = needsElixir;
  }

  /** Whether a module could not be read for want of Elixir. */
  get missesElixir(): boolean {
    return this.missed;
  }

  /** Starts it, if it isn't running. @throws OptionError: there is no such `erl`, which is no module's fault. */
  async start(): Promise<CompileServer> {
    return (await this.running()).server;
  }

  async forms(...args: Parameters<Compiler["forms"]>): ReturnType<Compiler["forms"]> {
    const { server, elixir } = await this.running();
    const [module, backend] = args;
    if (backend === ELIXIR_BACKEND && !elixir) {
      this.missed = true;
      throw new BeamtraceError("BT_NO_DEBUG_INFO", `reading the debug info of ${module.name} takes Elixir`);
    }
    return server.forms(...args);
  }

  async compile(...args: Parameters<Compiler["compile"]>): ReturnType<Compiler["compile"]> {
    return (await this.start()).compile(...args);
  }

  async forget(kept: Term): Promise<void> {
    await (await this.start()).forget(kept);
  }

  async close(): Promise<void> {
    await (await this.server?.catch(() => undefined))?.server.close();
  }

  private running(): Promise<Running> {
    this.server ??= startErl(this.options, this.needsElixir()).catch((cause: unknown) => {
      if (!(cause instanceof BeamtraceError)) throw cause;
      throw new OptionError("BT_OPTION_INVALID", "--erl", cause.message, { cause });
    });
    return this.server;
  }
}

/** Goes through all that instrumenting does, up to the point where Erlang would compile: the code that comes back is the module's own. */
export const withoutCompiling = (compiler: Compiler, bytes: Uint8Array): Compiler => ({
  forms: (...args) => compiler.forms(...args),
  compile: async ({ kept }) => {
    if (kept !== undefined) await compiler.forget?.(kept);
    return { beam: bytes, warnings: [] };
  },
  ...(compiler.forget === undefined
    ? {}
    : { forget: (kept) => compiler.forget?.(kept) ?? Promise.resolve() }),
});

interface Running {
  readonly server: CompileServer;
  /** Whether it has Elixir in its code path. */
  readonly elixir: boolean;
}

async function startErl(options: ErlOptions, elixir: boolean): Promise<Running> {
  const found = elixir && options.codePaths.length === 0 ? await elixirFolder() : undefined;
  const server = await startCompileServer({
    ...(options.erl === undefined ? {} : { command: options.erl.trim().split(/\s+/) }),
    codePaths: [...options.codePaths, ...(found === undefined ? [] : [found])],
  });
  return { server, elixir: elixir && (await server.versions()).elixir !== undefined };
}
