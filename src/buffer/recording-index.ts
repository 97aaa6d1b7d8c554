/**
 * Finds out what is in a recording file: from the index at its end, or, when there is none that is intact, from the headers of its chunks. Where
 * no chunk header is, the file is searched for the next one. Only headers are read.
 */
import type { FileHandle } from "node:fs/promises";
import { BeamtraceError } from "../erlang/errors";
import {
  CHUNK_HEADER_BYTES,
  FILE_HEADER_BYTES,
  TRAILER_BYTES,
  decodeChunkHeader,
  decodeFileHeader,
  decodeIndex,
  decodeInfo,
  decodeTrailer,
  padded,
  type ChunkHeader,
} from "./recording-format";
import type { SourceInfo } from "./source-info";

/** A place in a recording that can't be read. */
export interface RecordingDamage {
  /** Byte offset in the file. */
  readonly offset: number;
  readonly reason: string;
  /** Events that are missing; undefined when the file doesn't tell. */
  readonly events: number | undefined;
}

/** A part of the file, in order. */
export type RecordingPart =
  | { readonly type: "chunk" | "sites"; readonly offset: number; readonly header: ChunkHeader }
  | { readonly type: "damage"; readonly damage: RecordingDamage };

/** What a file holds. */
export interface RecordingContents {
  readonly origin: bigint | undefined;
  readonly sources: readonly SourceInfo[];
  readonly parts: readonly RecordingPart[];
  /** The writer has finished the file: its index is there. */
  readonly complete: boolean;
}

/** A chunk by what it holds. */
const partOf = (offset: number, header: ChunkHeader): RecordingPart => ({
  type: header.holds === "sites" ? "sites" : "chunk",
  offset,
  header,
});

const SEARCH_BYTES = 1 << 20;
/** "B": looked at before anything else, for the search may go over gigabytes. */
const CHUNK_MAGIC_BYTE = 0x42;
/** An index of three million chunks. */
const MAX_INDEX_BYTES = 1 << 28;

/**
 * Reads headers and index.
 * @throws BeamtraceError `BT_CORRUPT_RECORDING`, `BT_RECORDING_VERSION`
 */
export async function readContents(file: FileHandle): Promise<RecordingContents> {
  const { size } = await file.stat();
  const head = await readAt(file, 0, FILE_HEADER_BYTES);
  const { infoBytes, infoCrc } = decodeFileHeader(head);
  const start = FILE_HEADER_BYTES + padded(infoBytes);
  const info =
    infoBytes <= size ? decodeInfo(await readAt(file, FILE_HEADER_BYTES, infoBytes), infoCrc) : undefined;
  const index = await readIndex(file, size);
  if (index !== undefined) return index;
  if (info === undefined) {
    const found = await scan(file, FILE_HEADER_BYTES, size);
    if (!found.some((part) => part.type === "chunk")) {
      throw new BeamtraceError(
        "BT_CORRUPT_RECORDING",
        "The recording's header is damaged and no chunk of events is left",
      );
    }
    return { origin: undefined, sources: [], parts: found, complete: false };
  }
  return {
    origin: info.origin,
    sources: info.sources,
    parts: await scan(file, start, size),
    complete: false,
  };
}

async function readIndex(file: FileHandle, size: number): Promise<RecordingContents | undefined> {
  if (size < FILE_HEADER_BYTES + TRAILER_BYTES) return undefined;
  const at = decodeTrailer(await readAt(file, size - TRAILER_BYTES, TRAILER_BYTES));
  if (at === undefined || !(at >= FILE_HEADER_BYTES && at < size && size - at < MAX_INDEX_BYTES))
    return undefined;
  const index = decodeIndex(await readAt(file, at, size - TRAILER_BYTES - at));
  if (index === undefined) return undefined;
  const parts = index.chunks.map(({ offset, header }) => partOf(offset, header));
  return { origin: index.origin, sources: index.sources, parts, complete: true };
}

/** Goes from chunk header to chunk header. */
async function scan(file: FileHandle, start: number, size: number): Promise<RecordingPart[]> {
  const parts: RecordingPart[] = [];
  let events = 0;
  let at = start;
  while (at < size) {
    const header = decodeChunkHeader(await readAt(file, at, CHUNK_HEADER_BYTES));
    if (header === undefined) {
      const next = await searchChunk(file, at + 8, size);
      // An index without trailer: the writer was killed while it finished.
      if (next === undefined && (await looksLikeIndex(file, at))) break;
      const lost = next === undefined ? undefined : next.header.firstIndex - events;
      const reason =
        next === undefined && size - at < CHUNK_HEADER_BYTES ? "cut off" : "no chunk where one should be";
      parts.push({ type: "damage", damage: { offset: at, reason, events: lost } });
      if (next === undefined) break;
      events = next.header.firstIndex;
      at = next.offset;
      continue;
    }
    if (header.firstIndex > events) {
      const lost = header.firstIndex - events;
      parts.push({ type: "damage", damage: { offset: at, reason: "chunks are missing", events: lost } });
    }
    const end = at + CHUNK_HEADER_BYTES + header.bodyBytes;
    if (end > size)
      parts.push({ type: "damage", damage: { offset: at, reason: "cut off", events: header.count } });
    else parts.push(partOf(at, header));
    events = header.firstIndex + header.count;
    at = padded(end);
  }
  return parts;
}

async function looksLikeIndex(file: FileHandle, at: number): Promise<boolean> {
  const bytes = await readAt(file, at, 4);
  return bytes.length === 4 && String.fromCharCode(...bytes) === "BTIX";
}

/** The next intact chunk header at a multiple of 8 bytes. */
async function searchChunk(
  file: FileHandle,
  from: number,
  size: number,
): Promise<{ readonly offset: number; readonly header: ChunkHeader } | undefined> {
  for (let at = padded(from); at < size; at += SEARCH_BYTES) {
    const bytes = await readAt(file, at, SEARCH_BYTES + CHUNK_HEADER_BYTES - 8);
    for (let offset = 0; offset < Math.min(SEARCH_BYTES, bytes.length); offset += 8) {
      if (bytes[offset] !== CHUNK_MAGIC_BYTE) continue;
      const header = decodeChunkHeader(bytes, offset);
      if (header !== undefined) return { offset: at + offset, header };
    }
  }
  return undefined;
}

/** Bytes of the file; fewer where it ends. */
export async function readAt(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const { bytesRead } = await file.read(bytes, at, length - at, offset + at);
    if (bytesRead === 0) return bytes.subarray(0, at);
    at += bytesRead;
  }
  return bytes;
}
