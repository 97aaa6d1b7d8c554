import fc from "fast-check";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { from, lastValueFrom, NEVER, startWith, throwError, toArray } from "rxjs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { crc32, crc32ByTable } from "../../src/buffer/crc32";
import { EventBatch } from "../../src/buffer/event-batch";
import { EventFactory } from "../../src/buffer/event-factory";
import { eventsOf, type EventSource } from "../../src/buffer/event-source";
import { record } from "../../src/buffer/record";
import { openRecording, type Recording } from "../../src/buffer/recording";
import { RecordingWriter, type RecordingOptions } from "../../src/buffer/recording-writer";
import type { TraceEvent } from "../../src/buffer/trace-event";
import { fixtureBatch, pieces } from "./support/recording-fixture";

let folder: string;
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), "beamtrace-recording-"))));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
const newPath = () => join(folder, `${files++}.btrec`);

async function recorded(batch: EventBatch, options: RecordingOptions = {}): Promise<string> {
  const writer = new RecordingWriter(newPath(), options);
  for (const part of pieces(batch, 64)) writer.write(part);
  await writer.close();
  return writer.path;
}

const eventsIn = (source: EventSource): Promise<TraceEvent[]> =>
  lastValueFrom(source.events$.pipe(toArray()), { defaultValue: [] });

async function withRecording<T>(path: string, use: (recording: Recording) => Promise<T>): Promise<T> {
  const recording = await openRecording(path);
  try {
    return await use(recording);
  } finally {
    await recording.close();
  }
}

const sourceOf = (batches: EventBatch[]): EventSource => {
  const batches$ = from(batches);
  return { sources: batches[0]!.factory.sources, batches$, events$: eventsOf(batches$) };
};

