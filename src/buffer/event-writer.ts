/**
 * `TraceEvent` objects into slots: the way back from `EventFactory`. For events that are made in this process (a gap after a re-attachment),
 * for the codec, and for tools that feed a ring with events of their own.
 */
import { encode } from "../erlang/etf/encode";
import { Atom, Pid, Port, Reference, Tuple, type Term } from "../erlang/term";
import type { Dictionary, Mfa } from "./dictionary";
import {
  CALLER_UNDEFINED,
  EVENT_KINDS,
  EXCEPTION_CLASSES,
  FLAG,
  GAP_HOPS,
  IDENTITY,
  SHAPE_SIZE_MAX,
  SHAPE_TYPES,
  SLOT,
  SLOT_ALIAS,
  SLOT_FRAME,
  SLOT_GAP,
  SLOT_MARKER,
} from "./event-schema";
import { carriedIds, type KnownIds } from "./known-ids";
import { toMinifloat } from "./minifloat";
import type { SlotBlock } from "./slot-block";
import type { SourceInfo } from "./source-info";
import type {
  CallEvent,
  Destination,
  FunctionEntryEvent,
  FunctionExceptionEvent,
  FunctionReturnEvent,
  FunctionTailCallEvent,
  GapEvent,
  GcEvent,
  ReceiveEvent,
  ReturnFromEvent,
  ReturnToEvent,
  RunningEvent,
  SendEvent,
  Shape,
  TraceEvent,
} from "./trace-event";

// Names of this module for what it reads all the time: V8 makes constants of these, but looks up an import at every use.
const K = EVENT_KINDS;
const W = SLOT;
const F = FLAG;
const TAGS = IDENTITY;

/** Kinds that `write` has no method for. */
type RareEvent = Exclude<
  TraceEvent,
  SendEvent | ReceiveEvent | CallEvent | ReturnFromEvent | ReturnToEvent | RunningEvent | GcEvent
>;

/** Writes events into a block of slots. */
export class EventWriter {
  readonly dictionary: Dictionary;
  readonly block: SlotBlock;
  readonly #sources: readonly SourceInfo[];
  readonly #nodes: Atom[] = [];
  readonly #mfas = new WeakMap<Mfa, number>();
  readonly #shapes = new WeakMap<Shape, KnownIds>();

  /** @param sources - by index; a process of the node of its event's source is stored as local */
  constructor(dictionary: Dictionary, sources: readonly SourceInfo[], block: SlotBlock) {
    this.dictionary = dictionary;
    this.#sources = sources;
    this.block = block;
  }

  /**
   * Appends an event. Kinds that make up nearly all traffic come first and are read in methods of their own: there all events have their
   * fields at the same places, here they don't, and reading a field takes a lookup.
   */
  write(event: TraceEvent): void {
    switch (event.kind) {
      case "receive":
        return this.#receive(event);
      case "in":
        return this.#running(event, K.in);
      case "out":
        return this.#running(event, K.out);
      case "send":
        return this.#send(event, K.send);
      case "gc_minor_start":
        return this.#gc(event, K.gc_minor_start);
      case "gc_minor_end":
        return this.#gc(event, K.gc_minor_end);
      case "call":
        return this.#call(event);
      case "return_from":
        return this.#returnFrom(event);
      case "return_to":
        return this.#returnTo(event);
      case "gc_major_start":
      case "gc_major_end":
      case "gc_max_heap_size":
        return this.#gc(event, K[event.kind]);
      case "in_exiting":
      case "out_exiting":
      case "out_exited":
        return this.#running(event, K[event.kind]);
      case "send_to_non_existing_process":
        return this.#send(event, K.send_to_non_existing_process);
      default:
        this.#rare(event);
    }
  }

