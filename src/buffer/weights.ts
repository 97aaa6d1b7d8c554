/**
 * How many events one event of a sampled trace stands for. The shares travel in the stream as markers (docs/overhead.md, "Sampling"), so the same
 * holds for a live trace and for a recording. Looks at nothing but the stream, in its order.
 */
import { Observable, type OperatorFunction } from "rxjs";
import type { EventBatch } from "./event-batch";
import { EVENT_KINDS } from "./event-schema";
import type { MarkerEvent, TraceEvent } from "./trace-event";

const CALLS: ReadonlySet<number> = new Set([
  EVENT_KINDS.call,
  EVENT_KINDS.return_from,
  EVENT_KINDS.exception_from,
]);

interface Shares {
  /** 1 ÷ share of the processes. */
  processes: number;
  /** One call in so many. */
  calls: number;
}

/** Follows the markers of a stream; give it every event, or every batch, in order. */
export class Weights {
  readonly #sources: (Shares | undefined)[] = [];

  /** Weight of an event: 1 ÷ (share in force × calls traced). Markers and gaps have 1, and change what comes after them. */
  of(event: TraceEvent): number {
    if (event.kind === "marker") {
      this.#learn(event);
      return 1;
    }
    return event.kind === "gap" ? 1 : this.#weight(event.source, EVENT_KINDS[event.kind]);
  }

  /** The same for event `i` of a batch. */
  at(batch: EventBatch, i: number): number {
    const code = batch.kindCode(i);
    if (code === EVENT_KINDS.marker) {
      const event = batch.event(i);
      if (event.kind === "marker") this.#learn(event);
      return 1;
    }
    return code === EVENT_KINDS.gap ? 1 : this.#weight(batch.source(i), code);
  }

  #learn(marker: MarkerEvent): void {
    if (typeof marker.a !== "number" || !(marker.a > 0)) return;
    if (marker.name !== "sampling" && marker.name !== "sampling_calls") return;
    const shares = (this.#sources[marker.source] ??= { processes: 1, calls: 1 });
    if (marker.name === "sampling") shares.processes = 1_000_000 / marker.a;
    else shares.calls = marker.a;
  }

  #weight(source: number, code: number): number {
    const shares = this.#sources[source];
    if (shares === undefined) return 1;
    return CALLS.has(code) ? shares.processes * shares.calls : shares.processes;
  }
}

/** An event, and how many it stands for. */
export interface WeightedEvent {
  readonly event: TraceEvent;
  readonly weight: number;
}

/**
 * Each event with its weight: sums of weights estimate what a trace of all processes would have counted.
 * @example trace.events$.pipe(weighted()).subscribe(({ event, weight }) => (total += weight))
 */
export function weighted(): OperatorFunction<TraceEvent, WeightedEvent> {
  return (events$) =>
    new Observable((subscriber) => {
      const weights = new Weights();
      return events$.subscribe({
        next: (event) => subscriber.next({ event, weight: weights.of(event) }),
        error: (error: unknown) => subscriber.error(error),
        complete: () => subscriber.complete(),
      });
    });
}