describe("a recording", () => {
  test("of two rings keeps their nodes apart, though both count sources from 0", async () => {
    const batch = fixtureBatch();
    const source = batch.factory.sources[0]!;
    const other = { ...source, node: "other@127.0.0.1", creation: 77, base: source.base + 5_000_000_000n };
    const { words, floats, payload } = batch;
    const memory = { words, floats, first: 0, count: batch.length, payload };
    const ofOther = new EventBatch(memory, new EventFactory(batch.factory.dictionary, [other]));
    const writer = new RecordingWriter(newPath());
    for (const part of [batch, ofOther, batch]) writer.write(part);
    await writer.close();
    await withRecording(writer.path, async (recording) => {
      expect(recording.sources.map((s) => s.node)).toEqual([source.node, other.node]);
      const events = await eventsIn(recording);
      const nodes = new Set(events.slice(batch.length, 2 * batch.length).map((e) => e.source));
      expect(nodes).toEqual(new Set([1]));
      expect(events.slice(0, batch.length)).toEqual(events.slice(2 * batch.length));
      const named = (of: readonly TraceEvent[]) => of.map((e) => e.process?.node.name);
      const before = named(events.slice(0, batch.length));
      const during = named(events.slice(batch.length, 2 * batch.length));
      expect(during).toEqual(before.map((name) => (name === source.node ? other.node : name)));
    });
  });

  test.each([
    { chunkEvents: 100, compress: true },
    { chunkEvents: 100, compress: false },
    { chunkEvents: 8192, compress: true },
    { chunkEvents: 1, compress: true },
  ])("gives back what was written, %o", async (options) => {
    const batch = fixtureBatch();
    const path = await recorded(batch, options);
    await withRecording(path, async (recording) => {
      expect(recording).toMatchObject({ complete: true, events: batch.length, damage: [] });
      expect(recording.chunks).toBe(Math.ceil(batch.length / options.chunkEvents));
      expect(recording.sources).toEqual(batch.factory.sources);
      expect(await eventsIn(recording)).toEqual(batch.events());
      expect(await eventsIn(recording)).toEqual(batch.events());
    });
  });

  test("keeps one process one object across chunks", async () => {
    const path = await recorded(fixtureBatch(), { chunkEvents: 50 });
    await withRecording(path, async (recording) => {
      const seen = new Map<string, unknown>();
      for (const { process } of await eventsIn(recording)) {
        if (process?.kind !== "pid") continue;
        const key = `${process.id}.${process.serial}`;
        expect(seen.get(key) ?? process).toBe(process);
        seen.set(key, process);
      }
    });
  });

  test("is read by kind and by time", async () => {
    const batch = fixtureBatch();
    const all = batch.events();
    const path = await recorded(batch, { chunkEvents: 40 });
    await withRecording(path, async (recording) => {
      const times = all.map((e) => e.timestamp);
      expect([recording.from, recording.to]).toEqual([Math.min(...times), Math.max(...times)]);
      const middle = times[Math.floor(times.length / 2)]!;
      const end = middle + 50e6;
      expect(await eventsIn(recording.replay({ kinds: ["spawn", "exit"] }))).toEqual(
        all.filter((e) => e.kind === "spawn" || e.kind === "exit"),
      );
      expect(await eventsIn(recording.replay({ from: middle, to: end }))).toEqual(
        all.filter((e) => e.timestamp >= middle && e.timestamp <= end),
      );
      expect(await eventsIn(recording.replay({ to: -1 }))).toEqual([]);
    });
  });

  test("replayed at a pace gives the same events in the same order, and can be stopped", async () => {
    const batch = fixtureBatch().slice(0, 200);
    const path = await recorded(batch, { chunkEvents: 64 });
    await withRecording(path, async (recording) => {
      const span = (recording.to - recording.from) / 1e9;
      expect(await eventsIn(recording.replay({ speed: span * 20 }))).toEqual(batch.events());
      const stop = new AbortController();
      const slow = eventsIn(recording.replay({ speed: span / 3600, signal: stop.signal }));
      stop.abort();
      await expect(slow).rejects.toMatchObject({ code: "BT_ABORTED" });
      expect(() => recording.replay({ speed: 0 })).toThrow(RangeError);
    });
  });

  test("of a file that is closed meanwhile ends with BT_CLOSED", async () => {
    const recording = await openRecording(await recorded(fixtureBatch(), { chunkEvents: 10 }));
    const reading = new Promise((_, reject) => {
      recording.batches$.subscribe({ next: () => void recording.close(), error: reject });
    });
    await expect(reading).rejects.toMatchObject({ code: expect.stringMatching(/BT_CLOSED|EBADF/) as string });
  });

  test("can be empty", async () => {
    const writer = new RecordingWriter(newPath());
    expect(await writer.close()).toMatchObject({ events: 0, chunks: 0, end: { reason: "closed" } });
    await withRecording(writer.path, async (recording) => {
      expect(recording).toMatchObject({ complete: true, events: 0, from: 0, to: 0 });
      expect(await eventsIn(recording)).toEqual([]);
    });
  });

  test("of several nodes and traces keeps their sources apart", async () => {
    const first = fixtureBatch();
    const second = fixtureBatch("phoenix-gc");
    const writer = new RecordingWriter(newPath(), { chunkEvents: 300 });
    writer.write(first);
    writer.write(second.slice(0, 500));
    writer.write(first);
    const summary = await writer.close();
    expect(summary).toMatchObject({ events: first.length * 2 + 500, dropped: 0 });
    await withRecording(writer.path, async (recording) => {
      expect((await eventsIn(recording)).map((e) => e.kind)).toEqual(
        [...first, ...second.slice(0, 500), ...first].map((e) => e.kind),
      );
    });
  });
});

describe("record()", () => {
  test("records a source until it completes, also another recording", async () => {
    const batch = fixtureBatch();
    const path = newPath();
    const summary = await record(sourceOf(pieces(batch, 50)), path, { chunkEvents: 100 });
    expect(summary).toMatchObject({
      events: batch.length,
      dropped: 0,
      end: { reason: "closed" },
      bytes: statSync(path).size,
    });
    const copy = newPath();
    await withRecording(path, (recording) => record(recording, copy));
    await withRecording(copy, async (recording) => expect(await eventsIn(recording)).toEqual(batch.events()));
  });

  test("ends by signal, and fails with the source, but keeps what it has", async () => {
    const batch = fixtureBatch();
    const endless = NEVER.pipe(startWith(batch));
    const stop = new AbortController();
    const path = newPath();
    const running = record({ sources: [], batches$: endless, events$: eventsOf(endless) }, path, {
      signal: stop.signal,
    });
    stop.abort();
    expect(await running).toMatchObject({ events: batch.length });
    const broken = throwError(() => new Error("node went away")).pipe(startWith(batch)) as typeof endless;
    const second = newPath();
    await expect(
      record({ sources: [], batches$: broken, events$: eventsOf(broken) }, second),
    ).rejects.toThrow("went away");
    await withRecording(second, async (recording) => expect(recording.events).toBe(batch.length));
  });

  test("fails where the file can't be written", async () => {
    await expect(
      record(sourceOf([fixtureBatch()]), join(folder, "no", "such", "folder")),
    ).rejects.toMatchObject({
      code: "ENOENT",
    });
  });
});

