/**
 * Call events of the runtime into callback events: a callback that left by a tail call of a function of its own module, and what that function
 * then answered, become one; one that raised shows by what its process did next. Holds callbacks only while they may go on.
 */
import { Observable, type OperatorFunction } from "rxjs";

import type { ExitEvent, TraceEvent } from "../../buffer";
import type { Pid, Term } from "../../erlang";
import { type CallbackEvent, callbackNote, type CallbackOutcome, type SiteLookup } from "./callback-event";
import { type GoneCallback, goneBy, type OpenCallback, OpenCallbacks } from "./open-callbacks";

/**
 * What a trace needs to hear of callbacks: `session.trace({ ...CALLBACK_TRACE, … })`. A summary takes up to 4 KiB; more where values were asked
 * for. Of the other events of instrumented code this names only the rarest.
 */
export const CALLBACK_TRACE = {
  instrumented: true,
  events: ["function_exception"],
  calls: [{ module: "beamtrace_rt", function: "called_back", arity: 4 }],
  payload: { maxBytes: 4096 },
} as const;

/** Callbacks under way at a time that are remembered; of more the oldest are given as they are. */
const PENDING_MAX = 10_000;

/** Results of a state machine that leave its data, or its state, as they were. */
const KEEP_DATA = new Set<CallbackOutcome>(["keep_state_and_data", "repeat_state_and_data"]);
const KEEP_STATE = new Set<CallbackOutcome>([
  ...KEEP_DATA,
  ...(["keep_state", "repeat_state", "stop", "stop_and_reply"] as const),
]);

interface Pending extends OpenCallback {
  /** The function that it left for, until that is entered; then the frame of that. */
  readonly waitsFor: string | undefined;
  readonly frame: number | bigint | undefined;
}

/** One callback out of its beginning and its end. */
function joined(began: CallbackEvent, ended: CallbackEvent): CallbackEvent {
  const { outcome, after, changes } = ended;
  const kept =
    KEEP_DATA.has(outcome) || ((outcome === "stop" || outcome === "stop_and_reply") && after === undefined);
  const unchanged = began.behaviour === "gen_statem" && kept;
  const names = began.stateName;
  return {
    ...began,
    ...{ timestamp: ended.timestamp, site: ended.site, outcome, next: ended.next },
    ...{ reply: ended.reply, reason: ended.reason, exception: ended.exception, assigns: ended.assigns },
    after: unchanged ? began.before : after,
    changes: unchanged ? { changed: [], rebuilt: [], complete: true } : changes,
    stateName: names && {
      before: names.before,
      after: ended.stateName?.after ?? (KEEP_STATE.has(outcome) ? names.before : undefined),
    },
    values: began.values && {
      ...{ trigger: began.values.trigger, before: began.values.before },
      ...{ reply: ended.values?.reply, after: ended.values?.after, reason: ended.values?.reason },
    },
  };
}

/** A callback that has raised without telling, by the event that shows it. */
function raised(
  { event, evidence }: GoneCallback,
  shown: Pick<CallbackEvent, "timestamp" | "reason">,
  reason: Term | undefined,
): CallbackEvent {
  return {
    ...event,
    timestamp: shown.timestamp,
    outcome: "exception",
    exception: { evidence, class: undefined },
    reason: shown.reason,
    values: event.values && { ...event.values, reason },
  };
}

/** Puts callback events together; give it every event of a trace, in order. */
export class CallbackReader {
  readonly #sites: SiteLookup;
  readonly #pending = new Map<Pid, Pending>();
  readonly #open = new OpenCallbacks();

  constructor(sites: SiteLookup) {
    this.#sites = sites;
  }

