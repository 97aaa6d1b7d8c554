/** Two Duplex streams, each of which reads what the other writes. */
import { Duplex } from "node:stream";

class End extends Duplex {
  other: End | undefined;

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    this.other?.push(chunk);
    callback();
  }

  override _final(callback: () => void): void {
    this.other?.push(null);
    callback();
  }
}

export function duplexPair(): [Duplex, Duplex] {
  const a = new End();
  const b = new End();
  a.other = b;
  b.other = a;
  return [a, b];
}
