/**
 * Where decoded slots go: the producer side of a `RingBuffer`, or a `SlotBlock`. What finds no room is counted there, never lost silently.
 * `deliver` moves a message's slots, which were staged by a decoder, and their payload bytes. Gaps and markers are no events: they are not counted
 * but kept, to be delivered with the next message, for else the losses that a gap tells of would be told of no more.
 */
import { EVENT_KINDS, FLAG, SLOT, SLOT_GAP, SLOT_WORDS } from "./event-schema";
import { SlotBlock } from "./slot-block";

/** What is needed of a ring's producer; `RingProducer` is one. */
export interface SlotSink {
  /** All slots of the ring, `(mask + 1) × 16` words. */
  readonly words: Uint32Array;
  /** Number of slots − 1; the number of slots is a power of two. */
  readonly mask: number;
  /** Position of the first slot that the last claim granted; its place in the ring is `first & mask`. */
  readonly first: number;
  /** Claims slots in a row. Returns how many were granted; the rest is not counted. */
  tryClaim(count: number): number;
  /** Copies payload bytes; returns the position for `SLOT.payloadAt`, or −1 when there is no room. */
  writePayload(bytes: Uint8Array, from: number, to: number): number;
  /** Makes the claimed slots visible to readers. */
  publish(): void;
  /** Counts events that found no room. */
  drop(count: number): void;
}

/** Most slots that are claimed at a time: readers can begin before a large message is through. */
const CHUNK = 4096;

/** Most gaps and markers that are kept; what comes on top of them is merged (gaps) or given up (markers). */
const HELD_MAX = 1024;

/**
 * Moves staged slots, whose `payloadAt` is a byte offset within `message`, to a sink. Returns how many were taken.
 * @param hasPayload - false when none of the slots has a payload: then they are not looked at
 * @param held - takes the gaps and markers that found no room
 */
export function deliver(
  staged: SlotBlock,
  message: Uint8Array,
  sink: SlotSink | SlotBlock,
  hasPayload: boolean,
  held: SlotBlock,
): number {
  return sink instanceof SlotBlock
    ? append(staged, message, sink, hasPayload)
    : toRing(staged, message, sink, hasPayload, held);
}

function append(staged: SlotBlock, message: Uint8Array, block: SlotBlock, hasPayload: boolean): number {
  block.reserve(block.count + staged.count);
  const first = block.count * SLOT_WORDS;
  block.words.set(staged.words.subarray(0, staged.count * SLOT_WORDS), first);
  block.count += staged.count;
  if (!hasPayload) return staged.count;
  for (let base = first; base < block.count * SLOT_WORDS; base += SLOT_WORDS) {
    if ((block.words[base + SLOT.flags]! & FLAG.payload) === 0) continue;
    const from = block.words[base + SLOT.payloadAt]!;
    block.addPayload(base, message, from, from + block.words[base + SLOT.payloadBytes]!);
  }
  return staged.count;
}

function toRing(
  staged: SlotBlock,
  message: Uint8Array,
  sink: SlotSink,
  hasPayload: boolean,
  held: SlotBlock,
): number {
  const chunk = Math.min(CHUNK, (sink.mask + 1) >>> 1 || 1);
  let done = 0;
  while (done < staged.count) {
    const wanted = Math.min(chunk, staged.count - done);
    const granted = sink.tryClaim(wanted);
    if (granted > 0) {
      const first = sink.first & sink.mask;
      const untilEnd = Math.min(granted, sink.mask + 1 - first);
      if (hasPayload) movePayloads(staged, done, granted, message, sink);
      copySlots(staged, done, sink, first, untilEnd);
      if (untilEnd < granted) copySlots(staged, done + untilEnd, sink, 0, granted - untilEnd);
      sink.publish();
      done += granted;
    }
    if (granted < wanted) {
      // What came after the drop stays dropped: a reader sees one gap, not holes.
      sink.drop(keepMarks(staged, done, held));
      return done;
    }
  }
  return done;
}

/** Keeps the gaps and markers from a slot on; returns how many of the others there are. */
function keepMarks(staged: SlotBlock, from: number, held: SlotBlock): number {
  let events = 0;
  for (let i = from; i < staged.count; i++) {
    const kind = staged.words[i * SLOT_WORDS]! & 0xff;
    if (kind === EVENT_KINDS.gap) holdGap(staged, i, held);
    else if (kind !== EVENT_KINDS.marker) events++;
    else if (held.count < HELD_MAX) hold(staged, i, held);
  }
  return events;
}

function hold(staged: SlotBlock, i: number, held: SlotBlock): void {
  const base = held.add();
  held.words.set(staged.words.subarray(i * SLOT_WORDS, (i + 1) * SLOT_WORDS), base);
}

/** Gaps of one hop in a row become one. */
function holdGap(staged: SlotBlock, i: number, held: SlotBlock): void {
  const last = (held.count - 1) * SLOT_WORDS;
  const from = i * SLOT_WORDS;
  const same =
    last >= 0 &&
    held.words[last] === staged.words[from] &&
    (held.words[last + SLOT_GAP.hop] === staged.words[from + SLOT_GAP.hop] || held.count >= HELD_MAX);
  if (!same) return hold(staged, i, held);
  held.floats[last / 2 + SLOT_GAP.countF64]! += staged.floats[from / 2 + SLOT_GAP.countF64]!;
  held.floats[last / 2 + SLOT_GAP.toF64] = staged.floats[from / 2 + SLOT_GAP.toF64]!;
}

function copySlots(staged: SlotBlock, from: number, sink: SlotSink, to: number, count: number): void {
  sink.words.set(staged.words.subarray(from * SLOT_WORDS, (from + count) * SLOT_WORDS), to * SLOT_WORDS);
}

/** Copies the payloads of staged slots, for which slots of the ring are claimed, and notes where they are now. */
function movePayloads(
  staged: SlotBlock,
  from: number,
  count: number,
  message: Uint8Array,
  sink: SlotSink,
): void {
  const words = staged.words;
  for (let base = from * SLOT_WORDS; base < (from + count) * SLOT_WORDS; base += SLOT_WORDS) {
    const flags = words[base + SLOT.flags]!;
    if ((flags & FLAG.payload) === 0) continue;
    const at = words[base + SLOT.payloadAt]!;
    const position = sink.writePayload(message, at, at + words[base + SLOT.payloadBytes]!);
    if (position >= 0) words[base + SLOT.payloadAt] = position;
    else words[base + SLOT.flags] = (flags & ~FLAG.payload) | FLAG.payloadLost;
  }
}