  /** The callbacks that are complete with this event, usually one or none. */
  push(event: TraceEvent): CallbackEvent[] {
    // Where something is missing, what comes next need not belong to what came before.
    if (event.kind === "gap") return this.end();
    if (event.kind === "exit") return this.#exit(event);
    const note = callbackNote(event, this.#sites);
    if (note === undefined || event.kind !== "call") return [];
    if (note.what === "begins") return this.#begin(event.process, note.open);
    const before = this.#pending.get(event.process);
    if (note.what === "continues") {
      if (before?.waitsFor === undefined) return [];
      const { function: name, arity } = note.site;
      if (before.waitsFor === `${name}/${arity}` && before.event.module === note.module) {
        this.#pending.set(event.process, { ...before, waitsFor: undefined, frame: note.frame });
        return [];
      }
      return this.#give(event.process, before);
    }
    if (note.event.site.callback?.trigger === "continuation") {
      const ended = note.event;
      if (before === undefined || before.frame !== ended.frame) return [];
      this.#pending.delete(event.process);
      if (ended.outcome !== "tail_call") return [joined(before.event, ended)];
      return this.#left(before, ended.site.callee);
    }
    const { began, gone } = this.#open.end(event.process, note.event.frame);
    const ended = { ...note.event, began: began?.event.timestamp };
    const given = [
      ...gone.map((one) => raised(one, { timestamp: ended.timestamp, reason: undefined }, undefined)),
      ...(before === undefined ? [] : this.#give(event.process, before)),
    ];
    if (ended.outcome !== "tail_call") return [...given, ended];
    return [...given, ...this.#left({ event: ended, by: began?.by }, ended.site.callee)];
  }

  /** No more events come: the callbacks that have left and of whose end nothing was heard. */
  end(): CallbackEvent[] {
    const events = [...this.#pending.values()].map(({ event }) => event);
    this.#pending.clear();
    this.#open.clear();
    return events;
  }

  /** A callback begins: what it can't begin in has raised. */
  #begin(process: Pid, open: OpenCallback): CallbackEvent[] {
    const gone = this.#open.begin(process, open);
    const pending = this.#pending.get(process);
    const evidence = pending && goneBy(pending, open);
    if (pending !== undefined && evidence !== undefined) {
      this.#pending.delete(process);
      // Where it went on to a function that was never entered, that one need not be instrumented.
      if (pending.frame === undefined) return [...this.#raisedBefore(open, gone), pending.event];
      gone.push({ ...pending, evidence });
    }
    return this.#raisedBefore(open, gone);
  }

  /** `terminate` is called with the reason of the exception. */
  #raisedBefore({ event }: OpenCallback, gone: readonly GoneCallback[]): CallbackEvent[] {
    return gone.map((one) => {
      const told = one.evidence === "terminate";
      const reason = told ? event.trigger : undefined;
      return raised(one, { timestamp: event.timestamp, reason }, told ? event.values?.trigger : undefined);
    });
  }

  #exit(event: ExitEvent): CallbackEvent[] {
    const { process, timestamp, reason, payload } = event;
    const gone = [...this.#open.exit(process)];
    const pending = this.#pending.get(process);
    this.#pending.delete(process);
    if (pending?.frame !== undefined) gone.push({ ...pending, evidence: "exit" });
    const given = gone.map((one) => raised(one, { timestamp, reason }, payload));
    return pending?.waitsFor === undefined ? given : [...given, pending.event];
  }

  #give(process: Pid, { event }: Pending): CallbackEvent[] {
    this.#pending.delete(process);
    return [event];
  }

  /** A callback has left for a function; when that is none of the module's own, no more is heard of it. */
  #left({ event, by }: OpenCallback, callee: string | undefined): CallbackEvent[] {
    if (callee === undefined) return [event];
    this.#pending.set(event.process, { event, by, waitsFor: callee, frame: undefined });
    if (this.#pending.size <= PENDING_MAX) return [];
    const [oldest] = this.#pending as unknown as Iterable<[Pid, Pending]>;
    return oldest === undefined ? [] : this.#give(...oldest);
  }
}

/**
 * Only the callbacks, as what they did. One that leaves by a tail call comes when its end is known, or when the process begins the next one; one that
 * raises when that shows, at the latest when its process exits, if the trace has `exit` among its events.
 * @example
 * const trace = await session.trace({ ...CALLBACK_TRACE, instrumented: { modules: ["Elixir.Shop.Cart"] } });
 * trace.events$.pipe(callbacks(trace.sites)).subscribe(({ callback, outcome, changes }) => …);
 */
export function callbacks(sites: SiteLookup): OperatorFunction<TraceEvent, CallbackEvent> {
  return (events$) =>
    new Observable((subscriber) => {
      const reader = new CallbackReader(sites);
      const give = (events: readonly CallbackEvent[]): void => events.forEach((e) => subscriber.next(e));
      return events$.subscribe({
        next: (event) => give(reader.push(event)),
        error: (error: unknown) => subscriber.error(error),
        complete: () => {
          give(reader.end());
          subscriber.complete();
        },
      });
    });
}
