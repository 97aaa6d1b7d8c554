/**
 * Events as plain objects: a discriminated union on `kind`, one interface for each kind of event. Names are the BEAM's own trace tags.
 * The objects are yours: nothing changes them later. `Pid`s, `Port`s, `Mfa`s and `Shape`s in them are shared between events, so a process
 * that is in use is the same `Pid` object in every event of one reader.
 */
import type { Atom, Pid, Port, Reference, Term, Tuple } from "../erlang/term";
import type { Mfa } from "./dictionary";
import type { EventKind, ExceptionClass, GapHop, ShapeType } from "./event-schema";
import type { Timestamp } from "./ids";
import type { Site } from "./site-table";

/**
 * What a message, an argument list, a value or a reason looks like, without its content.
 */
export interface Shape {
  /** `none` when the trace was started without shapes. */
  readonly type: ShapeType;
  /**
   * Bytes of a binary, bits of a bit string, arity of a tuple or of arguments, pairs of a map, elements of a list counted up to 16; else 0.
   * Saturated at 2^28 − 1.
   */
  readonly size: number;
  /**
   * Up to two leading atoms: the atom itself; the first element of a tuple and what leads its second one (for `$gen_call` and `$gen_cast`: what
   * leads the request); the module of a struct; what leads the first two arguments. A first one that is missing is `""` when there is a second.
   */
  readonly tags: readonly string[];
}

/** Receiver of a message as the VM named it: a process, port, alias, registered name, or `{Name, Node}`. */
export type Destination = Pid | Port | Reference | Atom | Tuple;

interface Base {
  /** Nanoseconds since the base of the source (`SourceInfo.base`). */
  readonly timestamp: Timestamp;
  /** Index into the sources of the stream: tells the node and its clock apart. */
  readonly source: number;
  /** Scheduler that it happened on, when the trace asked for it and the VM named one (it says 0 on some dirty schedulers). */
  readonly scheduler: number | undefined;
}

interface ProcessEvent extends Base {
  /** The process that it happened in. */
  readonly process: Pid;
}

interface ProcessOrPortEvent extends Base {
  /** The process or port that it happened in. */
  readonly process: Pid | Port;
}

interface PortEvent extends Base {
  /** The port that it happened in. */
  readonly process: Port;
}

interface WithPayload {
  /** The content, when it was asked for, arrived whole and is a term; cut as `payload: { maxBytes }` said. */
  readonly payload: Term | undefined;
}

/** A process started another one. */
export interface SpawnEvent extends ProcessEvent {
  readonly kind: "spawn";
  readonly child: Pid;
  /** The function it was started with. For a `proc_lib` process or a fun see `initialCall`. */
  readonly mfa: Mfa;
  /** What it really runs, behind `proc_lib:init_p` or a fun. */
  readonly initialCall: Mfa | undefined;
}

/** A process begins to run; its first event. */
export interface SpawnedEvent extends ProcessEvent {
  readonly kind: "spawned";
  readonly parent: Pid;
  readonly mfa: Mfa;
  /** What it really runs, behind `proc_lib:init_p` or a fun. */
  readonly initialCall: Mfa | undefined;
}

/** A process ends. */
export interface ExitEvent extends ProcessEvent, WithPayload {
  readonly kind: "exit";
  /** Shape of the exit reason. */
  readonly reason: Shape;
}

/** A message is sent, or to a process that no longer exists. */
export interface SendEvent extends ProcessOrPortEvent, WithPayload {
  readonly kind: "send" | "send_to_non_existing_process";
  readonly to: Destination;
  /** Shape of the message. */
  readonly shape: Shape;
}

/** A message is put into the queue of the process (not: taken out by a `receive`). The VM does not tell from whom. */
export interface ReceiveEvent extends ProcessOrPortEvent, WithPayload {
  readonly kind: "receive";
  /** Shape of the message. */
  readonly shape: Shape;
}

/** Links: made and removed by this process (`link`, `unlink`) or by another one (`getting_…`). */
export interface LinkEvent extends ProcessOrPortEvent {
  readonly kind: "link" | "unlink" | "getting_linked" | "getting_unlinked";
  readonly other: Pid | Port;
}

/** A name is registered or taken back. */
export interface RegisterEvent extends ProcessOrPortEvent {
  readonly kind: "register" | "unregister";
  readonly name: string;
}

/** A traced function is called. */
export interface CallEvent extends ProcessEvent, WithPayload {
  readonly kind: "call";
  readonly mfa: Mfa;
  /** Shape of the arguments: type `args`, or `none`. The payload is the list of arguments. */
  readonly shape: Shape;
  /** Who called, when it was asked for; `"undefined"` when the VM does not know. */
  readonly caller: Mfa | "undefined" | undefined;
}

/** A traced function returns. */
export interface ReturnFromEvent extends ProcessEvent, WithPayload {
  readonly kind: "return_from";
  readonly mfa: Mfa;
  /** Shape of the value. */
  readonly shape: Shape;
}

/** A traced function is left by an exception. */
export interface ExceptionFromEvent extends ProcessEvent, WithPayload {
  readonly kind: "exception_from";
  readonly mfa: Mfa;
  /** `error`, `exit` or `throw`. */
  readonly class: string;
  /** Shape of the reason. */
  readonly shape: Shape;
}

/** What the events of instrumented code have in common (docs/transform.md): which call, and where in the source. */
interface FunctionEvent extends ProcessEvent {
  /** The call: the same in its entry and in what ends it. Unique within the process and the trace. */
  readonly callId: number;
  readonly module: string;
  /** Number of the place within its module, and of the module's version (`siteVersion`). */
  readonly siteNumber: number;
  /** What the number stands for; undefined when nobody has told of this version of the module (`trace.sites`). */
  readonly site: Site | undefined;
}

