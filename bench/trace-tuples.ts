/**
 * Trace tuples to slots: the tracer's messages, made from events of a real application, through `TraceBatchDecoder` into a ring, against general
 * decoders (erlang_js, etf.js, and our own) on the same bytes. `npx tsx bench/trace-tuples.ts [--quick]`.
 */
import { createRequire } from "node:module";
import { Dictionary, RawTraceDecoder, RingBuffer, SlotBlock, TraceBatchDecoder } from "../src/buffer";
import { decode } from "../src/erlang";
import { traceFixture } from "../test/buffer/support/fixture";
import { realEvents, tracerMessages } from "./real-events";
import { format, measure, type Subject } from "./rounds";
import type { Row } from "./row";

const require = createRequire(import.meta.url);
const erlangJs = require("erlang_js") as {
  Erlang: { binary_to_term(data: Buffer, done: (error: unknown, term: unknown) => void): void };
};
const etfJs = require("etf.js") as { unpack(data: Uint8Array): unknown };

const PER_MESSAGE = 512;
let sink: unknown;

/** Measures. */
export function run(quick: boolean): Promise<Row[]> {
  const count = quick ? 8192 : 65536;
  const { events, node, creation } = realEvents(count);
  const messages = tracerMessages(events, PER_MESSAGE);
  const bytes = messages.reduce((sum, m) => sum + m.length, 0);
  const subjects: Subject[] = [
    toRing(messages, count, node, creation),
    raw(quick ? 500 : 2000),
    general("decode of beamtrace/erlang", messages, count, (m) => decode(m)),
    general("erlang_js", messages, count, (m) => {
      erlangJs.Erlang.binary_to_term(Buffer.from(m.buffer, m.byteOffset, m.length), (error, term) => {
        if (error !== undefined && error !== null) throw error as Error;
        sink = term;
      });
    }),
    general("etf.js", messages, count, (m) => etfJs.unpack(m)),
  ];
  const results = measure(subjects, quick);
  const ours = results.get("slots")?.perSecond ?? 0;
  const rows: Row[] = [
    {
      what: `trace tuples (${(bytes / count).toFixed(0)} bytes each) into slots of a ring`,
      target: "≥ 8 M/s",
      measured: results.get("slots")?.text ?? "",
      value: ours,
      ok: ours >= 8e6,
    },
  ];
  for (const name of ["erlang_js", "etf.js"]) {
    const theirs = results.get(name);
    const ratio = ours / (theirs?.perSecond ?? NaN);
    rows.push({
      what: `… against ${name} on the same bytes (${theirs?.text ?? ""})`,
      target: "≥ 10 ×",
      measured: `${ratio.toFixed(1)} ×`,
      value: ratio,
      ok: ratio >= 10,
    });
  }
  for (const name of ["decode of beamtrace/erlang", "raw"]) {
    const result = results.get(name);
    rows.push({
      what:
        name === "raw"
          ? "the VM's own trace tuples into slots (RawTraceDecoder)"
          : `… the same bytes by ${name}`,
      target: "",
      measured: result?.text ?? "",
      value: result?.perSecond ?? 0,
      ok: true,
    });
  }
  void sink;
  return Promise.resolve(rows);
}

function toRing(messages: readonly Uint8Array[], count: number, node: string, creation: number): Subject {
  const ring = new RingBuffer({ capacity: 1 << 14, overflow: "drop-newest" });
  const producer = ring.producer();
  const reader = ring.reader();
  const decoder = () => new TraceBatchDecoder({ dictionary: ring.dictionary, node, creation });
  return {
    name: "slots",
    operations: count,
    run() {
      // A decoder checks the sequence of one trace, and the messages begin again.
      const trace = decoder();
      for (const message of messages) {
        const { written, misfits, missing } = trace.decode(message, producer);
        if (written !== Math.min(PER_MESSAGE, count) || misfits + missing > 0)
          throw new Error("events are missing");
        reader.release(reader.poll(PER_MESSAGE));
      }
    },
  };
}

function raw(count: number): Subject {
  const { records, node, flags } = traceFixture("phoenix-running-scheduler");
  const decoder = new RawTraceDecoder({ dictionary: new Dictionary(), node, flags });
  const block = new SlotBlock(count);
  const some = records.slice(0, count);
  return {
    name: "raw",
    operations: some.length,
    run() {
      block.clear();
      for (const record of some) decoder.decode(record, block);
    },
  };
}

function general(
  name: string,
  messages: readonly Uint8Array[],
  count: number,
  read: (m: Uint8Array) => unknown,
): Subject {
  return {
    name,
    operations: count,
    run() {
      for (const message of messages) sink = read(message);
    },
  };
}

if (process.argv[1]?.endsWith("trace-tuples.ts") === true) {
  for (const row of await run(process.argv.includes("--quick"))) {
    console.log(
      `${row.ok ? "ok " : "NO "} ${row.what}: ${row.measured}${row.target === "" ? "" : ` (target ${row.target})`}`,
    );
  }
  void format;
}
