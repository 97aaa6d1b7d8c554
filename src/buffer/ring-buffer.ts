/**
 * A lock-free ring of 64-byte records in shared memory, with a side area for payloads: one or several producers, any number of readers, across
 * worker threads. Every loss is counted and reaches readers as a gap at its place in the order. The ring doesn't look into records;
 * it only carries the dictionary and the table of sources that they refer to.
 * The memory belongs to whoever holds a handle; it is freed when the last thread lets go of it.
 */
import { BeamtraceError, OptionError } from "../erlang/errors";
import { Dictionary } from "./dictionary";
import { SourceTable } from "./source-table";
import { handleOf, openHandle } from "./ring/handle";
import type { RingHandle } from "./ring/handle";
import { InPlaceReader } from "./ring/in-place-reader";
import {
  CELL,
  PLACE,
  RING_CAPACITY_MAX,
  RING_PAYLOAD_MAX,
  RING_READERS_MAX,
  createRingMemory,
} from "./ring/layout";
import type { Overflow, RingMemory } from "./ring/layout";
import { MultiProducer } from "./ring/multi-producer";
import { OverwritingReader } from "./ring/overwriting-reader";
import { freePlace, isOccupied, placeCell } from "./ring/places";
import type { RingProducer } from "./ring/producer";
import type { RingReader } from "./ring/reader";
import { ringStats } from "./ring/ring-stats";
import type { RingStats } from "./ring/ring-stats";
import { wake } from "./ring/signal";
import { SingleProducer } from "./ring/single-producer";
import { ParkWait } from "./ring/wait-park";
import { PollWait } from "./ring/wait-poll";
import { SpinWait } from "./ring/wait-spin";
import type { WaitStrategy } from "./ring/wait-strategy";

/** Options of a new ring. */
export interface RingBufferOptions {
  /** Slots, rounded up to a power of two, up to 2^25. Default 65,536 (4 MiB). */
  readonly capacity?: number;
  /** Bytes of the payload area, rounded up to a power of two, up to 2 GiB; 0 for none. Default 16 for each slot. */
  readonly payloadBytes?: number;
  /**
   * What a full ring does. `drop-newest` (default): what doesn't fit is counted; the slowest reader decides, and with no reader at all the ring keeps the
   * first records. `overwrite-oldest`: always takes the newest; slow readers are overtaken and told how much they missed.
   */
  readonly overflow?: Overflow;
  /** `single` (default): one producer at a time. `multiple`: one for each thread that writes. */
  readonly producers?: "single" | "multiple";
  /** Places for readers. Default 8. */
  readonly maxReaders?: number;
}

/** Options of a reader. */
export interface RingReaderOptions {
  /** `oldest` (default): with what is still in the ring. `latest`: with what is written from now on. */
  readonly from?: "oldest" | "latest";
  /** How it waits. Default `park`. */
  readonly wait?: "park" | "spin" | "poll" | WaitStrategy;
}

/** For tests: where positions and the payload head start counting. */
export const RING_ORIGIN: unique symbol = Symbol("beamtrace.ring.origin");

interface InternalOptions extends RingBufferOptions {
  readonly [RING_ORIGIN]?: { readonly position?: bigint; readonly payload?: bigint };
}

interface OpenedRing {
  readonly memory: RingMemory;
  readonly handle: RingHandle;
}

function powerOfTwo(option: string, value: number, max: number): number {
  if (!Number.isInteger(value) || value < 1 || value > max)
    throw new OptionError(
      "BT_OPTION_INVALID",
      option,
      `must be a whole number from 1 to ${max}, is ${value}`,
    );
  return 2 ** Math.ceil(Math.log2(value));
}

function oneOf<T extends string>(option: string, value: T, allowed: readonly T[]): T {
  if (!allowed.includes(value))
    throw new OptionError(
      "BT_OPTION_INVALID",
      option,
      `must be one of ${allowed.join(", ")}, is ${String(value)}`,
    );
  return value;
}

/**
 * A ring in shared memory.
 *
 * @example
 * ```ts
 * const ring = new RingBuffer({ capacity: 1 << 20, overflow: "drop-newest" });
 * new Worker(file, { workerData: ring.handle });          // there: RingBuffer.from(workerData).reader()
 * const producer = ring.producer();
 * ```
 */
export class RingBuffer {
  /** Send this to another thread. */
  readonly handle: RingHandle;
  /** Slots. */
  readonly capacity: number;
  readonly overflow: Overflow;
  /** Whether one producer at a time may write, or several. */
  readonly producers: "single" | "multiple";
  /** Names that the records refer to. Shared like the ring. */
  readonly dictionary: Dictionary;
  /** Nodes and clocks that the records come from. Shared like the ring. */
  readonly sources: SourceTable;
  private readonly memory: RingMemory;

