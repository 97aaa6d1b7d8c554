/**
 * What a callback of a behaviour did, out of the call event of `beamtrace_rt:called_back/4` (beam/runtime, `summary()`). Pure: an event and
 * the site tables in, an object or nothing out.
 */
import {
  type CallEvent,
  type ExceptionClass,
  type Shape,
  type Site,
  siteIn,
  type SiteTable,
  siteVersion,
  type TraceEvent,
} from "../../buffer";
import { Atom, Pid, type Term, Tuple } from "../../erlang";
import type { ExceptionEvidence, OpenCallback } from "./open-callbacks";

/**
 * How a callback ended, by the first atom of its result. `exception`: it raised, see `CallbackEvent.exception`. `ok` of `init`, `mount`, `join` …; `value` is a result that is no such tuple or
 * atom (`render`, `terminate`); `tail_call`: the callback handed its frame on to the function that it called last, and what it
 * answers is known to that one only.
 */
export type CallbackOutcome =
  | "ok"
  | "reply"
  | "noreply"
  | "stop"
  | "stop_and_reply"
  | "error"
  | "ignore"
  | "next_state"
  | "keep_state"
  | "keep_state_and_data"
  | "repeat_state"
  | "repeat_state_and_data"
  | "swap_handler"
  | "remove_handler"
  | "value"
  | "exception"
  | "tail_call";

/** What the result says is to come next: `{ what: "timeout", value: 5000 }`, `{ what: "hibernate", value: true }`. */
export interface CallbackNext {
  /** `timeout`, `hibernate`, `continue`, `postpone`, `state_timeout`, `generic_timeout`, `next_event`, or the action's own first atom. */
  readonly what: string;
  /** A number of milliseconds, an atom, or the shape of what is more than that. */
  readonly value: Term;
}

/** The keys of a map, or the positions of a tuple's elements (from 1), that differ between two states. */
export interface ChangedKeys {
  /** These have another value, are new or are gone. */
  readonly changed: readonly Term[];
  /** These hold another term, which was too large to compare: it may be equal. */
  readonly rebuilt: readonly Term[];
  /** False when there were more keys than are looked at: others may differ too. */
  readonly complete: boolean;
}

/** The contents, where `callbacks: { maxBytes }` asked for them; cut and redacted. */
export interface CallbackValues {
  readonly trigger: Term | undefined;
  readonly reply: Term | undefined;
  readonly before: Term | undefined;
  readonly after: Term | undefined;
  /** Why it stopped, or raised. */
  readonly reason: Term | undefined;
}

/** What is known of how a callback raised. Its `reason` is that of the exception where the function tells; else as the evidence has it. */
export interface CallbackException {
  /**
   * `function`: it told itself (`exceptions: "wrap"`), exactly. Otherwise it told no end, and that it has ended shows by what its process did:
   * `terminate` was called (the reason is what that got: of an error in a gen_server `{Reason, Stacktrace}`), the process exited within it (`exit`; the reason is
   * that of the exit), the behaviour went on to the next `callback`, or the `caller` within the process went on.
   */
  readonly evidence: ExceptionEvidence;
  /** Only where the function tells. */
  readonly class: ExceptionClass | undefined;
}

/** A callback of a behaviour came back, raised, or left by a tail call. */
export interface CallbackEvent {
  readonly kind: "callback";
  /** Nanoseconds since the base of the source, as of any event; when the callback ended, or when it showed that it had. */
  readonly timestamp: CallEvent["timestamp"];
  /** When it began; undefined when that was before the trace, or is lost. */
  readonly began: CallEvent["timestamp"] | undefined;
  readonly source: number;
  readonly process: Pid;
  /** Id of the frame: that of its entry event. */
  readonly frame: number | bigint;
  readonly module: string;
  /** Where it ended, or, of an exception that it did not tell of, began; `site.callback` says behaviour and callback. */
  readonly site: Site;
  readonly behaviour: string;
  /** Such as `handle_call/3`. */
  readonly callback: string;
  readonly outcome: CallbackOutcome;
  /** Of the outcome `exception`. */
  readonly exception: CallbackException | undefined;
  /** Shape of the request, message, event, argument or reason that it was called with. */
  readonly trigger: Shape | undefined;
  /** Who waits for the reply, of calls. */
  readonly caller: Pid | undefined;
  /** Of a state machine: `call`, `cast`, `info`, `enter`, `internal`, `timeout`, `state_timeout`, or `{timeout, Name}`. */
  readonly eventType: string | Term | undefined;
  /** Shape of the reply that the result holds, or of the value of a callback that has no other result. */
  readonly reply: Shape | undefined;
  /** Shape of the reason of `stop`, `error` and `exception`. */
  readonly reason: Shape | undefined;
  readonly next: readonly CallbackNext[];
  /** Names of the state before and after, of a state machine. */
  readonly stateName: { readonly before: Term | undefined; readonly after: Term | undefined } | undefined;
  /** Shape of the state (a state machine's data, a socket, a connection). */
  readonly before: Shape | undefined;
  readonly after: Shape | undefined;
  /** Missing when the states are not two maps, or two tuples of a size, or when there is only one. */
  readonly changes: ChangedKeys | undefined;
  /** The same for the `assigns` of a socket or a connection. */
  readonly assigns: ChangedKeys | undefined;
  readonly values: CallbackValues | undefined;
}

/** What knows the sites of modules: `trace.sites`, or what `siteTables` gives. */
export interface SiteLookup {
  find(module: string, site: number): Site | undefined;
}

