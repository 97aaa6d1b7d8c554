/**
 * Trace tuples to slots: the tracer's messages, made from events of a real application, through `TraceBatchDecoder` into a ring, against general
 * decoders (erlang_js, etf.js, and our own) on the same bytes: once with what they do by themselves, terms, and once with the same slots in the
 * same ring as ours, written from their terms. `npx tsx bench/trace-tuples.ts [--quick]`.
 */
import { createRequire } from "node:module";
import {
  Dictionary,
  RawTraceDecoder,
  RingBuffer,
  SLOT_WORDS,
  SlotBlock,
  TraceBatchDecoder,
} from "../src/buffer";
import { deliver } from "../src/buffer/slot-sink";
import { decode } from "../src/erlang";
import { traceFixture } from "../test/buffer/support/fixture";
import { nativeMessages } from "./native-messages";
import { BASE, realEvents, tracerMessages } from "./real-events";
import { measure, type Subject } from "./rounds";
import type { Row } from "./row";
import { TermSlots, type TermReader } from "./term-slots";

interface ErlangJsTerm {
  readonly value: unknown;
  readonly node: { readonly value: string };
  readonly id: Buffer;
  readonly serial: Buffer;
  readonly creation: Buffer;
}
interface EtfJsTerm {
  readonly node: string;
  readonly id: number | readonly number[];
  readonly serial: number;
  readonly creation: number;
}

const require = createRequire(import.meta.url);
const { Erlang } = require("erlang_js") as {
  Erlang: {
    binary_to_term(data: Buffer, done: (error: unknown, term: unknown) => void): void;
    OtpErlangAtom: new () => object;
    OtpErlangPid: new () => object;
    OtpErlangReference: new () => object;
  };
};
const etfJs = require("etf.js") as { unpack(data: Uint8Array): unknown };

const PER_MESSAGE = 512;
/** A trace that lasts: what happens once a trace should weigh as little as it does on a node. */
const EVENTS = 65_536;
let sink: unknown;

function erlangJs(message: Uint8Array): unknown {
  let result: unknown;
  Erlang.binary_to_term(Buffer.from(message.buffer, message.byteOffset, message.length), (error, term) => {
    if (error !== undefined && error !== null) throw error as Error;
    result = term;
  });
  return result;
}

const erlangJsReader: TermReader<ErlangJsTerm> = {
  list: (term) => term.value as ErlangJsTerm[],
  // Some atoms come as values of JavaScript.
  atom: (term) =>
    term instanceof Erlang.OtpErlangAtom
      ? (term.value as string)
      : typeof term === "boolean" || term === undefined
        ? String(term)
        : undefined,
  isPid: (term) => term instanceof Erlang.OtpErlangPid,
  isReference: (term) => term instanceof Erlang.OtpErlangReference,
  node: (term) => term.node.value,
  creation: (term) => term.creation.readUInt32BE(0),
  id: (term) => term.id.readUInt32BE(0),
  serial: (term) => term.serial.readUInt32BE(0),
  number: (term, i) => (i * 4 < term.id.length ? term.id.readUInt32BE(i * 4) : 0),
};

const etfJsReader: TermReader<EtfJsTerm> = {
  list: (term) => term as unknown as EtfJsTerm[],
  atom: (term: unknown) =>
    typeof term === "string"
      ? term
      : typeof term === "boolean"
        ? String(term)
        : term === null
          ? "nil"
          : undefined,
  isPid: (term: EtfJsTerm | null) => term !== null && typeof term.id === "number",
  isReference: (term: EtfJsTerm | null) => term !== null && Array.isArray(term.id),
  node: (term) => term.node,
  creation: (term) => term.creation,
  id: (term) => term.id as number,
  serial: (term) => term.serial,
  number: (term, i) => (term.id as readonly number[])[i] ?? 0,
};

