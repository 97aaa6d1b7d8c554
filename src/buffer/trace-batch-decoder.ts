/**
 * Messages of the agent's tracers, `{1, TraceId, Seq, Base, Received, Lost, Events}` and, from the native one,
 * `{3, TraceId, Seq, Base, Received, Lost, Dictionary, Records}` or `{4, TraceId, Seq, Base, Received, Lost, Dictionary, Contents, Records}`, into
 * slots: the hot path between socket and ring (docs/agent-protocol.md, "Batches"). A message is decoded as a whole into staging memory owned by
 * the decoder and then delivered, so a damaged one leaves nothing behind. One decoder serves one trace; the tracer's own counts prove that nothing went missing on the way.
 */
import { BadTermError } from "../erlang/errors";
import { decodeWithoutVersion } from "../erlang/etf/decode";
import { Atom, ErlMap, type Term } from "../erlang/term";
import type { Dictionary } from "./dictionary";
import { EventKernel } from "./event-kernel";
import { EventListDecoder } from "./event-list-decoder";
import { EVENT_KINDS, GAP_HOPS, SLOT, SLOT_BYTES, SLOT_GAP } from "./event-schema";
import { NativeRecordDecoder } from "./native-record-decoder";
import { SlotBlock } from "./slot-block";
import { deliver, type SlotSink } from "./slot-sink";
import { MISFIT, TAG, WireReader } from "./wire-reader";

/** Options of a `TraceBatchDecoder`. */
export interface TraceBatchDecoderOptions {
  readonly dictionary: Dictionary;
  /** Name of the traced node. */
  readonly node: string;
  /** Creation of the traced node; learned from the first pid when not given. */
  readonly creation?: number;
  /** Index of the source that the slots carry, 0–255. */
  readonly source?: number;
  /** `erlang:monotonic_time(nanosecond)` of the node that time stamps count from. Default: the base of the first batch. */
  readonly base?: bigint;
  /** Decode without WebAssembly, as where the engine has none. Gives the same, at a fraction of the speed. Default false. */
  readonly general?: boolean;
}

/** What one message said. The object is used again for the next message. */
export interface DecodedMessage {
  /** `end`: the last message of the trace. */
  type: "batch" | "end";
  traceId: number;
  seq: number;
  /** Trace messages of wanted kinds that the tracer has taken so far; 0 for `end`. */
  received: number;
  /** How many of them the tracer has dropped and counted so far; 0 for `end`. */
  lost: number;
  /** Events in the message. */
  events: number;
  /** Slots delivered, gap events included. The rest found no room and was counted by the ring. */
  written: number;
  /** Events that earlier messages must have carried but that never came; a gap event says the same. Anything but 0 is a fault. */
  missing: number;
  /** Events stored as `unknown` because they are not as agreed. */
  misfits: number;
  /** Counters of the tracer, in its last message. */
  stats: Term | undefined;
}

/** Elements of a message by its type. */
const ARITIES: Readonly<Record<number, number>> = { 1: 7, 2: 4, 3: 8, 4: 9 };
/** Shortest event: `{K, Dt, 0}` in small integers. */
const MIN_EVENT_BYTES = 8;
/** Most events of one message; a tracer sends some thousand. Bounds the staging memory to 64 MiB. */
const MAX_EVENTS = 1 << 20;

