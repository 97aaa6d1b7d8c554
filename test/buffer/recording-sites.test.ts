/** Recordings keep what the sites of their events stand for: once, of the right version, known in time or late, also for another process. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lastValueFrom, toArray } from "rxjs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  Dictionary,
  EventBatch,
  EventFactory,
  EventWriter,
  openRecording,
  record,
  type Recording,
  RecordingWriter,
  siteNumber,
  SlotBlock,
  type SiteTable,
  type SourceInfo,
  type Timestamp,
  type TraceEvent,
} from "../../src/buffer";
import { crc32 } from "../../src/buffer/crc32";
import {
  CHUNK_HEADER_BYTES,
  decodeChunkHeader,
  encodeChunkHeader,
  padded,
} from "../../src/buffer/recording-format";
import { atom, encode, Pid, type Term, tuple } from "../../src/erlang";
import { callbacks } from "../../src/transform";
import { siteTableFor } from "./support/site-table";

let folder: string;
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), "beamtrace-recording-sites-"))));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newPath = () => join(folder, `${files++}.btrec`);

const SOURCES: SourceInfo[] = [{ node: "n@h", creation: 1, otp: "27", base: 0n, timeOffset: 0n }];
const process_ = new Pid(atom("n@h"), 5, 0, 1);
const table = siteTableFor("m", ["f", "g"]);
const later = siteTableFor("m", ["e", "f", "g"]);
const other = siteTableFor("o", ["h"]);

let clock = 0;
const entry = (of: SiteTable, id = 0): TraceEvent => ({
  ...{ kind: "function_entry", timestamp: clock++ as Timestamp, source: 0, scheduler: undefined },
  ...{ process: process_, callId: 2, module: of.module, siteNumber: siteNumber(of.version, id) },
  ...{ site: undefined, shape: { type: "none", size: 0, tags: [] }, payload: undefined },
});
const calledBack = (fn: "called_back" | "locals_at", payload: Term): TraceEvent => ({
  ...{ kind: "call", timestamp: clock++ as Timestamp, source: 0, scheduler: undefined, process: process_ },
  mfa: { module: "beamtrace_rt", function: fn, arity: fn === "called_back" ? 4 : 3 },
  ...{ shape: { type: "args", size: 4, tags: [] }, caller: undefined, payload },
});

const batchOf = (dictionary: Dictionary, ...events: TraceEvent[]): EventBatch => {
  const block = new SlotBlock(events.length);
  const writer = new EventWriter(dictionary, SOURCES, block);
  for (const event of events) writer.write(event);
  return EventBatch.of(block, new EventFactory(dictionary, SOURCES));
};

async function opened<T>(path: string, use: (recording: Recording) => Promise<T>): Promise<T> {
  await using recording = await openRecording(path);
  return await use(recording);
}
const eventsOf = (recording: Recording): Promise<TraceEvent[]> =>
  lastValueFrom(recording.events$.pipe(toArray()));
/** `Function:line` of each event, `-` where nothing is known. */
const placesIn = (path: string): Promise<string[]> =>
  opened(path, async (recording) =>
    (await eventsOf(recording)).map((event) =>
      "site" in event && event.site !== undefined
        ? `${event.site.function}:${event.site.line}`
        : event.kind === "gap"
          ? "gap"
          : "-",
    ),
  );
/** Offsets of the chunks that hold tables; the index repeats their headers, without a body behind them. */
function siteChunks(bytes: Uint8Array): number[] {
  const found: number[] = [];
  for (let at = 0; at < bytes.length; at += 8) {
    const header = decodeChunkHeader(bytes, at);
    const body = at + CHUNK_HEADER_BYTES;
    if (header?.holds === "sites" && crc32(bytes.subarray(body, body + header.bodyBytes)) === header.bodyCrc)
      found.push(at);
  }
  return found;
}

async function written(
  dictionary: Dictionary,
  batches: readonly EventBatch[],
  chunkEvents = 2,
): Promise<string> {
  const writer = new RecordingWriter(newPath(), { chunkEvents });
  for (const batch of batches) writer.write(batch);
  await writer.close();
  return writer.path;
}

