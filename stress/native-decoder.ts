/**
 * Damaged messages of the native tracer: well-formed ones with bytes changed, cut off, doubled or exchanged, by a seeded generator. The decoder
 * must answer with events or with a `BadTermError`; whatever it delivers must come out of a batch as events without any other error.
 * `npx tsx stress/native-decoder.ts [messages] [seed]`; prints what happened and exits with 1 on any other outcome.
 */
import { Dictionary } from "../src/buffer/dictionary";
import { EventBatch } from "../src/buffer/event-batch";
import { EventFactory } from "../src/buffer/event-factory";
import { EVENT_KINDS, FLAG, RAW, SLOT, SLOT_BYTES, SLOT_FRAME, SLOT_WORDS } from "../src/buffer/event-schema";
import { SlotBlock } from "../src/buffer/slot-block";
import { TraceBatchDecoder } from "../src/buffer/trace-batch-decoder";
import { BeamtraceError } from "../src/erlang/errors";
import { encode } from "../src/erlang/etf";
import { Atom, binary, Tuple } from "../src/erlang/term";
import type { Row } from "../bench/row";

const NODE = "fuzz@127.0.0.1";
const BASE = -576_460_000_000_000_000n;
const SOURCE = { node: NODE, creation: 7, otp: "27", base: BASE, timeOffset: 0n };
const ATOMS = 40;

/** xorshift32: the same messages for the same seed. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0 || 1;
  }
  word(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (this.#state = x >>> 0);
  }
  below(bound: number): number {
    return this.word() % bound;
  }
}

/** Kinds that may have contents. */
const WITH_CONTENTS: ReadonlySet<number> = new Set([
  EVENT_KINDS.send,
  EVENT_KINDS.send_to_non_existing_process,
  EVENT_KINDS.receive,
  EVENT_KINDS.exit,
  EVENT_KINDS.closed,
  EVENT_KINDS.call,
  EVENT_KINDS.return_from,
  EVENT_KINDS.exception_from,
  EVENT_KINDS.function_entry,
  EVENT_KINDS.function_return,
  EVENT_KINDS.function_exception,
]);

const atomWord = (index: number): number => index * 64 + 11;

/** A message as the tracer would send it: any kinds, atoms of the dictionary, stamps in runs. */
export function wellFormed(random: Random, seq: number, records: number, received: number): Uint8Array {
  const words = new Uint32Array(records * SLOT_WORDS);
  const floats = new Float64Array(words.buffer);
  const atom = (): number => (random.below(8) === 0 ? 0 : atomWord(1 + random.below(ATOMS)));
  let stamp = random.below(1000);
  for (let i = 0; i < records; i++) {
    const base = i * SLOT_WORDS;
    const kind =
      random.below(4) === 0
        ? EVENT_KINDS.function_entry + random.below(4)
        : 1 + random.below(EVENT_KINDS.closed);
    if (random.below(16) === 0) stamp = random.below(1000);
    words[base + SLOT.head] = kind | (random.below(4) << 16);
    floats[base / 2 + 1] = stamp += random.below(100);
    words[base + SLOT.traceeLow] = ((1 + random.below(1000)) << 4) | 3;
    if (kind >= EVENT_KINDS.gc_minor_start && kind <= EVENT_KINDS.gc_max_heap_size) continue;
    switch (kind) {
      case EVENT_KINDS.call:
      case EVENT_KINDS.return_from:
      case EVENT_KINDS.exception_from:
      case EVENT_KINDS.return_to:
      case EVENT_KINDS.in:
      case EVENT_KINDS.out:
        words[base + RAW.module] = atomWord(1 + random.below(ATOMS));
        words[base + RAW.function] = atomWord(1 + random.below(ATOMS));
        words[base + RAW.arity] = random.below(10);
        break;
      case EVENT_KINDS.function_entry:
      case EVENT_KINDS.function_return:
      case EVENT_KINDS.function_tail_call:
      case EVENT_KINDS.function_exception:
        words[base + SLOT_FRAME.idLow] = 2 * random.below(1 << 20);
        words[base + SLOT_FRAME.site] = random.below(1000);
        words[base + SLOT_FRAME.module] = atomWord(1 + random.below(ATOMS));
        words[base + SLOT_FRAME.class] = random.below(4);
        break;
      case EVENT_KINDS.spawn:
      case EVENT_KINDS.spawned:
        words[base + SLOT.otherLow] = (random.below(1000) << 4) | 3;
        words[base + RAW.spawnModule] = atomWord(1 + random.below(ATOMS));
        words[base + RAW.spawnFunction] = atomWord(1 + random.below(ATOMS));
        break;
      case EVENT_KINDS.send:
        if (random.below(3) === 0) {
          words[base + SLOT.flags] = RAW.namedFlag;
          words[base + SLOT.otherLow] = atom();
          words[base + SLOT.otherHigh] = atomWord(1 + random.below(ATOMS));
        } else if (random.below(3) === 0) {
          words[base + SLOT.otherLow] = (random.below(1000) << 4) | 3;
          words[base + RAW.remoteNode] = atomWord(1 + random.below(ATOMS));
          words[base + RAW.remoteCreation] = random.word();
        } else if (random.below(3) === 0) {
          words[base + SLOT.flags] = FLAG.alias;
        } else words[base + SLOT.otherLow] = (random.below(1000) << 4) | 3;
        break;
      case EVENT_KINDS.link:
      case EVENT_KINDS.unlink:
        words[base + SLOT.otherLow] = (random.below(1000) << 4) | 7;
        break;
      case EVENT_KINDS.register:
      case EVENT_KINDS.unregister:
        words[base + SLOT.otherLow] = atomWord(1 + random.below(ATOMS));
        break;
      default:
    }
  }
  const dictionary =
    seq === 0
      ? Array.from({ length: ATOMS }, (_, i) => new Tuple([atomWord(i + 1), Atom.of(`fuzz_${i}`)]))
      : [];
  const bytes = binary(new Uint8Array(words.buffer));
  if (random.below(2) === 0) return encode(new Tuple([3, 1, seq, BASE, received, 0, dictionary, bytes]));
  const contents: number[] = [];
  for (let base = 0; base < words.length; base += SLOT_WORDS) {
    if (!WITH_CONTENTS.has(words[base]! & 0xff) || random.below(4) === 0) continue;
    const term = encode(
      new Tuple([Atom.of("content"), random.word(), [1, 2, new Uint8Array(random.below(40))]]),
    );
    words[base + SLOT.flags]! |= FLAG.payload;
    contents.push(term.length, 0, 0, 0, ...term);
  }
  return encode(
    new Tuple([4, 1, seq, BASE, received, 0, dictionary, binary(Uint8Array.from(contents)), bytes]),
  );
}

