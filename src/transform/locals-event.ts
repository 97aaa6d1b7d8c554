/**
 * The values of variables at a line, out of the call event of `beamtrace_rt:locals_at/3`. Pure: an event and the site tables in, an object or
 * nothing out.
 */
import { Observable, type OperatorFunction } from "rxjs";

import type { CallEvent, TraceEvent } from "../buffer";
import { Atom, type Pid, type Term, Tuple } from "../erlang";
import type { SiteLookup } from "./behaviours";
import type { Site } from "../buffer";

/** A variable and its value, cut and redacted as the trace says. */
export interface LocalVariable {
  /** As the source calls it. */
  readonly name: string;
  readonly value: Term;
}

/** A line that was asked for is about to be run. */
export interface LocalsEvent {
  readonly kind: "locals";
  /** Nanoseconds since the base of the source. */
  readonly timestamp: CallEvent["timestamp"];
  readonly source: number;
  readonly process: Pid;
  readonly module: string;
  /** File, line and function. */
  readonly site: Site;
  readonly variables: readonly LocalVariable[];
  /** False when the payload was cut before the last variable. */
  readonly complete: boolean;
}

/** The locals event that a call event is, or undefined when it is none, or when nothing is known of its module. */
export function localsEvent(event: TraceEvent, sites: SiteLookup): LocalsEvent | undefined {
  if (event.kind !== "call" || event.mfa.module !== "beamtrace_rt" || event.mfa.function !== "locals_at")
    return undefined;
  if (!Array.isArray(event.payload)) return undefined;
  const [module, number, pairs] = event.payload as readonly Term[];
  if (!(module instanceof Atom) || typeof number !== "number") return undefined;
  const site = sites.find(module.name, number);
  if (site?.variables === undefined) return undefined;
  const values = Array.isArray(pairs) ? (pairs as readonly Term[]) : [];
  const variables = site.variables.flatMap((name, i) => {
    const pair = values[i];
    const value = pair instanceof Tuple ? pair.elements[1] : undefined;
    return value === undefined ? [] : [{ name, value }];
  });
  return {
    ...{ kind: "locals", timestamp: event.timestamp, source: event.source, process: event.process },
    ...{ module: module.name, site, variables, complete: variables.length === site.variables.length },
  };
}

/** What a trace needs to hear of variables: `session.trace({ ...LOCALS_TRACE, … })`. Larger values want a larger payload. */
export const LOCALS_TRACE = {
  instrumented: true,
  events: ["function_exception"],
  calls: [{ module: "beamtrace_rt", function: "locals_at", arity: 3 }],
  payload: { maxBytes: 4096 },
} as const;

/**
 * Only the values of variables at lines.
 * @example trace.events$.pipe(locals(siteTables([table]))).subscribe(({ site, variables }) => …);
 */
export function locals(sites: SiteLookup): OperatorFunction<TraceEvent, LocalsEvent> {
  return (events$) =>
    new Observable((subscriber) =>
      events$.subscribe({
        next: (event) => {
          const found = localsEvent(event, sites);
          if (found !== undefined) subscriber.next(found);
        },
        error: (error: unknown) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    );
}
