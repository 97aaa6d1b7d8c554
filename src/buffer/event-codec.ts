/**
 * Events and batches as bytes, for files, sockets and other processes. Lossless: payloads travel as the external terms that they are. Self-
 * describing: names and sources that the events refer to travel inside, so any reader can decode any message. The envelope is MessagePack
 * (msgpackr); slots are packed by column, see slot-columns.ts.
 *
 * `["btev", version, [[index, node, creation, otp, base, timeOffset] …], atoms, nodes, mfas, count, columns, payload]`
 */
import { Packr } from "msgpackr";
import { BeamtraceError } from "../erlang/errors";
import { Dictionary } from "./dictionary";
import { EventBatch } from "./event-batch";
import { EventFactory } from "./event-factory";
import { EVENT_KINDS, FLAG, SLOT, SLOT_WORDS } from "./event-schema";
import { EventWriter } from "./event-writer";
import { checkMsgpack } from "./msgpack-check";
import { extractNames, resolveNames } from "./name-tables";
import { MAX_PACKED_SLOTS, packSlots, unpackSlots } from "./slot-columns";
import { SlotBlock } from "./slot-block";
import type { SourceInfo } from "./source-info";
import type { TraceEvent } from "./trace-event";

/** Version of the encoding. A reader knows its own version and those before it. */
export const CODEC_VERSION = 1;
const MAGIC = "btev";

/** Encodes and decodes. Names of decoded events are kept in one dictionary for the life of the codec. */
export class EventCodec {
  readonly dictionary: Dictionary;
  readonly #packr = new Packr({ useRecords: false, moreTypes: false, int64AsType: "number" });
  readonly #factories = new Map<string, EventFactory>();

  /** @param dictionary - for the names of decoded events; an own one when not given */
  constructor(dictionary: Dictionary = new Dictionary()) {
    this.dictionary = dictionary;
  }

  /**
   * Encodes a batch, or event objects.
   * @param sources - of event objects, by index; when not given what the events tell (node and creation) is taken
   * @throws BeamtraceError `BT_CODEC_INVALID` for more than a million events
   */
  encode(events: EventBatch | readonly TraceEvent[], sources?: readonly SourceInfo[]): Uint8Array {
    const block = new SlotBlock(events.length);
    if (events instanceof EventBatch) {
      events.appendTo(block);
      return this.encodeBlock(block, events.factory.dictionary, events.factory.sources);
    }
    const known = sources ?? sourcesOf(events);
    const writer = new EventWriter(this.dictionary, known, block);
    for (const event of events) writer.write(event);
    return this.encodeBlock(block, this.dictionary, known);
  }

  /** Encodes the slots of a block. The block's ids are rewritten: it is of no use afterwards. */
  encodeBlock(block: SlotBlock, dictionary: Dictionary, sources: readonly SourceInfo[]): Uint8Array {
    if (block.count > MAX_PACKED_SLOTS) {
      throw new BeamtraceError("BT_CODEC_INVALID", `At most ${MAX_PACKED_SLOTS} events go into one message`);
    }
    const used = usedSources(block);
    const names = extractNames(block, dictionary);
    const packed = this.#packr.pack([
      MAGIC,
      CODEC_VERSION,
      used.flatMap((index) => {
        const info = sources[index];
        if (info === undefined) return [];
        return [[index, info.node, info.creation, info.otp, String(info.base), String(info.timeOffset)]];
      }),
      names.atoms,
      names.nodes,
      names.mfas,
      block.count,
      packSlots(block),
      block.payload.subarray(0, block.payloadBytes),
    ]);
    // The packer's buffer is used again; what leaves here is not.
    return new Uint8Array(packed);
  }

  /**
   * Decodes a message into a batch with memory of its own. `batch.factory.sources` tells nodes and clocks.
   * @throws BeamtraceError `BT_CODEC_INVALID` for anything that no codec of this version made
   */
  decode(bytes: Uint8Array): EventBatch {
    const { block, sources } = this.decodeBlock(bytes);
    return EventBatch.of(block, this.#factoryFor(sources));
  }

  /** Decodes a message into slots with ids of the codec's dictionary, for readers that have a factory of their own. */
  decodeBlock(bytes: Uint8Array): { readonly block: SlotBlock; readonly sources: readonly SourceInfo[] } {
    checkMsgpack(bytes);
    const fields = this.#unpack(bytes);
    const block = unpackSlots(fields.columns, fields.count);
    block.payload = fields.payload;
    block.payloadBytes = fields.payload.length;
    requirePayloads(block);
    resolveNames(block, fields, this.dictionary);
    return { block, sources: fields.sources };
  }

  #unpack(bytes: Uint8Array): Fields {
    let value: unknown;
    try {
      value = this.#packr.unpack(bytes);
    } catch (cause) {
      throw new BeamtraceError("BT_CODEC_INVALID", "Not encoded events", { cause });
    }
    if (!Array.isArray(value) || value[0] !== MAGIC)
      throw new BeamtraceError("BT_CODEC_INVALID", "Not encoded events");
    if (value[1] !== CODEC_VERSION) {
      throw new BeamtraceError(
        "BT_CODEC_INVALID",
        `Encoded by version ${String(value[1])} of the codec; this one knows ${CODEC_VERSION}. Update beamtrace.`,
      );
    }
    const [, , sources, atoms, nodes, mfas, count, columns, payload] = value as unknown[];
    require(value.length === 9, "number of fields");
    require(isArrayOf(atoms, isString), "atoms");
    require(isArrayOf(nodes, isU32) && nodes.length % 2 === 0, "nodes");
    require(isArrayOf(mfas, isU32) && mfas.length % 3 === 0, "functions");
    require(isU32(count), "count");
    require(columns instanceof Uint8Array, "columns");
    require(payload instanceof Uint8Array, "payload");
    return {
      sources: readSources(sources),
      atoms,
      nodes,
      mfas,
      count,
      columns,
      payload: new Uint8Array(payload),
    };
  }

  /** The same factory for the same sources, so that events of many messages share their objects. */
  #factoryFor(sources: readonly SourceInfo[]): EventFactory {
    const key = sources.map((s, i) => `${i} ${s.node} ${s.creation} ${s.base} ${s.timeOffset}`).join("\n");
    const known = this.#factories.get(key);
    if (known !== undefined) return known;
    if (this.#factories.size >= 64) this.#factories.clear();
    const factory = new EventFactory(this.dictionary, sources);
    this.#factories.set(key, factory);
    return factory;
  }
}

