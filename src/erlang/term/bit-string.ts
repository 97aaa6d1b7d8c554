/** Bit strings whose length is no whole number of bytes. Those that are whole bytes are binaries: plain `Uint8Array`s. */
import { BeamtraceError } from "../errors";

/** An Erlang bit string such as `<<5:3>>`. The used bits of the last byte are its most significant ones. */
export class BitString {
  readonly bytes: Uint8Array;
  /** Bits used in the last byte, 1–7. */
  readonly bits: number;

  constructor(bytes: Uint8Array, bits: number) {
    if (bytes.length === 0 || !Number.isInteger(bits) || bits < 1 || bits > 7) {
      throw new BeamtraceError(
        "BT_NOT_ENCODABLE",
        "a bit string has at least one byte and 1 to 7 bits in its last one; whole bytes are a Uint8Array",
      );
    }
    this.bytes = bytes;
    this.bits = bits;
  }

  get kind(): "bitstring" {
    return "bitstring";
  }

  /** Length in bits. */
  get bitLength(): number {
    return (this.bytes.length - 1) * 8 + this.bits;
  }
}
