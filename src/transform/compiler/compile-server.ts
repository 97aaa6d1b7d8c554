/**
 * A BEAM that turns debug info into forms and forms into object code: one `erl` for a whole build, which serves many requests at a
 * time (beam/transform/src/beamtrace_compiler.erl) over two pipes of its own, so that nothing anybody prints can get between.
 * Who starts it closes it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Duplex, Readable } from "node:stream";
import type { Atom, Tuple } from "../../erlang";
import { atom, BeamtraceError, decode, Encoder, type ErlMap, map, type Term, tuple } from "../../erlang";
import { COMPILER } from "../beam-code.generated";

/** Options of `startCompileServer`. */
export interface CompileServerOptions {
  /** Program and leading arguments; default `["erl"]`. */
  readonly command?: readonly string[];
  /** Folders with compiled modules that are needed on the way: Elixir's own, core transforms. */
  readonly codePaths?: readonly string[];
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Forms of a module and the options that compile them. */
export interface ModuleForms {
  readonly forms: readonly Term[];
  readonly options: readonly Term[];
}

/** What to compile. */
export interface CompileJob extends ModuleForms {
  readonly module: Atom;
  /** Backend of the debug info, such as `erl_abstract_code` or `elixir_erl`: it says which passes made the module. */
  readonly backend: string;
  /** Path of the source file as the module has it. */
  readonly source?: Term;
}

/** A warning of the compiler. */
export interface CompileWarning {
  readonly line: number;
  /** Module that gave it, such as `erl_lint`. */
  readonly by: string;
  readonly message: string;
}

/** Something that compiles: a server of its own, or later a live node. */
export interface Compiler {
  /** Turns the bytes of chunk `Dbgi` into forms. Rejects with `BT_NO_DEBUG_INFO`. */
  forms(module: Atom, backend: string, debugInfo: Uint8Array): Promise<ModuleForms>;
  /** Compiles. Rejects with `BT_COMPILE_FAILED`, whose message is the compiler's. */
  compile(
    job: CompileJob,
  ): Promise<{ readonly beam: Uint8Array; readonly warnings: readonly CompileWarning[] }>;
}

/** Memory that is kept for the next request: a large module's forms. */
const KEPT_BYTES = 16 * 1024 * 1024;
const OK = atom("ok");
const key = (result: Term, name: string): Term => (result as ErlMap).get(atom(name)) as Term;
const text = (bytes: Term): string => Buffer.from(bytes as Uint8Array).toString("utf8");

interface Waiting {
  resolve(result: Term): void;
  reject(error: unknown): void;
}

/** A running compile server. */
export class CompileServer implements Compiler, AsyncDisposable {
  private readonly child: ChildProcess;
  private readonly waiting = new Map<number, Waiting>();
  private readonly requests: Duplex;
  private nextId = 0;
  private ended: BeamtraceError | undefined;
  private readonly exited: Promise<void>;
  private complaints = "";
  private readonly encoder = new Encoder();

  /** @internal Use `startCompileServer`. */
  constructor(options: CompileServerOptions) {
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

  async forms(module: Atom, backend: string, debugInfo: Uint8Array): Promise<ModuleForms> {
    const request = tuple(atom("forms"), module, atom(backend), debugInfo);
    const result = await this.ask(request, (why) => {
      const elixir =
        backend === "elixir_erl" ? "; give Elixir's ebin folder to the compile server as code path" : "";
      return new BeamtraceError(
        "BT_NO_DEBUG_INFO",
        `the debug info of ${module.name} can only be read by its backend ${backend}: ${why}${elixir}`,
      );
    });
    return {
      forms: key(result, "forms") as readonly Term[],
      options: key(result, "options") as readonly Term[],
    };
  }

  async compile(
    job: CompileJob,
  ): Promise<{ readonly beam: Uint8Array; readonly warnings: readonly CompileWarning[] }> {
    const request = map({
      module: job.module,
      backend: atom(job.backend),
      forms: job.forms,
      options: job.options,
      ...(job.source === undefined ? {} : { source: job.source }),
    });
    const result = await this.ask(
      tuple(atom("compile"), request),
      (why) => new BeamtraceError("BT_COMPILE_FAILED", `${job.module.name} does not compile: ${why}`),
    );
    const warnings = (key(result, "warnings") as readonly Tuple[]).map(
      ({ elements: [line, by, message] }) => ({
        line: line as number,
        by: (by as Atom).name,
        message: text(message as Term),
      }),
    );
    return { beam: key(result, "beam") as Uint8Array, warnings };
  }

  /** Versions of OTP and, when it is in the code path, Elixir. */
  async versions(): Promise<{ readonly otp: string; readonly elixir: string | undefined }> {
    const result = await this.ask(atom("versions"), (why) => new BeamtraceError("BT_COMPILE_FAILED", why));
    const elixir = text(key(result, "elixir"));
    return { otp: text(key(result, "otp")), elixir: elixir === "" ? undefined : elixir };
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

  private ask(request: Term, failure: (why: string) => BeamtraceError): Promise<Term> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    const id = this.nextId++;
    const { encoder } = this;
    encoder.reset(KEPT_BYTES).u32(0).term(tuple(id, request));
    const bytes = encoder.patchU32(0, encoder.length - 4).bytes();
    return new Promise((resolve, reject) => {
      this.waiting.set(id, {
        resolve: (answer) => {
          const [tag, result] = (answer as Tuple).elements;
          if (tag === OK) resolve(result as Term);
          else reject(failure(text(result as Term)));
        },
        reject,
      });
      this.requests.write(bytes);
    });
  }

  private read(answers: Readable): void {
    let parts: Buffer[] = [];
    let size = 0;
    answers.on("error", () => undefined);
    answers.on("data", (chunk: Buffer) => {
      parts.push(chunk);
      size += chunk.length;
      for (;;) {
        if (size < 4) return;
        if (parts[0]!.length < 4) parts = [Buffer.concat(parts)];
        const length = parts[0]!.readUInt32BE(0);
        if (size < length + 4) return;
        const all = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
        this.answered(all.subarray(4, length + 4));
        parts = [all.subarray(length + 4)];
        size -= length + 4;
      }
    });
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
