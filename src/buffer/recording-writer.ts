/**
 * Writes batches into a recording file. `write` only copies slots; encoding happens once a chunk, compression and file I/O off the thread,
 * in order. Memory is bounded: when the disk is too slow batches are dropped, counted, and told by a `gap` event in the file. What has been
 * flushed is readable whatever happens to this process.
 */
import { open, type FileHandle } from "node:fs/promises";
import { promisify } from "node:util";
import { deflateRaw } from "node:zlib";
import { OptionError } from "../erlang/errors";
import { crc32 } from "./crc32";
import type { Dictionary } from "./dictionary";
import type { EventBatch } from "./event-batch";
import { EventCodec } from "./event-codec";
import { EVENT_KINDS, GAP_HOPS, SLOT_GAP, SLOT_WORDS } from "./event-schema";
import { encodeSites, RecordedSites } from "./recorded-sites";
import {
  CHUNK_HEADER_BYTES,
  INDEX_ENTRY_BYTES,
  encodeChunkHeader,
  encodeFileHeader,
  encodeIndex,
  padded,
  type ChunkHeader,
} from "./recording-format";
import { SlotBlock } from "./slot-block";
import type { SourceInfo } from "./source-info";

const deflate = promisify(deflateRaw) as (bytes: Uint8Array, options: { level: number }) => Promise<Buffer>;

/** Options of a `RecordingWriter`. */
export interface RecordingOptions {
  /** Events of a chunk, the unit of reading; 1 to 262,144. Default 8192. */
  readonly chunkEvents?: number;
  /** An event is on its way to the file after so many milliseconds at the latest. Default 1000. */
  readonly flushMs?: number;
  /** The recording ends by itself before the file exceeds this. Default: no limit. */
  readonly maxBytes?: number;
  /** Most bytes that wait for the disk; beyond that batches are dropped and counted. Default 64 MiB. */
  readonly bufferBytes?: number;
  /** Deflate chunks (default). */
  readonly compress?: boolean;
}

/** How a recording ended. */
export type RecordingEnd =
  | { readonly reason: "closed" }
  | { readonly reason: "max-bytes"; readonly maxBytes: number }
  | { readonly reason: "failed"; readonly error: unknown };

/** What was recorded. */
export interface RecordingSummary {
  readonly path: string;
  readonly end: RecordingEnd;
  /** Events in the file, those that say that others were dropped included. */
  readonly events: number;
  /** Events that were not written: no room in the buffer, or behind the end. */
  readonly dropped: number;
  /** Size of the file. */
  readonly bytes: number;
  /** Chunks of events. */
  readonly chunks: number;
}

/** A chunk's payload is sealed at this size even if it has few events. */
const CHUNK_PAYLOAD_BYTES = 4 << 20;
/** Index without entries and trailer, generously. */
const CLOSING_BYTES = 1 << 16;

/** Records batches into a file. */
export class RecordingWriter {
  readonly path: string;
  /** Resolves when the file is complete, for whatever reason; never rejects. */
  readonly finished: Promise<RecordingSummary>;
  readonly #options: Required<RecordingOptions>;
  readonly #codec = new EventCodec();
  readonly #sites = new RecordedSites();
  readonly #chunks: { offset: number; header: ChunkHeader }[] = [];
  readonly #sources: SourceInfo[] = [];
  readonly #sourceKeys: string[] = [];
  #sourcesSeen = 0;
  readonly #pending = new SlotBlock(1024);
  #pendingFrom: { readonly dictionary: Dictionary; readonly sources: readonly SourceInfo[] } | undefined;
  #origin: bigint | undefined;
  #file: FileHandle | undefined;
  /** Where the next part goes; counts what is queued as well. */
  #offset = 0;
  #queuedBytes = 0;
  #tasks: Promise<void>;
  #timer: NodeJS.Timeout | undefined;
  #end: RecordingEnd | undefined;
  /** The file has reached `maxBytes`. */
  #full = false;
  /** Events of sealed chunks. */
  #sealed = 0;
  #offered = 0;
  /** Events in the file, and how many of them are gap events of our own. */
  #written = 0;
  #ownGaps = 0;
  #pendingGaps = 0;
  #dropped = 0;
  /** Dropped and not yet told in the file; source and stamp of the last event before. */
  #untold = 0;
  #lastFrom: { readonly dictionary: Dictionary; readonly sources: readonly SourceInfo[] } | undefined;
  #lastSource = 0;
  #lastStamp = NaN;
  #waiters: (() => void)[] = [];
  #resolve!: (summary: RecordingSummary) => void;

