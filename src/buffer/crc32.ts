/** CRC-32 (IEEE 802.3, as in zlib and PNG). Node's own where there is one (20.15 and later), else by table. */
import * as zlib from "node:zlib";

const TABLE = new Int32Array(256).map((_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = (c & 1) !== 0 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  return c;
});

/** CRC-32 by table. */
export function crc32ByTable(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 0xff]!;
  return ~crc >>> 0;
}

const native = (zlib as { crc32?: (data: Uint8Array) => number }).crc32;

/** CRC-32 of the bytes. */
export const crc32: (bytes: Uint8Array) => number =
  native === undefined ? crc32ByTable : (bytes) => native(bytes) >>> 0;
