/**
 * The ring against a model that is a plain array: whatever is claimed, published, dropped, polled and released in whatever order,
 * every reader gets the same records and the same gaps at the same places as the model says.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RING_ORIGIN, RingBuffer } from "../../src/buffer/ring-buffer";
import type { RingBufferOptions } from "../../src/buffer/ring-buffer";
import type { RingProducer } from "../../src/buffer/ring/producer";
import type { RingReader } from "../../src/buffer/ring/reader";
import { checkRecord, fillRecord } from "./ring-records";

/** What a model reader still has to get: record numbers, and gaps between them. */
type Item = { readonly record: number } | { gap: number };

class ModelReader {
  readonly queue: Item[] = [];
  /** Records in the queue that were handed out or copied: these can't be overwritten any more. */
  held = 0;
  read = 0;
  lapped = 0;
  constructor(readonly joinedAt: number) {}

  addGap(n: number, at = this.queue.length): void {
    if (n === 0) return;
    const before = this.queue[at - 1];
    const after = this.queue[at];
    if (before !== undefined && "gap" in before) before.gap += n;
    else if (after !== undefined && "gap" in after) after.gap += n;
    else this.queue.splice(at, 0, { gap: n });
    // What lay between two gaps may be gone.
    if (before !== undefined && after !== undefined && "gap" in before && "gap" in after) {
      before.gap += after.gap;
      this.queue.splice(at, 1);
    }
  }
}

const ORIGINS = [0n, 2n ** 30n - 5n, 2n ** 31n - 9n, 2n ** 32n - 7n, 2n ** 53n - 11n, 2n ** 60n - 3n];

const command = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("write" as const), n: fc.integer({ min: 1, max: 40 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("claim" as const), n: fc.integer({ min: 1, max: 20 }) }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("publish" as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("push" as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("drop" as const), n: fc.integer({ min: 1, max: 5 }) }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("poll" as const),
      reader: fc.nat(2),
      max: fc.integer({ min: 1, max: 50 }),
      keep: fc.nat(3),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("next" as const),
      reader: fc.nat(2),
      n: fc.integer({ min: 1, max: 30 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("join" as const), latest: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("leave" as const), reader: fc.nat(2) }) },
);

const shape = fc.record({
  capacity: fc.constantFrom(1, 2, 4, 16, 64),
  origin: fc.constantFrom(...ORIGINS),
  producers: fc.constantFrom("single" as const, "multiple" as const),
});

function makeRing(options: RingBufferOptions, origin: bigint): RingBuffer {
  return new RingBuffer({ ...options, [RING_ORIGIN]: { position: origin } } as RingBufferOptions);
}

describe.each(["drop-newest", "overwrite-oldest"] as const)("%s", (overflow) => {
  it("does what an array does", () => {
    fc.assert(
      fc.property(
        shape,
        fc.array(command, { maxLength: 80 }),
        ({ capacity, origin, producers }, commands) => {
          new Run(overflow, capacity, origin, producers).run(commands);
        },
      ),
      { numRuns: 1500 },
    );
  });
});

type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;

class Run {
  private readonly ring: RingBuffer;
  private readonly producer: RingProducer;
  private readonly readers: { real: RingReader; model: ModelReader }[] = [];
  /** Everything that happened. */
  private readonly history = new ModelReader(0);
  private written = 0;
  private dropped = 0;
  /** Numbers claimed but not published, and what was dropped after them. */
  private claimed: number[] = [];
  private heldBack = 0;

  constructor(
    private readonly overflow: "drop-newest" | "overwrite-oldest",
    private readonly capacity: number,
    origin: bigint,
    producers: "single" | "multiple",
  ) {
    this.ring = makeRing({ capacity, overflow, producers, payloadBytes: 0 }, origin);
    this.producer = this.ring.producer();
    this.join("oldest");
  }