/** The sites of these tables, which may be of several versions of a module. */
export function siteTables(tables: Iterable<SiteTable>): SiteLookup {
  const byModule = new Map<string, SiteTable[]>();
  for (const table of tables) byModule.set(table.module, [...(byModule.get(table.module) ?? []), table]);
  return {
    find: (module, number) => {
      const table = byModule.get(module)?.find(({ version }) => version === siteVersion(number));
      return table && siteIn(table, number);
    },
  };
}

function shapeOf(term: Term | undefined): Shape | undefined {
  const [type, size, tags] = term instanceof Tuple ? term.elements : [];
  if (!(type instanceof Atom) || typeof size !== "number" || !Array.isArray(tags)) return undefined;
  return {
    type: type.name as Shape["type"],
    size,
    tags: (tags as readonly Term[]).map((tag) => (tag instanceof Atom ? tag.name : "")),
  };
}

const list = (term: Term | undefined): readonly Term[] =>
  Array.isArray(term) ? (term as readonly Term[]) : [];

function changedKeys(term: Term | undefined): ChangedKeys | undefined {
  if (!(term instanceof Tuple)) return undefined;
  const [changed, rebuilt, whole] = term.elements;
  const kept = [list(changed), list(rebuilt)].map((keys) => keys.filter((key) => !isTrimmed(key)));
  const cut = kept[0]!.length + kept[1]!.length < list(changed).length + list(rebuilt).length;
  return {
    changed: kept[0]!,
    rebuilt: kept[1]!,
    complete: whole instanceof Atom && whole.name === "true" && !cut,
  };
}

const isTrimmed = (term: Term): boolean => term instanceof Atom && term.name === "[trimmed]";

function nextOf(term: Term | undefined): readonly CallbackNext[] {
  return list(term).flatMap((one) => {
    const [what, value] = one instanceof Tuple ? one.elements : [];
    return what instanceof Atom && value !== undefined ? [{ what: what.name, value }] : [];
  });
}

function valuesOf(term: Term | undefined): CallbackValues | undefined {
  const values = list(term);
  if (values.length !== 5) return undefined;
  const [trigger, reply, before, after, reason] = values.map((one) => list(one)[0]);
  return { trigger, reply, before, after, reason };
}

function stateNames(term: Term | undefined, behaviour: string): CallbackEvent["stateName"] {
  if (behaviour !== "gen_statem" || !(term instanceof Tuple)) return undefined;
  const [before, after] = term.elements.map((name) => list(name)[0]);
  return { before, after };
}

/** What the runtime puts among the steps and is none. */
const NOT_NEXT = new Set(["event_type", "by", "class"]);

/** What a call event says of callbacks. */
export type CallbackNote =
  | { readonly what: "ended"; readonly event: CallbackEvent }
  /** Its outcome is not known yet. */
  | { readonly what: "begins"; readonly open: OpenCallback }
  /** A function is entered that finishes callbacks; whether it does now, those can say who saw one leave for it. */
  | {
      readonly what: "continues";
      readonly frame: number | bigint;
      readonly site: Site;
      readonly module: string;
    };

/** What the call event of the runtime says, before what belongs together is put together. */
export function callbackNote(event: TraceEvent, sites: SiteLookup): CallbackNote | undefined {
  if (event.kind !== "call" || event.mfa.module !== "beamtrace_rt" || event.mfa.function !== "called_back")
    return undefined;
  const [frame, module, number, summary] = list(event.payload);
  if (!(module instanceof Atom) || typeof number !== "number") return undefined;
  const site = sites.find(module.name, number);
  if (site?.callback === undefined || (typeof frame !== "number" && typeof frame !== "bigint"))
    return undefined;
  if (summary instanceof Atom) return { what: "continues", frame, site, module: module.name };
  if (!(summary instanceof Tuple)) return undefined;
  const [outcome, trigger, caller, reply, reason, next, names, before, after, changes, assigns, values] =
    summary.elements;
  if (!(outcome instanceof Atom)) return undefined;
  const steps = nextOf(next);
  const said = (name: string): Term | undefined => steps.find(({ what }) => what === name)?.value;
  const type = said("event_type");
  const by = said("by");
  const kind = said("class");
  const { behaviour, name } = site.callback;
  const ended: CallbackEvent = {
    ...{ kind: "callback", timestamp: event.timestamp, source: event.source, process: event.process },
    ...{ frame, module: module.name, site, behaviour, callback: name },
    began: undefined,
    outcome: outcome.name as CallbackOutcome,
    exception:
      outcome.name === "exception"
        ? { evidence: "function", class: kind instanceof Atom ? (kind.name as ExceptionClass) : undefined }
        : undefined,
    trigger: shapeOf(trigger),
    caller: caller instanceof Pid ? caller : undefined,
    eventType: type instanceof Atom ? type.name : type,
    reply: shapeOf(reply),
    reason: shapeOf(reason),
    next: steps.filter(({ what }) => !NOT_NEXT.has(what)),
    stateName: stateNames(names, behaviour),
    before: shapeOf(before),
    after: shapeOf(after),
    changes: changedKeys(changes),
    assigns: changedKeys(assigns),
    values: valuesOf(values),
  };
  if (outcome.name === "begins")
    return { what: "begins", open: { event: ended, by: by instanceof Atom ? by.name : undefined } };
  return { what: "ended", event: ended };
}
