/**
 * What a flight recorder kept: a window of time as a source of events, in memory of its own, to be read any number of times or saved as a
 * recording file. It stays valid when recorder and session have ended.
 */
import { Observable } from "rxjs";
import {
  EventBatch,
  record,
  type EventSource,
  type RecordingSummary,
  type RecordOptions,
  type SiteTables,
  type SlotBlock,
  type SourceInfo,
  type Timestamp,
  type TraceEvent,
} from "../buffer";
import type { EventFactory } from "../buffer/event-factory";
import { payloadOf } from "../buffer/event-batch";
import { eventsOf } from "../buffer/event-source";
import type { Pid, Port, Term } from "../erlang/term";
import type { RecorderTrigger } from "./recorder-triggers";

/** Why a recording was made. `at`: when, on the clock of its events. */
export type FlightTrigger =
  /** `recorder.snapshot()`. */
  | { readonly kind: "snapshot"; readonly at: Timestamp }
  /** `trigger` is the option that fired, `process` where. */
  | {
      readonly kind: "call" | "exit" | "message";
      readonly at: Timestamp;
      readonly trigger: RecorderTrigger;
      readonly process: Pid | Port | undefined;
    }
  /** `alarm` is the system monitor's event (`long_gc`, `long_schedule`, `large_heap`), `info` its details as the VM gives them. */
  | {
      readonly kind: "alarm";
      readonly at: Timestamp;
      readonly trigger: RecorderTrigger;
      readonly process: Pid | Port | undefined;
      readonly alarm: string;
      readonly info: Term;
    };

/** What the node says of a recording. Counts are exact: `before + events + lost + lostBefore` is all that was traced up to `to`. */
export interface FlightRecordingFacts {
  /** Number within the recorder's life on this connection, from 1. */
  readonly number: number;
  readonly trigger: FlightTrigger;
  /** The recording has every event of the traced processes from here … */
  readonly from: Timestamp;
  /** … up to here, but for what its gap events count. */
  readonly to: Timestamp;
  /** Nothing is missing: no gap, and the window is as long as was asked for or reaches back to the recorder's start. */
  readonly complete: boolean;
  /** Events in the recording, gap events not counted. */
  readonly events: number;
  /** Events of the window that are missing, and told by gap events. */
  readonly lost: number;
  /** Events that lie before the window, since the recorder's start: overwritten, or older than was asked for. */
  readonly before: number;
  /** Events that found no room before the window. */
  readonly lostBefore: number;
  /** Triggers that fired since the recording before this one and made none: too soon after it, or while it was being shipped. */
  readonly suppressed: number;
}

const BATCH_EVENTS = 1024;

/** A window of time that a flight recorder has kept. */
export class FlightRecording implements EventSource {
  readonly number: number;
  readonly trigger: FlightTrigger;
  readonly from: Timestamp;
  readonly to: Timestamp;
  readonly complete: boolean;
  readonly events: number;
  readonly lost: number;
  readonly before: number;
  readonly lostBefore: number;
  readonly suppressed: number;
  /** The window in batches. Each subscriber gets all of it; batches stay valid. */
  readonly batches$: Observable<EventBatch>;
  readonly events$: Observable<TraceEvent>;
  readonly #factory: EventFactory;

  /** @internal */
  constructor(facts: FlightRecordingFacts, block: SlotBlock, factory: EventFactory) {
    this.number = facts.number;
    this.trigger = facts.trigger;
    this.from = facts.from;
    this.to = facts.to;
    this.complete = facts.complete;
    this.events = facts.events;
    this.lost = facts.lost;
    this.before = facts.before;
    this.lostBefore = facts.lostBefore;
    this.suppressed = facts.suppressed;
    this.#factory = factory;
    const { words, floats, count } = block;
    const payload = payloadOf(block);
    this.batches$ = new Observable((subscriber) => {
      for (let first = 0; first < count && !subscriber.closed; first += BATCH_EVENTS) {
        const memory = { words, floats, first, count: Math.min(BATCH_EVENTS, count - first), payload };
        subscriber.next(new EventBatch(memory, factory));
      }
      subscriber.complete();
    });
    this.events$ = eventsOf(this.batches$);
  }

  /** What the sites of instrumented modules stand for, for `callbacks` and `locals`; `event.site` has it too. */
  get sites(): SiteTables {
    return this.#factory.dictionary.sites;
  }

  /** The node and clock that the events come from. */
  get sources(): readonly SourceInfo[] {
    return this.#factory.sources;
  }

  /**
   * Writes a recording file, as `record` does; `openRecording` reads it.
   * @throws errors of the file system
   */
  saveTo(path: string, options: RecordOptions = {}): Promise<RecordingSummary> {
    // All of it is in memory already: waiting for the disk must not drop anything.
    return record(this, path, { bufferBytes: Infinity, ...options });
  }
}