  run(commands: readonly Command[]): void {
    for (const c of commands) {
      switch (c.do) {
        case "write":
          this.claim(c.n);
          this.publish();
          break;
        case "claim":
          this.claim(c.n);
          break;
        case "publish":
          this.publish();
          break;
        case "push":
          this.push();
          break;
        case "drop":
          this.producer.drop(c.n);
          this.drop(c.n);
          break;
        case "poll":
          this.poll(c.reader, c.max, c.keep);
          break;
        case "next":
          this.next(c.reader, c.n);
          break;
        case "join":
          if (this.readers.length < 3) this.join(c.latest ? "latest" : "oldest");
          break;
        case "leave":
          if (this.readers.length > 1)
            this.readers.splice(c.reader % this.readers.length, 1)[0]?.real.close();
          break;
      }
      this.checkStats();
    }
    this.publish();
    for (let i = 0; i < this.readers.length; i++) this.drain(i);
    this.checkStats();
  }

  private models(): ModelReader[] {
    return [this.history, ...this.readers.map(({ model }) => model)];
  }

  private room(): number {
    const used =
      this.overflow === "overwrite-oldest"
        ? 0
        : Math.max(0, ...this.readers.map((r) => this.written - r.real.position + this.shownLag(r)));
    return this.capacity - used - this.claimed.length;
  }

  /** `next` may show its progress late; the model is told by how much. */
  private shownLag(r: { real: RingReader }): number {
    const shown = this.ring.stats().readers.find((s) => s.index === r.real.index);
    return shown === undefined ? 0 : r.real.position - (shown.joinedAt + shown.read + shown.dropped);
  }

  private claim(n: number): void {
    const room = Math.max(0, this.room());
    const granted = this.producer.claim(n);
    expect(granted).toBe(Math.min(n, room));
    for (let i = 0; i < granted; i++) {
      fillRecord(
        this.producer.words,
        ((this.producer.first + i) & this.producer.mask) * 16,
        this.nextNumber(),
      );
      this.claimed.push(this.nextNumber());
    }
    this.overwriteOld();
    this.drop(n - granted);
  }

  private nextNumber(): number {
    return this.written + this.claimed.length;
  }

  private push(): void {
    const fits = this.room() > 0;
    const source = new Uint32Array(20);
    fillRecord(source, 3, this.nextNumber());
    expect(this.producer.push(source, 3)).toBe(fits);
    if (fits) {
      this.claimed.push(this.nextNumber());
      this.overwriteOld();
      this.publish(true);
    } else this.drop(1);
  }

  private publish(done = false): void {
    if (!done) this.producer.publish();
    for (const record of this.claimed) for (const model of this.models()) model.queue.push({ record });
    this.written += this.claimed.length;
    this.claimed = [];
    const late = this.heldBack;
    this.heldBack = 0;
    this.drop(late);
  }

  private drop(n: number): void {
    if (this.claimed.length > 0) {
      this.heldBack += n;
      return;
    }
    this.dropped += n;
    for (const model of this.models()) model.addGap(n);
  }

  /** Overwritten records become gaps, unless a reader has copied them. */
  private overwriteOld(): void {
    if (this.overflow === "drop-newest") return;
    const oldest = this.written + this.claimed.length - this.capacity;
    for (const { model } of this.readers) {
      let records = 0;
      for (let i = 0; i < model.queue.length; i++) {
        const item = model.queue[i] as Item;
        if ("gap" in item) continue;
        if (item.record >= oldest) break;
        if (records++ < model.held) continue;
        model.queue.splice(i, 1);
        model.lapped++;
        model.addGap(1, i);
        i = -1;
        records = 0;
      }
    }
  }

  private join(from: "oldest" | "latest"): void {
    const real = this.ring.reader({ from });
    const model = new ModelReader(real.position);
    if (from === "latest") expect(real.position).toBe(this.written);
    model.queue.push(...this.historyFrom(real.position, from));
    this.readers.push({ real, model });
  }

