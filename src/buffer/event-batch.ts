/**
 * Some events in a row as columns over their slots: numbers are read where they lie, objects are made on demand. Selecting (`filter`) makes an
 * index, no objects. A batch that a reader hands out is a window into memory that will be used again: it is valid until the reader's
 * next batch, or until the subscriber's callback returns. `copy()` keeps it; `event(i)` objects are always yours.
 */
import { BeamtraceError } from "../erlang/errors";
import type { Mfa } from "./dictionary";
import { EventCursor } from "./event-cursor";
import type { EventFactory, PayloadArea } from "./event-factory";
import { EVENT_KINDS, FLAG, IDENTITY, KIND_NAMES, SLOT, SLOT_FRAME, SLOT_WORDS } from "./event-schema";
import type { EventKind, EventKindCode } from "./event-schema";
import { FRAME_KINDS, kindTable, MFA_KINDS, OTHER_KINDS, SHAPE_KINDS } from "./kind-tables";
import { processKey, type AtomId, type MfaId, type ProcessKey, type Timestamp } from "./ids";
import { SlotBlock } from "./slot-block";
import type { Pid, Port } from "../erlang/term";
import type { TraceEvent } from "./trace-event";

/** Which events to keep: a test, kinds, or one process or port (of one source, or of any). */
export type EventFilter =
  | ((batch: EventBatch, index: number) => boolean)
  | EventKind
  | readonly EventKind[]
  | { readonly process: ProcessKey; readonly source?: number };

/** Memory that a batch looks at. */
export interface BatchMemory {
  readonly words: Uint32Array;
  /** The same memory as `words`. */
  readonly floats: Float64Array;
  /** First slot of the batch. */
  readonly first: number;
  /** Slots in a row. */
  readonly count: number;
  readonly payload: PayloadArea;
}

/** Events as columns. */
export class EventBatch implements Iterable<TraceEvent> {
  /** Number of events. */
  readonly length: number;
  /** Makes the objects; knows dictionary and sources. */
  readonly factory: EventFactory;
  #words: Uint32Array;
  #floats: Float64Array;
  readonly #payload: PayloadArea;
  readonly #first: number;
  /** Word of each event's slot, when they are not all in a row. */
  readonly #selected: Uint32Array | undefined;
  #parent: EventBatch | undefined;
  #released = false;
  /** Batches over the same memory, to be released with this one; undefined where the memory is the batch's own and never is. */
  #parts: EventBatch[] | undefined = [];

  constructor(memory: BatchMemory, factory: EventFactory, selected?: Uint32Array, parent?: EventBatch) {
    this.#words = memory.words;
    this.#floats = memory.floats;
    this.#payload = memory.payload;
    this.#first = memory.first * SLOT_WORDS;
    this.#selected = selected;
    this.#parent = parent;
    this.length = selected === undefined ? memory.count : selected.length;
    this.factory = factory;
  }

  /** A batch over all slots of a block. Valid while the block is not changed. */
  static of(block: SlotBlock, factory: EventFactory): EventBatch {
    const { words, floats, count } = block;
    const batch = new EventBatch({ words, floats, first: 0, count, payload: payloadOf(block) }, factory);
    batch.#parts = undefined;
    return batch;
  }

  /** Index of the first word of event `i`'s slot in `words`; for code that reads slots itself. */
  slot(i: number): number {
    return this.#selected === undefined ? this.#first + i * SLOT_WORDS : this.#selected[i]!;
  }

  /** The slots' memory, see `SLOT`. */
  get words(): Uint32Array {
    return this.#words;
  }

  /** The same memory as doubles. */
  get floats(): Float64Array {
    return this.#floats;
  }

  /** Where payload bytes lie. */
  get payload(): PayloadArea {
    return this.#payload;
  }

