/**
 * What makes a flight recorder keep its window: checked here, and made into call patterns, flags and the agent's list of triggers
 * (docs/agent-protocol.md, "Flight recorder"). Pure: options in, terms out.
 */
import type { EventKind } from "../buffer";
import { OptionError } from "../erlang/errors";
import { Atom, atom, equals, tuple, Tuple, type Term } from "../erlang/term";
import type { MatchSpec } from "./match-spec";
import type { CallPattern } from "./trace-options";

/** A function is called, with arguments that the match specification lets through. */
export interface CallTrigger extends Pick<CallPattern, "module" | "function" | "arity" | "local"> {
  readonly on: "call";
  readonly matchSpec?: Term | MatchSpec<"call">;
}

/** A traced process ends with another reason than `normal`, `shutdown` and `{shutdown, _}`. */
export interface ExitTrigger {
  readonly on: "exit";
}

/** A message comes to the process registered under this name, whoever has the name at the time. */
export interface MessageTrigger {
  readonly on: "message";
  readonly to: string;
}

/** The VM's system monitor reports something. Before OTP 28 a node has one system monitor; it must be free. */
export interface AlarmTrigger {
  readonly on: "alarm";
  /** A garbage collection took so many milliseconds. */
  readonly longGcMs?: number;
  /** A process or port ran so many milliseconds without interruption. */
  readonly longScheduleMs?: number;
  /** The heap of a process grew to so many bytes. */
  readonly largeHeapBytes?: number;
}

/** What makes a flight recorder keep its window. */
export type RecorderTrigger = CallTrigger | ExitTrigger | MessageTrigger | AlarmTrigger;

/** Triggers as the agent knows them. */
export interface ResolvedTriggers {
  /** Patterns to add to those of the trace; the last `patterns.length` of its calls are these. */
  readonly patterns: readonly CallPattern[];
  /** Kinds that have to be recorded for the triggers to be seen. */
  readonly kinds: readonly EventKind[];
  /** Whether `exit` must be asked for. */
  readonly exits: boolean;
  /** `[{Number, What}]` */
  readonly terms: readonly Term[];
  /** By number, from 1. */
  readonly byNumber: readonly RecorderTrigger[];
  /** The numbers of `patterns`. */
  readonly patternNumbers: readonly number[];
}

/** Names that can be watched at a time; so many slots has the library. */
const NAMES_MAX = 8;
const TRIGGERS_MAX = 64;
const WORD_BYTES = 8;

const ALARMS = [
  ["longGcMs", "long_gc", 1],
  ["longScheduleMs", "long_schedule", 1],
  ["largeHeapBytes", "large_heap", WORD_BYTES],
] as const;

function invalid(option: string, message: string): OptionError {
  return new OptionError("BT_TRACE_SPEC_INVALID", option, message);
}

/** @throws OptionError `BT_TRACE_SPEC_INVALID` */
export function resolveTriggers(triggers: readonly RecorderTrigger[]): ResolvedTriggers {
  if (triggers.length > TRIGGERS_MAX) throw invalid("triggers", `there can be ${TRIGGERS_MAX} at most`);
  const patterns: CallPattern[] = [];
  const patternNumbers: number[] = [];
  const kinds = new Set<EventKind>();
  const terms: Term[] = [];
  const byNumber: RecorderTrigger[] = [];
  const add = (trigger: RecorderTrigger, what: Term): number => {
    byNumber.push(trigger);
    terms.push(tuple(byNumber.length, what));
    return byNumber.length;
  };
  for (const [i, trigger] of triggers.entries()) {
    switch (trigger.on) {
      case "call": {
        const { on: _, ...pattern } = trigger;
        if (typeof trigger.function !== "string")
          throw invalid(`triggers[${i}].function`, "a trigger needs a function");
        patterns.push(pattern);
        patternNumbers.push(add(trigger, atom("call")));
        kinds.add("call");
        break;
      }
      case "exit":
        if (triggers.findIndex((each) => each.on === "exit") !== i)
          throw invalid(`triggers[${i}]`, "one trigger for exits is enough");
        add(trigger, atom("exit"));
        kinds.add("exit");
        break;
      case "message":
        if (typeof trigger.to !== "string" || trigger.to === "")
          throw invalid(`triggers[${i}].to`, "a registered name is needed");
        add(trigger, tuple(atom("message"), atom(trigger.to)));
        kinds.add("receive");
        break;
      case "alarm":
        for (const what of alarms(trigger, i)) add(trigger, what);
        break;
      default:
        throw invalid(`triggers[${i}].on`, "must be call, exit, message or alarm");
    }
  }
  if (triggers.filter((each) => each.on === "message").length > NAMES_MAX)
    throw invalid("triggers", `${NAMES_MAX} names can be watched at most`);
  return {
    patterns,
    kinds: [...kinds],
    exits: triggers.some((each) => each.on === "exit"),
    terms,
    byNumber,
    patternNumbers,
  };
}