  /** A late reader gets the gaps after its first record; one that starts with the ring's first record gets all. */
  private historyFrom(position: number, from: "oldest" | "latest"): Item[] {
    if (position === 0 && from === "oldest") return this.history.queue.map((item) => ({ ...item }));
    const at = this.history.queue.findIndex((item) => "record" in item && item.record === position);
    return at === -1 ? [] : this.history.queue.slice(at).map((item) => ({ ...item }));
  }

  private poll(index: number, max: number, keep: number): void {
    const { real, model } = this.readers[index % this.readers.length]!;
    const n = real.poll(max);
    this.takeGap(model, real.gap);
    // Nothing may be held back but for the end of the queue, the next gap, or (copies) what was copied before.
    const expected = this.run1(model);
    if (this.overflow === "drop-newest") expect(n).toBe(Math.min(max, expected));
    else expect(n).toBeLessThanOrEqual(Math.min(max, expected));
    expect(n > 0 || expected === 0).toBe(true);
    for (let i = 0; i < n; i++) {
      const item = model.queue[i] as { record: number };
      checkRecord(real.words, ((real.start + i) & real.mask) * 16, item.record);
    }
    expect(real.contiguous(n)).toBeLessThanOrEqual(n);
    const release = Math.max(0, n - keep);
    real.release(release);
    model.queue.splice(0, release);
    model.read += release;
    model.held = this.overflow === "drop-newest" ? 0 : this.copied(real);
  }

  /** How many of the next records the reader has copied already: visible as those that a poll hands out without looking at the ring. */
  private copied(real: RingReader): number {
    return (real as unknown as { available: number }).available;
  }

  private next(index: number, n: number): void {
    const { real, model } = this.readers[index % this.readers.length]!;
    for (let i = 0; i < n; i++) {
      const at = real.next();
      this.takeGap(model, real.gap);
      if (at === -1) {
        expect(this.run1(model)).toBe(0);
        break;
      }
      const item = model.queue.shift() as { record: number };
      checkRecord(real.words, at, item.record);
      model.read++;
    }
    model.held = this.overflow === "drop-newest" ? 0 : this.copied(real);
  }

  private drain(index: number): void {
    const { real, model } = this.readers[index]!;
    for (;;) {
      const n = real.poll(7);
      this.takeGap(model, real.gap);
      for (let i = 0; i < n; i++) {
        const item = model.queue.shift() as { record: number };
        checkRecord(real.words, ((real.start + i) & real.mask) * 16, item.record);
      }
      real.release(n);
      model.read += n;
      if (n === 0) break;
    }
    expect(model.queue).toEqual([]);
  }

  private takeGap(model: ModelReader, gap: number): void {
    if (gap === 0) {
      expect(model.queue[0] ?? { record: 0 }).toHaveProperty("record");
      return;
    }
    expect(model.queue[0]).toEqual({ gap });
    model.queue.shift();
  }

  /** Records before the next gap. */
  private run1(model: ModelReader): number {
    const gap = model.queue.findIndex((item) => "gap" in item);
    return gap === -1 ? model.queue.length : gap;
  }

  private checkStats(): void {
    const stats = this.ring.stats();
    expect(stats.written).toBe(this.written);
    expect(stats.dropped).toBe(this.dropped);
    for (const { real, model } of this.readers) {
      const reader = stats.readers.find(({ index }) => index === real.index)!;
      expect(reader.joinedAt).toBe(model.joinedAt);
      expect(stats.written - reader.joinedAt).toBe(reader.read + reader.dropped + reader.pending);
      expect(Math.min(reader.read, reader.dropped, reader.pending)).toBeGreaterThanOrEqual(0);
      // `next` may show its progress late, never early.
      expect(reader.read).toBeLessThanOrEqual(model.read);
      expect(reader.dropped).toBe(model.lapped);
    }
  }
}
