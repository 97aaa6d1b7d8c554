/**
 * One producer a ring and thread: several traces of one thread write to the same ring by turns, never at the same time.
 */
import {
  EVENT_KINDS,
  GAP_HOPS,
  SLOT,
  SLOT_GAP,
  SLOT_WORDS,
  type GapHop,
  type RingBuffer,
  type RingProducer,
} from "../buffer";

const producers = new WeakMap<RingBuffer, RingProducer>();

/** The producer of this thread for a ring. */
export function producerOf(ring: RingBuffer): RingProducer {
  let producer = producers.get(ring);
  if (producer === undefined) {
    producer = ring.producer();
    producers.set(ring, producer);
  }
  return producer;
}

/** A loss that this side knows of. `count` 0: how many can't be known; stamps NaN: when can't be known. */
export interface KnownGap {
  readonly source: number;
  readonly hop: GapHop;
  readonly count: number;
  readonly from: number;
  readonly to: number;
}

/** Writes a gap event. */
export function writeGap(ring: RingBuffer, gap: KnownGap): void {
  const producer = producerOf(ring);
  if (producer.claim(1) === 0) return; // counted by the ring, and told as a gap of its own
  const word = (producer.first & producer.mask) * SLOT_WORDS;
  const float = word / 2;
  producer.words.fill(0, word, word + SLOT_WORDS);
  producer.words[word + SLOT.head] = EVENT_KINDS.gap | (gap.source << 8);
  producer.floats[float + 1] = Number.isNaN(gap.from) ? 0 : gap.from;
  producer.floats[float + SLOT_GAP.countF64] = gap.count;
  producer.floats[float + SLOT_GAP.fromF64] = gap.from;
  producer.floats[float + SLOT_GAP.toF64] = gap.to;
  producer.words[word + SLOT_GAP.hop] = GAP_HOPS[gap.hop];
  producer.publish();
}
