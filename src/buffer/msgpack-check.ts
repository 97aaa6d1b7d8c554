/**
 * Looks through MessagePack bytes before they are unpacked: only the types that the codec writes, and no count that the bytes can't hold.
 * So hostile bytes can't make the unpacker allocate what they don't contain, nest without end, or build objects of extension types.
 */
import { BeamtraceError } from "../erlang/errors";

const MAX_DEPTH = 8;

/** @throws BeamtraceError `BT_CODEC_INVALID` unless the bytes are one value of nil, booleans, numbers, strings, binaries and arrays. */
export function checkMsgpack(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    const end = value(view, 0, 0);
    if (end !== bytes.length) throw invalid(end, "more bytes than one value");
  } catch (error) {
    if (error instanceof RangeError) throw invalid(bytes.length, "cut off");
    throw error;
  }
}

/** Steps over the value at `at`; returns where it ends. */
function value(view: DataView, at: number, depth: number): number {
  const head = view.getUint8(at);
  if (head < 0x80 || head >= 0xe0) return at + 1;
  if (head >= 0x90 && head < 0xa0) return array(view, at + 1, head & 15, depth);
  if (head >= 0xa0 && head < 0xc0) return bounded(view, at + 1 + (head & 31));
  switch (head) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
      return at + 1;
    case 0xc4:
    case 0xd9:
      return bounded(view, at + 2 + view.getUint8(at + 1));
    case 0xc5:
    case 0xda:
      return bounded(view, at + 3 + view.getUint16(at + 1));
    case 0xc6:
    case 0xdb:
      return bounded(view, at + 5 + view.getUint32(at + 1));
    case 0xca:
    case 0xce:
    case 0xd2:
      return bounded(view, at + 5);
    case 0xcb:
    case 0xcf:
    case 0xd3:
      return bounded(view, at + 9);
    case 0xcc:
    case 0xd0:
      return bounded(view, at + 2);
    case 0xcd:
    case 0xd1:
      return bounded(view, at + 3);
    case 0xdc:
      return array(view, at + 3, view.getUint16(at + 1), depth);
    case 0xdd:
      return array(view, at + 5, view.getUint32(at + 1), depth);
    default:
      throw invalid(at, `type 0x${head.toString(16)}`);
  }
}

function array(view: DataView, from: number, count: number, depth: number): number {
  if (depth >= MAX_DEPTH) throw invalid(from, "nested too deep");
  if (count > view.byteLength - from) throw invalid(from, "array longer than the bytes");
  let at = from;
  for (let i = 0; i < count; i++) at = value(view, at, depth + 1);
  return at;
}

function bounded(view: DataView, end: number): number {
  if (end > view.byteLength) throw invalid(view.byteLength, "cut off");
  return end;
}

function invalid(at: number, what: string): BeamtraceError {
  return new BeamtraceError("BT_CODEC_INVALID", `Encoded events are damaged at byte ${at}: ${what}`);
}