/** An instrumented function is entered. */
export interface FunctionEntryEvent extends FunctionEvent, WithPayload {
  readonly kind: "function_entry";
  /** Shape of the arguments that the event carries (`site.arguments`): type `args`, or `none`. The payload is their list. */
  readonly shape: Shape;
}

/** An instrumented function returns. */
export interface FunctionReturnEvent extends FunctionEvent, WithPayload {
  readonly kind: "function_return";
  /** Shape of the value. */
  readonly shape: Shape;
}

/** An instrumented function is left by a call in tail position, whose arguments have been made. */
export interface FunctionTailCallEvent extends FunctionEvent {
  readonly kind: "function_tail_call";
}

/** An instrumented function is left by an exception; only where it was instrumented with `exceptions: "wrap"`. */
export interface FunctionExceptionEvent extends FunctionEvent, WithPayload {
  readonly kind: "function_exception";
  readonly class: ExceptionClass;
  /** Shape of the reason; the payload is the reason. */
  readonly shape: Shape;
}

/** Execution comes back to a function; one event for a chain of tail calls. */
export interface ReturnToEvent extends ProcessEvent {
  readonly kind: "return_to";
  /** Undefined when the VM does not know. */
  readonly mfa: Mfa | undefined;
}

/** A process is scheduled in or out. */
export interface RunningEvent extends ProcessEvent {
  readonly kind: "in" | "out" | "in_exiting" | "out_exiting" | "out_exited";
  /** Where it is; undefined when the VM does not say. */
  readonly mfa: Mfa | undefined;
}

/** A port is scheduled in or out. */
export interface PortRunningEvent extends PortEvent {
  readonly kind: "port_in" | "port_out";
  /** What it does: `command`, `control`, `flush` …; an open set. */
  readonly operation: string | undefined;
}

/** A garbage collection begins or ends, or `max_heap_size` was exceeded. Sizes in machine words, saturated at 2^32 − 1. */
export interface GcEvent extends ProcessEvent {
  readonly kind: "gc_minor_start" | "gc_minor_end" | "gc_major_start" | "gc_major_end" | "gc_max_heap_size";
  /** Words asked for (start) or reclaimed (end). */
  readonly wordsize: number;
  readonly heap_size: number;
  readonly heap_block_size: number;
  readonly old_heap_size: number;
  readonly old_heap_block_size: number;
  readonly stack_size: number;
  readonly recent_size: number;
  readonly mbuf_size: number;
  readonly bin_vheap_size: number;
  readonly bin_old_vheap_size: number;
  /** Rounded up, by less than 1/128. */
  readonly bin_vheap_block_size: number;
  /** Rounded up, by less than 1/128. */
  readonly bin_old_vheap_block_size: number;
}

/** A port is opened. */
export interface OpenEvent extends PortEvent {
  readonly kind: "open";
  readonly opener: Pid;
  /** Driver or command. */
  readonly name: string;
}

/** A port is closed. */
export interface ClosedEvent extends PortEvent, WithPayload {
  readonly kind: "closed";
  /** Shape of the reason. */
  readonly reason: Shape;
}

/** The VM said something that this version does not know. */
export interface UnknownEvent extends Base, WithPayload {
  readonly kind: "unknown";
  readonly process: Pid | Port | undefined;
  /** The trace tag, when there is one. */
  readonly tag: string | undefined;
}

/** Events were lost here. */
export interface GapEvent extends Base {
  readonly kind: "gap";
  readonly process: undefined;
  /** Where they were lost. */
  readonly hop: GapHop;
  /** How many; 0 when that can't be known. */
  readonly count: number;
  /** Stamp of the first one lost, or of the last one before, when known. */
  readonly from: Timestamp | undefined;
  /** Stamp of the last one lost, or of the first one after, when known. */
  readonly to: Timestamp | undefined;
}

/** The tracer reports something about the trace itself. */
export interface MarkerEvent extends Base {
  readonly kind: "marker";
  readonly process: Pid | Port | undefined;
  /**
   * What happened. `module_reloaded`: `a` the module, `b` functions matched. `process_traced`, `process_untraced`: sampling begins or ends with this
   * process. `sampling`: from here on `a` parts per million of the processes are traced, and the kinds whose bits are set in `b`. `sampling_calls`: one call in `a`.
   * `sampling_new`: from here on processes that start are left out (`a` is 0), or looked at again (1).
   */
  readonly name: string;
  readonly a: Term | undefined;
  readonly b: Term | undefined;
}

/** Anything that happened in a traced node, or to the trace. */
export type TraceEvent =
  | SpawnEvent
  | SpawnedEvent
  | ExitEvent
  | SendEvent
  | ReceiveEvent
  | LinkEvent
  | RegisterEvent
  | CallEvent
  | ReturnFromEvent
  | ExceptionFromEvent
  | ReturnToEvent
  | RunningEvent
  | PortRunningEvent
  | GcEvent
  | OpenEvent
  | ClosedEvent
  | UnknownEvent
  | GapEvent
  | MarkerEvent
  | FunctionEntryEvent
  | FunctionReturnEvent
  | FunctionTailCallEvent
  | FunctionExceptionEvent;

/** The events of some kinds: `EventOf<"send" | "receive">`. */
export type EventOf<K extends EventKind> = TraceEvent extends infer E
  ? E extends { readonly kind: infer EK }
    ? K & EK extends never
      ? never
      : E & { readonly kind: K & EK }
    : never
  : never;
