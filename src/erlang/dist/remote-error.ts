/** What a call or a spawn on the node ended with when it wasn't a value. */
import { BeamtraceError } from "../errors";
import { Atom, type Term } from "../term";
const inspect = (term: Term): string => (term instanceof Atom ? term.name : "…");

/** Class of an Erlang exception. */
export type ErrorClass = "error" | "exit" | "throw";

/** Longest reason shown in a message. */
const SHOWN = 300;

/** Code on the node raised, or a process could not be started there. */
export class RemoteError extends BeamtraceError {
  static override readonly brand: string = "RemoteError";
  readonly class: ErrorClass;
  /** The reason, as the node gave it. */
  readonly reason: Term;
  /** The stack trace as Erlang has it (a list of `{M, F, Arity, Location}`); undefined where the node tells none. */
  readonly stacktrace: Term | undefined;

  constructor(what: string, errorClass: ErrorClass, reason: Term, stacktrace?: Term) {
    super("BT_REMOTE_ERROR", `${what} failed on the node: ${errorClass} ${shorten(inspect(reason))}`);
    this.class = errorClass;
    this.reason = reason;
    this.stacktrace = stacktrace;
  }
}

function shorten(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}
