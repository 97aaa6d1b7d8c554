/** A flyweight over the events of a batch: one object for all of them, no allocation while moving. Valid as long as the batch. */
import type { EventBatch } from "./event-batch";
import type { EventKind, EventKindCode } from "./event-schema";
import type { MfaId, ProcessKey, Timestamp } from "./ids";
import type { TraceEvent } from "./trace-event";

/**
 * Moves over a batch.
 * @example for (const c = batch.cursor(); c.next(); ) if (c.kind === "send") count(c.process, c.timestamp);
 */
export class EventCursor {
  readonly batch: EventBatch;
  /** Position in the batch; −1 before the first `next()`. */
  index = -1;

  constructor(batch: EventBatch) {
    this.batch = batch;
  }

  /** Moves on to the next event; false behind the last one. */
  next(): boolean {
    return ++this.index < this.batch.length;
  }

  get kind(): EventKind {
    return this.batch.kind(this.index);
  }

  get kindCode(): EventKindCode {
    return this.batch.kindCode(this.index);
  }

  get timestamp(): Timestamp {
    return this.batch.timestamp(this.index);
  }

  get process(): ProcessKey {
    return this.batch.process(this.index);
  }

  get other(): ProcessKey {
    return this.batch.other(this.index);
  }

  get source(): number {
    return this.batch.source(this.index);
  }

  get scheduler(): number {
    return this.batch.scheduler(this.index);
  }

  get mfaId(): MfaId {
    return this.batch.mfaId(this.index);
  }

  /** The event as an object that is yours. */
  event(): TraceEvent {
    return this.batch.event(this.index);
  }
}
