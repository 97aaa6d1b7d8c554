/**
 * Packets with a length of four bytes before each (`{packet, 4}` of Erlang's ports). A packet that is handed out is a view into what was read,
 * valid as long as its holder likes: nothing is written there again.
 */
import { Encoder, type Term } from "../../erlang";

/** Bytes in, packets out. */
export class PacketReader {
  private parts: Buffer[] = [];
  private size = 0;
  private readonly onPacket: (packet: Buffer) => void;
  private readonly maxBytes: number;

  /** @param maxBytes - longest packet that is accepted; `push` throws a RangeError at the length of a longer one. */
  constructor(onPacket: (packet: Buffer) => void, maxBytes = 0xffffffff) {
    this.onPacket = onPacket;
    this.maxBytes = maxBytes;
  }

  /** Bytes of a packet that has not come to its end. */
  get pendingBytes(): number {
    return this.size;
  }

  push(chunk: Buffer): void {
    this.parts.push(chunk);
    this.size += chunk.length;
    while (this.size >= 4) {
      if (this.parts[0]!.length < 4) this.parts = [Buffer.concat(this.parts)];
      const length = this.parts[0]!.readUInt32BE(0);
      if (length > this.maxBytes)
        throw new RangeError(`a packet of ${length} bytes; at most ${this.maxBytes} are accepted`);
      if (this.size < length + 4) return;
      const all = this.parts.length === 1 ? this.parts[0]! : Buffer.concat(this.parts);
      this.parts = [all.subarray(length + 4)];
      this.size -= length + 4;
      this.onPacket(all.subarray(4, length + 4));
    }
  }
}

/** Memory that is kept for the next packet: a large module's forms. */
const KEPT_BYTES = 16 * 1024 * 1024;

/** Terms into packets. */
export class PacketEncoder {
  private readonly encoder = new Encoder();

  /** The packet of an external term, length and all. */
  encode(term: Term): Uint8Array {
    const { encoder } = this;
    encoder.reset(KEPT_BYTES).u32(0).term(term);
    return encoder.patchU32(0, encoder.length - 4).bytes();
  }
}
