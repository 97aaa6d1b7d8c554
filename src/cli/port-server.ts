/**
 * Serves a build tool over two streams: packets with a length of four bytes, each an external term (docs/instrument-builds.md, "The port").
 * Requests are `{Id, Request}` and answered by `{Id, {ok, Result} | {error, Problem}}`, many at a time. The BEAM that builds also compiles: it is
 * asked by `{compile, N, Request}` and answers `{compiled, N, Answer}`. Ends with its input; what is no packet or no term ends it too.
 */
import type { Readable, Writable } from "node:stream";
import {
  Atom,
  atom,
  BadTermError,
  BeamtraceError,
  decode,
  ErlMap,
  map,
  type Term,
  Tuple,
  tuple,
} from "../erlang";
import {
  instrumentByPlan,
  moduleFailure,
  PacketEncoder,
  PacketReader,
  readPlan,
  RemoteCompiler,
  type RuleSet,
} from "../transform";
import { COMPILER } from "../transform/beam-code.generated";

const VERSION = 1;
/** No module and no forms of one come near. */
const MAX_PACKET_BYTES = 1 << 29;

const OK = atom("ok");
const ERROR = atom("error");
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Asks the BEAM at the other end to compile. */
class CompilerAtTheOtherEnd extends RemoteCompiler {
  private readonly waiting = new Map<number, (answer: Term) => void>();
  private nextId = 0;
  private readonly send: (term: Term) => void;

  constructor(send: (term: Term) => void) {
    super();
    this.send = send;
  }

  protected ask(request: Term): Promise<Term> {
    const id = this.nextId++;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.send(tuple(atom("compile"), id, request));
    });
  }

  /** @returns whether the answer was waited for and is one. */
  answered(id: Term, answer: Term): boolean {
    const waiting = typeof id === "number" ? this.waiting.get(id) : undefined;
    if (waiting === undefined || !(answer instanceof Tuple) || answer.length !== 2) return false;
    const [tag, result] = answer.elements;
    if (tag !== OK && !(tag === ERROR && result instanceof Uint8Array)) return false;
    this.waiting.delete(id as number);
    waiting(answer);
    return true;
  }
}

/** A request that makes no sense. */
const refusal = (message: string): BeamtraceError => new BeamtraceError("BT_OPTION_INVALID", message);

const text = (term: Term | undefined, what: string): string => {
  if (!(term instanceof Uint8Array)) throw refusal(`${what} must be a binary`);
  try {
    return utf8.decode(term);
  } catch {
    throw refusal(`${what} must be UTF-8`);
  }
};
const optionalText = (term: Term | undefined, what: string): string | undefined =>
  term === undefined || (term instanceof Atom && term.name === "undefined") ? undefined : text(term, what);

/** Serves until the input ends. Resolves with the exit code: 0, or 1 when the other side did not keep to the protocol. */
export function servePort(input: Readable, output: Writable): Promise<number> {
  return new Promise((resolve) => {
    new PortServer(input, output, resolve);
  });
}

class PortServer {
  private readonly output: Writable;
  private readonly compiler: CompilerAtTheOtherEnd;
  private readonly plans: RuleSet[] = [];
  private readonly end: (code: number) => void;
  private readonly packets = new PacketEncoder();
  private ended = false;

  constructor(input: Readable, output: Writable, end: (code: number) => void) {
    this.output = output;
    this.end = end;
    this.compiler = new CompilerAtTheOtherEnd((term) => this.send(term));
    const reader = new PacketReader((packet) => this.received(packet), MAX_PACKET_BYTES);
    // The other side is gone: nobody is left to be told.
    output.on("error", () => this.finish(0));
    input.on("error", () => this.finish(0));
    input.on("data", (chunk: Buffer) => {
      if (this.ended) return;
      try {
        reader.push(chunk);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        this.abandon(error.message);
      }
    });
    input.on("end", () => {
      if (reader.pendingBytes > 0)
        this.abandon(`the input ends within a packet (${reader.pendingBytes} bytes of it came)`);
      else this.finish(0);
    });
  }

  private finish(code: number): void {
    if (this.ended) return;
    this.ended = true;
    this.end(code);
  }

  /** What came is not of this protocol: whatever comes next can't be told apart from it. */
  private abandon(message: string): void {
    if (this.ended) return;
    this.send(tuple(atom("fatal"), map({ code: Buffer.from("BT_BAD_TERM"), message: Buffer.from(message) })));
    this.finish(1);
  }