describe("a recording", () => {
  test("has the sites of the versions of modules that its events name, and no others, each once", async () => {
    const dictionary = new Dictionary();
    for (const one of [table, later, other, siteTableFor("unused", ["u"])]) dictionary.sites.add(one);
    const events = [
      entry(table),
      entry(table, 3),
      entry(later),
      entry(other, 1),
      entry(table, 2),
      entry(later, 4),
    ];
    const path = await written(dictionary, [batchOf(dictionary, ...events), batchOf(dictionary, ...events)]);
    const places = ["f:1", "g:2", "e:1", "h:1", "g:2", "g:3"];
    expect(await placesIn(path)).toEqual([...places, ...places]);
    await opened(path, async (recording) => {
      expect(recording).toMatchObject({
        complete: true,
        damage: [],
        events: 12,
        chunks: 6,
        from: recording.from,
      });
      await eventsOf(recording);
      expect(recording.sites.tables).toHaveLength(3);
      expect(recording.sites.tables).toEqual(expect.arrayContaining([table, later, other]));
    });
    expect(siteChunks(readFileSync(path))).toHaveLength(3);
  });

  test("gives the site of each event that it gives, whatever part of it is read", async () => {
    const dictionary = new Dictionary();
    dictionary.sites.add(table);
    const path = await written(
      dictionary,
      [batchOf(dictionary, entry(table), entry(table), entry(table, 2))],
      1,
    );
    await opened(path, async (recording) => {
      const [last] = await lastValueFrom(recording.replay({ from: recording.to }).events$.pipe(toArray()));
      expect(last).toMatchObject({ site: table.sites[2] });
    });
  });

  test("that could not learn of a version has numbers only, never the sites of another", async () => {
    const dictionary = new Dictionary();
    dictionary.sites.add(table);
    const path = await written(dictionary, [batchOf(dictionary, entry(later, 0), entry(table, 0))]);
    expect(await placesIn(path)).toEqual(["-", "f:1"]);
  });

  test("has sites that were known only later, and asks for them without an event object being made", async () => {
    const dictionary = new Dictionary();
    const asked: number[] = [];
    let answer!: () => void;
    dictionary.sites.onMissing(0, (module, version) => {
      asked.push(module, version);
      return new Promise<void>((resolve) => (answer = resolve));
    });
    const writer = new RecordingWriter(newPath(), { chunkEvents: 1 });
    writer.write(batchOf(dictionary, entry(table), entry(table, 2)));
    await writer.flush();
    expect(asked).toEqual([dictionary.atomId("m"), table.version]);
    // It ends while the answer is on its way.
    const closed = writer.close();
    setImmediate(() => {
      dictionary.sites.add(table);
      answer();
    });
    await closed;
    expect(await placesIn(writer.path)).toEqual(["f:1", "g:2"]);
  });

  test("of another recording has its sites too", async () => {
    const dictionary = new Dictionary();
    dictionary.sites.add(table);
    const path = await written(dictionary, [batchOf(dictionary, entry(table))]);
    const copy = newPath();
    await opened(path, (recording) => record(recording, copy));
    expect(await placesIn(copy)).toEqual(["f:1"]);
  });

  test("has the sites that callbacks and locals name in their payload, also where that was cut", async () => {
    const dictionary = new Dictionary();
    const marked: SiteTable = {
      ...table,
      sites: table.sites.map((site) => ({
        ...site,
        callback: { behaviour: "gen_server", name: "handle_call/3", trigger: "call" },
      })),
    };
    for (const one of [marked, other]) dictionary.sites.add(one);
    const cut = atom("[trimmed]");
    const events = [
      calledBack("called_back", [2, atom("m"), siteNumber(marked.version, 1), atom("continues")]),
      calledBack("locals_at", [atom("o"), siteNumber(other.version, 0), cut]),
      calledBack("called_back", [2, cut]),
      calledBack("called_back", cut),
    ];
    const path = await written(dictionary, [batchOf(dictionary, ...events)]);
    await opened(path, async (recording) => {
      await lastValueFrom(recording.events$.pipe(callbacks(recording.sites), toArray()));
      expect(recording.sites.find("m", siteNumber(marked.version, 1))).toEqual(marked.sites[1]);
      expect(recording.sites.find("o", siteNumber(other.version, 0))).toEqual(other.sites[0]);
    });
  });

  test("can be read in another process", async () => {
    const dictionary = new Dictionary();
    dictionary.sites.add(table);
    const path = await written(dictionary, [batchOf(dictionary, entry(table, 2))]);
    const code = `
      import { openRecording } from "./src/buffer/recording.ts";
      const recording = await openRecording(process.env.RECORDING);
      await recording.events$.forEach((event) => console.log(JSON.stringify(event.site)));
      await recording.close();`;
    const { stdout, stderr } = spawnSync(
      process.execPath,
      ["--import", "tsx", "--input-type=module", "-e", code],
      { cwd: new URL("../..", import.meta.url), env: { ...process.env, RECORDING: path }, encoding: "utf8" },
    );
    expect([stderr, JSON.parse(stdout)]).toEqual(["", table.sites[2]]);
  });
});

