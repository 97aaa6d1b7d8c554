/**
 * Cuts length-prefixed frames out of the chunks of a byte stream.
 *
 * Memory: a frame that lies within one chunk is handed out as a view of that chunk, nothing is copied. A frame that spans
 * chunks has to be copied, because it must be contiguous for its reader: into a spill buffer that is kept and used again (small
 * frames), or into one of exactly the frame's size, made when the header is known (large ones). So every byte is copied at
 * most once. Views are valid only during the callback: the spill buffer, and possibly the chunk, are used again.
 *
 * Follows "Erlang Distribution Protocol", Protocol between Connected Nodes: u32 length (u16 in the handshake over TCP), 0 = tick.
 */
import { ConnectionError } from "../errors";

/** Frames up to this size share the spill buffer, which grows to it as needed. */
const MAX_SPILL_BYTES = 4 * 1024 * 1024;
const MIN_SPILL_BYTES = 64 * 1024;

/** A frame's header announces more than the limit. */
export class FrameTooLongError extends ConnectionError {
  static override readonly brand: string = "FrameTooLongError";
  /** Length that the header announces. */
  readonly length: number;

  constructor(length: number, limit: number) {
    super(
      "BT_CONNECTION_LOST",
      `the peer announces a frame of ${length} bytes; the limit (maxFrameBytes) is ${limit}`,
    );
    this.length = length;
  }
}

/** Cuts frames out of chunks; see the head of the file for who owns what. */
export class FrameParser {
  /** Width of the length prefix; may be changed between two frames, also from within the callback. */
  headerBytes: 2 | 4;
  /** Longest frame accepted, in bytes; may be changed like `headerBytes`. */
  maxFrameBytes: number;
  readonly #onFrame: (frame: Uint8Array) => void;
  readonly #header = new Uint8Array(4);
  #headerFill = 0;
  /** The frame under way when it spans chunks. */
  #frame: Uint8Array | undefined;
  #frameFill = 0;
  #spill: Uint8Array | undefined;
  #stopped = false;

  constructor(onFrame: (frame: Uint8Array) => void, headerBytes: 2 | 4, maxFrameBytes: number) {
    this.#onFrame = onFrame;
    this.headerBytes = headerBytes;
    this.maxFrameBytes = maxFrameBytes;
  }

  /** Whether a frame, or its header, has begun but not ended. */
  get midFrame(): boolean {
    return this.#frame !== undefined || this.#headerFill > 0;
  }

  /** Frames after this one are not delivered any more. */
  stop(): void {
    this.#stopped = true;
    this.#frame = this.#spill = undefined;
  }

  /**
   * Takes the next chunk and calls back for every frame that it completes.
   * @throws FrameTooLongError and what the callback throws; the parser is of no use afterwards
   */
  push(chunk: Uint8Array): void {
    let at = this.#frame === undefined && this.#headerFill === 0 ? 0 : this.#complete(chunk);
    const end = chunk.length;
    while (at < end && !this.#stopped) {
      const width = this.headerBytes;
      if (end - at < width) {
        this.#header.set(chunk.subarray(at, end));
        this.#headerFill = end - at;
        return;
      }
      const length = this.#check(readLength(chunk, at, width));
      at += width;
      if (end - at < length) {
        this.#begin(length);
        this.#take(chunk, at);
        return;
      }
      at += length;
      this.#onFrame(chunk.subarray(at - length, at));
    }
  }

  /** Continues the header and the frame that earlier chunks began; returns where the rest of the chunk starts. */
  #complete(chunk: Uint8Array): number {
    let at = 0;
    if (this.#frame === undefined) {
      while (this.#headerFill < this.headerBytes && at < chunk.length) {
        this.#header[this.#headerFill++] = chunk[at++] as number;
      }
      if (this.#headerFill < this.headerBytes) return at;
      const length = this.#check(readLength(this.#header, 0, this.headerBytes));
      this.#headerFill = 0;
      if (chunk.length - at >= length) {
        this.#onFrame(chunk.subarray(at, at + length));
        return at + length;
      }
      this.#begin(length);
    }
    return this.#take(chunk, at);
  }

  #begin(length: number): void {
    this.#frameFill = 0;
    if (length > MAX_SPILL_BYTES) {
      // Not zeroed: pages that the peer never fills are never touched.
      this.#frame = Buffer.allocUnsafeSlow(length);
      return;
    }
    if (this.#spill === undefined || this.#spill.length < length) {
      let size = this.#spill?.length ?? MIN_SPILL_BYTES;
      while (size < length) size *= 2;
      this.#spill = Buffer.allocUnsafeSlow(size);
    }
    this.#frame = this.#spill.subarray(0, length);
  }

  /** Copies into the frame under way and delivers it when it is complete. */
  #take(chunk: Uint8Array, at: number): number {
    const frame = this.#frame;
    if (frame === undefined) return at;
    const count = Math.min(frame.length - this.#frameFill, chunk.length - at);
    frame.set(at === 0 && count === chunk.length ? chunk : chunk.subarray(at, at + count), this.#frameFill);
    this.#frameFill += count;
    if (this.#frameFill === frame.length) {
      this.#frame = undefined;
      this.#onFrame(frame);
    }
    return at + count;
  }

  #check(length: number): number {
    if (length > this.maxFrameBytes) throw new FrameTooLongError(length, this.maxFrameBytes);
    return length;
  }
}

function readLength(bytes: Uint8Array, at: number, width: 2 | 4): number {
  const high = ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  if (width === 2) return high;
  return high * 65536 + (((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number));
}