function alarms(trigger: AlarmTrigger, index: number): Term[] {
  const found = ALARMS.flatMap(([option, event, divisor]) => {
    const value = trigger[option];
    if (value === undefined) return [];
    if (!(value >= divisor && value < 2 ** 31))
      throw invalid(`triggers[${index}].${option}`, `must be a number from ${divisor} on, not ${value}`);
    return [tuple(atom("alarm"), tuple(atom(event), Math.ceil(value / divisor)))];
  });
  if (found.length === 0)
    throw invalid(`triggers[${index}]`, "say which alarm: longGcMs, longScheduleMs or largeHeapBytes");
  return found;
}

/**
 * Call patterns of a trace with those of its triggers, which are the last ones. A function has one pattern: where both want the same function, one
 * specification does both, and calls that are no trigger are traced as before.
 */
export function mergePatterns(calls: readonly Term[], numbers: readonly number[]): Term[] {
  const own = calls.slice(0, calls.length - numbers.length).map(readCall);
  const triggers = calls.slice(calls.length - numbers.length).map(readCall);
  const result = own.map((call) => ({ ...call, clauses: call.clauses }));
  for (const [i, trigger] of triggers.entries()) {
    const clauses = clausesOf(trigger.clauses);
    const number = numbers[i] ?? 0;
    const wider = result.filter((call) => covers(call, trigger)).at(-1);
    const narrower = result.filter((call) => call !== wider && covers(trigger, call));
    result.push({
      ...trigger,
      ...(wider !== undefined && { options: wider.options }),
      clauses: [
        ...marked(clauses, number, wider?.clauses),
        ...(wider === undefined ? [] : clausesOf(wider.clauses)),
      ],
    });
    // The last pattern that is set for a function holds.
    for (const call of narrower)
      result.push({
        ...call,
        clauses: [...marked(clauses, number, call.clauses), ...clausesOf(call.clauses)],
      });
  }
  return result.map(({ mfa, clauses, options }) => tuple(tuple(...mfa), clauses, options));
}

interface Call {
  readonly mfa: readonly Term[];
  readonly clauses: Term;
  readonly options: Term;
}

function readCall(term: Term): Call {
  const [mfa, clauses, options] = (term as Tuple).elements as [Tuple, Term, Term];
  return { mfa: mfa.elements, clauses, options };
}

const ANY = atom("_");
const isMessage = (action: Term): boolean =>
  action instanceof Tuple && action.elements[0] === atom("message");

/** `[]` lets everything through, with no action. */
function clausesOf(clauses: Term): Term[] {
  return Array.isArray(clauses) && clauses.length > 0 ? (clauses as Term[]) : [tuple(ANY, [], [])];
}

/** Every function of `b` is one of `a`. */
function covers(a: Call, b: Call): boolean {
  return a.mfa.every((part, i) => part === ANY || equals(part, b.mfa[i] as Term));
}

/** The trigger's clauses, which tell its number, with what the trace does at every call of the function. */
function marked(clauses: readonly Term[], number: number, traced: Term | undefined): Term[] {
  const first = traced === undefined ? undefined : clausesOf(traced)[0];
  const [head, guards, always] = first instanceof Tuple ? first.elements : [];
  const actions =
    head instanceof Atom &&
    head === ANY &&
    Array.isArray(guards) &&
    guards.length === 0 &&
    Array.isArray(always)
      ? (always as Term[])
      : [];
  const mark = tuple(atom("message"), tuple(tuple(atom("$beamtrace_trigger"), number)));
  return clauses.map((clause) => {
    const [pattern, conditions, body] = (clause as Tuple).elements as [Term, Term, Term[]];
    return tuple(
      pattern,
      conditions,
      [...body, ...actions].filter((action) => !isMessage(action)).concat(mark),
    );
  });
}
