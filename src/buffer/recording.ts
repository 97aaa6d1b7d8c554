/**
 * A recording file as an `EventSource`: whatever runs on a live trace runs on it. Chunks are read one at a time, and only those that can hold what is
 * asked for; site tables, wherever in the file, before the first of them. Damage is no error: what can be read is read, a `gap` event stands where something is missing, `damage` says where and why.
 */
import { open, type FileHandle } from "node:fs/promises";
import { promisify } from "node:util";
import { inflateRaw } from "node:zlib";
import { Observable } from "rxjs";
import { AbortedError, BeamtraceError } from "../erlang/errors";
import { crc32 } from "./crc32";
import { EventBatch } from "./event-batch";
import { EventCodec } from "./event-codec";
import { EventFactory } from "./event-factory";
import { EVENT_KINDS, GAP_HOPS, SLOT_GAP, type EventKind } from "./event-schema";
import { eventsOf, type EventSource } from "./event-source";
import { decodeSites } from "./recorded-sites";
import { CHUNK_HEADER_BYTES, type ChunkHeader } from "./recording-format";
import {
  readAt,
  readContents,
  type RecordingContents,
  type RecordingDamage,
  type RecordingPart,
} from "./recording-index";
import { ReplayClock } from "./replay-clock";
import type { SiteTables } from "./site-tables";
import { SlotBlock } from "./slot-block";
import type { SourceInfo } from "./source-info";
import type { TraceEvent } from "./trace-event";

const inflate = promisify(inflateRaw) as (
  bytes: Uint8Array,
  options: { maxOutputLength: number },
) => Promise<Buffer>;

/** What to replay, and how fast. */
export interface ReplayOptions {
  /** `full` (default): as fast as it is consumed. 1: as it was recorded; 10: ten times as fast. */
  readonly speed?: "full" | number;
  /** From this time on, in ns of recording time: the time stamp of events of the first source. */
  readonly from?: number;
  /** Up to and including this time. */
  readonly to?: number;
  /** Only events of these kinds. Gaps come always: what is missing is missing. */
  readonly kinds?: readonly EventKind[];
  /** Ends the replay with `BT_ABORTED`. */
  readonly signal?: AbortSignal;
}

/** An open recording. */
export class Recording implements EventSource {
  readonly path: string;
  /** Whether the writer finished the file. False after a crash or while it is still being written. */
  readonly complete: boolean;
  /** Wall clock, in ns since 1970, that recording time counts from. */
  readonly origin: bigint;
  /** All events, at full speed. Each subscriber gets its own reading of the file. */
  readonly batches$: Observable<EventBatch>;
  readonly events$: Observable<TraceEvent>;
  readonly #file: FileHandle;
  readonly #parts: RecordingPart[];
  readonly #sources: SourceInfo[] = [];
  readonly #shifts: number[] = [];
  readonly #codec = new EventCodec();
  #factory = new EventFactory(this.#codec.dictionary, this.#sources);
  #sitesRead: Promise<void> | undefined;
  #closed = false;

