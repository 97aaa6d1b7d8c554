/**
 * Slots packed column by column: most words of a slot are zero, constant or small for hundreds of events, so a column takes a byte, or one or two
 * bytes an event, instead of four. Time stamps (words 2 and 3) travel as differences when those are small whole numbers. Exact in every bit.
 *
 * Layout: for each of 16 words one mode byte and its data, little-endian; words 2 and 3 together. Modes: 0 all zero; 1 constant (u32);
 * 2 u8, 3 u16, 4 u32 for each event; for the stamps 5 float64 for each event, 6 first stamp (float64) and i32 differences.
 */
import { BeamtraceError } from "../erlang/errors";
import { SLOT, SLOT_WORDS } from "./event-schema";
import { SlotBlock } from "./slot-block";

const enum Mode {
  zero,
  constant,
  u8,
  u16,
  u32,
  f64,
  i32Deltas,
}

/** Most slots of one packed block; bounds what hostile bytes can make a reader allocate to 64 MiB. */
export const MAX_PACKED_SLOTS = 1 << 20;

/** Bytes that `count` slots take at most. */
function maxBytes(count: number): number {
  return SLOT_WORDS * (1 + 4 * count) + 16;
}

/** Packs the slots of a block. */
export function packSlots(block: SlotBlock): Uint8Array {
  const { words, floats, count } = block;
  const out = new Uint8Array(maxBytes(count));
  const view = new DataView(out.buffer);
  let at = 0;
  for (let column = 0; column < SLOT_WORDS; column++) {
    if (column === SLOT.timestamp + 1) continue;
    at =
      column === SLOT.timestamp
        ? packStamps(floats, count, out, view, at)
        : packWord(words, count, column, out, view, at);
  }
  return out.slice(0, at);
}

function packWord(
  words: Uint32Array,
  count: number,
  column: number,
  out: Uint8Array,
  view: DataView,
  start: number,
): number {
  const end = count * SLOT_WORDS;
  const first = count > 0 ? words[column]! : 0;
  let all = 0;
  let differs = 0;
  for (let i = column; i < end; i += SLOT_WORDS) {
    const word = words[i]!;
    all |= word;
    differs |= word ^ first;
  }
  let at = start;
  if (all === 0) {
    out[at++] = Mode.zero;
  } else if (differs === 0) {
    out[at++] = Mode.constant;
    view.setUint32(at, first, true);
    at += 4;
  } else if (all >>> 8 === 0) {
    out[at++] = Mode.u8;
    for (let i = column; i < end; i += SLOT_WORDS) out[at++] = words[i]!;
  } else if (all >>> 16 === 0) {
    out[at++] = Mode.u16;
    for (let i = column; i < end; i += SLOT_WORDS, at += 2) view.setUint16(at, words[i]!, true);
  } else {
    out[at++] = Mode.u32;
    for (let i = column; i < end; i += SLOT_WORDS, at += 4) view.setUint32(at, words[i]!, true);
  }
  return at;
}

function packStamps(
  floats: Float64Array,
  count: number,
  out: Uint8Array,
  view: DataView,
  start: number,
): number {
  let at = start;
  let deltas = count > 0 && Number.isSafeInteger(floats[1]!);
  for (let i = 1; deltas && i < count; i++) {
    const delta = floats[i * 8 + 1]! - floats[i * 8 - 7]!;
    deltas = delta === (delta | 0) && Number.isSafeInteger(floats[i * 8 + 1]!);
  }
  if (deltas) {
    out[at++] = Mode.i32Deltas;
    view.setFloat64(at, floats[1]!, true);
    at += 8;
    for (let i = 1; i < count; i++, at += 4) view.setInt32(at, floats[i * 8 + 1]! - floats[i * 8 - 7]!, true);
    return at;
  }
  out[at++] = Mode.f64;
  for (let i = 0; i < count; i++, at += 8) view.setFloat64(at, floats[i * 8 + 1]!, true);
  return at;
}

/**
 * Unpacks `count` slots into an empty block.
 * @throws BeamtraceError `BT_CODEC_INVALID` when the bytes are not the packed form of so many slots
 */
export function unpackSlots(bytes: Uint8Array, count: number): SlotBlock {
  if (!(count >= 0 && count <= MAX_PACKED_SLOTS)) throw invalid(`${count} events`);
  const block = new SlotBlock(count);
  block.count = count;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    let at = 0;
    for (let column = 0; column < SLOT_WORDS; column++) {
      if (column === SLOT.timestamp + 1) continue;
      at =
        column === SLOT.timestamp
          ? unpackStamps(view, at, count, block.floats)
          : unpackWord(view, at, count, block.words, column);
    }
    if (at !== bytes.length) throw invalid(`${bytes.length - at} bytes too many`);
  } catch (error) {
    if (error instanceof RangeError) throw invalid("columns are cut off");
    throw error;
  }
  return block;
}

function unpackWord(
  view: DataView,
  start: number,
  count: number,
  words: Uint32Array,
  column: number,
): number {
  const end = count * SLOT_WORDS;
  let at = start + 1;
  const mode = view.getUint8(start) as Mode;
  switch (mode) {
    case Mode.zero:
      return at;
    case Mode.constant: {
      const word = view.getUint32(at, true);
      for (let i = column; i < end; i += SLOT_WORDS) words[i] = word;
      return at + 4;
    }
    case Mode.u8:
      for (let i = column; i < end; i += SLOT_WORDS) words[i] = view.getUint8(at++);
      return at;
    case Mode.u16:
      for (let i = column; i < end; i += SLOT_WORDS, at += 2) words[i] = view.getUint16(at, true);
      return at;
    case Mode.u32:
      for (let i = column; i < end; i += SLOT_WORDS, at += 4) words[i] = view.getUint32(at, true);
      return at;
    default:
      throw invalid(`column mode ${mode}`);
  }
}

function unpackStamps(view: DataView, start: number, count: number, floats: Float64Array): number {
  let at = start + 1;
  const mode = view.getUint8(start) as Mode;
  if (mode === Mode.f64) {
    for (let i = 0; i < count; i++, at += 8) floats[i * 8 + 1] = view.getFloat64(at, true);
    return at;
  }
  if (mode !== Mode.i32Deltas || count === 0) throw invalid(`mode ${mode} of time stamps`);
  let stamp = view.getFloat64(at, true);
  floats[1] = stamp;
  at += 8;
  for (let i = 1; i < count; i++, at += 4) {
    stamp += view.getInt32(at, true);
    floats[i * 8 + 1] = stamp;
  }
  return at;
}

function invalid(what: string): BeamtraceError {
  return new BeamtraceError("BT_CODEC_INVALID", `Packed events are damaged: ${what}`);
}
