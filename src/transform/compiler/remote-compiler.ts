/** The requests of `beamtrace_compiler` (beam/transform) and its answers, whatever way they go: to a node of its own or to the one that builds. */
import {
  type Atom,
  atom,
  BeamtraceError,
  type ErlMap,
  map,
  type Term,
  tuple,
  type Tuple,
} from "../../erlang";

/** Forms of a module and the options that compile them. */
export interface ModuleForms {
  readonly forms: readonly Term[];
  readonly options: readonly Term[];
  /** Where the forms are outlines: who keeps the rest, for `compile` or `forget`. */
  readonly kept?: Term;
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
  /**
   * Turns the bytes of chunk `Dbgi` into forms. Rejects with `BT_NO_DEBUG_INFO`. `outline`: all that instrumenting functions looks at will do; of the
   * rest the compiler may keep what it likes, until it is asked to compile the forms or to forget them.
   */
  forms(
    module: Atom,
    backend: string,
    debugInfo: Uint8Array,
    detail?: "whole" | "outline",
  ): Promise<ModuleForms>;
  /** Nothing will be compiled of an outline. */
  forget?(kept: Term): Promise<void>;
  /** Compiles. Rejects with `BT_COMPILE_FAILED`, whose message is the compiler's. */
  compile(
    job: CompileJob,
  ): Promise<{ readonly beam: Uint8Array; readonly warnings: readonly CompileWarning[] }>;
}

const OK = atom("ok");
const key = (result: Term, name: string): Term => (result as ErlMap).get(atom(name)) as Term;
const text = (bytes: Term): string => Buffer.from(bytes as Uint8Array).toString("utf8");

/** A compiler that is asked by terms. */
export abstract class RemoteCompiler implements Compiler {
  /** Sends a request of `beamtrace_compiler:answer/1` and gives its answer: `{ok, Result}` or `{error, Text}`. */
  protected abstract ask(request: Term): Promise<Term>;

  /** Not `async`: a function that waits would keep the request's terms, megabytes of forms, until the answer is there. */
  private request(request: Term, failure: (why: string) => BeamtraceError): Promise<Term> {
    return this.ask(request).then((answer) => {
      const [tag, result] = (answer as Tuple).elements;
      if (tag === OK) return result as Term;
      throw failure(text(result as Term));
    });
  }

  async forms(
    module: Atom,
    backend: string,
    debugInfo: Uint8Array,
    detail: "whole" | "outline" = "whole",
  ): Promise<ModuleForms> {
    const name = atom(detail === "whole" ? "forms" : "outline");
    const request = tuple(name, module, atom(backend), debugInfo);
    const result = await this.request(request, (why) => {
      const elixir =
        backend === "elixir_erl" ? "; give Elixir's ebin folder to the compile server as code path" : "";
      return new BeamtraceError(
        "BT_NO_DEBUG_INFO",
        `the debug info of ${module.name} can only be read by its backend ${backend}: ${why}${elixir}`,
      );
    });
    const kept = (result as ErlMap).get(atom("kept"));
    return {
      forms: key(result, "forms") as readonly Term[],
      options: key(result, "options") as readonly Term[],
      ...(kept === undefined ? {} : { kept }),
    };
  }

  async forget(kept: Term): Promise<void> {
    await this.request(tuple(atom("forget"), kept), (why) => new BeamtraceError("BT_COMPILE_FAILED", why));
  }

  compile(
    job: CompileJob,
  ): Promise<{ readonly beam: Uint8Array; readonly warnings: readonly CompileWarning[] }> {
    const request = map({
      module: job.module,
      backend: atom(job.backend),
      forms: job.forms,
      options: job.options,
      ...(job.source === undefined ? {} : { source: job.source }),
      ...(job.kept === undefined ? {} : { kept: job.kept }),
    });
    const name = job.module.name;
    const asked = this.request(
      tuple(atom("compile"), request),
      (why) => new BeamtraceError("BT_COMPILE_FAILED", `${name} does not compile: ${why}`),
    );
    return asked.then((result) => ({
      beam: key(result, "beam") as Uint8Array,
      warnings: (key(result, "warnings") as readonly Tuple[]).map(({ elements: [line, by, message] }) => ({
        line: line as number,
        by: (by as Atom).name,
        message: text(message as Term),
      })),
    }));
  }

  /** Versions of OTP and, when it is in the code path, Elixir. */
  async versions(): Promise<{ readonly otp: string; readonly elixir: string | undefined }> {
    const result = await this.request(
      atom("versions"),
      (why) => new BeamtraceError("BT_COMPILE_FAILED", why),
    );
    const elixir = text(key(result, "elixir"));
    return { otp: text(key(result, "otp")), elixir: elixir === "" ? undefined : elixir };
  }
}