  /** Kind of event `i`. */
  kind(i: number): EventKind {
    return KIND_NAMES[this.#words[this.slot(i)]! & 0xff] ?? "unknown";
  }

  /** Kind of event `i` as a number, see `EVENT_KINDS`. */
  kindCode(i: number): EventKindCode {
    return (this.#words[this.slot(i)]! & 0xff) as EventKindCode;
  }

  /** Nanoseconds since the base of event `i`'s source. */
  timestamp(i: number): Timestamp {
    return this.#floats[(this.slot(i) >>> 1) + 1]!;
  }

  /** Process or port that event `i` happened in; 0 when there is none. */
  process(i: number): ProcessKey {
    const base = this.slot(i);
    return processKey(this.#words[base + SLOT.traceeLow]!, this.#words[base + SLOT.traceeHigh]!);
  }

  /** Index of event `i`'s source. */
  source(i: number): number {
    return (this.#words[this.slot(i)]! >>> 8) & 0xff;
  }

  /** Scheduler of event `i`; 0 when it was not asked for. */
  scheduler(i: number): number {
    return this.#words[this.slot(i)]! >>> 16;
  }

  /** The second identity of event `i` (receiver, child, parent, linked) when it is a process or port of the same node; else 0. */
  other(i: number): ProcessKey {
    const base = this.slot(i);
    const flags = this.#words[base + SLOT.flags]!;
    const low = this.#words[base + SLOT.otherLow]!;
    const code = this.#words[base]! & 0xff;
    if (OTHER_KINDS[code] === 0 || flags >>> 8 !== 0 || (flags & (FLAG.widePid | FLAG.widePort)) !== 0)
      return NONE;
    if ((low & 15) !== IDENTITY.pid && (low & 15) !== IDENTITY.port) return NONE;
    return processKey(low, this.#words[base + SLOT.otherHigh]!);
  }

  /** Dictionary id of event `i`'s function; 0 when it has none. */
  mfaId(i: number): MfaId {
    const base = this.slot(i);
    return (MFA_KINDS[this.#words[base]! & 0xff] === 0 ? 0 : this.#words[base + SLOT.mfa]!) as MfaId;
  }

  /** Function of event `i`. */
  mfa(i: number): Mfa | undefined {
    return this.factory.dictionary.mfa(this.mfaId(i));
  }

  /** The call of event `i`, where instrumented code tells of it; else 0. */
  callId(i: number): number {
    const base = this.slot(i);
    if (FRAME_KINDS[this.#words[base]! & 0xff] === 0) return 0;
    return this.#words[base + SLOT_FRAME.idHigh]! * 0x1_0000_0000 + this.#words[base + SLOT_FRAME.idLow]!;
  }

  /** Number of the site of event `i` within its module and version, where instrumented code tells of it; else −1. */
  siteNumber(i: number): number {
    const base = this.slot(i);
    return FRAME_KINDS[this.#words[base]! & 0xff] === 0 ? -1 : this.#words[base + SLOT_FRAME.site]!;
  }

  /** Dictionary id of the instrumented module that tells event `i`; 0 when none does. */
  moduleId(i: number): AtomId {
    const base = this.slot(i);
    return (
      FRAME_KINDS[this.#words[base]! & 0xff] === 0 ? 0 : this.#words[base + SLOT_FRAME.module]!
    ) as AtomId;
  }

  /** Dictionary ids of the leading atoms of event `i`'s message, arguments, value or reason; 0 for none. */
  tag(i: number, which: 1 | 2): AtomId {
    const base = this.slot(i);
    if (SHAPE_KINDS[this.#words[base]! & 0xff] === 0) return 0 as AtomId;
    return this.#words[base + (which === 1 ? SLOT.tag1 : SLOT.tag2)]! as AtomId;
  }

  /** Whether event `i` had a payload that found no room on the way. */
  payloadLost(i: number): boolean {
    const base = this.slot(i);
    return (
      (this.#words[base]! & 0xff) !== EVENT_KINDS.gap &&
      (this.#words[base + SLOT.flags]! & FLAG.payloadLost) !== 0
    );
  }

  /** The process or port behind a key, of the given source. */
  identityOf(key: ProcessKey, source = 0): Pid | Port | undefined {
    return this.factory.identity(key >>> 0, Math.floor(key / 0x1_0000_0000) >>> 0, 0, source);
  }

  /** Event `i` as an object that is yours. */
  event(i: number): TraceEvent {
    if (!(i >= 0 && i < this.length && Number.isInteger(i)))
      throw new RangeError(`no event ${i} in a batch of ${this.length}`);
    this.#requireValid();
    return this.factory.event(this.#words, this.#floats, this.slot(i), this.#payload);
  }

  /** All events as objects. */
  events(): TraceEvent[] {
    const events: TraceEvent[] = [];
    for (let i = 0; i < this.length; i++) events.push(this.event(i));
    return events;
  }

  /** All events as objects, one at a time. */
  *[Symbol.iterator](): IterableIterator<TraceEvent> {
    for (let i = 0; i < this.length; i++) yield this.event(i);
  }

  /** A cursor before the first event; it moves over the columns without making objects. */
  cursor(): EventCursor {
    return new EventCursor(this);
  }

  /**
   * The events that pass, as a batch over the same memory and valid as long as this one.
   * @example batch.filter(["send", "receive"]).filter((b, i) => b.timestamp(i) > from)
   */
  filter(filter: EventFilter): EventBatch {
    this.#requireValid();
    const scratch = scratchFor(this.length);
    const count =
      typeof filter === "function"
        ? this.#selectByTest(filter, scratch)
        : typeof filter === "string" || isKinds(filter)
          ? this.#selectByKind(typeof filter === "string" ? [filter] : filter, scratch)
          : this.#selectByProcess(filter.process, filter.source, scratch);
    if (count === this.length) return this;
    return this.#select(scratch.slice(0, count));
  }

  /** The events [from, to) as a batch over the same memory; as in arrays, what is negative counts from the end. */
  slice(from: number, to = this.length): EventBatch {
    this.#requireValid();
    const first = position(from, this.length);
    const selected = new Uint32Array(Math.max(0, position(to, this.length) - first));
    for (let i = 0; i < selected.length; i++) selected[i] = this.slot(first + i);
    return this.#select(selected);
  }

  /** A batch with memory of its own, which stays valid. */
  copy(): EventBatch {
    this.#requireValid();
    const block = new SlotBlock(this.length);
    this.appendTo(block);
    return EventBatch.of(block, this.factory);
  }

  /** Appends slots and payload to a block. Ids stay those of this batch's dictionary. */
  appendTo(block: SlotBlock): void {
    this.#requireValid();
    block.reserve(block.count + this.length);
    const words = this.#words;
    const first = block.count * SLOT_WORDS;
    if (this.#selected === undefined) {
      block.words.set(words.subarray(this.#first, this.#first + this.length * SLOT_WORDS), first);
    } else {
      for (let i = 0, to = first; i < this.length; i++, to += SLOT_WORDS) {
        const from = this.#selected[i]!;
        for (let word = 0; word < SLOT_WORDS; word++) block.words[to + word] = words[from + word]!;
      }
    }
    block.count += this.length;
    for (let base = first; base < block.count * SLOT_WORDS; base += SLOT_WORDS) {
      const flags = block.words[base + SLOT.flags]!;
      if ((flags & FLAG.payload) === 0) continue;
      const position = block.words[base + SLOT.payloadAt]!;
      const bytes = this.#payload.readPayload(position, block.words[base + SLOT.payloadBytes]!);
      if (bytes !== undefined) block.addPayload(base, bytes);
      else block.words[base + SLOT.flags] = (flags & ~FLAG.payload) | FLAG.payloadLost;
    }
  }

  /** Called by the reader that owns the memory when it is about to be used again. From then on the batch, and those made from it, throw. */
  release(): void {
    this.#released = true;
    this.#words = RELEASED as unknown as Uint32Array;
    this.#floats = RELEASED as unknown as Float64Array;
    if (this.#parts !== undefined) for (const part of this.#parts) part.release();
    this.#parts = undefined;
  }

  #select(selected: Uint32Array): EventBatch {
    const memory = { words: this.#words, floats: this.#floats, first: 0, count: 0, payload: this.#payload };
    const part = new EventBatch(memory, this.factory, selected, this);
    if (this.#parts === undefined) part.#parts = undefined;
    else this.#parts.push(part);
    return part;
  }

  #requireValid(): void {
    if (this.#released) throw released();
    if (this.#parent !== undefined) this.#parent.#requireValid();
  }

  #selectByKind(kinds: readonly EventKind[], scratch: Uint32Array): number {
    const wanted = kindTable(kinds);
    const words = this.#words;
    let count = 0;
    if (this.#selected === undefined) {
      const end = this.#first + this.length * SLOT_WORDS;
      for (let base = this.#first; base < end; base += SLOT_WORDS) {
        scratch[count] = base;
        count += wanted[words[base]! & 0xff]!;
      }
      return count;
    }
    for (const base of this.#selected) {
      scratch[count] = base;
      count += wanted[words[base]! & 0xff]!;
    }
    return count;
  }

  #selectByProcess(process: ProcessKey, source: number | undefined, scratch: Uint32Array): number {
    const low = process >>> 0;
    const high = Math.floor(process / 0x1_0000_0000) >>> 0;
    const words = this.#words;
    let count = 0;
    for (let i = 0; i < this.length; i++) {
      const base = this.slot(i);
      if (words[base + SLOT.traceeLow] !== low || words[base + SLOT.traceeHigh] !== high) continue;
      if (source === undefined || ((words[base]! >>> 8) & 0xff) === source) scratch[count++] = base;
    }
    return count;
  }

  #selectByTest(test: (batch: EventBatch, index: number) => boolean, scratch: Uint32Array): number {
    // The test may filter as well, which would use the shared scratch.
    const selected = scratch === SCRATCH ? new Uint32Array(this.length) : scratch;
    let count = 0;
    for (let i = 0; i < this.length; i++) if (test(this, i)) selected[count++] = this.slot(i);
    scratch.set(selected.subarray(0, count));
    return count;
  }
}

/** Payload of a block. The bytes are a view. */
export function payloadOf(block: SlotBlock): PayloadArea {
  const { payload } = block;
  return {
    readPayload: (position, length) => {
      const from = position * 8;
      return from + length <= payload.length ? payload.subarray(from, from + length) : undefined;
    },
  };
}

function position(index: number, length: number): number {
  const whole = Math.trunc(index) || 0;
  return whole < 0 ? Math.max(0, length + whole) : Math.min(whole, length);
}

const NONE = 0 as ProcessKey;
const SCRATCH = new Uint32Array(1 << 14);

function scratchFor(length: number): Uint32Array {
  return length < SCRATCH.length ? SCRATCH : new Uint32Array(length + 1);
}

function isKinds(filter: object): filter is readonly EventKind[] {
  return Array.isArray(filter);
}

function released(): BeamtraceError {
  return new BeamtraceError(
    "BT_BATCH_RELEASED",
    "This batch was valid only until the next one; take batch.copy() or event objects to keep",
  );
}

/** Stands in for the memory of a released batch: every read of a column throws. */
const RELEASED: object = new Proxy(
  {},
  {
    get() {
      throw released();
    },
  },
);