  /**
   * Creates the file, or empties it.
   * @throws OptionError `BT_OPTION_INVALID`
   */
  constructor(path: string, options: RecordingOptions = {}) {
    this.path = path;
    this.#options = {
      chunkEvents: options.chunkEvents ?? 8192,
      flushMs: options.flushMs ?? 1000,
      maxBytes: options.maxBytes ?? Infinity,
      bufferBytes: options.bufferBytes ?? 64 << 20,
      compress: options.compress ?? true,
    };
    requireRange("chunkEvents", this.#options.chunkEvents, 1, 1 << 18);
    requireRange("flushMs", this.#options.flushMs, 1, 2 ** 31 - 1);
    requireRange("maxBytes", this.#options.maxBytes, CLOSING_BYTES, Infinity);
    requireRange("bufferBytes", this.#options.bufferBytes, 1 << 16, Infinity);
    this.finished = new Promise((resolve) => (this.#resolve = resolve));
    this.#tasks = open(path, "w").then(
      (file) => void (this.#file = file),
      (error: unknown) => this.#fail(error),
    );
  }

  /** Events taken and not dropped so far. */
  get events(): number {
    return this.#sealed + this.#pending.count;
  }

  /** Events dropped so far. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Bytes that wait for the disk. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /**
   * Takes a batch; its memory may be used again afterwards. Returns false when the writer would rather wait (see `drained`) or has ended.
   * Never blocks: what exceeds `bufferBytes` is dropped, counted, and told by a gap event.
   */
  write(batch: EventBatch): boolean {
    this.#offered += batch.length;
    if (this.#end !== undefined || this.#queuedBytes > this.#options.bufferBytes) {
      this.#dropped += batch.length;
      this.#untold += batch.length;
      return false;
    }
    if (batch.length === 0) return true;
    const { dictionary, sources } = batch.factory;
    const from = this.#pendingFrom;
    if (from !== undefined && (from.dictionary !== dictionary || from.sources !== sources)) this.#seal();
    this.#pendingFrom ??= { dictionary, sources };
    this.#lastFrom = this.#pendingFrom;
    this.#sites.note(batch);
    if (this.#untold > 0) this.#tellDropped(batch.source(0), batch.timestamp(0));
    for (let at = 0; at < batch.length;) {
      const room = this.#options.chunkEvents - this.#pending.count;
      const part = at === 0 && batch.length <= room ? batch : batch.slice(at, at + Math.max(1, room));
      part.appendTo(this.#pending);
      at += part.length;
      if (
        this.#pending.count >= this.#options.chunkEvents ||
        this.#pending.payloadBytes >= CHUNK_PAYLOAD_BYTES
      ) {
        this.#seal();
        this.#pendingFrom = this.#lastFrom;
      }
    }
    this.#lastSource = batch.source(batch.length - 1);
    this.#lastStamp = batch.timestamp(batch.length - 1);
    if (this.#pending.count > 0) {
      this.#timer ??= setTimeout(() => this.#seal(), this.#options.flushMs).unref();
    }
    return this.#queuedBytes < this.#options.bufferBytes / 2;
  }

  /** Resolves when there is room again, or the recording has ended. */
  drained(): Promise<void> {
    if (this.#end !== undefined || this.#queuedBytes < this.#options.bufferBytes / 2)
      return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** Resolves when everything written so far is in the file. */
  async flush(): Promise<void> {
    this.#seal();
    await this.#tasks;
  }

  /** Writes what is left and the index, and closes the file. Resolves like `finished`. */
  close(): Promise<RecordingSummary> {
    if (this.#untold > 0 && this.#lastFrom !== undefined && this.#end === undefined) {
      this.#pendingFrom ??= this.#lastFrom;
      this.#tellDropped(this.#lastSource, this.#lastStamp);
    }
    this.#seal();
    this.#finish({ reason: "closed" });
    return this.finished;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Makes a chunk of what is pending and queues it. */
  #seal(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const from = this.#pendingFrom;
    const block = this.#pending;
    this.#pendingFrom = undefined;
    if (from === undefined || block.count === 0 || this.#end !== undefined) return;
    const count = block.count;
    const isFirst = this.#origin === undefined;
    this.#learnSources(from.sources, block);
    const summary = this.#summarize(block, this.#sources);
    const plain = this.#codec.encodeBlock(block, from.dictionary, this.#sources);
    block.clear();
    const gaps = this.#pendingGaps;
    this.#pendingGaps = 0;
    const firstIndex = this.#sealed;
    this.#sealed += count;
    this.#queuedBytes += plain.length;
    this.#enqueue(async () => {
      if (this.#full) return;
      if (isFirst)
        await this.#append(encodeFileHeader({ origin: this.#origin ?? 0n, sources: this.#sources }));
      if (!(await this.#appendChunk(plain, { ...summary, holds: "events", count, firstIndex }))) return;
      this.#written += count;
      this.#ownGaps += gaps;
      this.#queuedBytes -= plain.length;
      if (this.#queuedBytes < this.#options.bufferBytes / 2) this.#wake();
    });
    this.#enqueue(() => this.#appendSites(firstIndex + count));
  }

  /** Writes a chunk; false where the recording ends because it has no room for it. */
  async #appendChunk(
    plain: Uint8Array,
    about: Omit<ChunkHeader, "seq" | "bodyBytes" | "bodyCrc" | "compressed" | "plainBytes">,
  ): Promise<boolean> {
    const deflated = this.#options.compress ? await deflate(plain, { level: 1 }) : plain;
    const compressed = deflated.length < plain.length;
    const body = compressed ? deflated : plain;
    const header: ChunkHeader = {
      ...about,
      seq: this.#chunks.length,
      bodyBytes: body.length,
      bodyCrc: crc32(body),
      compressed,
      plainBytes: plain.length,
    };
    const bytes = new Uint8Array(CHUNK_HEADER_BYTES + padded(body.length));
    bytes.set(encodeChunkHeader(header));
    bytes.set(body, CHUNK_HEADER_BYTES);
    const offset = this.#offset;
    if (this.#exceeds(bytes.length)) return false;
    await this.#append(bytes);
    this.#chunks.push({ offset, header });
    return true;
  }

  /** What the sites of the events so far stand for, as far as it is known and not in the file. */
  async #appendSites(firstIndex: number): Promise<void> {
    for (const table of this.#sites.take()) {
      const about = {
        kindsLow: 0,
        kindsHigh: 0,
        first: 0,
        last: 0,
        holds: "sites",
        count: 0,
        firstIndex,
      } as const;
      if (this.#full || !(await this.#appendChunk(encodeSites(table), about))) return;
    }
  }

  /** Ends the recording when so many bytes more, and the index, don't fit. */
  #exceeds(bytes: number): boolean {
    const { maxBytes } = this.#options;
    const closing = CLOSING_BYTES + (this.#chunks.length + 1) * INDEX_ENTRY_BYTES;
    if (this.#offset + bytes + closing <= maxBytes) return false;
    this.#full = true;
    const end: RecordingEnd = { reason: "max-bytes", maxBytes };
    if (this.#end === undefined) this.#finish(end);
    else this.#end = end;
    return true;
  }

  /** Gives the block's sources the indexes that they have in the file: two rings both count theirs from 0. */
  #learnSources(sources: readonly SourceInfo[], block: SlotBlock): void {
    const indexes: (number | undefined)[] = [];
    for (let base = 0; base < block.count * SLOT_WORDS; base += SLOT_WORDS) {
      const head = block.words[base]!;
      const own = (head >>> 8) & 0xff;
      const index = (indexes[own] ??= this.#indexOf(sources[own], own));
      if (index !== own) block.words[base] = (head & ~0xff00) | (index << 8);
    }
    if (this.#origin !== undefined) return;
    const first = this.#sources[(block.words[0]! >>> 8) & 0xff];
    this.#origin = first === undefined ? 0n : first.base + first.timeOffset;
  }

  /** Like a ring, a file has room for 256 sources; then the oldest index is used again. Every chunk tells its own. */
  #indexOf(source: SourceInfo | undefined, own: number): number {
    if (source === undefined) return own;
    const key = `${source.node} ${source.creation} ${source.base} ${source.timeOffset}`;
    const known = this.#sourceKeys.indexOf(key);
    if (known >= 0) return known;
    const index = this.#sourcesSeen++ & 0xff;
    this.#sourceKeys[index] = key;
    this.#sources[index] = source;
    return index;
  }

  /** Kinds and time range of a block. */
  #summarize(
    block: SlotBlock,
    sources: readonly SourceInfo[],
  ): Pick<ChunkHeader, "kindsLow" | "kindsHigh" | "first" | "last"> {
    const shifts = sources.map((s) => Number(s.base + s.timeOffset - this.#origin!));
    let kindsLow = 0;
    let kindsHigh = 0;
    let first = Infinity;
    let last = -Infinity;
    for (let base = 0; base < block.count * SLOT_WORDS; base += SLOT_WORDS) {
      const head = block.words[base]!;
      const kind = head & 0xff;
      if (kind < 32) kindsLow |= 1 << kind;
      else if (kind < 64) kindsHigh |= 1 << (kind - 32);
      const time = block.floats[(base >>> 1) + 1]! + (shifts[(head >>> 8) & 0xff] ?? 0);
      if (time < first) first = time;
      if (time > last) last = time;
    }
    return { kindsLow: kindsLow >>> 0, kindsHigh: kindsHigh >>> 0, first, last };
  }

  #tellDropped(source: number, timestamp: number): void {
    const base = this.#pending.add();
    const { words, floats } = this.#pending;
    words[base] = EVENT_KINDS.gap | (source << 8);
    words[base + SLOT_GAP.hop] = GAP_HOPS.recording;
    const at = base >>> 1;
    floats[at + 1] = timestamp;
    floats[at + SLOT_GAP.countF64] = this.#untold;
    floats[at + SLOT_GAP.fromF64] = this.#lastStamp;
    floats[at + SLOT_GAP.toF64] = timestamp;
    this.#pendingGaps++;
    this.#untold = 0;
  }

  #finish(end: RecordingEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    clearTimeout(this.#timer);
    this.#wake();
    this.#enqueue(async () => {
      const info = { origin: this.#origin ?? 0n, sources: this.#sources };
      if (this.#offset === 0) await this.#append(encodeFileHeader(info));
      await this.#sites.settled();
      await this.#appendSites(this.#sealed);
      await this.#append(encodeIndex(this.#offset, info, this.#chunks));
    });
    void this.#tasks.then(() => this.#settle());
  }

  #fail(error: unknown): void {
    const first = this.#end === undefined || this.#end.reason !== "failed";
    const settles = this.#end !== undefined;
    if (first) this.#end = { reason: "failed", error };
    this.#wake();
    if (!settles) void this.#tasks.then(() => this.#settle());
  }

  async #settle(): Promise<void> {
    await this.#file?.close().catch((error: unknown) => this.#fail(error));
    this.#wake();
    this.#resolve({
      path: this.path,
      end: this.#end ?? { reason: "closed" },
      events: this.#written,
      dropped: this.#offered - (this.#written - this.#ownGaps),
      bytes: this.#offset,
      chunks: this.#chunks.filter(({ header }) => header.holds === "events").length,
    });
  }

  /** One thing after the other; after a failure nothing more is written. */
  #enqueue(task: () => Promise<void>): void {
    this.#tasks = this.#tasks
      .then(() => (this.#end?.reason === "failed" ? undefined : task()))
      .catch((error: unknown) => this.#fail(error));
  }

  async #append(bytes: Uint8Array): Promise<void> {
    if (this.#file === undefined) throw new Error("file is not open");
    for (let at = 0; at < bytes.length;) {
      const { bytesWritten } = await this.#file.write(bytes, at, bytes.length - at, this.#offset);
      at += bytesWritten;
      this.#offset += bytesWritten;
    }
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resolve of waiters) resolve();
  }
}

function requireRange(option: string, value: number, min: number, max: number): void {
  if (value >= min && value <= max) return;
  const range = max === Infinity ? `at least ${min}` : `${min} to ${max}`;
  throw new OptionError("BT_OPTION_INVALID", option, `must be ${range}, not ${value}`);
}
