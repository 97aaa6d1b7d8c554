/**
 * Makes `TraceEvent` objects from slots: looks ids up in the dictionary and keeps the objects that events share. One factory serves one
 * reader; its caches are bounded.
 */
import { Atom, Pid, Port, Reference, Tuple, type Term } from "../erlang/term";
import { decode, decodeWithoutVersion } from "../erlang/etf/decode";
import type { Dictionary, Mfa } from "./dictionary";
import {
  CALLER_UNDEFINED,
  EVENT_KINDS,
  EXCEPTION_CLASSES,
  FLAG,
  GAP_HOPS,
  IDENTITY,
  KIND_NAMES,
  SHAPE_TYPES,
  SLOT,
  SLOT_ALIAS,
  SLOT_FRAME,
  SLOT_GAP,
  SLOT_MARKER,
  type ExceptionClass,
  type GapHop,
  type ShapeType,
} from "./event-schema";
import { IdentityCache } from "./identity-cache";
import { carryIds } from "./known-ids";
import { fromMinifloat } from "./minifloat";
import type { SourceInfo } from "./source-info";
import type {
  Destination,
  GcEvent,
  LinkEvent,
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
const SHAPE_NAMES = Object.keys(SHAPE_TYPES) as ShapeType[];
const HOP_NAMES: GapHop[] = [];
for (const hop of Object.keys(GAP_HOPS) as GapHop[]) HOP_NAMES[GAP_HOPS[hop]] = hop;
const CLASS_NAMES: ExceptionClass[] = [];
for (const name of Object.keys(EXCEPTION_CLASSES) as ExceptionClass[])
  CLASS_NAMES[EXCEPTION_CLASSES[name]] = name;
const NO_TAGS: readonly string[] = Object.freeze([]);
const UNKNOWN_MFA: Mfa = Object.freeze({ module: "undefined", function: "undefined", arity: 0 });
const SHAPE_CACHE = 1 << 12;
/** Leaves as many bits of a hash as the cache has entries. */
const SHAPE_SHIFT = 20;
/** Node numbers of the identity cache: the source for traced nodes, dictionary id + this for foreign ones. */
const FOREIGN = 256;

/** Where payload bytes are read from. */
export interface PayloadArea {
  /** The bytes of a slot's payload, or undefined when they are no longer there. A view, or a copy where the area may change. */
  readPayload(position: number, length: number): Uint8Array | undefined;
}

/** Makes events from slots. */
export class EventFactory {
  readonly dictionary: Dictionary;
  readonly sources: readonly SourceInfo[];
  readonly #identities = new IdentityCache();
  readonly #shapeKeys = new Uint32Array(SHAPE_CACHE * 3);
  readonly #shapes = new Array<Shape | undefined>(SHAPE_CACHE).fill(undefined);

  /** @param sources - by index; may grow later, the array is read when an event is made */
  constructor(dictionary: Dictionary, sources: readonly SourceInfo[]) {
    this.dictionary = dictionary;
    this.sources = sources;
  }

  /** The event of the slot at word `base`. */
  event(words: Uint32Array, floats: Float64Array, base: number, area: PayloadArea): TraceEvent {
    const head = words[base]!;
    const code = head & 0xff;
    const source = (head >>> 8) & 0xff;
    const scheduler = head >>> 16 || undefined;
    const timestamp = floats[(base >>> 1) + 1]!;
    const flags = words[base + W.flags]!;
    const process = this.identity(words[base + W.traceeLow]!, words[base + W.traceeHigh]!, 0, source)!;
    switch (code) {
      case K.send:
      case K.send_to_non_existing_process: {
        const kind = KIND_NAMES[code] as SendEvent["kind"];
        const to = this.destination(words, base);
        const shape = this.shape(words, base);
        const payload = (flags & F.payload) === 0 ? undefined : this.#payload(words, base, area);
        return { kind, timestamp, source, scheduler, process, to, shape, payload };
      }
      case K.receive: {
        const shape = this.shape(words, base);
        const payload = (flags & F.payload) === 0 ? undefined : this.#payload(words, base, area);
        return { kind: "receive", timestamp, source, scheduler, process, shape, payload };
      }
      case K.in:
      case K.out:
      case K.in_exiting:
      case K.out_exiting:
      case K.out_exited: {
        const kind = KIND_NAMES[code] as RunningEvent["kind"];
        const mfa = this.dictionary.mfa(words[base + W.mfa]!);
        return { kind, timestamp, source, scheduler, process: process as Pid, mfa };
      }
      case K.call: {
        const mfa = this.#mfa(words, base);
        const shape = this.shape(words, base);
        const extra = words[base + W.extra]!;
        const caller = extra === CALLER_UNDEFINED ? "undefined" : this.dictionary.mfa(extra);
        const payload = (flags & F.payload) === 0 ? undefined : this.#payload(words, base, area);
        return {
          kind: "call",
          timestamp,
          source,
          scheduler,
          process: process as Pid,
          mfa,
          shape,
          caller,
          payload,
        };
      }
      case K.return_from: {
        const mfa = this.#mfa(words, base);
        const shape = this.shape(words, base);
        const payload = (flags & F.payload) === 0 ? undefined : this.#payload(words, base, area);
        return {
          kind: "return_from",
          timestamp,
          source,
          scheduler,
          process: process as Pid,
          mfa,
          shape,
          payload,
        };
      }
      case K.function_entry:
      case K.function_return: {
        const kind = code === K.function_entry ? "function_entry" : "function_return";
        const callId = frameId(words, base);
        const module = words[base + SLOT_FRAME.module]!;
        const siteNumber = words[base + SLOT_FRAME.site]!;
        const payload = (flags & F.payload) === 0 ? undefined : this.#payload(words, base, area);
        return {
          kind,
          timestamp,
          source,
          scheduler,
          process: process as Pid,
          callId,
          module: this.dictionary.atomName(module) ?? "",
          siteNumber,
          site: this.dictionary.sites.at(module, siteNumber, source),
          shape: this.shape(words, base),
          payload,
        };
      }
      case K.return_to: {
        const mfa = this.dictionary.mfa(words[base + W.mfa]!);
        return { kind: "return_to", timestamp, source, scheduler, process: process as Pid, mfa };
      }
      case K.gc_minor_start:
      case K.gc_minor_end:
      case K.gc_major_start:
      case K.gc_major_end:
      case K.gc_max_heap_size:
        return {
          kind: KIND_NAMES[code] as GcEvent["kind"],
          timestamp,
          source,
          scheduler,
          process: process as Pid,
          wordsize: words[base + 8]!,
          heap_size: words[base + 9]!,
          heap_block_size: words[base + 10]!,
          old_heap_size: words[base + 11]!,
          old_heap_block_size: words[base + 12]!,
          stack_size: words[base + 13]!,
          recent_size: words[base + 14]!,
          mbuf_size: words[base + 15]!,
          bin_vheap_size: words[base + 6]!,
          bin_old_vheap_size: words[base + 7]!,
          bin_vheap_block_size: fromMinifloat((flags >>> 8) & 0xfff),
          bin_old_vheap_block_size: fromMinifloat(flags >>> 20),
        };
      default:
        return this.#rareEvent(words, floats, base, area, process);
    }
  }

  #rareEvent(
    words: Uint32Array,
    floats: Float64Array,
    base: number,
    area: PayloadArea,
    tracee: Pid | Port | undefined,
  ): TraceEvent {
    const head = words[base]!;
    const code = head & 0xff;
    const source = (head >>> 8) & 0xff;
    const scheduler = head >>> 16 || undefined;
    const timestamp = floats[(base >>> 1) + 1]!;
    const process = tracee as Pid;
    const payload = this.#payload(words, base, area);
    switch (code) {
      case K.spawn:
      case K.spawned: {
        const other = this.other(words, base) as Pid;
        const mfa = this.#mfa(words, base);
        const initialCall = this.dictionary.mfa(words[base + W.extra]!);
        return code === K.spawn
          ? { kind: "spawn", timestamp, source, scheduler, process, child: other, mfa, initialCall }
          : { kind: "spawned", timestamp, source, scheduler, process, parent: other, mfa, initialCall };
      }
      case K.exit:
        return {
          kind: "exit",
          timestamp,
          source,
          scheduler,
          process,
          reason: this.shape(words, base),
          payload,
        };
      case K.link:
      case K.unlink:
      case K.getting_linked:
      case K.getting_unlinked:
        return {
          kind: KIND_NAMES[code] as LinkEvent["kind"],
          timestamp,
          source,
          scheduler,
          process,
          other: this.other(words, base) as Pid | Port,
        };
      case K.register:
      case K.unregister: {
        const name = this.dictionary.atomName(words[base + W.otherLow]! >>> 4) ?? "";
        return {
          kind: code === K.register ? "register" : "unregister",
          timestamp,
          source,
          scheduler,
          process,
          name,
        };
      }
      case K.exception_from:
        return {
          kind: "exception_from",
          timestamp,
          source,
          scheduler,
          process,
          mfa: this.#mfa(words, base),
          class: this.dictionary.atomName(words[base + W.extra]!) ?? "error",
          shape: this.shape(words, base),
          payload,
        };
      case K.function_tail_call: {
        const module = words[base + SLOT_FRAME.module]!;
        const siteNumber = words[base + SLOT_FRAME.site]!;
        return {
          kind: "function_tail_call",
          timestamp,
          source,
          scheduler,
          process,
          callId: frameId(words, base),
          module: this.dictionary.atomName(module) ?? "",
          siteNumber,
          site: this.dictionary.sites.at(module, siteNumber, source),
        };
      }
      case K.function_exception: {
        const module = words[base + SLOT_FRAME.module]!;
        const siteNumber = words[base + SLOT_FRAME.site]!;
        return {
          kind: "function_exception",
          timestamp,
          source,
          scheduler,
          process,
          callId: frameId(words, base),
          module: this.dictionary.atomName(module) ?? "",
          siteNumber,
          site: this.dictionary.sites.at(module, siteNumber, source),
          class: CLASS_NAMES[words[base + SLOT_FRAME.class]!] ?? "error",
          shape: this.shape(words, base),
          payload,
        };
      }
      case K.port_in:
      case K.port_out:
        return {
          kind: code === K.port_in ? "port_in" : "port_out",
          timestamp,
          source,
          scheduler,
          process: tracee as Port,
          operation: this.dictionary.atomName(words[base + W.extra]!),
        };
      case K.open:
        return {
          kind: "open",
          timestamp,
          source,
          scheduler,
          process: tracee as Port,
          opener: this.other(words, base) as Pid,
          name: this.dictionary.atomName(words[base + W.extra]!) ?? "",
        };
      case K.closed:
        return {
          kind: "closed",
          timestamp,
          source,
          scheduler,
          process: tracee as Port,
          reason: this.shape(words, base),
          payload,
        };
      case K.gap: {
        const at = base >>> 1;
        return {
          kind: "gap",
          timestamp,
          source,
          scheduler,
          process: undefined,
          hop: HOP_NAMES[words[base + SLOT_GAP.hop]!] ?? "link",
          count: floats[at + SLOT_GAP.countF64]!,
          from: numberOrUndefined(floats[at + SLOT_GAP.fromF64]!),
          to: numberOrUndefined(floats[at + SLOT_GAP.toF64]!),
        };
      }
      case K.marker: {
        const fields = payload instanceof Tuple ? payload.elements : [];
        const numbers = (words[base + SLOT.flags]! & FLAG.numbers) !== 0;
        const at = base >>> 1;
        return {
          kind: "marker",
          timestamp,
          source,
          scheduler,
          process: tracee,
          name: this.dictionary.atomName(words[base + W.tag1]!) ?? "",
          a: numbers ? floats[at + SLOT_MARKER.aF64]! : fields[4],
          b: numbers ? floats[at + SLOT_MARKER.bF64]! : fields[5],
        };
      }
      default:
        return {
          kind: "unknown",
          timestamp,
          source,
          scheduler,
          process: tracee,
          tag: this.dictionary.atomName(words[base + W.tag1]!),
          payload,
        };
    }
  }

  /** The process or port with these words; undefined for none. `node` is a dictionary id, 0 the traced node of `source`. */
  identity(low: number, high: number, node: number, source: number): Pid | Port | undefined {
    const nodeKey = node === 0 ? source : FOREIGN + node;
    const known = this.#identities.find(low, high, nodeKey);
    if (known !== undefined) return known;
    const tag = low & 15;
    if (tag !== TAGS.pid && tag !== TAGS.port) return undefined;
    const { name, creation } = this.#node(node, source);
    const value =
      tag === TAGS.pid
        ? new Pid(Atom.of(name), low >>> 4, high, creation)
        : new Port(Atom.of(name), portNumber(low, high), creation);
    this.#identities.add(low, high, nodeKey, value);
    return value;
  }

  /** The second identity of the slot when it is a process or port. */
  other(words: Uint32Array, base: number): Pid | Port | undefined {
    const flags = words[base + W.flags]!;
    const low = words[base + W.otherLow]!;
    const high = words[base + W.otherHigh]!;
    const source = (words[base]! >>> 8) & 0xff;
    if ((flags & (F.widePid | F.widePort)) === 0) return this.identity(low, high, flags >>> 8, source);
    const { name, creation } = this.#node(flags >>> 8, source);
    if ((flags & F.widePid) !== 0) return new Pid(Atom.of(name), low, high, creation);
    return new Port(Atom.of(name), (BigInt(high) << 32n) | BigInt(low), creation);
  }

  /** Receiver of a message. */
  destination(words: Uint32Array, base: number): Destination {
    const flags = words[base + W.flags]!;
    const low = words[base + W.otherLow]!;
    if ((flags & (F.alias | F.widePid | F.widePort)) === 0 && (low & 15) === TAGS.atom) {
      const name = this.dictionary.atom(low >>> 4)!;
      const node = flags >>> 8;
      return node === 0 ? name : new Tuple([name, Atom.of(this.dictionary.node(node)!.name)]);
    }
    if ((flags & F.alias) === 0) return this.other(words, base)!;
    const numbers = [
      words[base + SLOT_ALIAS.number0]!,
      words[base + SLOT_ALIAS.number1]!,
      words[base + SLOT_ALIAS.number2]!,
    ];
    if (low !== 0) numbers.push(low, words[base + W.otherHigh]!);
    const { name, creation } = this.#node(flags >>> 8, (words[base]! >>> 8) & 0xff);
    return new Reference(Atom.of(name), creation, numbers);
  }

  /** Shape of message, arguments, value or reason. */
  shape(words: Uint32Array, base: number): Shape {
    const shape = words[base + W.shape]!;
    const tag1 = words[base + W.tag1]!;
    const tag2 = words[base + W.tag2]!;
    const slot = Math.imul(shape ^ (tag1 << 7) ^ (tag2 << 16), 0x9e3779b1) >>> SHAPE_SHIFT;
    const keys = this.#shapeKeys;
    const known = this.#shapes[slot];
    if (
      known !== undefined &&
      keys[slot * 3] === shape &&
      keys[slot * 3 + 1] === tag1 &&
      keys[slot * 3 + 2] === tag2
    ) {
      return known;
    }
    const looks = { type: SHAPE_NAMES[shape & 15]!, size: shape >>> 4, tags: this.#tags(tag1, tag2) };
    const made = Object.freeze(carryIds<Shape>(looks, this.dictionary, shape, tag1, tag2));
    keys[slot * 3] = shape;
    keys[slot * 3 + 1] = tag1;
    keys[slot * 3 + 2] = tag2;
    this.#shapes[slot] = made;
    return made;
  }

  #tags(tag1: number, tag2: number): readonly string[] {
    if (tag1 === 0 && tag2 === 0) return NO_TAGS;
    const first = this.dictionary.atomName(tag1) ?? "";
    return Object.freeze(tag2 === 0 ? [first] : [first, this.dictionary.atomName(tag2) ?? ""]);
  }

  #mfa(words: Uint32Array, base: number): Mfa {
    return this.dictionary.mfa(words[base + W.mfa]!) ?? UNKNOWN_MFA;
  }

  #node(node: number, source: number): { readonly name: string; readonly creation: number } {
    if (node !== 0) return this.dictionary.node(node) ?? NO_NODE;
    const info = this.sources[source];
    return info === undefined ? NO_NODE : { name: info.node, creation: info.creation };
  }

  /** The payload as a term; undefined when there is none, or it is gone, or it is no term. */
  #payload(words: Uint32Array, base: number, area: PayloadArea): Term | undefined {
    const flags = words[base + W.flags]!;
    if ((flags & F.payload) === 0) return undefined;
    const bytes = area.readPayload(words[base + W.payloadAt]!, words[base + W.payloadBytes]!);
    if (bytes === undefined || bytes.length === 0) return undefined;
    try {
      return bytes[0] === 131 ? decode(bytes) : decodeWithoutVersion(bytes);
    } catch {
      // The tracer made these bytes; a damaged payload must not take the rest of the stream with it.
      return undefined;
    }
  }
}

const NO_NODE = { name: "nonode@nohost", creation: 0 };

/** The call's id; 53 bits. */
function frameId(words: Uint32Array, base: number): number {
  return words[base + SLOT_FRAME.idHigh]! * 0x1_0000_0000 + words[base + SLOT_FRAME.idLow]!;
}

function portNumber(low: number, high: number): number | bigint {
  const number = (high >>> 0) * 0x1000_0000 + (low >>> 4);
  return Number.isSafeInteger(number) ? number : (BigInt(high) << 28n) | BigInt(low >>> 4);
}

function numberOrUndefined(value: number): number | undefined {
  return Number.isNaN(value) ? undefined : value;
}