  private send(term: Term): void {
    if (this.ended) return;
    this.output.write(this.packets.encode(term));
  }

  private received(packet: Uint8Array): void {
    if (this.ended) return;
    let term: Term;
    try {
      // Forms nest as deep as the longest list of the source.
      term = decode(packet, { maxDepth: 10_000_000 });
    } catch (error) {
      if (!(error instanceof BadTermError)) throw error;
      return this.abandon(`a packet of ${packet.length} bytes is no external term: ${error.message}`);
    }
    const elements = term instanceof Tuple ? term.elements : [];
    const [first, second, third] = elements;
    if (first instanceof Atom && first.name === "compiled" && elements.length === 3) {
      if (this.compiler.answered(second as Term, third as Term)) return;
      return this.abandon("an answer that nothing was asked for, or that is none");
    }
    if (elements.length !== 2 || typeof first !== "number")
      return this.abandon("a packet is neither {Id, Request} nor {compiled, N, Answer}");
    void this.serve(first, second as Term);
  }

  private async serve(id: number, request: Term): Promise<void> {
    try {
      this.send(tuple(id, tuple(OK, await this.answer(request))));
    } catch (error) {
      const failure = error instanceof ModuleProblem ? error.failure : undefined;
      const { code, message } =
        failure ??
        (error instanceof BeamtraceError ? error : { code: "BT_INTERNAL", message: String(error) });
      const problem = {
        code: Buffer.from(code),
        message: Buffer.from(message),
        ...(failure === undefined
          ? {}
          : { module: Buffer.from(failure.module), file: Buffer.from(failure.file), line: failure.line }),
      };
      this.send(tuple(id, tuple(ERROR, map(problem))));
    }
  }

  private async answer(request: Term): Promise<Term> {
    const [name, ...args] = request instanceof Tuple ? request.elements : [];
    switch (name instanceof Atom ? name.name : "") {
      case "hello":
        return this.hello(args[0]);
      case "load_plan":
        return this.loadPlan(args);
      case "instrument":
        return this.instrument(args);
      default:
        throw refusal(
          "there are the requests {hello, Version}, {load_plan, Path, Environment} and {instrument, Plan, Module}",
        );
    }
  }

  private hello(version: Term | undefined): Term {
    if (version !== VERSION) throw refusal(`this is version ${VERSION} of the protocol`);
    return map({ version: VERSION, compiler: Buffer.from(COMPILER, "base64") });
  }

  private async loadPlan([path, environment]: readonly Term[]): Promise<Term> {
    const plan = await readPlan(text(path, "the plan's path"));
    const rules = plan.rulesFor(optionalText(environment, "the environment"));
    this.plans.push(rules);
    return map({ plan: this.plans.length - 1, empty: atom(String(rules.isEmpty)) });
  }

  private async instrument([plan, module]: readonly Term[]): Promise<Term> {
    const rules = typeof plan === "number" ? this.plans[plan] : undefined;
    if (rules === undefined) throw refusal("there is no such plan: load it first");
    if (!(module instanceof ErlMap)) throw refusal("a module is a map of bytes, path and application");
    const bytes = module.get(atom("bytes"));
    if (!(bytes instanceof Uint8Array)) throw refusal("the module's bytes must be a binary");
    const path = text(module.get(atom("path")), "the module's path");
    const application = optionalText(module.get(atom("application")), "the application");
    try {
      const result = await instrumentByPlan(
        bytes,
        rules,
        this.compiler,
        application === undefined ? {} : { application },
      );
      return map({
        status: atom(result.status),
        ...(result.status === "unchanged" ? {} : { bytes: result.bytes }),
        functions: result.instrumented.length,
        refused: result.refused.map((one) =>
          tuple(Buffer.from(one.function), one.arity, Buffer.from(one.reason)),
        ),
      });
    } catch (error) {
      throw new ModuleProblem(error, bytes, path);
    }
  }
}

/** A failure of one module, on its way to the answer. */
class ModuleProblem extends Error {
  readonly failure: ReturnType<typeof moduleFailure>;

  constructor(cause: unknown, bytes: Uint8Array, path: string) {
    super("a module failed", { cause });
    this.failure = moduleFailure(cause, bytes, path);
  }
}
