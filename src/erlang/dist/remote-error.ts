/** What a call or a spawn on the node ended with when it wasn't a value. */
import { BeamtraceError } from "../errors";
import { inspect, type Term } from "../term";

/** Class of an Erlang exception. */
export type ErrorClass = "error" | "exit" | "throw";

/** Characters of the reason shown in the message. */
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
    super(
      "BT_REMOTE_ERROR",
      `${what} failed on the node: ${errorClass} ${inspect(reason, { maxLength: SHOWN })}`,
    );
    this.class = errorClass;
    this.reason = reason;
    this.stacktrace = stacktrace;
  }
}