describe("limits of the writer", () => {
  test("maxBytes ends the recording before the file exceeds it", async () => {
    const batch = fixtureBatch("phoenix-gc");
    const writer = new RecordingWriter(newPath(), { maxBytes: 100_000, chunkEvents: 200, compress: false });
    for (let i = 0; i < 10; i++) writer.write(batch);
    const summary = await writer.finished;
    expect(summary.end).toEqual({ reason: "max-bytes", maxBytes: 100_000 });
    expect(statSync(writer.path).size).toBe(summary.bytes);
    expect(summary.bytes).toBeLessThanOrEqual(100_000);
    expect(writer.write(batch)).toBe(false);
    expect(summary.events + summary.dropped).toBe(batch.length * 10);
    expect(summary.events).toBeGreaterThan(0);
    await withRecording(writer.path, async (recording) =>
      expect((await eventsIn(recording)).length).toBe(summary.events),
    );
  });

  test("a disk that is too slow costs events, not memory, and the file says how many", async () => {
    const batch = fixtureBatch("phoenix-gc");
    const writer = new RecordingWriter(newPath(), { bufferBytes: 1 << 16, chunkEvents: 500 });
    let refused = 0;
    // All in one turn: nothing can be written meanwhile.
    for (let i = 0; i < 20; i++) if (!writer.write(batch)) refused++;
    expect(refused).toBeGreaterThan(10);
    expect(writer.queuedBytes).toBeLessThan(1 << 18);
    await writer.drained();
    writer.write(batch);
    const summary = await writer.close();
    expect(summary.dropped).toBeGreaterThan(0);
    await withRecording(writer.path, async (recording) => {
      const events = await eventsIn(recording);
      const gaps = events.filter((e) => e.kind === "gap");
      expect(gaps.reduce((sum, gap) => sum + gap.count, 0)).toBe(summary.dropped);
      expect(events.length - gaps.length + summary.dropped).toBe(21 * batch.length);
    });
  });

  test("options that can't be meant are refused", () => {
    for (const options of [{ chunkEvents: 0 }, { flushMs: -1 }, { maxBytes: 5 }, { bufferBytes: 0 }]) {
      expect(() => new RecordingWriter(newPath(), options)).toThrow(
        expect.objectContaining({ code: "BT_OPTION_INVALID" }) as Error,
      );
    }
  });
});