/** Measures. */
export function run(quick: boolean): Promise<Row[]> {
  const { events, batch, node, creation } = realEvents(EVENTS);
  const messages = tracerMessages(events, PER_MESSAGE);
  const native = nativeMessages(batch, PER_MESSAGE);
  requireSame(messages, native, node, creation);
  const bytes = messages.reduce((sum, m) => sum + m.length, 0);
  const trace = { messages, node, creation };
  const subjects: Subject[] = [
    slots("slots", trace),
    slots("native", { messages: native, node, creation }),
    raw(quick ? 500 : 2000),
    terms("decode of beamtrace/erlang", messages, (m) => decode(m)),
    terms("erlang_js", messages, erlangJs),
    terms("etf.js", messages, (m) => etfJs.unpack(m)),
    termSlots("erlang_js to slots", trace, erlangJs, erlangJsReader),
    termSlots("etf.js to slots", trace, (m) => etfJs.unpack(m), etfJsReader),
  ];
  const results = measure(subjects, quick);
  const row = (name: string, what: string, target = 0): Row => {
    const { perSecond, text } = results.get(name) ?? { perSecond: 0, text: "" };
    return {
      what,
      target: target === 0 ? "" : `≥ ${target / 1e6} M/s`,
      measured: text,
      value: perSecond,
      ok: perSecond >= target,
    };
  };
  const ours = results.get("slots")?.perSecond ?? 0;
  const against = (name: string, what: string): Row => {
    const theirs = results.get(name);
    const ratio = ours / (theirs?.perSecond ?? NaN);
    return {
      what: `… against ${what} (${theirs?.text ?? ""})`,
      target: "≥ 10 ×",
      measured: `${ratio.toFixed(1)} ×`,
      value: ratio,
      ok: ratio >= 10,
    };
  };
  void sink;
  return Promise.resolve([
    row("slots", `trace tuples (${(bytes / EVENTS).toFixed(0)} bytes each) into slots of a ring`, 8e6),
    against("erlang_js to slots", "erlang_js, the same bytes into the same slots"),
    against("etf.js to slots", "etf.js, the same bytes into the same slots"),
    against("erlang_js", "erlang_js, which makes terms of them and no events"),
    against("etf.js", "etf.js, which makes terms of them and no events"),
    row("native", "records of the native tracer into slots of a ring", 20e6),
    row("decode of beamtrace/erlang", "the same tuples to terms by decode of beamtrace/erlang"),
    row("raw", "the VM's own trace tuples into slots (RawTraceDecoder)"),
  ]);
}

interface Trace {
  readonly messages: readonly Uint8Array[];
  readonly node: string;
  readonly creation: number;
}

function slots(name: string, { messages, node, creation }: Trace): Subject {
  const ring = new RingBuffer({ capacity: 1 << 14, overflow: "drop-newest" });
  const producer = ring.producer();
  const reader = ring.reader();
  return {
    name,
    operations: EVENTS,
    run() {
      // A decoder checks the sequence of one trace, and the messages begin again.
      const trace = new TraceBatchDecoder({ dictionary: ring.dictionary, node, creation });
      for (const message of messages) {
        const { written, misfits, missing } = trace.decode(message, producer);
        if (written !== PER_MESSAGE || misfits + missing > 0) throw new Error("events are missing");
        reader.release(reader.poll(PER_MESSAGE));
      }
    },
  };
}

function termSlots<T>(
  name: string,
  { messages, node, creation }: Trace,
  read: (m: Uint8Array) => unknown,
  reader: TermReader<T>,
): Subject {
  const ring = new RingBuffer({ capacity: 1 << 14, overflow: "drop-newest" });
  const producer = ring.producer();
  const consumer = ring.reader();
  const writer = new TermSlots(reader, ring.dictionary, node, creation);
  const block = new SlotBlock(PER_MESSAGE);
  const held = new SlotBlock(1);
  const base = BASE;
  const write = (message: Uint8Array): number => {
    const term = read(message) as readonly T[];
    return writer.write(term, block, Number(BigInt(term[3] as bigint) - base));
  };
  // The job is the same only if the slots are.
  const ours = new TraceBatchDecoder({ dictionary: ring.dictionary, node, creation, base });
  for (const message of messages) {
    const expected = new SlotBlock(PER_MESSAGE);
    ours.decode(message, expected);
    const count = write(message);
    for (let i = 0; i < count * SLOT_WORDS; i++)
      if (expected.words[i] !== block.words[i]) throw new Error(`${name}: slot ${i / SLOT_WORDS} differs`);
  }
  return {
    name,
    operations: EVENTS,
    run() {
      for (const message of messages) {
        write(message);
        if (deliver(block, message, producer, false, held) !== PER_MESSAGE)
          throw new Error("events are missing");
        consumer.release(consumer.poll(PER_MESSAGE));
      }
    },
  };
}

/** Both tracers' messages must make the same events, or their figures are not of the same thing. */
function requireSame(
  portable: readonly Uint8Array[],
  native: readonly Uint8Array[],
  node: string,
  creation: number,
): void {
  const dictionary = new Dictionary();
  const decoded = [portable, native].map((messages) => {
    const block = new SlotBlock();
    const decoder = new TraceBatchDecoder({ dictionary, node, creation, base: BASE });
    for (const message of messages) decoder.decode(message, block);
    return block;
  });
  const [first, second] = decoded as [SlotBlock, SlotBlock];
  if (first.count !== second.count) throw new Error("the native messages have other events");
  for (let i = 0; i < first.count * SLOT_WORDS; i++)
    if (first.words[i] !== second.words[i]) throw new Error(`native slot ${i / SLOT_WORDS} differs`);
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

function terms(name: string, messages: readonly Uint8Array[], read: (m: Uint8Array) => unknown): Subject {
  return {
    name,
    operations: EVENTS,
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
}
