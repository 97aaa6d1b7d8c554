/**
 * The file format of recordings (`.btrec`): a header, chunks, and an index at the end. Append-only; a chunk of events stands for itself (it holds the names
 * and sources that its events refer to, see event-codec.ts), so damage in one of them costs that one. All numbers little-endian, all parts
 * begin at multiples of 8 bytes. When the index is missing (the writer was killed) it is made again from the chunk headers.
 *
 *     header   "BTREC\r\n\x1a" | version:u32 | bytes of info:u32 | crc of info:u32 | 0:u32 | info (MessagePack) | padding
 *     chunk    64 bytes, see `ChunkHeader` | body (deflated if flag 1): an EventCodec message, or, if flag 2, the site table of an instrumented
 *              module (recorded-sites.ts), which may stand before or behind the events that name it | padding
 *     index    "BTIX" | bytes:u32 | crc:u32 | 0:u32 | info (MessagePack) | padding
 *     trailer  "BTEN" | crc of the next 8 bytes:u32 | offset of the index:f64
 */
import { pack, unpack } from "msgpackr";
import { BeamtraceError } from "../erlang/errors";
import { crc32 } from "./crc32";
import { checkMsgpack } from "./msgpack-check";
import type { SourceInfo } from "./source-info";

/** Version of the format that is written. Older ones are read: 1 has no site tables. */
export const RECORDING_VERSION = 2;

export const FILE_MAGIC = Uint8Array.from("BTREC\r\n\x1a", (c) => c.charCodeAt(0));
export const FILE_HEADER_BYTES = 24;
export const CHUNK_HEADER_BYTES = 64;
export const INDEX_HEADER_BYTES = 16;
export const TRAILER_BYTES = 16;
/** Bytes of one entry in the index: offset (float64) and chunk header. */
export const INDEX_ENTRY_BYTES = 8 + CHUNK_HEADER_BYTES;
/** Largest body of a chunk before compression; a writer makes them much smaller. */
export const MAX_BODY_BYTES = 1 << 29;

const COMPRESSED = 1;
const SITES = 2;
const CHUNK_MAGIC = 0x4b435442;
const INDEX_MAGIC = 0x58495442;
const END_MAGIC = 0x4e455442;

/** What is known of a chunk without reading its body. */
export interface ChunkHeader {
  /** Number of the chunk in the file. */
  readonly seq: number;
  readonly bodyBytes: number;
  readonly bodyCrc: number;
  readonly holds: "events" | "sites";
  /** Events in it. */
  readonly count: number;
  readonly compressed: boolean;
  /** Bytes of the body when inflated. */
  readonly plainBytes: number;
  /** Bit n: there is an event of kind n. */
  readonly kindsLow: number;
  readonly kindsHigh: number;
  /** Earliest and latest event, in recording time (ns since the recording's origin). */
  readonly first: number;
  readonly last: number;
  /** Events in the chunks before. */
  readonly firstIndex: number;
}

/** Rounded up to a multiple of 8. */
export function padded(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}

/** Bytes of a chunk header. */
export function encodeChunkHeader(header: ChunkHeader): Uint8Array {
  const bytes = new Uint8Array(CHUNK_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, CHUNK_MAGIC, true);
  view.setUint32(4, header.seq, true);
  view.setUint32(8, header.bodyBytes, true);
  view.setUint32(12, header.bodyCrc, true);
  view.setUint32(16, header.count, true);
  view.setUint32(20, (header.compressed ? COMPRESSED : 0) | (header.holds === "sites" ? SITES : 0), true);
  view.setUint32(24, header.plainBytes, true);
  view.setUint32(28, header.kindsLow, true);
  view.setUint32(32, header.kindsHigh, true);
  view.setFloat64(40, header.first, true);
  view.setFloat64(48, header.last, true);
  view.setFloat64(56, header.firstIndex, true);
  view.setUint32(36, crc32(bytes), true);
  return bytes;
}

/** The chunk header at an offset; undefined when there is none that is intact. */
export function decodeChunkHeader(bytes: Uint8Array, offset = 0): ChunkHeader | undefined {
  if (offset + CHUNK_HEADER_BYTES > bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, CHUNK_HEADER_BYTES);
  if (view.getUint32(0, true) !== CHUNK_MAGIC) return undefined;
  // Not `slice`, which of a Buffer is no copy.
  const copy = Uint8Array.from(bytes.subarray(offset, offset + CHUNK_HEADER_BYTES));
  copy.fill(0, 36, 40);
  if (crc32(copy) !== view.getUint32(36, true)) return undefined;
  const header: ChunkHeader = {
    seq: view.getUint32(4, true),
    bodyBytes: view.getUint32(8, true),
    bodyCrc: view.getUint32(12, true),
    holds: (view.getUint32(20, true) & SITES) === 0 ? "events" : "sites",
    count: view.getUint32(16, true),
    compressed: (view.getUint32(20, true) & COMPRESSED) !== 0,
    plainBytes: view.getUint32(24, true),
    kindsLow: view.getUint32(28, true),
    kindsHigh: view.getUint32(32, true),
    first: view.getFloat64(40, true),
    last: view.getFloat64(48, true),
    firstIndex: view.getFloat64(56, true),
  };
  return header.plainBytes <= MAX_BODY_BYTES && header.bodyBytes <= MAX_BODY_BYTES ? header : undefined;
}

/** What the header and the index say of the whole file. */
export interface RecordingInfo {
  /** Wall clock, in ns since 1970, that recording time counts from: base + timeOffset of the first source. */
  readonly origin: bigint;
  readonly sources: readonly SourceInfo[];
}

