/** What can be asked of `session.trace()`: the options' types, and what names stand for several event kinds. trace-spec.ts checks and translates them. */
import type { EventKind } from "../buffer/event-schema";
import type { Pid, Port, Term } from "../erlang/term";
import type { TraceLimits } from "./limits";
import type { MatchSpec } from "./match-spec";

/** Names that stand for several event kinds. */
export const GROUPS = {
  /** Life and links of processes. */
  procs: [
    "spawn",
    "spawned",
    "exit",
    "register",
    "unregister",
    "link",
    "unlink",
    "getting_linked",
    "getting_unlinked",
  ],
  /** Sent messages, also those to processes that no longer exist. */
  send: ["send", "send_to_non_existing_process"],
  running: ["in", "out"],
  exiting: ["in_exiting", "out_exiting", "out_exited"],
  gc: ["gc_minor_start", "gc_minor_end", "gc_major_start", "gc_major_end", "gc_max_heap_size"],
  /** Life and links of ports. */
  ports: ["open", "closed", "register", "unregister", "getting_linked", "getting_unlinked"],
  running_ports: ["port_in", "port_out"],
  /** What instrumented code tells; with `instrumented`. */
  functions: ["function_entry", "function_return", "function_tail_call", "function_exception"],
} as const satisfies Record<string, readonly EventKind[]>;

type KindOfTracer = Exclude<EventKind, "unknown" | "gap" | "marker">;

/** What can be asked for in `events`: one event kind, or a group (`procs`, `send`, `running`, `exiting`, `gc`, `ports`, `running_ports`, `functions`). */
export type TraceEventName = KindOfTracer | keyof typeof GROUPS;

/** Which processes to trace. */
export type ProcessSelection =
  | "all"
  | "new"
  | "existing"
  | "none"
  | readonly Pid[]
  | { readonly registered: readonly string[] }
  /** Processes of an OTP application now alive; with `inherit: "spawn"` also those that they spawn. */
  | { readonly application: string };

/** Which ports to trace. */
export type PortSelection = "all" | "new" | "existing" | "none" | readonly Port[];

/** Functions to trace. */
export interface CallPattern {
  /** Module as the VM names it: `"lists"`, `"Elixir.Shop.Cart"`. */
  readonly module: string;
  /** Function; every function of the module when not given. */
  readonly function?: string;
  /** Arity; every arity when not given. */
  readonly arity?: number;
  /** Also local calls and functions that are not exported. Default: true. */
  readonly local?: boolean;
  /** Send `return_from` with the shape of the result. It makes tail calls of the function grow the stack while traced. */
  readonly returns?: boolean;
  /** Send `exception_from` too. Implies `returns`. */
  readonly exceptions?: boolean;
  /** Send the calling function with the event. */
  readonly caller?: boolean;
  /** A match specification (`matchSpec()`, or a term) instead of the one made from the options above. */
  readonly matchSpec?: Term | MatchSpec<"call">;
}

/** How much of messages, arguments, results and reasons travels. */
export type PayloadOption =
  /** Nothing; arguments are not even copied to the tracer. */
  | "none"
  /** Type, size and leading atoms. The default. */
  | "shape"
  /** Contents up to `maxBytes` of external term format each; values under the keys in `redact` are replaced on the node. */
  | { readonly maxBytes: number; readonly redact?: readonly string[] };

/** Keys whose values are redacted when nothing else is said. */
export const DEFAULT_REDACTED_KEYS: readonly string[] = [
  "password",
  "passwd",
  "secret",
  "token",
  "access_token",
  "refresh_token",
  "authorization",
  "cookie",
  "set-cookie",
  "api_key",
  "private_key",
  "credit_card",
  "secret_key_base",
];

/**
 * Sampling that keeps sequences whole: a process is traced from its first event to its last, or not at all. What is left out costs nothing.
 * The shares travel in the stream as markers `sampling` and `sampling_calls`; `weighted()` and `rate(ms, { corrected: true })` go by them.
 */
export interface SamplingOption {
  /**
   * Share of the processes (and ports) to trace, above 0 and up to 1, chosen by a hash of the pid, so that of two traces the one with the
   * lower share sees a subset. New processes included. With `limits.overhead`: the highest share. Default: 1.
   */
  readonly processes?: number;
  /** One call in so many, decided in the VM. Not for patterns with a `matchSpec` of their own: see `matchSpec.call().sample()`. Default: 1. */
  readonly calls?: number;
}

/** What to take of what instrumented code tells (docs/transform.md). */
export interface InstrumentedOption {
  /** Only of these modules. Default: of all. */
  readonly modules?: readonly string[];
  /** Instrumented beams, as `instrumentBeam` gave them: their sites are read from here instead of from the node. */
  readonly beams?: readonly Uint8Array[];
}

/** Options of `session.trace()`, without those that say where events go. */
export interface TraceSpec {
  /** Default: `"all"`. */
  readonly processes?: ProcessSelection;
  /** Default: `"all"` when a port event is asked for, else `"none"`. */
  readonly ports?: PortSelection;
  /** Default: `["call"]` when `calls` is given; otherwise required. */
  readonly events?: readonly TraceEventName[];
  readonly calls?: readonly CallPattern[];
  /**
   * Events of instrumented code: `function_entry`, `function_return`, `function_tail_call`, `function_exception`, or those of them that `events` names.
   * Module `beamtrace_rt` of the node is switched while the trace runs. What tells the native tracer is each call itself: with `processes: "new"` or
   * `"existing"`, `inherit`, `sampling.processes` or `limits.overhead`, which only trace flags can do, the trace uses the portable tracer.
   */
  readonly instrumented?: boolean | InstrumentedOption;
  /** Match specification that filters sent messages on the node (`[Receiver, Message]`). */
  readonly sendSpec?: Term | MatchSpec<"send">;
  /** Match specification that filters received messages on the node (`[Node, Sender, Message]`). */
  readonly receiveSpec?: Term | MatchSpec<"receive">;
  /** Whether what a traced process spawns or links to is traced as well. */
  readonly inherit?: "spawn" | "first-spawn" | "link" | "first-link";
  /** Scheduler ids with every event. Default: only when `running` is traced. */
  readonly scheduler?: boolean;
  readonly payload?: PayloadOption;
  readonly limits?: TraceLimits;
  /** Trace a part of the processes, or of the calls. */
  readonly sampling?: SamplingOption;
  /** OTP 25–26 only: clear another tool's trace first. It loses its flags for good. */
  readonly takeOver?: boolean;
  /**
   * What the native tracer's rings do when they are full: drop the newest events, or overwrite the oldest. Either is counted and told by a gap.
   * Default: `"drop-newest"`. The portable tracer has no rings; `"overwrite-oldest"` is refused with it.
   */
  readonly overflow?: "drop-newest" | "overwrite-oldest";
  /**
   * How events are gathered on the node before they are sent: a batch goes when it holds so many, or when its first event has waited so long
   * (10 ms at most after a quiet time, or where few events come; the first after a silence twice as long with the native tracer, but 100 ms at
   * most by that). Default: 512 events (the native tracer: eight times as many) or 50 ms. With `limits.overhead` at least 400 ms.
   */
  readonly batch?: { readonly events?: number; readonly milliseconds?: number };
}
