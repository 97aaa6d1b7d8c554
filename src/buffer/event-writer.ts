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
  FLAG,
  GAP_HOPS,
  GC_FIELDS,
  IDENTITY,
  SHAPE_SIZE_MAX,
  SHAPE_TYPES,
  SLOT,
  SLOT_ALIAS,
  SLOT_GAP,
  SLOT_MARKER,
} from "./event-schema";
import { toMinifloat } from "./minifloat";
import type { SlotBlock } from "./slot-block";
import type { SourceInfo } from "./source-info";
import type { Destination, GapEvent, GcEvent, Shape, TraceEvent } from "./trace-event";

interface ShapeWords {
  readonly shape: number;
  readonly tag1: number;
  readonly tag2: number;
}

/** Writes events into a block of slots. */
export class EventWriter {
  readonly dictionary: Dictionary;
  readonly block: SlotBlock;
  readonly #sources: readonly SourceInfo[];
  readonly #nodes: Atom[] = [];
  readonly #mfas = new WeakMap<Mfa, number>();
  readonly #shapes = new WeakMap<Shape, ShapeWords>();

  /** @param sources - by index; a process of the node of its event's source is stored as local */
  constructor(dictionary: Dictionary, sources: readonly SourceInfo[], block: SlotBlock) {
    this.dictionary = dictionary;
    this.#sources = sources;
    this.block = block;
  }

  /** Appends an event. */
  write(event: TraceEvent): void {
    const block = this.block;
    const base = block.add();
    const { words, floats } = block;
    words[base] =
      (EVENT_KINDS[event.kind] | ((event.source & 0xff) << 8) | ((event.scheduler ?? 0) << 16)) >>> 0;
    floats[(base >>> 1) + 1] = event.timestamp;
    if (event.process !== undefined) this.#tracee(words, base, event.process);
    switch (event.kind) {
      case "send":
      case "send_to_non_existing_process":
        this.#destination(words, base, event.source, event.to);
        this.#shape(words, base, event.shape);
        this.#payload(base, event.payload);
        break;
      case "receive":
        this.#shape(words, base, event.shape);
        this.#payload(base, event.payload);
        break;
      case "exit":
      case "closed":
        this.#shape(words, base, event.reason);
        this.#payload(base, event.payload);
        break;
      case "call":
        words[base + SLOT.mfa] = this.#mfa(event.mfa);
        words[base + SLOT.extra] = event.caller === "undefined" ? CALLER_UNDEFINED : this.#mfa(event.caller);
        this.#shape(words, base, event.shape);
        this.#payload(base, event.payload);
        break;
      case "exception_from":
        words[base + SLOT.extra] = this.dictionary.atomId(event.class);
        words[base + SLOT.mfa] = this.#mfa(event.mfa);
        this.#shape(words, base, event.shape);
        this.#payload(base, event.payload);
        break;
      case "return_from":
        words[base + SLOT.mfa] = this.#mfa(event.mfa);
        this.#shape(words, base, event.shape);
        this.#payload(base, event.payload);
        break;
      case "return_to":
      case "in":
      case "out":
      case "in_exiting":
      case "out_exiting":
      case "out_exited":
        words[base + SLOT.mfa] = this.#mfa(event.mfa);
        break;
      case "spawn":
      case "spawned":
        this.#identity(words, base, event.source, event.kind === "spawn" ? event.child : event.parent);
        words[base + SLOT.mfa] = this.#mfa(event.mfa);
        words[base + SLOT.extra] = this.#mfa(event.initialCall);
        break;
      case "link":
      case "unlink":
      case "getting_linked":
      case "getting_unlinked":
        this.#identity(words, base, event.source, event.other);
        break;
      case "register":
      case "unregister":
        words[base + SLOT.otherLow] = (this.dictionary.atomId(event.name) << 4) | IDENTITY.atom;
        break;
      case "port_in":
      case "port_out":
        if (event.operation !== undefined) words[base + SLOT.extra] = this.dictionary.atomId(event.operation);
        break;
      case "open":
        this.#identity(words, base, event.source, event.opener);
        words[base + SLOT.extra] = this.dictionary.atomId(event.name);
        break;
      case "unknown":
        if (event.tag !== undefined) words[base + SLOT.tag1] = this.dictionary.atomId(event.tag);
        this.#payload(base, event.payload);
        break;
      case "gap":
        this.#gap(words, floats, base, event);
        break;
      case "marker":
        words[base + SLOT.tag1] = this.dictionary.atomId(event.name);
        if (typeof event.a === "number" && typeof event.b === "number") {
          words[base + SLOT.flags]! |= FLAG.numbers;
          floats[(base >>> 1) + SLOT_MARKER.aF64] = event.a;
          floats[(base >>> 1) + SLOT_MARKER.bF64] = event.b;
        } else if (event.a !== undefined && event.b !== undefined) {
          this.#payload(base, new Tuple([0, 0, 0, Atom.of(event.name), event.a, event.b]));
        }
        break;
      default:
        this.#gc(words, base, event);
    }
  }

