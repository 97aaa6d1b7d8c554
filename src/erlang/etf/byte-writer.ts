/** A growing byte buffer, big-endian. Fields are public to the encoder above it so that its hot loop can write in place. */

const INITIAL_BYTES = 1024;

export class ByteWriter {
  protected buffer: Uint8Array;
  protected used = 0;

  constructor(initialBytes = INITIAL_BYTES) {
    this.buffer = new Uint8Array(Math.max(16, initialBytes));
  }

  /** Bytes written so far. */
  get length(): number {
    return this.used;
  }

  /** Makes room for `bytes` more and returns where they start. */
  protected reserve(bytes: number): number {
    const at = this.used;
    const needed = at + bytes;
    if (needed > this.buffer.length) this.grow(needed);
    this.used = needed;
    return at;
  }

  private grow(needed: number): void {
    const larger = new Uint8Array(Math.max(needed, this.buffer.length * 2));
    larger.set(this.buffer.subarray(0, this.used));
    this.buffer = larger;
  }

  u8(value: number): this {
    const at = this.reserve(1);
    this.buffer[at] = value;
    return this;
  }

  u16(value: number): this {
    const at = this.reserve(2);
    this.buffer[at] = value >>> 8;
    this.buffer[at + 1] = value;
    return this;
  }

  u32(value: number): this {
    const at = this.reserve(4);
    this.putU32(at, value);
    return this;
  }

  /** Overwrites four bytes that were written before, such as a length that is known only afterwards. */
  patchU32(at: number, value: number): this {
    this.putU32(at, value);
    return this;
  }

  raw(bytes: Uint8Array): this {
    const at = this.reserve(bytes.length);
    this.buffer.set(bytes, at);
    return this;
  }

  /** A copy of what was written. */
  bytes(): Uint8Array {
    return this.buffer.slice(0, this.used);
  }

  /** What was written, without copying; valid until the next write or `reset`. */
  view(): Uint8Array {
    return this.buffer.subarray(0, this.used);
  }

  /** Starts again at zero; keeps the memory up to `keepBytes`. */
  reset(keepBytes = Infinity): this {
    this.used = 0;
    if (this.buffer.length > keepBytes) this.buffer = new Uint8Array(INITIAL_BYTES);
    return this;
  }

  protected putU32(at: number, value: number): void {
    const { buffer } = this;
    buffer[at] = value >>> 24;
    buffer[at + 1] = value >>> 16;
    buffer[at + 2] = value >>> 8;
    buffer[at + 3] = value;
  }
}