  /** @internal Use `openRecording`. */
  constructor(path: string, file: FileHandle, contents: RecordingContents) {
    this.path = path;
    this.complete = contents.complete;
    this.#file = file;
    this.#parts = [...contents.parts];
    const first = contents.sources.find((s) => s !== undefined);
    this.origin = contents.origin ?? (first === undefined ? 0n : first.base + first.timeOffset);
    contents.sources.forEach((source, index) => this.#addSource(index, source));
    const all = this.replay();
    this.batches$ = all.batches$;
    this.events$ = all.events$;
  }

  /** Sources by index. Those of a file that was not finished become known as its chunks are read. */
  get sources(): readonly SourceInfo[] {
    return this.#sources;
  }

  /** What the sites of instrumented modules stand for, for `callbacks` and `locals`; `event.site` has it too. Read when the first replay begins. */
  get sites(): SiteTables {
    return this.#codec.dictionary.sites;
  }

  /** Events in the file that can be read, as far as is known; damaged chunks that were not read yet are counted. */
  get events(): number {
    return this.#sum((header) => header.count);
  }

  /** Chunks that can be read, as far as is known. */
  get chunks(): number {
    return this.#sum(() => 1);
  }

  /** Time of the first event, in ns of recording time. 0 in an empty recording. */
  get from(): number {
    const times = this.#parts.flatMap((part) => (part.type === "chunk" ? [part.header.first] : []));
    return times.length === 0 ? 0 : times.reduce((a, b) => Math.min(a, b));
  }

  /** Time of the last event, in ns of recording time. 0 in an empty recording. */
  get to(): number {
    const times = this.#parts.flatMap((part) => (part.type === "chunk" ? [part.header.last] : []));
    return times.length === 0 ? 0 : times.reduce((a, b) => Math.max(a, b));
  }

  /** Where the file is damaged, as far as is known: damage within a chunk shows when that is read. Empty when all is well. */
  get damage(): readonly RecordingDamage[] {
    return this.#parts.flatMap((part) => (part.type === "damage" ? [part.damage] : []));
  }

  /**
   * A part of the recording, or all of it at another speed, as a source of its own. Nothing is read before somebody subscribes.
   * @example recording.replay({ speed: 1, kinds: ["call"] }).events$.subscribe(console.log)
   */
  replay(options: ReplayOptions = {}): EventSource {
    const { speed = "full" } = options;
    if (speed !== "full" && !(speed > 0))
      throw new RangeError(`speed must be "full" or above 0, not ${speed}`);
    const batches$ = new Observable<EventBatch>((subscriber) => {
      const stop = new AbortController();
      const signal =
        options.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, options.signal]);
      const emit = (batch: EventBatch) => {
        if (!subscriber.closed && batch.length > 0) subscriber.next(batch);
      };
      this.#run(options, signal, emit).then(
        () => subscriber.complete(),
        (error: unknown) => subscriber.error(error),
      );
      return () => stop.abort();
    });
    return { sources: this.#sources, batches$, events$: eventsOf(batches$) };
  }

  /** Closes the file. Replays that run end with `BT_CLOSED`. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #run(options: ReplayOptions, signal: AbortSignal, emit: (batch: EventBatch) => void): Promise<void> {
    const { from = -Infinity, to = Infinity, kinds, speed = "full" } = options;
    const clock = speed === "full" ? undefined : new ReplayClock(speed, signal);
    const wanted = kinds === undefined ? undefined : kindMask([...kinds, "gap"]);
    let last = 0;
    this.#sitesRead ??= this.#readSites().catch((error: unknown) => {
      this.#sitesRead = undefined;
      throw error;
    });
    await this.#sitesRead;
    for (let i = 0; i < this.#parts.length; i++) {
      requireRunning(signal);
      const part = this.#parts[i]!;
      if (part.type === "sites") continue;
      if (part.type === "damage") {
        // No event is missing where a site table is.
        if (part.damage.events !== 0) emit(this.#gap(part.damage.events, last));
        continue;
      }
      const { header } = part;
      if (header.last < from || header.first > to || !holdsAny(header, wanted)) continue;
      const batch = await this.#read(i, part);
      if (batch === undefined) {
        emit(this.#gap(header.count, header.first, header.last));
        continue;
      }
      last = header.last;
      const chosen = this.#choose(batch, header, from, to, wanted);
      if (clock === undefined) emit(chosen);
      else await clock.emit(chosen, (b, k) => this.#time(b, k), emit);
    }
    requireRunning(signal);
  }

  #choose(
    batch: EventBatch,
    header: ChunkHeader,
    from: number,
    to: number,
    wanted: KindMask | undefined,
  ): EventBatch {
    let chosen = batch;
    if (header.first < from || header.last > to) {
      chosen = chosen.filter((b, k) => {
        const time = this.#time(b, k);
        return time >= from && time <= to;
      });
    }
    return wanted === undefined ? chosen : chosen.filter(wanted.kinds);
  }

  /** A chunk's events; undefined, and noted as damage, when its body is not intact. */
  #read(index: number, part: ChunkPart): Promise<EventBatch | undefined> {
    return this.#decode(index, part, (plain) => {
      const { block, sources } = this.#codec.decodeBlock(plain);
      sources.forEach((source, k) => this.#addSource(k, source));
      return EventBatch.of(block, this.#factory);
    });
  }

  /** All site tables: one that was known late may stand behind the events that it is for. */
  async #readSites(): Promise<void> {
    for (let i = 0; i < this.#parts.length; i++) {
      const part = this.#parts[i]!;
      if (part.type === "sites") await this.#decode(i, part, (plain) => this.sites.add(decodeSites(plain)));
    }
  }

  async #decode<T>(
    index: number,
    { offset, header }: ChunkPart,
    decode: (plain: Uint8Array) => T,
  ): Promise<T | undefined> {
    if (this.#closed) throw new BeamtraceError("BT_CLOSED", "The recording was closed while it was read");
    const body = await readAt(this.#file, offset + CHUNK_HEADER_BYTES, header.bodyBytes);
    const fail = (reason: string): undefined => {
      this.#parts[index] = { type: "damage", damage: { offset, reason, events: header.count } };
      return undefined;
    };
    if (body.length < header.bodyBytes) return fail("cut off");
    if (crc32(body) !== header.bodyCrc) return fail("checksum of a chunk is wrong");
    try {
      const plain = header.compressed
        ? await inflate(body, { maxOutputLength: Math.max(1, header.plainBytes) })
        : body;
      return decode(plain);
    } catch (error) {
      return fail(`a chunk can't be decoded: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #addSource(index: number, source: SourceInfo): void {
    if (source === undefined) return;
    const known = this.#sources[index];
    if (known !== undefined && known.base === source.base && known.creation === source.creation) return;
    // It remembers the processes of the source that had this index before.
    if (known !== undefined) this.#factory = new EventFactory(this.#codec.dictionary, this.#sources);
    this.#sources[index] = source;
    this.#shifts[index] = Number(source.base + source.timeOffset - this.origin);
  }

  /** Recording time of an event. */
  #time(batch: EventBatch, i: number): number {
    return batch.timestamp(i) + (this.#shifts[batch.source(i)] ?? 0);
  }

  #gap(count: number | undefined, from: number, to = NaN): EventBatch {
    const block = new SlotBlock(1);
    const base = block.add();
    block.words[base] = EVENT_KINDS.gap;
    block.words[base + SLOT_GAP.hop] = GAP_HOPS.recording;
    block.floats[1] = from;
    block.floats[SLOT_GAP.countF64] = count ?? 0;
    block.floats[SLOT_GAP.fromF64] = from;
    block.floats[SLOT_GAP.toF64] = to;
    return EventBatch.of(block, this.#factory);
  }

  #sum(of: (header: ChunkHeader) => number): number {
    return this.#parts.reduce((sum, part) => sum + (part.type === "chunk" ? of(part.header) : 0), 0);
  }
}

/**
 * Opens a recording. Only its headers are read now.
 * @throws BeamtraceError `BT_CORRUPT_RECORDING` when nothing in it can be read, `BT_RECORDING_VERSION` when it is of a newer format;
 * errors of the file system as they are.
 * @example
 * await using recording = await openRecording("shop.btrec");
 * await recording.replay({ kinds: ["exit"] }).events$.forEach((event) => console.log(event));
 */
export async function openRecording(path: string): Promise<Recording> {
  const file = await open(path, "r");
  try {
    return new Recording(path, file, await readContents(file));
  } catch (error) {
    await file.close();
    throw error;
  }
}

interface ChunkPart {
  readonly offset: number;
  readonly header: ChunkHeader;
}

interface KindMask {
  readonly kinds: readonly EventKind[];
  readonly low: number;
  readonly high: number;
}

function kindMask(kinds: readonly EventKind[]): KindMask {
  let low = 0;
  let high = 0;
  for (const kind of kinds) {
    const code = EVENT_KINDS[kind];
    if (code < 32) low |= 1 << code;
    else high |= 1 << (code - 32);
  }
  return { kinds, low, high };
}

function holdsAny(header: ChunkHeader, wanted: KindMask | undefined): boolean {
  return (
    wanted === undefined || (header.kindsLow & wanted.low) !== 0 || (header.kindsHigh & wanted.high) !== 0
  );
}

function requireRunning(signal: AbortSignal): void {
  if (signal.aborted)
    throw new AbortedError("BT_ABORTED", "The replay was aborted", { cause: signal.reason });
}