  constructor(options?: RingBufferOptions);
  constructor(options: InternalOptions | OpenedRing = {}) {
    const opened = "memory" in options;
    this.memory = opened ? options.memory : create(options);
    this.dictionary = opened ? Dictionary.from(options.handle) : new Dictionary();
    this.sources = new SourceTable(this.dictionary, opened ? options.handle.sources : undefined);
    this.handle = opened
      ? options.handle
      : handleOf(this.memory, this.dictionary.handle.dictionary, this.sources.handle);
    this.capacity = this.memory.capacity;
    this.overflow = this.memory.overflow;
    this.producers = this.memory.producers;
  }

  /** Opens the ring of a handle, in any thread. Throws `BT_RING_INVALID`. */
  static from(handle: RingHandle): RingBuffer {
    const Ring = this as unknown as new (opened: OpenedRing) => RingBuffer;
    return new Ring({ memory: openHandle(handle), handle });
  }

  /**
   * A producer for this thread. In a ring with `producers: "single"` it takes over from the one before, which must not write any more
   * (it throws `BT_RING_INVALID` when it notices).
   */
  producer(): RingProducer {
    return this.memory.producers === "multiple"
      ? new MultiProducer(this.memory)
      : new SingleProducer(this.memory);
  }

  /** A reader for this thread. Throws `BT_RING_INVALID` when all places are taken. */
  reader(options: RingReaderOptions = {}): RingReader {
    const from = oneOf("from", options.from ?? "oldest", ["oldest", "latest"]);
    const strategy = strategyOf(options.wait ?? "park");
    return this.overflow === "overwrite-oldest"
      ? new OverwritingReader(this.memory, from, strategy)
      : new InPlaceReader(this.memory, from, strategy);
  }

  /** Counters of this moment. */
  stats(): RingStats {
    return ringStats(this.memory);
  }

  /** Producers are done: they claim nothing any more. Readers get what is left and then see `closed`. */
  close(): void {
    Atomics.store(this.memory.cells, CELL.closed, 1);
    wake(this.memory.cells);
  }

  /** Is the ring closed? */
  get closed(): boolean {
    return Atomics.load(this.memory.cells, CELL.closed) !== 0;
  }

  /**
   * Frees the place of a reader whose thread is gone (`stats().readers[…].index`); a drop-newest ring would be held up by it for ever.
   * Only for readers that don't run any more: one that lives may be reading slots that are then overwritten; it gets `BT_CLOSED` as soon as it notices.
   * Returns whether there was a reader.
   */
  evict(index: number): boolean {
    if (!Number.isInteger(index) || index < 0 || index >= this.memory.maxReaders)
      throw new BeamtraceError("BT_RING_INVALID", `There is no place ${index} in this ring.`);
    const state = Atomics.load(this.memory.cells, placeCell(index) + PLACE.state);
    const evicted = isOccupied(state) && freePlace(this.memory, index, state);
    if (evicted) wake(this.memory.cells);
    return evicted;
  }
}

function create(options: InternalOptions): RingMemory {
  const capacity = powerOfTwo("capacity", options.capacity ?? 65_536, RING_CAPACITY_MAX);
  const payloadBytes = options.payloadBytes ?? Math.min(16 * capacity, RING_PAYLOAD_MAX);
  const maxReaders = options.maxReaders ?? 8;
  if (!Number.isInteger(maxReaders) || maxReaders < 1 || maxReaders > RING_READERS_MAX)
    throw new OptionError(
      "BT_OPTION_INVALID",
      "maxReaders",
      `must be a whole number from 1 to ${RING_READERS_MAX}, is ${maxReaders}`,
    );
  const origin = options[RING_ORIGIN];
  return createRingMemory(
    {
      capacity,
      overflow: oneOf("overflow", options.overflow ?? "drop-newest", ["drop-newest", "overwrite-oldest"]),
      producers: oneOf("producers", options.producers ?? "single", ["single", "multiple"]),
      maxReaders,
      payloadUnits:
        payloadBytes === 0 ? 0 : Math.max(1, powerOfTwo("payloadBytes", payloadBytes, RING_PAYLOAD_MAX) / 8),
    },
    origin?.position ?? 0n,
    origin?.payload ?? 0n,
  );
}

function strategyOf(wait: NonNullable<RingReaderOptions["wait"]>): WaitStrategy {
  if (typeof wait !== "string") return wait;
  switch (oneOf("wait", wait, ["park", "spin", "poll"])) {
    case "park":
      return new ParkWait();
    case "spin":
      return new SpinWait();
    case "poll":
      return new PollWait();
  }
}