  #tracee(words: Uint32Array, base: number, process: Pid | Port): void {
    if (process instanceof Pid) {
      words[base + SLOT.traceeLow] = (process.id << 4) | IDENTITY.pid;
      words[base + SLOT.traceeHigh] = process.serial;
    } else {
      const [low, high] = portWords(process.id);
      words[base + SLOT.traceeLow] = low;
      words[base + SLOT.traceeHigh] = high;
      words[base + SLOT.flags]! |= FLAG.port;
    }
  }

  #identity(words: Uint32Array, base: number, source: number, identity: Pid | Port): void {
    let flags = this.#node(source, identity.node, identity.creation) << 8;
    if (identity instanceof Pid) {
      if (identity.id > 0x0fffffff) flags |= FLAG.widePid;
      words[base + SLOT.otherLow] =
        identity.id > 0x0fffffff ? identity.id : (identity.id << 4) | IDENTITY.pid;
      words[base + SLOT.otherHigh] = identity.serial;
    } else if (BigInt(identity.id) >> 60n !== 0n) {
      flags |= FLAG.widePort;
      words[base + SLOT.otherLow] = Number(BigInt(identity.id) & 0xffffffffn);
      words[base + SLOT.otherHigh] = Number(BigInt(identity.id) >> 32n);
    } else {
      const [low, high] = portWords(identity.id);
      words[base + SLOT.otherLow] = low;
      words[base + SLOT.otherHigh] = high;
    }
    words[base + SLOT.flags]! |= flags;
  }

  #destination(words: Uint32Array, base: number, source: number, to: Destination): void {
    if (to instanceof Pid || to instanceof Port) return this.#identity(words, base, source, to);
    if (to instanceof Reference) {
      words[base + SLOT_ALIAS.number0] = to.numbers[0] ?? 0;
      words[base + SLOT_ALIAS.number1] = to.numbers[1] ?? 0;
      words[base + SLOT_ALIAS.number2] = to.numbers[2] ?? 0;
      words[base + SLOT.otherLow] = to.numbers[3] ?? 0;
      words[base + SLOT.otherHigh] = to.numbers[4] ?? 0;
      words[base + SLOT.flags]! |= FLAG.alias | (this.#node(source, to.node, to.creation) << 8);
      return;
    }
    const [name, node] = to instanceof Tuple ? to.elements : [to];
    if (!(name instanceof Atom)) return;
    words[base + SLOT.otherLow] = (this.dictionary.atomId(name.name) << 4) | IDENTITY.atom;
    if (node instanceof Atom) {
      words[base + SLOT.flags]! |= this.dictionary.internNode(this.dictionary.atomId(node.name), 0) << 8;
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

  #mfa(mfa: Mfa | undefined): number {
    if (mfa === undefined) return 0;
    const known = this.#mfas.get(mfa);
    if (known !== undefined) return known;
    const d = this.dictionary;
    const id = d.internMfa(d.atomId(mfa.module), d.atomId(mfa.function), mfa.arity);
    this.#mfas.set(mfa, id);
    return id;
  }

  #shape(words: Uint32Array, base: number, shape: Shape): void {
    let made = this.#shapes.get(shape);
    if (made === undefined) {
      const [tag1, tag2] = shape.tags;
      made = {
        shape: (SHAPE_TYPES[shape.type] | (Math.min(shape.size, SHAPE_SIZE_MAX) << 4)) >>> 0,
        tag1: tag1 === undefined || (tag1 === "" && tag2 !== undefined) ? 0 : this.dictionary.atomId(tag1),
        tag2: tag2 === undefined ? 0 : this.dictionary.atomId(tag2),
      };
      this.#shapes.set(shape, made);
    }
    words[base + SLOT.shape] = made.shape;
    words[base + SLOT.tag1] = made.tag1;
    words[base + SLOT.tag2] = made.tag2;
  }

  #payload(base: number, payload: Term | undefined): void {
    if (payload !== undefined) this.block.addPayload(base, encode(payload));
  }

  #gc(words: Uint32Array, base: number, event: GcEvent): void {
    for (const [name, place] of GC_FIELDS)
      if (place !== "gcBinBlocks") words[base + place] = Math.min(event[name], 0xffffffff);
    words[base + SLOT.flags]! |=
      (toMinifloat(event.bin_vheap_block_size) << 8) | (toMinifloat(event.bin_old_vheap_block_size) << 20);
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
    return [(((id % 0x1000_0000) << 4) | IDENTITY.port) >>> 0, Math.floor(id / 0x1000_0000)];
  }
  return [((Number(id & 0x0fffffffn) << 4) | IDENTITY.port) >>> 0, Number((id >> 28n) & 0xffffffffn)];
}
