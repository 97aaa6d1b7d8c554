/**
 * From what the holder answers (docs/agent-protocol.md, "Requests and replies") to typed errors that say what to do.
 */
import { BeamtraceError, type ErrorCode } from "../erlang/errors";
import { Atom, inspect, Tuple, type Term } from "../erlang/term";
import { nearNames } from "./near-names";

/** The node refused a trace. `detail` is its answer. */
export class TraceRefusedError extends BeamtraceError {
  static override readonly brand: string = "TraceRefusedError";
  /** The agent's answer as it came. */
  readonly detail: Term;

  constructor(code: ErrorCode, message: string, detail: Term) {
    super(code, message);
    this.detail = detail;
  }
}

/** A call pattern matched no function. */
export class NoMatchError extends TraceRefusedError {
  static override readonly brand: string = "NoMatchError";
  /** Names close to the one that was asked for, best first. */
  readonly suggestions: readonly string[];

  constructor(message: string, detail: Term, suggestions: readonly string[]) {
    super("BT_NO_MATCH", message, detail);
    this.suggestions = suggestions;
  }
}

const text = (term: Term | undefined): string =>
  term === undefined ? "?" : inspect(term, { notation: "erlang" });

function mfaText(mfa: Term | undefined): string {
  if (!(mfa instanceof Tuple)) return text(mfa);
  const [m, f, a] = mfa.elements;
  return `${text(m)}:${text(f)}/${text(a)}`;
}

function noMatch(detail: Tuple): NoMatchError {
  const [, mfa, candidates] = detail.elements;
  const [m, f, a] = mfa instanceof Tuple ? mfa.elements : [];
  const list = Array.isArray(candidates) ? (candidates as Term[]) : [];
  const modules = list.filter((c): c is Atom => c instanceof Atom).map((c) => c.name);
  const functions = list.flatMap((c) =>
    c instanceof Tuple ? [`${(c.elements[0] as Atom).name}/${String(c.elements[1])}`] : [],
  );
  const unknownModule = functions.length === 0;
  const wanted = unknownModule
    ? (m as Atom).name
    : `${(f as Atom).name}/${a instanceof Atom ? "" : String(a)}`;
  const suggestions = nearNames(wanted, unknownModule ? modules : functions);
  const hint = suggestions.length > 0 ? ` Did you mean ${suggestions.join(", ")}?` : "";
  const what = unknownModule
    ? `the node has no module ${text(m)}`
    : `${mfaText(mfa)} matches no function of the module`;
  return new NoMatchError(`${what}.${hint}`, detail, suggestions);
}

/** Why the runtime of instrumented code could not be switched. */
function runtimeClash(why: Term | undefined): string {
  if (why instanceof Atom && why.name === "foreign")
    return "the node has a module of its own called beamtrace_rt; beamtrace leaves it alone, and instrumented code can't tell anything beside it";
  if (why instanceof Tuple)
    return `the node's beamtrace_rt is of another version (${text(why.elements[1])}), as its instrumented modules are; use the version of beamtrace that made them, or instrument them again`;
  return `the runtime of instrumented code could not be switched: ${text(why)}`;
}

/** The error for `{error, Detail}` in answer to a trace request. */
export function traceRefused(detail: Term): TraceRefusedError {
  if (detail instanceof Tuple) {
    const [tag, first, second] = detail.elements;
    switch (tag instanceof Atom ? tag.name : "") {
      case "no_match":
        return noMatch(detail);
      case "tracer_busy":
        return new TraceRefusedError(
          "BT_TRACER_BUSY",
          `another trace runs on this node (${text(first)}), and before OTP 27 a node can have one at a time. End it, or pass takeOver: true to clear another tool's.`,
          detail,
        );
      case "bad_match_spec":
        return new TraceRefusedError(
          "BT_MATCH_SPEC_INVALID",
          `the node refused the match specification for ${mfaText(first)}: ${text(second)}`,
          detail,
        );
      case "bad_process":
        return new TraceRefusedError(
          "BT_PROCESS_INVALID",
          `${text(first)} is no process, port, registered name or application of this node`,
          detail,
        );
      case "gc_conflict":
        return new TraceRefusedError(
          "BT_GC_TRACE_CONFLICT",
          `another trace session already watches garbage collections of ${text(first)}; on this release a second one crashes the VM. Trace without gc, or end the other one.`,
          detail,
        );
      case "trace_self":
        return new TraceRefusedError(
          "BT_TRACE_SELF",
          `${text(first)} belongs to beamtrace, which never traces itself`,
          detail,
        );
      case "native":
        return new TraceRefusedError(
          "BT_NATIVE_UNAVAILABLE",
          `the native tracer could not start: ${text(first)}; tracer: "auto" falls back to the portable one`,
          detail,
        );
      case "runtime":
        return new TraceRefusedError("BT_RUNTIME_CLASH", runtimeClash(first), detail);
      case "system_monitor_busy":
        return new TraceRefusedError(
          "BT_SYSTEM_MONITOR_BUSY",
          `${text(first)} has the system monitor of this node, and before OTP 28 a node has one. Leave the alarm triggers out.`,
          detail,
        );
      case "bad_spec":
        return new TraceRefusedError(
          "BT_TRACE_SPEC_INVALID",
          `the agent refused ${text(first)}: ${text(second)}`,
          detail,
        );
      default:
    }
  }
  return new TraceRefusedError(
    "BT_AGENT_FAILED",
    `the agent could not start the trace: ${text(detail)}`,
    detail,
  );
}