interface Fields {
  readonly sources: readonly SourceInfo[];
  readonly atoms: readonly string[];
  readonly nodes: readonly number[];
  readonly mfas: readonly number[];
  readonly count: number;
  readonly columns: Uint8Array;
  readonly payload: Uint8Array<ArrayBuffer>;
}

function usedSources(block: SlotBlock): number[] {
  const seen = new Uint8Array(256);
  for (let base = 0; base < block.count * SLOT_WORDS; base += SLOT_WORDS)
    seen[(block.words[base]! >>> 8) & 0xff] = 1;
  return [...seen.keys()].filter((index) => seen[index] === 1);
}

/** Node and creation of each source, as its events' processes tell. */
function sourcesOf(events: readonly TraceEvent[]): SourceInfo[] {
  const sources: SourceInfo[] = [];
  for (const { source, process } of events) {
    if (process === undefined || sources[source] !== undefined) continue;
    sources[source] = {
      node: process.node.name,
      creation: process.creation,
      otp: "",
      base: 0n,
      timeOffset: 0n,
    };
  }
  return sources;
}

function readSources(value: unknown): SourceInfo[] {
  const sources: SourceInfo[] = [];
  require(Array.isArray(value), "sources");
  for (const entry of value as unknown[]) {
    require(Array.isArray(entry) && entry.length === 6, "source");
    const [index, node, creation, otp, base, timeOffset] = entry as unknown[];
    require(isU32(index) && index < 256 && isString(node) && isU32(creation) && isString(otp), "source");
    require(isInt64(base) && isInt64(timeOffset), "clock of a source");
    sources[index] = { node, creation, otp, base: BigInt(base), timeOffset: BigInt(timeOffset) };
  }
  return sources;
}

/** Every payload lies within the payload bytes. */
function requirePayloads(block: SlotBlock): void {
  const { words, payloadBytes } = block;
  for (let base = 0; base < block.count * SLOT_WORDS; base += SLOT_WORDS) {
    if ((words[base + SLOT.flags]! & FLAG.payload) === 0 || (words[base]! & 0xff) === EVENT_KINDS.gap)
      continue;
    const end = words[base + SLOT.payloadAt]! * 8 + words[base + SLOT.payloadBytes]!;
    require(end <= payloadBytes, "place of a payload");
  }
}

function require(condition: boolean, what: string): asserts condition {
  if (!condition) throw new BeamtraceError("BT_CODEC_INVALID", `Encoded events are damaged: ${what}`);
}

const isString = (value: unknown): value is string => typeof value === "string";
const isU32 = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 0xffffffff;
const isInt64 = (value: unknown): value is string => isString(value) && /^-?\d{1,19}$/.test(value);

function isArrayOf<T>(value: unknown, is: (element: unknown) => element is T): value is T[] {
  return Array.isArray(value) && value.every(is);
}