describe("damage", () => {
  test("a file that is cut anywhere is read up to there, and says so", async () => {
    const batch = fixtureBatch();
    const all = batch.events();
    const whole = readFileSync(await recorded(batch, { chunkEvents: 60 }));
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), async (length) => {
        const path = newPath();
        writeFileSync(path, whole.subarray(0, length));
        let recording: Recording;
        try {
          recording = await openRecording(path);
        } catch (error) {
          expect(error).toMatchObject({ code: "BT_CORRUPT_RECORDING" });
          expect(length).toBeLessThan(600);
          return;
        }
        const got = await eventsIn(recording);
        const events = got.filter((e) => e.kind !== "gap");
        expect(events).toEqual(all.slice(0, events.length));
        expect(events.length % 60 === 0 || events.length === all.length).toBe(true);
        expect(recording.complete).toBe(false);
        const gaps = got.filter((e) => e.kind === "gap");
        expect(gaps.length).toBe(recording.damage.length);
        for (const gap of gaps) expect(gap.hop).toBe("recording");
        await recording.close();
      }),
      { numRuns: 80 },
    );
  });

  test("changed bytes cost the chunk that they are in, with the exact number of events", async () => {
    const batch = fixtureBatch();
    const all = batch.events();
    const whole = readFileSync(await recorded(batch, { chunkEvents: 60 }));
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const path = newPath();
        const bytes = Buffer.from(whole);
        bytes[at]! ^= flip;
        writeFileSync(path, bytes);
        let recording: Recording;
        try {
          recording = await openRecording(path);
        } catch (error) {
          expect(error).toMatchObject({
            code: expect.stringMatching(/BT_CORRUPT_RECORDING|BT_RECORDING_VERSION/) as string,
          });
          expect(at).toBeLessThan(24);
          return;
        }
        const got = await eventsIn(recording);
        const lost = got.reduce((sum, e) => sum + (e.kind === "gap" ? e.count : 0), 0);
        const events = got.filter((e) => e.kind !== "gap");
        expect(events.length + lost).toBe(all.length);
        expect(lost === 0 || lost === 60 || lost === all.length % 60).toBe(true);
        const stamps = new Set(all.map((e) => JSON.stringify([e.timestamp, e.kind])));
        for (const e of events) expect(stamps.has(JSON.stringify([e.timestamp, e.kind]))).toBe(true);
        if (lost > 0) expect(recording.damage[0]!.offset).toBeLessThanOrEqual(at);
        await recording.close();
      }),
      { numRuns: 150 },
    );
  });

  test("files that are none, and those of a newer version, have errors of their own", async () => {
    const path = newPath();
    writeFileSync(path, "not a recording at all, but long enough to have a header");
    await expect(openRecording(path)).rejects.toMatchObject({ code: "BT_CORRUPT_RECORDING" });
    writeFileSync(path, "");
    await expect(openRecording(path)).rejects.toMatchObject({ code: "BT_CORRUPT_RECORDING" });
    const newer = readFileSync(await recorded(fixtureBatch()));
    newer.writeUInt32LE(3, 8);
    writeFileSync(path, newer);
    await expect(openRecording(path)).rejects.toMatchObject({ code: "BT_RECORDING_VERSION" });
    await expect(openRecording(join(folder, "missing"))).rejects.toMatchObject({ code: "ENOENT" });
  });

  test(
    "after kill -9 everything flushed can be read, also with half a chunk behind it",
    { timeout: 60_000 },
    async () => {
      const path = newPath();
      const code = `
      import { RecordingWriter } from "./src/buffer/recording-writer.ts";
      import { fixtureBatch } from "./test/buffer/support/recording-fixture.ts";
      const batch = fixtureBatch();
      const writer = new RecordingWriter(process.env.RECORDING, { chunkEvents: 100 });
      for (let n = 1; ; n++) {
        writer.write(batch);
        await writer.flush();
        console.log(n);
        await writer.drained();
      }`;
      const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", code], {
        cwd: new URL("../..", import.meta.url),
        env: { ...process.env, RECORDING: path },
        stdio: ["ignore", "pipe", "inherit"],
      });
      let output = "";
      child.stdout.on("data", (chunk: Buffer) => {
        output += chunk.toString();
        if (output.split("\n").length > 5) child.kill("SIGKILL");
      });
      await once(child, "exit");
      const flushed = Number(output.trim().split("\n").at(-1));
      const batch = fixtureBatch();
      const check = (recording: Recording) =>
        eventsIn(recording).then((got) => {
          const events = got.filter((e) => e.kind !== "gap");
          expect(recording.complete).toBe(false);
          expect(events.length).toBeGreaterThanOrEqual((flushed - 1) * batch.length);
          expect(events.slice(0, batch.length)).toEqual(batch.events());
        });
      await withRecording(path, check);
      truncateSync(path, statSync(path).size - 100);
      await withRecording(path, async (recording) => {
        await check(recording);
        expect(recording.damage).toMatchObject([{ reason: "cut off" }]);
      });
    },
  );
});

test("both ways to compute a CRC-32 agree", () => {
  expect(crc32(new TextEncoder().encode("123456789"))).toBe(0xcbf43926);
  fc.assert(fc.property(fc.uint8Array(), (bytes) => crc32ByTable(bytes) === crc32(bytes)));
});

test("the bundled demo recording is whole", async () => {
  const path = new URL("../../assets/demo.btrec", import.meta.url).pathname;
  await withRecording(path, async (recording) => {
    expect(recording).toMatchObject({
      complete: true,
      damage: [],
      sources: [{ node: "shop@127.0.0.1", otp: "27" }],
    });
    const events = await eventsIn(recording);
    expect(events.length).toBe(recording.events);
    expect(events.filter((e) => e.kind === "marker").map((e) => e.name)).toEqual(Array(5).fill("segment"));
    expect(
      events.every((e, i) => i === 0 || e.kind !== "marker" || e.timestamp >= events[i - 1]!.timestamp),
    ).toBe(true);
  });
});
