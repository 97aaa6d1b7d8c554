/**
 * A ring as an `EventSource`. It owns one reader of the ring and shares what that reads with all subscribers. While nobody is subscribed
 * nothing is read, so the first subscriber sees what has been gathered; a drop-newest ring then fills and counts.
 * Losses that the reader is told of become `gap` events in their place.
 */
import { Observable, Subject } from "rxjs";
import { EventBatch } from "./event-batch";
import { EventFactory } from "./event-factory";
import { EVENT_KINDS, GAP_HOPS, SLOT_GAP } from "./event-schema";
import { eventsOf, type EventSource } from "./event-source";
import type { RingBuffer } from "./ring-buffer";
import type { RingReader } from "./ring/reader";
import { SlotBlock } from "./slot-block";
import type { SourceInfo } from "./source-info";
import type { TraceEvent } from "./trace-event";

/** Options of `ringSource`. */
export interface RingSourceOptions {
  /** `oldest` (default): with what is still in the ring. `latest`: with what is written from now on. */
  readonly from?: "oldest" | "latest";
  /** Only events of these sources, where several traces share the ring; what the ring itself lost is told to all. The set may grow. Default: all. */
  readonly only?: ReadonlySet<number>;
  /** Waits for the ring by itself (default). False: whoever writes to the ring in this thread calls `pump()`. */
  readonly wait?: boolean;
  /** Most events of a batch. Default 1024. */
  readonly batchEvents?: number;
}

/** Batches delivered in one go; then the event loop gets its turn. Fewer where subscribers take their time: the lease is renewed there. */
const BATCHES_PER_TURN = 64;
const TURN_MS = 20;

/** See `ringSource`. */
export class RingSource implements EventSource {
  readonly batches$: Observable<EventBatch>;
  readonly events$: Observable<TraceEvent>;
  readonly #ring: RingBuffer;
  readonly #reader: RingReader;
  readonly #factory: EventFactory;
  readonly #batches = new Subject<EventBatch>();
  readonly #gap = new SlotBlock(1);
  readonly #options: Required<Omit<RingSourceOptions, "only">> & {
    readonly only: ReadonlySet<number> | undefined;
  };
  #lastStamp = NaN;
  #pumping = false;
  #scheduled = false;
  #waiting = false;
  #finishing = false;
  #ended = false;

  constructor(ring: RingBuffer, options: RingSourceOptions = {}) {
    this.#ring = ring;
    this.#options = {
      from: options.from ?? "oldest",
      only: options.only,
      wait: options.wait ?? true,
      batchEvents: options.batchEvents ?? 1024,
    };
    this.#reader = ring.reader({ from: this.#options.from });
    this.#factory = new EventFactory(ring.dictionary, ring.sources.list);
    this.batches$ = new Observable((subscriber) => {
      const subscription = this.#batches.subscribe(subscriber);
      this.#schedule();
      return subscription;
    });
    this.events$ = eventsOf(this.batches$);
  }

  get sources(): readonly SourceInfo[] {
    return this.#ring.sources.list;
  }

  /** Records that wait to be read. */
  get pending(): number {
    return this.#ended
      ? 0
      : (this.#ring.stats().readers.find((reader) => reader.index === this.#reader.index)?.pending ?? 0);
  }

  /** There is more in the ring: delivers it now, or, where a turn has just been cut short, in the next one. */
  wake(): void {
    if (!this.#scheduled) this.pump();
  }

  /** Delivers what the ring holds to the subscribers, now. */
  pump(): void {
    if (this.#pumping || this.#ended || !this.#batches.observed) return;
    this.#pumping = true;
    try {
      this.#ring.sources.refresh();
      const end = performance.now() + TURN_MS;
      for (let turn = 0; turn < BATCHES_PER_TURN; turn++) {
        if (!this.#batches.observed) return;
        if (!this.#deliver()) return this.#drained();
        if (performance.now() > end) break;
      }
      this.#schedule();
    } finally {
      this.#pumping = false;
    }
  }

  /** Nothing more will come for this source, though the ring may live on: delivers the rest and completes. */
  finish(): void {
    this.#finishing = true;
    this.#schedule();
    this.pump();
  }

  /** Gives the reader's place in the ring back and completes. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#reader.close();
    this.#batches.complete();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** One poll of the reader; false when there was nothing. */
  #deliver(): boolean {
    const reader = this.#reader;
    const count = reader.poll(this.#options.batchEvents);
    if (reader.gap > 0) this.#emitGap(reader.gap, count);
    if (count === 0) return reader.gap > 0;
    const first = reader.start & reader.mask;
    const contiguous = reader.contiguous(count);
    this.#emit(first, contiguous);
    if (contiguous < count) this.#emit(0, count - contiguous);
    reader.release(count);
    return true;
  }

  #emit(first: number, count: number): void {
    const { words, floats } = this.#reader;
    const batch = new EventBatch({ words, floats, first, count, payload: this.#reader }, this.#factory);
    this.#lastStamp = batch.timestamp(count - 1);
    const { only } = this.#options;
    const chosen =
      only === undefined || this.#ring.sources.list.length < 2
        ? batch
        : batch.filter((b, i) => only.has(b.source(i)));
    if (chosen.length > 0) this.#batches.next(chosen);
    batch.release();
  }

  #emitGap(lost: number, following: number): void {
    const { words, floats, start, mask } = this.#reader;
    const until = following > 0 ? (floats[(start & mask) * 8 + 1] ?? NaN) : NaN;
    const gap = this.#gap;
    gap.clear();
    const base = gap.add();
    const hop = this.#ring.overflow === "drop-newest" ? GAP_HOPS.ring : GAP_HOPS.reader;
    const source = following > 0 ? ((words[(start & mask) * 16] ?? 0) >>> 8) & 0xff : 0;
    gap.words[base] = EVENT_KINDS.gap | (source << 8);
    gap.floats[1] = Number.isNaN(until) ? (Number.isNaN(this.#lastStamp) ? 0 : this.#lastStamp) : until;
    gap.floats[SLOT_GAP.countF64] = lost;
    gap.floats[SLOT_GAP.fromF64] = this.#lastStamp;
    gap.floats[SLOT_GAP.toF64] = until;
    gap.words[base + SLOT_GAP.hop] = hop;
    this.#batches.next(EventBatch.of(gap, this.#factory));
  }

  #drained(): void {
    // `closed` is looked at before the last poll would be too early: what was written in between would be lost.
    if (this.#finishing || this.#ring.closed) {
      if (!this.#deliver()) return this.close();
      return this.#schedule();
    }
    if (this.#options.wait) void this.#wait();
  }

  /** In a turn of its own, so that all who subscribe in this one see the same. */
  #schedule(): void {
    if (this.#scheduled || this.#ended) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.pump();
    });
  }

  async #wait(): Promise<void> {
    if (this.#waiting || this.#ended) return;
    this.#waiting = true;
    try {
      await this.#reader.wait();
    } catch {
      // The reader was closed or evicted: there is nothing to wait for.
      this.close();
      return;
    } finally {
      this.#waiting = false;
    }
    this.pump();
  }
}

/**
 * A ring as a source of events: in the thread that fills it, or in another one that has its handle.
 *
 * @throws OptionError `BT_RING_INVALID` when all places for readers are taken
 * @example
 * ```ts
 * const source = ringSource(RingBuffer.from(workerData));
 * await source.batches$.forEach((batch) => console.log(batch.length));
 * ```
 */
export function ringSource(ring: RingBuffer, options: RingSourceOptions = {}): RingSource {
  return new RingSource(ring, options);
}