describe("a table that is damaged", () => {
  async function damagedAt(change: (bytes: Buffer, chunk: number) => Buffer): Promise<Recording> {
    const dictionary = new Dictionary();
    for (const one of [table, other]) dictionary.sites.add(one);
    const path = await written(
      dictionary,
      [batchOf(dictionary, entry(table), entry(other), entry(table))],
      3,
    );
    const bytes = readFileSync(path);
    const chunks = siteChunks(bytes);
    expect(chunks).toHaveLength(2);
    writeFileSync(path, change(bytes, chunks[0]!));
    return openRecording(path);
  }
  const places = async (recording: Recording): Promise<(string | undefined)[]> =>
    (await eventsOf(recording)).map((event) => ("site" in event ? event.site?.function : event.kind));

  test("costs the sites of its module, no event, and is told", async () => {
    await using recording = await damagedAt((bytes, chunk) => {
      bytes[chunk + CHUNK_HEADER_BYTES + 3]! ^= 0x55;
      return bytes;
    });
    expect(await places(recording)).toEqual([undefined, "h", undefined]);
    expect(recording.damage).toEqual([
      { offset: expect.any(Number) as number, reason: "checksum of a chunk is wrong", events: 0 },
    ]);
    expect(await places(recording)).toEqual([undefined, "h", undefined]);
  });

  test("also where its header is gone and the file has no index", async () => {
    await using recording = await damagedAt((bytes, chunk) => {
      bytes[chunk]! ^= 0x55;
      return bytes.subarray(0, bytes.length - 16);
    });
    expect(recording.complete).toBe(false);
    expect(await places(recording)).toEqual([undefined, "h", undefined]);
    expect(recording.damage).toMatchObject([{ reason: "no chunk where one should be", events: 0 }]);
  });

  test("also where the file was cut within it: then it is as after kill -9", async () => {
    await using recording = await damagedAt((bytes, chunk) =>
      bytes.subarray(0, chunk + CHUNK_HEADER_BYTES + 5),
    );
    expect(await places(recording)).toEqual([undefined, undefined, undefined]);
    expect(recording.damage).toMatchObject([{ reason: "cut off", events: 0 }]);
  });

  test("or of a format that is not known", async () => {
    await using recording = await damagedAt((bytes, chunk) => {
      const header = decodeChunkHeader(bytes, chunk)!;
      const next = chunk + CHUNK_HEADER_BYTES + padded(header.bodyBytes);
      const body = encode(tuple(atom("beamtrace_sites"), 9, atom("m")));
      const bodyBytes = body.length;
      const about = { ...header, compressed: false, bodyBytes, plainBytes: bodyBytes, bodyCrc: crc32(body) };
      const changed = Buffer.alloc(CHUNK_HEADER_BYTES + padded(bodyBytes));
      changed.set(encodeChunkHeader(about));
      changed.set(body, CHUNK_HEADER_BYTES);
      return Buffer.concat([bytes.subarray(0, chunk), changed, bytes.subarray(next)]);
    });
    expect(await places(recording)).toEqual([undefined, "h", undefined]);
    expect(recording.damage).toEqual([
      {
        ...{ offset: expect.any(Number) as number, events: 0 },
        reason: expect.stringMatching(/can't be decoded: .*format 3/) as string,
      },
    ]);
  });
});