/** The file header. */
export function encodeFileHeader(info: RecordingInfo): Uint8Array {
  const body = encodeInfo(info);
  const bytes = new Uint8Array(FILE_HEADER_BYTES + padded(body.length));
  const view = new DataView(bytes.buffer);
  bytes.set(FILE_MAGIC);
  view.setUint32(8, RECORDING_VERSION, true);
  view.setUint32(12, body.length, true);
  view.setUint32(16, crc32(body), true);
  bytes.set(body, FILE_HEADER_BYTES);
  return bytes;
}

/**
 * Version and size of the info behind a file header.
 * @throws BeamtraceError `BT_CORRUPT_RECORDING` when it is no recording, `BT_RECORDING_VERSION` when it is a newer one
 */
export function decodeFileHeader(bytes: Uint8Array): {
  readonly infoBytes: number;
  readonly infoCrc: number;
} {
  if (bytes.length < FILE_HEADER_BYTES || FILE_MAGIC.some((byte, i) => bytes[i] !== byte)) {
    throw new BeamtraceError("BT_CORRUPT_RECORDING", "This file is not a recording of beamtrace");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, FILE_HEADER_BYTES);
  const version = view.getUint32(8, true);
  if (version > RECORDING_VERSION || version === 0) {
    throw new BeamtraceError(
      "BT_RECORDING_VERSION",
      `The recording has format ${version}, this beamtrace reads up to ${RECORDING_VERSION}. Update beamtrace.`,
    );
  }
  return { infoBytes: view.getUint32(12, true), infoCrc: view.getUint32(16, true) };
}

/** The index and the trailer behind it. `at` is the offset that they will have in the file. */
export function encodeIndex(
  at: number,
  info: RecordingInfo,
  chunks: readonly { readonly offset: number; readonly header: ChunkHeader }[],
): Uint8Array {
  const entries = new Uint8Array(chunks.length * INDEX_ENTRY_BYTES);
  const view = new DataView(entries.buffer);
  chunks.forEach(({ offset, header }, i) => {
    view.setFloat64(i * INDEX_ENTRY_BYTES, offset, true);
    entries.set(encodeChunkHeader(header), i * INDEX_ENTRY_BYTES + 8);
  });
  const body = encodeInfo(info, entries);
  const bytes = new Uint8Array(INDEX_HEADER_BYTES + padded(body.length) + TRAILER_BYTES);
  const out = new DataView(bytes.buffer);
  out.setUint32(0, INDEX_MAGIC, true);
  out.setUint32(4, body.length, true);
  out.setUint32(8, crc32(body), true);
  bytes.set(body, INDEX_HEADER_BYTES);
  const trailer = bytes.length - TRAILER_BYTES;
  out.setUint32(trailer, END_MAGIC, true);
  out.setFloat64(trailer + 8, at, true);
  out.setUint32(trailer + 4, crc32(bytes.subarray(trailer + 8)), true);
  return bytes;
}

/** Offset of the index that a trailer names; undefined when it is no trailer. */
export function decodeTrailer(bytes: Uint8Array): number | undefined {
  if (bytes.length !== TRAILER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, TRAILER_BYTES);
  if (view.getUint32(0, true) !== END_MAGIC || view.getUint32(4, true) !== crc32(bytes.subarray(8)))
    return undefined;
  return view.getFloat64(8, true);
}

/** Index (header and body) of a file; undefined when it is damaged. */
export function decodeIndex(
  bytes: Uint8Array,
):
  | (RecordingInfo & { readonly chunks: { readonly offset: number; readonly header: ChunkHeader }[] })
  | undefined {
  if (bytes.length < INDEX_HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== INDEX_MAGIC) return undefined;
  const body = bytes.subarray(INDEX_HEADER_BYTES, INDEX_HEADER_BYTES + view.getUint32(4, true));
  const decoded = decodeInfo(body, view.getUint32(8, true));
  if (decoded === undefined || decoded.entries.length % INDEX_ENTRY_BYTES !== 0) return undefined;
  const { origin, sources, entries } = decoded;
  const list = new DataView(entries.buffer, entries.byteOffset, entries.byteLength);
  const chunks = [];
  for (let at = 0; at < entries.length; at += INDEX_ENTRY_BYTES) {
    const header = decodeChunkHeader(entries, at + 8);
    if (header === undefined) return undefined;
    chunks.push({ offset: list.getFloat64(at, true), header });
  }
  return { origin, sources, chunks };
}

function encodeInfo({ origin, sources }: RecordingInfo, entries = new Uint8Array(0)): Uint8Array {
  const list = sources.map((s) => [s.node, s.creation, s.otp, String(s.base), String(s.timeOffset)]);
  return pack([String(origin), list, entries]);
}

/** Info of a header or index; undefined when it is damaged. */
export function decodeInfo(
  body: Uint8Array,
  crc: number,
): (RecordingInfo & { readonly entries: Uint8Array }) | undefined {
  if (crc32(body) !== crc) return undefined;
  try {
    checkMsgpack(body);
    const [origin, list, entries] = unpack(body) as [
      string,
      [string, number, string, string, string][],
      Uint8Array,
    ];
    const sources = list.map(([node, creation, otp, base, timeOffset]) => ({
      node: String(node),
      creation: Number(creation),
      otp: String(otp),
      base: BigInt(base),
      timeOffset: BigInt(timeOffset),
    }));
    return entries instanceof Uint8Array ? { origin: BigInt(origin), sources, entries } : undefined;
  } catch {
    return undefined;
  }
}
