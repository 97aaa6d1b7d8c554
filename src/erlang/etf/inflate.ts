/** Compressed terms (`131, 80, UncompressedSize:32, zlib data`), inflated within a limit. */
import { inflateSync } from "node:zlib";
import { BadTermError } from "../errors";

/** An inflated term and the offset after its compressed form. */
export interface Inflated {
  readonly bytes: Uint8Array;
  readonly next: number;
}

/** Inflates the compressed term whose size field is at `offset`. */
export function inflateTerm(bytes: Uint8Array, offset: number, maxBytes: number): Inflated {
  if (offset + 4 > bytes.length) throw new BadTermError("a compressed term is cut off", bytes.length);
  const size =
    ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>>
    0;
  if (size > maxBytes) {
    throw new BadTermError(`a compressed term of ${size} bytes, where ${maxBytes} are allowed`, offset);
  }
  if (size === 0) throw new BadTermError("a compressed term of no bytes", offset);
  // The typings do not know `info: true`, which also returns the engine that tells how much input it took.
  let result: { buffer: Buffer; engine: { bytesWritten: number } };
  try {
    result = inflateSync(bytes.subarray(offset + 4), {
      info: true,
      maxOutputLength: size,
      chunkSize: Math.min(Math.max(size, 64), 1 << 16),
    }) as unknown as typeof result;
  } catch (cause) {
    throw new BadTermError("a compressed term that does not inflate to its size", offset, { cause });
  }
  if (result.buffer.length !== size) {
    throw new BadTermError(`a compressed term of ${result.buffer.length} bytes that claims ${size}`, offset);
  }
  return { bytes: result.buffer, next: offset + 4 + result.engine.bytesWritten };
}
