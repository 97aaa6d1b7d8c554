/**
 * What a live trace, a recording and a ring have in common, so that an operator or a decoder runs on each of them alike.
 */
import { Observable } from "rxjs";
import type { EventBatch } from "./event-batch";
import type { SourceInfo } from "./source-info";
import type { TraceEvent } from "./trace-event";

/** A stream of events with what is needed to interpret it. */
export interface EventSource {
  /** Nodes and clocks that the events come from; `event.source` is an index into it. Grows when a source is added. */
  readonly sources: readonly SourceInfo[];
  /** Events in batches: the primary stream. A batch is valid during the callback; `batch.copy()` keeps it. */
  readonly batches$: Observable<EventBatch>;
  /** The same events one by one, as plain objects that are safe to keep. */
  readonly events$: Observable<TraceEvent>;
}

/** Batches as single events. */
export function eventsOf(batches$: Observable<EventBatch>): Observable<TraceEvent> {
  return new Observable((subscriber) =>
    batches$.subscribe({
      next: (batch) => {
        for (let i = 0; i < batch.length && !subscriber.closed; i++) subscriber.next(batch.event(i));
      },
      error: (error: unknown) => subscriber.error(error),
      complete: () => subscriber.complete(),
    }),
  );
}