/** One to eight changes. */
function damaged(random: Random, message: Uint8Array): Uint8Array {
  let bytes = message.slice();
  const header = bytes.length - random.below(2) * random.below(bytes.length);
  for (let n = 1 + random.below(8); n > 0; n--) {
    const at = random.below(Math.max(1, Math.min(bytes.length, header)));
    switch (random.below(8)) {
      case 0:
        bytes[at] = random.word() & 0xff;
        break;
      case 1:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
        break;
      case 2:
        bytes.fill([0, 0xff, 0x7f, 0x80][random.below(4)] as number, at, at + 1 + random.below(8));
        break;
      case 3:
        bytes = bytes.slice(0, at);
        break;
      case 4: {
        const from = random.below(bytes.length + 1);
        const piece = bytes.slice(from, from + random.below(128));
        bytes = Uint8Array.from([...bytes.subarray(0, at), ...piece, ...bytes.subarray(at)]);
        break;
      }
      case 5:
        bytes.copyWithin(at, random.below(bytes.length + 1), random.below(bytes.length + 1));
        break;
      case 6:
        // A stamp or a word of a record.
        if (bytes.length > SLOT_BYTES)
          new DataView(bytes.buffer, bytes.byteOffset).setUint32(
            bytes.length - 4 * (1 + random.below(Math.floor(bytes.length / 4) - 1)),
            random.below(2) === 0 ? random.word() : [0, 0xffffffff, 0x7ff00000, 0xfff80000][random.below(4)]!,
            random.below(2) === 0,
          );
        break;
      default:
        if (random.below(8) === 0) bytes = new Uint8Array(0);
        else if (bytes.length > 1) bytes = bytes.slice(random.below(2));
    }
  }
  return bytes;
}

export interface FuzzReport {
  readonly messages: number;
  readonly refused: number;
  readonly events: number;
  readonly unreadable: number;
  /** Anything but events or a `BeamtraceError`. */
  readonly wrong: readonly string[];
}

export function fuzz(messages: number, seed: number): FuzzReport {
  const random = new Random(seed);
  const wrong: string[] = [];
  let refused = 0;
  let events = 0;
  let unreadable = 0;
  let done = 0;
  while (done < messages) {
    const dictionary = new Dictionary();
    const decoder = new TraceBatchDecoder({ dictionary, node: NODE, creation: 7, base: BASE });
    const factory = new EventFactory(dictionary, [SOURCE]);
    let received = 0;
    for (let seq = 0; seq < 20; seq++, done++) {
      const records = random.below(40);
      const clean = wellFormed(random, seq, records, (received += records));
      // The first one brings the atoms; without them nothing would be understood.
      const bytes = seq === 0 ? clean : damaged(random, clean);
      const block = new SlotBlock();
      try {
        decoder.decode(bytes, block);
      } catch (error) {
        refused++;
        if (!(error instanceof BeamtraceError)) wrong.push(`seed ${seed}, message ${done}: ${String(error)}`);
        continue;
      }
      const batch = EventBatch.of(block, factory);
      for (let i = 0; i < batch.length; i++) {
        try {
          batch.event(i);
          events++;
        } catch (error) {
          unreadable++;
          if (!(error instanceof BeamtraceError))
            wrong.push(`seed ${seed}, message ${done}, event ${i}: ${String((error as Error).stack)}`);
        }
      }
    }
  }
  return { messages: done, refused, events, unreadable, wrong };
}

/** `quick`: the messages of the test; otherwise a million others each time. */
export function run(quick: boolean): Promise<Row[]> {
  const seed = quick ? 1 : Date.now() >>> 0;
  const report = fuzz(quick ? 20_000 : 1_000_000, seed);
  for (const line of report.wrong.slice(0, 20)) console.error(line);
  return Promise.resolve([
    {
      what: `native batches, ${report.messages} damaged, seed ${seed}`,
      target: "0 with anything but events or a typed error",
      measured: `${report.wrong.length} wrong; ${report.refused} refused, ${report.events} events read, ${report.unreadable} not`,
      value: report.wrong.length,
      ok: report.wrong.length === 0 && report.refused > 0 && report.events > 0,
    },
  ]);
}
