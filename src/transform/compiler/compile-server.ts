/**
 * A BEAM that turns debug info into forms and forms into object code: one `erl` for a whole build, which serves many requests at a
 * time (beam/transform/src/beamtrace_compiler.erl) over two pipes of its own, so that nothing anybody prints can get between.
 * Who starts it closes it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Duplex, Readable } from "node:stream";
import { BeamtraceError, decode, type Term, tuple, type Tuple } from "../../erlang";
import { COMPILER } from "../beam-code.generated";
import { PacketEncoder, PacketReader } from "./packets";
import { RemoteCompiler } from "./remote-compiler";

/** Options of `startCompileServer`. */
export interface CompileServerOptions {
  /** Program and leading arguments; default `["erl"]`. */
  readonly command?: readonly string[];
  /** Folders with compiled modules that are needed on the way: Elixir's own, core transforms. */
  readonly codePaths?: readonly string[];
  readonly env?: Readonly<Record<string, string | undefined>>;
}

interface Waiting {
  resolve(result: Term): void;
  reject(error: unknown): void;
}

/** A running compile server. */
export class CompileServer extends RemoteCompiler implements AsyncDisposable {
  private readonly child: ChildProcess;
  private readonly waiting = new Map<number, Waiting>();
  private readonly requests: Duplex;
  private nextId = 0;
  private ended: BeamtraceError | undefined;
  private readonly exited: Promise<void>;
  private complaints = "";
  private readonly packets = new PacketEncoder();

  /** @internal Use `startCompileServer`. */
  constructor(options: CompileServerOptions) {
    super();
    const [program = "erl", ...leading] = options.command ?? ["erl"];
    const paths = options.codePaths ?? [];
    this.child = spawn(
      program,
      [
        ...leading,
        ...["-noshell", "-noinput", "-boot", "start_clean", "-kernel", "logger_level", "none"],
        ...(paths.length > 0 ? ["-pa", ...paths] : []),
        ...[
          "-eval",
          `{module, beamtrace_compiler} = erlang:load_module(beamtrace_compiler, base64:decode("${COMPILER}")), beamtrace_compiler:serve(3, 4).`,
        ],
      ],
      {
        stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
        env: { ...process.env, ERL_CRASH_DUMP_BYTES: "0", ...options.env },
      },
    );
    this.requests = this.child.stdio[3] as Duplex;
    this.requests.on("error", () => undefined);
    this.read(this.child.stdio[4] as Readable);
    this.child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
      this.complaints = (this.complaints + chunk).slice(-4000);
    });
    this.exited = new Promise((resolve) => {
      const end = (why: string, cause?: unknown): void => {
        this.ended ??= new BeamtraceError(
          "BT_COMPILE_FAILED",
          `the compile server (${program}) ${why}${this.complaints === "" ? "" : `: ${this.complaints.trim()}`}`,
          { cause },
        );
        for (const { reject } of this.waiting.values()) reject(this.ended);
        this.waiting.clear();
        resolve();
      };
      this.child.once("error", (cause) => end("could not be started", cause));
      this.child.once("close", (code) => end(`has ended with code ${String(code)}`));
    });
  }

  /** Process id of the server. */
  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Ends the server; requests under way are rejected. */
  async close(): Promise<void> {
    this.requests.destroy();
    (this.child.stdio[4] as Readable).destroy();
    this.child.kill();
    await this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  protected ask(request: Term): Promise<Term> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.requests.write(this.packets.encode(tuple(id, request)));
    });
  }

  private read(answers: Readable): void {
    const reader = new PacketReader((packet) => this.answered(packet));
    answers.on("error", () => undefined);
    answers.on("data", (chunk: Buffer) => reader.push(chunk));
  }

  private answered(bytes: Uint8Array): void {
    // Forms nest as deep as the longest list of the source.
    const { elements } = decode(bytes, { maxDepth: 10_000_000 }) as Tuple;
    const [id, answer] = elements as [number, Term];
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    waiting?.resolve(answer);
  }
}

/**
 * Starts a compile server.
 * @throws BeamtraceError `BT_COMPILE_FAILED` when there is no `erl`.
 * @example
 * await using server = await startCompileServer();
 */
export async function startCompileServer(options: CompileServerOptions = {}): Promise<CompileServer> {
  const server = new CompileServer(options);
  await server.versions();
  return server;
}