  /** Adds a slot with what all events have, and returns the index of its first word. */
  #add(
    code: number,
    source: number,
    scheduler: number | undefined,
    timestamp: number,
    process: Pid | Port | undefined,
  ): number {
    const block = this.block;
    const base = block.add();
    const words = block.words;
    words[base] = code | ((source & 0xff) << 8) | (scheduler === undefined ? 0 : (scheduler & 0xffff) << 16);
    block.floats[(base >>> 1) + 1] = timestamp;
    if (process instanceof Pid) {
      words[base + W.traceeLow] = (process.id << 4) | TAGS.pid;
      words[base + W.traceeHigh] = process.serial;
    } else if (process !== undefined) {
      this.#port(words, base, process);
    }
    return base;
  }

  #receive(event: ReceiveEvent): void {
    const base = this.#add(K.receive, event.source, event.scheduler, event.timestamp, event.process);
    this.#shape(base, event.shape);
    if (event.payload !== undefined) this.#payload(base, event.payload);
  }

  #send(event: SendEvent, code: number): void {
    const source = event.source;
    const base = this.#add(code, source, event.scheduler, event.timestamp, event.process);
    this.#destination(this.block.words, base, source, event.to);
    this.#shape(base, event.shape);
    if (event.payload !== undefined) this.#payload(base, event.payload);
  }

  #running(event: RunningEvent, code: number): void {
    const base = this.#add(code, event.source, event.scheduler, event.timestamp, event.process);
    if (event.mfa !== undefined) this.block.words[base + W.mfa] = this.#mfa(event.mfa);
  }

  #returnTo(event: ReturnToEvent): void {
    const base = this.#add(K.return_to, event.source, event.scheduler, event.timestamp, event.process);
    if (event.mfa !== undefined) this.block.words[base + W.mfa] = this.#mfa(event.mfa);
  }

  #call(event: CallEvent): void {
    const base = this.#add(K.call, event.source, event.scheduler, event.timestamp, event.process);
    const { mfa, caller } = event;
    this.block.words[base + W.mfa] = this.#mfa(mfa);
    if (caller !== undefined)
      this.block.words[base + W.extra] = caller === "undefined" ? CALLER_UNDEFINED : this.#mfa(caller);
    this.#shape(base, event.shape);
    if (event.payload !== undefined) this.#payload(base, event.payload);
  }

  #returnFrom(event: ReturnFromEvent): void {
    const base = this.#add(K.return_from, event.source, event.scheduler, event.timestamp, event.process);
    this.block.words[base + W.mfa] = this.#mfa(event.mfa);
    this.#shape(base, event.shape);
    if (event.payload !== undefined) this.#payload(base, event.payload);
  }

  /** The places are those of `GC_FIELDS`, spelt out as in `EventFactory`. */
  #gc(event: GcEvent, code: number): void {
    const base = this.#add(code, event.source, event.scheduler, event.timestamp, event.process);
    const words = this.block.words;
    words[base + 8] = saturated(event.wordsize);
    words[base + 9] = saturated(event.heap_size);
    words[base + 10] = saturated(event.heap_block_size);
    words[base + 11] = saturated(event.old_heap_size);
    words[base + 12] = saturated(event.old_heap_block_size);
    words[base + 13] = saturated(event.stack_size);
    words[base + 14] = saturated(event.recent_size);
    words[base + 15] = saturated(event.mbuf_size);
    words[base + 6] = saturated(event.bin_vheap_size);
    words[base + 7] = saturated(event.bin_old_vheap_size);
    words[base + W.flags]! |=
      (toMinifloat(event.bin_vheap_block_size) << 8) | (toMinifloat(event.bin_old_vheap_block_size) << 20);
  }

  #rare(event: RareEvent): void {
    const { kind, source } = event;
    const base = this.#add(K[kind], source, event.scheduler, event.timestamp, event.process);
    const { words, floats } = this.block;
    switch (kind) {
      case "exit":
      case "closed":
        this.#shape(base, event.reason);
        if (event.payload !== undefined) this.#payload(base, event.payload);
        break;
      case "exception_from":
        words[base + W.extra] = this.dictionary.atomId(event.class);
        words[base + W.mfa] = this.#mfa(event.mfa);
        this.#shape(base, event.shape);
        if (event.payload !== undefined) this.#payload(base, event.payload);
        break;
      case "function_entry":
      case "function_return":
        this.#frame(words, base, event);
        this.#shape(base, event.shape);
        if (event.payload !== undefined) this.#payload(base, event.payload);
        break;
      case "function_tail_call":
        this.#frame(words, base, event);
        break;
      case "function_exception":
        this.#frame(words, base, event);
        words[base + SLOT_FRAME.class] = EXCEPTION_CLASSES[event.class];
        this.#shape(base, event.shape);
        if (event.payload !== undefined) this.#payload(base, event.payload);
        break;
      case "spawn":
      case "spawned":
        this.#identity(words, base, source, kind === "spawn" ? event.child : event.parent);
        words[base + W.mfa] = this.#mfa(event.mfa);
        if (event.initialCall !== undefined) words[base + W.extra] = this.#mfa(event.initialCall);
        break;
      case "link":
      case "unlink":
      case "getting_linked":
      case "getting_unlinked":
        this.#identity(words, base, source, event.other);
        break;
      case "register":
      case "unregister":
        words[base + W.otherLow] = (this.dictionary.atomId(event.name) << 4) | TAGS.atom;
        break;
      case "port_in":
      case "port_out":
        if (event.operation !== undefined) words[base + W.extra] = this.dictionary.atomId(event.operation);
        break;
      case "open":
        this.#identity(words, base, source, event.opener);
        words[base + W.extra] = this.dictionary.atomId(event.name);
        break;
      case "unknown":
        if (event.tag !== undefined) words[base + W.tag1] = this.dictionary.atomId(event.tag);
        if (event.payload !== undefined) this.#payload(base, event.payload);
        break;
      case "gap":
        this.#gap(words, floats, base, event);
        break;
      case "marker":
        words[base + W.tag1] = this.dictionary.atomId(event.name);
        if (typeof event.a === "number" && typeof event.b === "number") {
          words[base + W.flags]! |= FLAG.numbers;
          floats[(base >>> 1) + SLOT_MARKER.aF64] = event.a;
          floats[(base >>> 1) + SLOT_MARKER.bF64] = event.b;
        } else if (event.a !== undefined && event.b !== undefined) {
          this.#payload(base, new Tuple([0, 0, 0, Atom.of(event.name), event.a, event.b]));
        }
        break;
      default:
        kind satisfies never;
    }
  }

  #frame(
    words: Uint32Array,
    base: number,
    event: FunctionEntryEvent | FunctionReturnEvent | FunctionTailCallEvent | FunctionExceptionEvent,
  ): void {
    words[base + SLOT_FRAME.idLow] = event.callId % 0x1_0000_0000;
    words[base + SLOT_FRAME.idHigh] = Math.floor(event.callId / 0x1_0000_0000);
    words[base + SLOT_FRAME.site] = event.siteNumber;
    words[base + SLOT_FRAME.module] = this.dictionary.atomId(event.module);
  }

  #port(words: Uint32Array, base: number, port: Port): void {
    const [low, high] = portWords(port.id);
    words[base + W.traceeLow] = low;
    words[base + W.traceeHigh] = high;
    words[base + W.flags]! |= F.port;
  }

  #identity(words: Uint32Array, base: number, source: number, identity: Pid | Port): void {
    let flags = this.#node(source, identity.node, identity.creation) << 8;
    if (identity instanceof Pid) {
      if (identity.id > 0x0fffffff) flags |= F.widePid;
      words[base + W.otherLow] = identity.id > 0x0fffffff ? identity.id : (identity.id << 4) | TAGS.pid;
      words[base + W.otherHigh] = identity.serial;
    } else if (BigInt(identity.id) >> 60n !== 0n) {
      flags |= F.widePort;
      words[base + W.otherLow] = Number(BigInt(identity.id) & 0xffffffffn);
      words[base + W.otherHigh] = Number(BigInt(identity.id) >> 32n);
    } else {
      const [low, high] = portWords(identity.id);
      words[base + W.otherLow] = low;
      words[base + W.otherHigh] = high;
    }
    words[base + W.flags]! |= flags;
  }

  #destination(words: Uint32Array, base: number, source: number, to: Destination): void {
    if (to instanceof Pid || to instanceof Port) return this.#identity(words, base, source, to);
    if (to instanceof Reference) {
      words[base + SLOT_ALIAS.number0] = to.numbers[0] ?? 0;
      words[base + SLOT_ALIAS.number1] = to.numbers[1] ?? 0;
      words[base + SLOT_ALIAS.number2] = to.numbers[2] ?? 0;
      words[base + W.otherLow] = to.numbers[3] ?? 0;
      words[base + W.otherHigh] = to.numbers[4] ?? 0;
      words[base + W.flags]! |= F.alias | (this.#node(source, to.node, to.creation) << 8);
      return;
    }
    const [name, node] = to instanceof Tuple ? to.elements : [to];
    if (!(name instanceof Atom)) return;
    words[base + W.otherLow] = (this.dictionary.atomId(name.name) << 4) | TAGS.atom;
    if (node instanceof Atom) {
      words[base + W.flags]! |= this.dictionary.internNode(this.dictionary.atomId(node.name), 0) << 8;
    }
  }

  #node(source: number, node: Atom, creation: number): number {
    const info = this.#sources[source];
    if (info !== undefined && info.creation === creation) {
      const known = (this.#nodes[source] ??= Atom.of(info.node));
      if (known === node) return 0;
    }
    return this.dictionary.internNode(this.dictionary.atomId(node.name), creation);
  }

  #mfa(mfa: Mfa): number {
    const carried = carriedIds(mfa, this.dictionary);
    if (carried !== undefined) return carried.id;
    const known = this.#mfas.get(mfa);
    if (known !== undefined) return known;
    const d = this.dictionary;
    const id = d.internMfa(d.atomId(mfa.module), d.atomId(mfa.function), mfa.arity);
    this.#mfas.set(mfa, id);
    return id;
  }

  #shape(base: number, shape: Shape): void {
    const words = this.block.words;
    const { id, tag1, tag2 } =
      carriedIds(shape, this.dictionary) ?? this.#shapes.get(shape) ?? this.#newShape(shape);
    words[base + W.shape] = id;
    words[base + W.tag1] = tag1;
    words[base + W.tag2] = tag2;
  }

  #newShape(shape: Shape): KnownIds {
    const [tag1, tag2] = shape.tags;
    const made = {
      owner: this.dictionary,
      id: (SHAPE_TYPES[shape.type] | (Math.min(shape.size, SHAPE_SIZE_MAX) << 4)) >>> 0,
      tag1: tag1 === undefined || (tag1 === "" && tag2 !== undefined) ? 0 : this.dictionary.atomId(tag1),
      tag2: tag2 === undefined ? 0 : this.dictionary.atomId(tag2),
    };
    this.#shapes.set(shape, made);
    return made;
  }

  #payload(base: number, payload: Term): void {
    this.block.addPayload(base, encode(payload));
  }

  #gap(words: Uint32Array, floats: Float64Array, base: number, event: GapEvent): void {
    const at = base >>> 1;
    words[base + SLOT_GAP.hop] = GAP_HOPS[event.hop];
    floats[at + SLOT_GAP.countF64] = event.count;
    floats[at + SLOT_GAP.fromF64] = event.from ?? NaN;
    floats[at + SLOT_GAP.toF64] = event.to ?? NaN;
  }
}

/** Words of a port below 2^60. */
function portWords(id: number | bigint): [low: number, high: number] {
  if (typeof id === "number") {
    return [(((id % 0x1000_0000) << 4) | TAGS.port) >>> 0, Math.floor(id / 0x1000_0000)];
  }
  return [((Number(id & 0x0fffffffn) << 4) | TAGS.port) >>> 0, Number((id >> 28n) & 0xffffffffn)];
}

function saturated(value: number): number {
  return value < 0xffffffff ? value : 0xffffffff;
}
