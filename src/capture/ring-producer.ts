/**
 * One producer a ring and thread: several traces of one thread write to the same ring by turns, never at the same time.
 * A ring for one producer has one thread at a time: it may go over to another (a worker that has ended), never be fed by two.
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
import { OptionError } from "../erlang/errors";

// By memory: two `RingBuffer`s may be open on the same one.
const producers = new WeakMap<SharedArrayBuffer, RingProducer>();
const feeders = new WeakMap<SharedArrayBuffer, Map<object, number>>();

/** The producer of this thread for a ring; a new one when another thread's has written in between. */
export function producerOf(ring: RingBuffer): RingProducer {
  let producer = producers.get(ring.handle.sab);
  if (producer?.current !== true) {
    producer = ring.producer();
    producers.set(ring.handle.sab, producer);
  }
  return producer;
}

/** What stands for this thread among those that feed rings. */
export const THIS_THREAD: object = {};

/**
 * Notes that a thread feeds a ring, until the returned function is called.
 *
 * @param thread - `THIS_THREAD`, or an object that stands for another one
 * @throws OptionError `BT_RING_INVALID` when another thread feeds it and it is a ring for one producer
 */
export function feedRing(ring: RingBuffer, thread: object): () => void {
  const { sab } = ring.handle;
  const threads = feeders.get(sab) ?? new Map<object, number>();
  if (ring.producers === "single" && threads.size > 0 && !threads.has(thread))
    throw new OptionError(
      "BT_RING_INVALID",
      "into",
      'another thread writes to this ring: make it with producers: "multiple", or use one for each session with a worker',
    );
  feeders.set(sab, threads);
  threads.set(thread, (threads.get(thread) ?? 0) + 1);
  let feeds = true;
  return () => {
    if (!feeds) return;
    feeds = false;
    const left = (threads.get(thread) ?? 1) - 1;
    if (left === 0) threads.delete(thread);
    else threads.set(thread, left);
  };
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
  // When nothing better is known it stands at the event before it, so that time does not run backwards.
  const before = (((producer.first - 1) & producer.mask) * SLOT_WORDS) / 2;
  const stamp =
    Number.isNaN(gap.from) && ring.producers === "single" ? (producer.floats[before + 1] ?? 0) : gap.from;
  producer.words.fill(0, word, word + SLOT_WORDS);
  producer.words[word + SLOT.head] = EVENT_KINDS.gap | (gap.source << 8);
  producer.floats[float + 1] = Number.isNaN(stamp) ? 0 : stamp;
  producer.floats[float + SLOT_GAP.countF64] = gap.count;
  producer.floats[float + SLOT_GAP.fromF64] = gap.from;
  producer.floats[float + SLOT_GAP.toF64] = gap.to;
  producer.words[word + SLOT_GAP.hop] = GAP_HOPS[gap.hop];
  producer.publish();
}
