/**
 * What the body of a match specification can do when a clause has matched. Which of it the VM allows depends on the event:
 * calls take all, sends nothing about the caller or the return, receives little more than `message`.
 */
import { atom, type Term } from "../../erlang/term";
import type { MatchTarget } from "./functions";
import { type Guards, guardsFor } from "./guards";
import { Call, type Expression, type ExpressionInput } from "./nodes";

type X = ExpressionInput;

/** Trace flags that a match specification can set on a process. */
export type MatchSpecTraceFlag =
  | "send"
  | "receive"
  | "call"
  | "return_to"
  | "procs"
  | "running"
  | "exiting"
  | "garbage_collection"
  | "arity"
  | "silent"
  | "timestamp"
  | "monotonic_timestamp"
  | "strict_monotonic_timestamp"
  | "set_on_spawn"
  | "set_on_first_spawn"
  | "set_on_link"
  | "set_on_first_link";

/** Parts of a sequential trace token (`seq_trace:set_token/2`) with their values. */
export type SeqTokenPart =
  | "label"
  | "serial"
  | "send"
  | "receive"
  | "print"
  | "timestamp"
  | "monotonic_timestamp"
  | "strict_monotonic_timestamp";

const orAtom = (value: X | boolean): X => (typeof value === "boolean" ? atom(String(value)) : value);
const flagList = (flags: readonly MatchSpecTraceFlag[]): readonly Term[] => flags.map((flag) => atom(flag));

const receiveActions = {
  /**
   * Adds a value to the event. `false`: no event for this match, only the other actions are carried out. `true`: the event without an addition.
   * There is one addition; a later one replaces it.
   */
  message: (value: X | boolean): Expression => new Call("message", [orAtom(value)]),
  /** Sets the trace control word of the node and returns the old one. Every tool that traces on the node shares it. */
  setTcw: (value: X): Expression => new Call("set_tcw", [value]),
  /** Prints a term on the standard output of the node. For debugging match specifications only. */
  display: (value: X): Expression => new Call("display", [value]),
} as const;

function enableTrace(flag: MatchSpecTraceFlag): Expression;
function enableTrace(process: X, flag: MatchSpecTraceFlag): Expression;
function enableTrace(...args: readonly [MatchSpecTraceFlag] | readonly [X, MatchSpecTraceFlag]): Expression {
  return traceFlag("enable_trace", args);
}

function disableTrace(flag: MatchSpecTraceFlag): Expression;
function disableTrace(process: X, flag: MatchSpecTraceFlag): Expression;
function disableTrace(...args: readonly [MatchSpecTraceFlag] | readonly [X, MatchSpecTraceFlag]): Expression {
  return traceFlag("disable_trace", args);
}

function traceFlag(
  fn: string,
  args: readonly [MatchSpecTraceFlag] | readonly [X, MatchSpecTraceFlag],
): Expression {
  return args.length === 1 ? new Call(fn, [atom(args[0])]) : new Call(fn, [args[0], atom(args[1])]);
}

const sendActions = {
  ...receiveActions,
  /** Text about the state of the process, as in a crash dump, as a binary. Long, and takes its time. */
  processDump: (): Expression => new Call("process_dump", []),
  /** Stops (`true`) or resumes (`false`) call events of the process; the match specifications go on running. */
  silent: (value: X | boolean): Expression => new Call("silent", [orAtom(value)]),
  /** Sets a trace flag on the process, or on another one (a pid or a registered name). Undone when the trace ends. */
  enableTrace,
  /** Takes a trace flag from the process, or from another one. */
  disableTrace,
  /** Takes and sets trace flags of the process in one step. */
  trace: (disable: readonly MatchSpecTraceFlag[], enable: readonly MatchSpecTraceFlag[]): Expression =>
    new Call("trace", [flagList(disable), flagList(enable)]),
  /** The same for another process: a pid or a registered name. */
  traceProcess: (
    process: X,
    disable: readonly MatchSpecTraceFlag[],
    enable: readonly MatchSpecTraceFlag[],
  ): Expression => new Call("trace", [process, flagList(disable), flagList(enable)]),
  /** Sets a part of the sequential trace token of the process. Tokens spread with messages and stay: see `seq_trace`. */
  setSeqToken: (part: SeqTokenPart, value: X | boolean): Expression =>
    new Call("set_seq_token", [atom(part), orAtom(value)]),
  /** The sequential trace token of the process. */
  getSeqToken: (): Expression => new Call("get_seq_token", []),
} as const;

const callActions = {
  ...sendActions,
  /** `return_from` when the function returns. Tail calls of the function then take stack: never for long on a server's loop. */
  returnTrace: (): Expression => new Call("return_trace", []),
  /** `return_from`, or `exception_from` when the function raises. Tail calls as with `returnTrace`. */
  exceptionTrace: (): Expression => new Call("exception_trace", []),
  /** The calling function as `{Module, Function, Arity}`, or `undefined`. For use in `message`. */
  caller: (): Expression => new Call("caller", []),
  /** The calling function with file and line: `{M, F, A, {File, Line}}`. */
  callerLine: (): Expression => new Call("caller_line", []),
  /** Stack trace of the caller, at most `depth` entries. OTP 26. */
  currentStacktrace: (depth?: X): Expression =>
    new Call("current_stacktrace", depth === undefined ? [] : [depth]),
} as const;

/** Actions of the body of a match specification for that event; guard functions can be used in bodies too. */
export type Actions<T extends MatchTarget> = Guards<T> &
  (T extends "call" ? typeof callActions : T extends "send" ? typeof sendActions : typeof receiveActions);

const ACTIONS = {
  call: { ...guardsFor("call"), ...callActions },
  send: { ...guardsFor("send"), ...sendActions },
  receive: { ...guardsFor("receive"), ...receiveActions },
} as const;

/** The actions for that event. */
export function actionsFor<T extends MatchTarget>(target: T): Actions<T> {
  return ACTIONS[target] as unknown as Actions<T>;
}
