/**
 * Makes `assets/demo.btrec`, which `npm run demo` replays where no Erlang can be had: recordings of a real Phoenix application
 * (test/fixtures/README.md), one after the other. Nothing is invented: kinds, processes, shapes, functions and durations are what the VM told.
 * Only the pauses between the recordings are left out; a `marker` event stands where each begins. No payloads: shapes only, as by default.
 * Run `npx tsx scripts/make-demo-recording.ts`.
 */
import { mkdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import {
  Dictionary,
  EventBatch,
  EventFactory,
  EventWriter,
  RawTraceDecoder,
  RecordingWriter,
  SLOT_WORDS,
  SlotBlock,
} from "../src/buffer";
import { binary } from "../src/erlang";
import { traceFixture, type FixtureName } from "../test/buffer/support/fixture";

const OUT = resolve(dirname(fileURLToPath(import.meta.url)), "../assets/demo.btrec");

/** What to show, in this order. */
const SEGMENTS: readonly { readonly fixture: FixtureName; readonly shows: string }[] = [
  {
    fixture: "phoenix-send-receive-procs",
    shows: "messages and processes of 20 requests and a LiveView session",
  },
  { fixture: "phoenix-calls", shows: "calls of controllers, LiveViews, channels and contexts" },
  { fixture: "phoenix-gc", shows: "garbage collections under load" },
  { fixture: "phoenix-running-scheduler", shows: "who runs on which scheduler under load" },
  { fixture: "phoenix-ports", shows: "sockets" },
];
/** Between two segments. */
const PAUSE_NS = 100_000_000;

const dictionary = new Dictionary();
const all = new SlotBlock();
let source;
let end = 0;
for (const { fixture, shows } of SEGMENTS) {
  const { records, node, flags, otp, timeOffset } = traceFixture(fixture);
  const decoder = new RawTraceDecoder({ dictionary, node, flags });
  const block = new SlotBlock();
  for (const record of records) decoder.decode(record, block);
  source ??= { node, otp, timeOffset, creation: decoder.creation ?? 0, base: decoder.base ?? 0n };

  const start = source.base === decoder.base ? 0 : end + PAUSE_NS;
  let first = Infinity;
  for (let i = 0; i < block.count; i++) first = Math.min(first, block.floats[i * 8 + 1] ?? Infinity);
  const writer = new EventWriter(dictionary, [source], all);
  writer.write({
    kind: "marker",
    timestamp: start,
    source: 0,
    scheduler: undefined,
    process: undefined,
    name: "segment",
    a: binary(fixture),
    b: binary(shows),
  });
  all.reserve(all.count + block.count);
  for (let i = 0; i < block.count; i++) {
    const stamp = (block.floats[i * 8 + 1] ?? 0) - first + start;
    block.floats[i * 8 + 1] = stamp;
    end = Math.max(end, stamp);
  }
  all.words.set(block.words.subarray(0, block.count * SLOT_WORDS), all.count * SLOT_WORDS);
  all.count += block.count;
}

mkdirSync(dirname(OUT), { recursive: true });
const recording = new RecordingWriter(OUT, { chunkEvents: 1024 });
if (source !== undefined) recording.write(EventBatch.of(all, new EventFactory(dictionary, [source])));
const { events, bytes, chunks } = await recording.close();
console.log(`assets/demo.btrec: ${events} events in ${chunks} chunks, ${bytes} bytes`);