/** Decodes the messages of one trace. */
export class TraceBatchDecoder {
  readonly dictionary: Dictionary;
  readonly source: number;
  readonly #reader: WireReader;
  readonly #events: EventListDecoder;
  readonly #records: NativeRecordDecoder;
  /** Every slot in use is written whole, so it is not cleared in between. */
  readonly #staged = new SlotBlock(1024);
  /** Gaps and markers that the sink had no room for yet. */
  #held = new SlotBlock(4);
  #heldNext = new SlotBlock(4);
  readonly #message: DecodedMessage = {
    type: "batch",
    traceId: 0,
    seq: 0,
    received: 0,
    lost: 0,
    events: 0,
    written: 0,
    missing: 0,
    misfits: 0,
    stats: undefined,
  };
  #base: bigint | undefined;
  #nextSeq = 0;
  /** Events, without gaps and markers, that have come so far. */
  #shipped = 0;
  /** Events that the tracer had taken by the last message that came. */
  #received = 0;
  #lastStamp = NaN;

  constructor(options: TraceBatchDecoderOptions) {
    this.dictionary = options.dictionary;
    this.source = options.source ?? 0;
    this.#base = options.base;
    this.#reader = new WireReader(options.dictionary, options.node, options.creation);
    const kernel = options.general === true ? undefined : EventKernel.shared;
    this.#events = new EventListDecoder(this.#reader, this.source, kernel);
    this.#records = new NativeRecordDecoder(options.dictionary, this.source, kernel);
  }

  /** Base of the time stamps; undefined until the first batch when it was not given. */
  get base(): bigint | undefined {
    return this.#base;
  }

  /** Creation of the traced node, once known. */
  get creation(): number | undefined {
    return this.#reader.localCreation;
  }

  /**
   * Decodes one message and delivers its events.
   * @throws BadTermError when the bytes are no message of a tracer; then nothing was delivered, and the next message reports the gap.
   */
  decode(bytes: Uint8Array, sink: SlotSink | SlotBlock): DecodedMessage {
    this.#reader.reset(bytes);
    try {
      return this.#decode(bytes, sink);
    } catch (error) {
      if (error === MISFIT) throw new BadTermError("not a message of a tracer", this.#reader.at);
      if (error instanceof RangeError) throw new BadTermError("message is cut off", bytes.length);
      throw error;
    }
  }

  /**
   * The trace has ended, and its tracer had taken so many events: those that no message has brought or told of, because the connection
   * took none at the end, become a gap. May be called again.
   */
  settle(received: number, sink: SlotSink | SlotBlock): void {
    this.#deliverHeld(sink);
    const missing = received - this.#received;
    if (missing > 0) {
      this.#received = received;
      this.#deliverGap(missing, NaN, sink);
    }
    this.#tellHeld(sink);
  }

  #decode(bytes: Uint8Array, sink: SlotSink | SlotBlock): DecodedMessage {
    const r = this.#reader;
    const m = this.#message;
    if (r.tag() !== TAG.version) throw MISFIT;
    r.at = 1;
    const arity = r.tuple();
    const type = r.integer();
    if (ARITIES[type] !== arity) throw MISFIT;
    m.type = type === 2 ? "end" : "batch";
    m.traceId = r.integer();
    m.seq = r.integer();
    m.received = m.lost = m.events = m.written = m.missing = m.misfits = 0;
    m.stats = undefined;
    this.#deliverHeld(sink);
    if (type === 2) {
      const at = r.at;
      m.stats = decodeWithoutVersion(bytes.subarray(at));
      const received = m.stats instanceof ErlMap ? m.stats.get(RECEIVED) : undefined;
      this.settle(typeof received === "number" ? received : 0, sink);
      return m;
    }

    const base = BigInt(r.exactInteger());
    this.#base ??= base;
    const offset = Number(base - this.#base);
    m.received = r.integer();
    m.lost = r.integer();
    const native = type !== 1;
    const slots = native ? this.#stageRecords(m, offset, type === 4) : this.#staged;
    const shipped = native ? m.events - this.#records.marks : this.#stage(m, offset);

    const before = m.received - m.lost - shipped;
    m.missing = Math.max(0, before - this.#shipped);
    const skipped = m.seq !== this.#nextSeq;
    this.#nextSeq = m.seq + 1;
    this.#shipped = before + shipped;
    this.#received = m.received;
    const first = slots.count > 0 ? slots.floats[1]! : NaN;
    if (m.missing > 0 || skipped) m.written += this.#deliverGap(m.missing, first, sink);
    if (slots.count > 0) this.#lastStamp = slots.floats[(slots.count - 1) * 8 + 1]!;
    const hasPayload = native ? this.#records.hasPayload : this.#events.hasPayload;
    m.written += deliver(slots, bytes, sink, hasPayload, this.#held);
    return m;
  }

  /** Records of the native tracer, and the atoms that they are the first to name. */
  #stageRecords(m: DecodedMessage, offset: number, withContents: boolean): SlotBlock {
    const r = this.#reader;
    this.#learnAtoms();
    const contents = withContents ? this.#binary() : undefined;
    const [from, end] = this.#binary();
    const length = end - from;
    const count = length / SLOT_BYTES;
    if (!Number.isInteger(count) || count > MAX_EVENTS) throw MISFIT;
    if (end !== r.bytes.length) throw new BadTermError("message is cut off", r.bytes.length);
    const staged = this.#staged;
    staged.count = 0;
    staged.reserve(count);
    m.events = count;
    return contents === undefined
      ? this.#records.decode(r.bytes, from, count, offset, staged)
      : this.#records.decodeWithContents(r.bytes, contents, from, count, offset, staged);
  }

  /** A binary that is passed over: its first byte and its end. */
  #binary(): [from: number, end: number] {
    const r = this.#reader;
    if (r.tag() !== TAG.binary) throw MISFIT;
    const from = r.at + 5;
    const end = from + r.view.getUint32(r.at + 1);
    if (end > r.bytes.length) throw new BadTermError("message is cut off", r.bytes.length);
    r.at = end;
    return [from, end];
  }

  /** `[{Word, Atom}]` */
  #learnAtoms(): void {
    const r = this.#reader;
    if (r.tag() === TAG.nil) {
      r.at++;
      return;
    }
    if (r.tag() !== TAG.list) throw MISFIT;
    const count = r.view.getUint32(r.at + 1);
    r.at += 5;
    for (let i = 0; i < count; i++) {
      if (r.tuple() !== 2) throw MISFIT;
      const word = r.integer();
      this.#records.learn(word, r.atom());
    }
    if (r.tag() !== TAG.nil) throw MISFIT;
    r.at++;
  }

  /** Decodes the list of events into staging. Returns how many count as shipped: all but gaps and markers. */
  #stage(m: DecodedMessage, offset: number): number {
    const r = this.#reader;
    const staged = this.#staged;
    staged.count = 0;
    if (r.tag() === TAG.nil) {
      r.at++;
      return this.#end(0);
    }
    if (r.tag() !== TAG.list) throw MISFIT;
    const count = r.view.getUint32(r.at + 1);
    r.at += 5;
    if (count * MIN_EVENT_BYTES > r.bytes.length - r.at)
      throw new BadTermError("message is cut off", r.bytes.length);
    if (count > MAX_EVENTS) throw new BadTermError(`${count} events in a message`, r.at);
    staged.reserve(count);
    staged.count = count;
    this.#events.decode(staged, count, offset);
    m.misfits = this.#events.misfits;
    m.events = count;
    if (r.tag() !== TAG.nil) throw MISFIT;
    r.at++;
    return this.#end(count - this.#events.marks);
  }

  #end(shipped: number): number {
    if (this.#reader.at !== this.#reader.bytes.length) throw MISFIT;
    return shipped;
  }

  /** @param first - stamp of what follows; NaN when nothing does */
  #deliverGap(count: number, first: number, sink: SlotSink | SlotBlock): number {
    const gap = new SlotBlock(1);
    const base = gap.add();
    gap.words[base + SLOT.head] = EVENT_KINDS.gap | (this.source << 8);
    gap.floats[1] = Number.isNaN(first) ? (Number.isNaN(this.#lastStamp) ? 0 : this.#lastStamp) : first;
    gap.floats[SLOT_GAP.countF64] = count;
    gap.floats[SLOT_GAP.fromF64] = this.#lastStamp;
    gap.floats[SLOT_GAP.toF64] = first;
    gap.words[base + SLOT_GAP.hop] = GAP_HOPS.link;
    return deliver(gap, EMPTY, sink, false, this.#held);
  }

  /** At the end: what a full ring still has no room for is told by the ring's own count. */
  #tellHeld(sink: SlotSink | SlotBlock): void {
    if (this.#held.count === 0 || sink instanceof SlotBlock) return;
    let lost = 0;
    for (let i = 0; i < this.#held.count; i++)
      if ((this.#held.words[i * 16]! & 0xff) === EVENT_KINDS.gap)
        lost += this.#held.floats[i * 8 + SLOT_GAP.countF64]!;
    this.#held.clear();
    sink.drop(lost);
  }

  #deliverHeld(sink: SlotSink | SlotBlock): void {
    const held = this.#held;
    if (held.count === 0) return;
    this.#held = this.#heldNext;
    this.#heldNext = held;
    deliver(held, EMPTY, sink, false, this.#held);
    held.clear();
  }
}

const EMPTY = new Uint8Array(0);
const RECEIVED = Atom.of("received");
