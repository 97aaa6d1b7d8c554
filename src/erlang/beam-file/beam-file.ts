/**
 * The `.beam` container (erts, "BEAM file format"): `"FOR1" Size:32 "BEAM"`, then chunks `Id:4/bytes Size:32 Data` padded to four
 * bytes; the whole possibly gzipped. Bytes come from anywhere: every size is checked and inflation is bounded. Chunks are views into
 * the bytes that were read; what isn't replaced is written again byte for byte.
 */
import { gunzipSync, gzipSync } from "node:zlib";
import { BeamtraceError, CorruptBeamError } from "../errors";

/** One chunk, such as `Code`. */
export interface BeamChunk {
  /** Four characters, Latin-1. */
  readonly id: string;
  readonly data: Uint8Array;
}

/** Options of `BeamFile.read`. */
export interface BeamReadOptions {
  /** Largest inflated size of a compressed file, in bytes; default 256 MiB. */
  readonly maxInflatedBytes?: number;
}

const FOR1 = 0x464f5231;
const BEAM = 0x4245414d;
/** A file with more chunks than this is no work of a compiler. */
const MAX_CHUNKS = 1024;

const word = (bytes: Uint8Array, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
const padded = (size: number): number => (size + 3) & ~3;

function inflate(bytes: Uint8Array, maxBytes: number): Uint8Array {
  try {
    return gunzipSync(bytes, { maxOutputLength: maxBytes });
  } catch (cause) {
    const code = (cause as { code?: string }).code;
    const message =
      code === "ERR_BUFFER_TOO_LARGE"
        ? `the file inflates to more than ${maxBytes} bytes`
        : "the file starts as gzip but does not inflate";
    throw new CorruptBeamError(message, 0, { cause });
  }
}

/** A `.beam` file: an immutable list of chunks. */
export class BeamFile {
  readonly chunks: readonly BeamChunk[];
  /** Whether the file is gzipped, and is written so. */
  readonly compressed: boolean;
  /** What was read, as long as no chunk has changed. */
  private readonly original: Uint8Array | undefined;

  private constructor(
    chunks: readonly BeamChunk[],
    compressed: boolean,
    original: Uint8Array | undefined = undefined,
  ) {
    this.chunks = chunks;
    this.compressed = compressed;
    this.original = original;
  }

  /**
   * Reads a `.beam` file.
   * @throws CorruptBeamError `BT_CORRUPT_BEAM`, with the offset (after inflation) where it went wrong.
   * @example BeamFile.read(await readFile("lists.beam")).chunk("Code")
   */
  static read(bytes: Uint8Array, options: BeamReadOptions = {}): BeamFile {
    const compressed = bytes[0] === 0x1f && bytes[1] === 0x8b;
    const inside = compressed ? inflate(bytes, options.maxInflatedBytes ?? 256 * 1024 * 1024) : bytes;
    return new BeamFile(readChunks(inside), compressed, bytes);
  }

  /** A file of these chunks. */
  static of(chunks: readonly BeamChunk[], { compressed = false } = {}): BeamFile {
    for (const { id } of chunks) checkId(id);
    return new BeamFile([...chunks], compressed);
  }

  /** The data of the chunk, or undefined. */
  chunk(id: string): Uint8Array | undefined {
    return this.chunks.find((chunk) => chunk.id === id)?.data;
  }

  /** This file with the chunk replaced, or appended when there was none. */
  with(id: string, data: Uint8Array): BeamFile {
    checkId(id);
    const there = this.chunks.some((chunk) => chunk.id === id);
    const chunks = there
      ? this.chunks.map((chunk) => (chunk.id === id ? { id, data } : chunk))
      : [...this.chunks, { id, data }];
    return new BeamFile(chunks, this.compressed);
  }

  /** This file without the chunk; itself when it has none. */
  without(id: string): BeamFile {
    if (!this.chunks.some((chunk) => chunk.id === id)) return this;
    return new BeamFile(
      this.chunks.filter((chunk) => chunk.id !== id),
      this.compressed,
    );
  }

  /** The bytes of the file. Those that were read, when nothing has changed. */
  write(): Uint8Array {
    if (this.original !== undefined) return this.original;
    const size = this.chunks.reduce((sum, { data }) => sum + 8 + padded(data.length), 12);
    const bytes = new Uint8Array(size);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, FOR1);
    view.setUint32(4, size - 8);
    view.setUint32(8, BEAM);
    let at = 12;
    for (const { id, data } of this.chunks) {
      for (let i = 0; i < 4; i++) bytes[at + i] = id.charCodeAt(i);
      view.setUint32(at + 4, data.length);
      bytes.set(data, at + 8);
      at += 8 + padded(data.length);
    }
    return this.compressed ? gzipSync(bytes) : bytes;
  }
}

function checkId(id: string): void {
  if (!/^[\x20-\x7e]{4}$/.test(id))
    throw new BeamtraceError(
      "BT_NOT_ENCODABLE",
      `a chunk's id has four ASCII characters, not ${JSON.stringify(id)}`,
    );
}

function readChunks(bytes: Uint8Array): BeamChunk[] {
  if (bytes.length < 12) throw new CorruptBeamError(`a file of ${bytes.length} bytes`, bytes.length);
  if (word(bytes, 0) !== FOR1) throw new CorruptBeamError('no "FOR1" at the start', 0);
  const end = word(bytes, 4) + 8;
  if (end > bytes.length) {
    throw new CorruptBeamError(`the file claims ${end} bytes and has ${bytes.length}`, 4);
  }
  if (word(bytes, 8) !== BEAM) throw new CorruptBeamError('no "BEAM" after the size', 8);
  const chunks: BeamChunk[] = [];
  const ids = new Set<string>();
  let at = 12;
  while (at < end) {
    if (end - at < 8) throw new CorruptBeamError("a chunk's header is cut off", at);
    const id = String.fromCharCode(bytes[at]!, bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!);
    if (!/^[\x20-\x7e]{4}$/.test(id)) throw new CorruptBeamError("a chunk's id is no text", at);
    const size = word(bytes, at + 4);
    if (size > end - at - 8) {
      throw new CorruptBeamError(`chunk ${id} claims ${size} bytes, ${end - at - 8} are left`, at + 4);
    }
    // The VM takes the last, beam_lib the first: what such a file means is anyone's guess.
    if (ids.has(id)) throw new CorruptBeamError(`chunk ${id} is there twice`, at);
    if (chunks.length === MAX_CHUNKS) throw new CorruptBeamError(`more than ${MAX_CHUNKS} chunks`, at);
    ids.add(id);
    chunks.push({ id, data: bytes.subarray(at + 8, at + 8 + size) });
    // The padding of the last chunk may be missing.
    at = Math.min(at + 8 + padded(size), end);
  }
  if (end < bytes.length && bytes.subarray(end).some((byte) => byte !== 0)) {
    throw new CorruptBeamError(`${bytes.length - end} bytes after the container`, end);
  }
  return chunks;
}
