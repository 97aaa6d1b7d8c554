/**
 * Trace messages as the VM itself makes them, `{trace_ts, Pid, Tag, …}`, into slots: for recordings of other tools (`dbg` files and ports, a
 * tracer process of one's own) and for tests with real data. The tuples do not describe themselves (wire facts B.3): the decoder has
 * to know the trace flags that were set. Shapes are computed here by the agent's rules.
 */
import { BadTermError } from "../erlang/errors";
import { decodeWithoutVersion } from "../erlang/etf/decode";
import type { Dictionary } from "./dictionary";
import {
  EVENT_KINDS,
  FLAG,
  GAP_HOPS,
  GC_FIELDS,
  IDENTITY,
  SLOT,
  SLOT_ALIAS,
  SLOT_GAP,
  SLOT_WORDS,
} from "./event-schema";
import { initialCall } from "./initial-call";
import { toMinifloat } from "./minifloat";
import type { SlotBlock } from "./slot-block";
import { TermShape } from "./term-shape";
import { MISFIT, TAG, WireReader } from "./wire-reader";

const K = EVENT_KINDS;

/** Trace flags that change the layout of trace messages; others are accepted and ignored. */
export type LayoutFlag =
  "timestamp" | "monotonic_timestamp" | "strict_monotonic_timestamp" | "scheduler_id" | "arity";

/** Options of a `RawTraceDecoder`. */
export interface RawTraceDecoderOptions {
  readonly dictionary: Dictionary;
  /** Name of the node that was traced. */
  readonly node: string;
  /** Creation of the node; learned from the first pid when not given. */
  readonly creation?: number;
  /** The trace flags that were set. */
  readonly flags: readonly (LayoutFlag | (string & {}))[];
  /** Whether contents are kept; a term larger than `maxBytes` counts as lost. Default: `shape`. */
  readonly payload?: "shape" | { readonly maxBytes: number };
  /** Index of the source that the slots carry. Default 0. */
  readonly source?: number;
  /** Time that stamps count from, in ns. Default: the stamp of the first event. */
  readonly base?: bigint;
}

type Stamp = "wall" | "strict" | "monotonic" | "none";

/** Decodes trace messages one by one. */
export class RawTraceDecoder {
  readonly #reader: WireReader;
  readonly #shape: TermShape;
  readonly #kinds = new Map<number, number>();
  readonly #gcFields = new Map<number, number>();
  readonly #atoms: Readonly<Record<"trace" | "trace_ts" | "undefined" | "drop", number>>;
  readonly #stamp: Stamp;
  readonly #scheduler: boolean;
  readonly #arity: boolean;
  readonly #maxPayload: number;
  readonly #source: number;
  #base: bigint | undefined;
  /** The base as signed halves, so that differences need no bigint: upper × 2^32 + lower. */
  #baseUpper = 0;
  #baseLower = 0;
  #count = 0;
  #last = 0;

  constructor(options: RawTraceDecoderOptions) {
    const { dictionary, flags, payload } = options;
    this.#reader = new WireReader(dictionary, options.node, options.creation);
    this.#shape = new TermShape(this.#reader, dictionary);
    for (const [name, code] of Object.entries(EVENT_KINDS)) {
      if (code !== K.unknown && code < K.gap) this.#kinds.set(dictionary.atomId(name), code);
    }
    GC_FIELDS.forEach(([name], i) => this.#gcFields.set(dictionary.atomId(name), i));
    this.#atoms = {
      trace: dictionary.atomId("trace"),
      trace_ts: dictionary.atomId("trace_ts"),
      undefined: dictionary.atomId("undefined"),
      drop: dictionary.atomId("drop"),
    };
    this.#stamp = flags.includes("timestamp")
      ? "wall"
      : flags.includes("strict_monotonic_timestamp")
        ? "strict"
        : flags.includes("monotonic_timestamp")
          ? "monotonic"
          : "none";
    this.#scheduler = flags.includes("scheduler_id");
    this.#arity = flags.includes("arity");
    this.#maxPayload = typeof payload === "object" ? payload.maxBytes : -1;
    this.#source = options.source ?? 0;
    if (options.base !== undefined) this.#setBase(options.base);
  }

  /** Time that stamps count from; undefined until the first stamp when it was not given. 0 for messages without stamps. */
  get base(): bigint | undefined {
    return this.#base;
  }

  /** Creation of the traced node, once known. */
  get creation(): number | undefined {
    return this.#reader.localCreation;
  }

  /**
   * Decodes one message, an external term with version byte, and appends its event to the block. What is no trace message that this version
   * knows becomes an `unknown` event with the term as payload.
   * @throws BadTermError when the bytes are no term
   */
  decode(bytes: Uint8Array, block: SlotBlock): void {
    const r = this.#reader;
    r.reset(bytes);
    if (bytes[0] !== TAG.version) throw new BadTermError("no version byte", 0);
    r.at = 1;
    r.skip();
    if (r.at !== bytes.length) throw new BadTermError("bytes after the term", r.at);
    r.at = 1;
    const base = block.add();
    try {
      this.#message(block, base);
    } catch (error) {
      if (error !== MISFIT && !(error instanceof RangeError)) {
        block.drop();
        throw error;
      }
      block.words.fill(0, base, base + SLOT_WORDS);
      block.words[base] = K.unknown | (this.#source << 8);
      block.floats[(base >>> 1) + 1] = this.#last;
      block.addPayload(base, bytes);
    }
    this.#last = block.floats[(base >>> 1) + 1]!;
    this.#count++;
  }

  #message(block: SlotBlock, base: number): void {
    const r = this.#reader;
    const { words, floats } = block;
    const arity = r.tuple();
    const first = r.atom();
    if (first === this.#atoms.drop && arity === 2) return this.#drop(block, base);
    if (first !== (this.#stamp === "none" ? this.#atoms.trace : this.#atoms.trace_ts)) throw MISFIT;
    r.tracee();
    words[base + SLOT.traceeLow] = r.low;
    words[base + SLOT.traceeHigh] = r.high;
    const port = (r.low & 15) === IDENTITY.port;
    if (port) words[base + SLOT.flags] = FLAG.port;
    let kind = this.#kinds.get(r.atom()) ?? K.unknown;
    if (port && kind === K.in) kind = K.port_in;
    else if (port && kind === K.out) kind = K.port_out;
    if (kind === K.unknown) throw MISFIT;

    const taken = this.#data(block, base, kind);
    const tail = (this.#scheduler ? 1 : 0) + (this.#stamp === "none" ? 0 : 1);
    // What the `{message, _}` action of a match spec added.
    for (let extra = arity - 3 - taken - tail; extra > 0; extra--) r.skip();
    const scheduler = this.#scheduler ? r.integer() : 0;
    words[base] = (kind | (this.#source << 8) | (scheduler << 16)) >>> 0;
    floats[(base >>> 1) + 1] = this.#readStamp();
    if (r.at !== r.bytes.length) throw MISFIT;
  }

  /** The elements behind the tag. Returns how many there are. */
  #data(block: SlotBlock, base: number, kind: number): number {
    const r = this.#reader;
    const words = block.words;
    switch (kind) {
      case K.send:
      case K.send_to_non_existing_process:
        this.#term(block, base);
        this.#receiver(words, base);
        return 2;
      case K.receive:
      case K.exit:
      case K.closed:
        this.#term(block, base);
        return 1;
      case K.call:
        if (r.tuple() !== 3) throw MISFIT;
        if (this.#arity) words[base + SLOT.mfa] = r.mfa();
        else this.#mfaWithArgs(block, base);
        return 1;
      case K.return_from:
      case K.exception_from:
        this.#mfa(words, base);
        if (kind === K.exception_from) {
          if (r.tuple() !== 2) throw MISFIT;
          words[base + SLOT.extra] = r.atom();
        }
        this.#term(block, base);
        return 2;
      case K.spawn:
      case K.spawned:
        this.#other(words, base);
        this.#spawnCall(words, base);
        return 2;
      case K.link:
      case K.unlink:
      case K.getting_linked:
      case K.getting_unlinked:
        this.#other(words, base);
        return 1;
      case K.register:
      case K.unregister:
        words[base + SLOT.otherLow] = (r.atom() << 4) | IDENTITY.atom;
        return 1;
      case K.return_to:
      case K.in:
      case K.out:
      case K.in_exiting:
      case K.out_exiting:
      case K.out_exited:
        if (r.tag() === TAG.smallTuple) this.#mfa(words, base);
        else if (r.isAtom() ? r.atom() !== this.#atoms.undefined : r.integer() !== 0) throw MISFIT;
        return 1;
      case K.port_in:
      case K.port_out:
        words[base + SLOT.extra] = r.atomOrZero();
        return 1;
      case K.open:
        this.#other(words, base);
        words[base + SLOT.extra] = r.atom();
        return 2;
      default:
        this.#gc(words, base);
        return 1;
    }
  }

  #term(block: SlotBlock, base: number): void {
    const from = this.#reader.at;
    this.#shape.term(block.words, base);
    this.#keep(block, base, from);
  }

  #keep(block: SlotBlock, base: number, from: number): void {
    if (this.#maxPayload < 0) return;
    const r = this.#reader;
    if (r.at - from <= this.#maxPayload) block.addPayload(base, r.bytes, from, r.at);
    else block.words[base + SLOT.flags]! |= FLAG.payloadLost;
  }

  #other(words: Uint32Array, base: number): void {
    const r = this.#reader;
    r.identity();
    words[base + SLOT.otherLow] = r.low;
    words[base + SLOT.otherHigh] = r.high;
    words[base + SLOT.flags]! |=
      (r.node << 8) | (r.widePid ? FLAG.widePid : 0) | (r.widePort ? FLAG.widePort : 0);
  }

  #receiver(words: Uint32Array, base: number): void {
    const r = this.#reader;
    if (r.tag() !== TAG.newerReference) return this.#other(words, base);
    r.reference();
    words[base + SLOT.otherLow] = r.low;
    words[base + SLOT.otherHigh] = r.high;
    words[base + SLOT_ALIAS.number0] = r.number0;
    words[base + SLOT_ALIAS.number1] = r.number1;
    words[base + SLOT_ALIAS.number2] = r.number2;
    words[base + SLOT.flags]! |= FLAG.alias | (r.node << 8);
  }

  #mfa(words: Uint32Array, base: number): void {
    const r = this.#reader;
    if (r.tuple() !== 3) throw MISFIT;
    words[base + SLOT.mfa] = r.mfa();
  }

  #mfaWithArgs(block: SlotBlock, base: number): void {
    const r = this.#reader;
    const module = r.atom();
    const fun = r.atom();
    const from = r.at;
    const arity = this.#shape.args(block.words, base);
    this.#keep(block, base, from);
    block.words[base + SLOT.mfa] = r.dictionary.internMfa(module, fun, arity);
  }

  #spawnCall(words: Uint32Array, base: number): void {
    const r = this.#reader;
    if (r.tuple() !== 3) throw MISFIT;
    const module = r.atom();
    const fun = r.atom();
    const from = r.at;
    r.skip();
    const args = decodeWithoutVersion(r.bytes.subarray(from, r.at));
    const d = r.dictionary;
    words[base + SLOT.mfa] = d.internMfa(module, fun, Array.isArray(args) ? args.length : 0);
    const initial = initialCall(d.atomName(module) ?? "", d.atomName(fun) ?? "", args);
    if (initial === undefined) return;
    words[base + SLOT.extra] = d.internMfa(
      d.atomId(initial.module),
      d.atomId(initial.function),
      initial.arity,
    );
  }

  #gc(words: Uint32Array, base: number): void {
    const r = this.#reader;
    if (r.tag() !== TAG.list) throw MISFIT;
    const pairs = r.view.getUint32(r.at + 1);
    r.at += 5;
    for (let i = 0; i < pairs; i++) {
      if (r.tuple() !== 2) throw MISFIT;
      const field = this.#gcFields.get(r.atom());
      const value = r.integer();
      if (field === undefined) continue;
      const place = GC_FIELDS[field]![1];
      if (place !== "gcBinBlocks") words[base + place] = Math.min(value, 0xffffffff);
      else words[base + SLOT.flags]! |= toMinifloat(value) << (field === 10 ? 8 : 20);
    }
    if (r.tag() !== TAG.nil) throw MISFIT;
    r.at++;
  }

  #drop(block: SlotBlock, base: number): void {
    block.words[base] = K.gap | (this.#source << 8);
    block.words[base + SLOT_GAP.hop] = GAP_HOPS.tracer;
    const at = base >>> 1;
    block.floats[at + 1] = this.#last;
    block.floats[at + SLOT_GAP.countF64] = this.#reader.integer();
    block.floats[at + SLOT_GAP.fromF64] = this.#count === 0 ? NaN : this.#last;
    block.floats[at + SLOT_GAP.toF64] = NaN;
  }

  #readStamp(): number {
    const r = this.#reader;
    switch (this.#stamp) {
      case "none":
        this.#base ??= 0n;
        return this.#count;
      case "wall": {
        if (r.tuple() !== 3) throw MISFIT;
        const seconds = r.integer() * 1e6 + r.integer();
        return this.#sinceBase(BigInt(seconds) * 1_000_000_000n + BigInt(r.integer() * 1000));
      }
      case "strict": {
        if (r.tuple() !== 2) throw MISFIT;
        const stamp = this.#nanoseconds();
        r.skip();
        return stamp;
      }
      default:
        return this.#nanoseconds();
    }
  }

  /** A stamp of 64 bits minus the base, exactly and without a bigint. */
  #nanoseconds(): number {
    const r = this.#reader;
    const tag = r.tag();
    const size = tag === TAG.smallBig ? r.view.getUint8(r.at + 1) : 0;
    if (this.#base === undefined || size < 5 || size > 8) return this.#sinceBase(BigInt(r.exactInteger()));
    const negative = r.view.getUint8(r.at + 2) !== 0;
    const from = r.at + 3;
    let upper = 0;
    for (let i = size - 1; i >= 4; i--) upper = upper * 256 + r.view.getUint8(from + i);
    const lower = r.view.getUint32(from, true);
    r.at = from + size;
    return negative
      ? (-upper - this.#baseUpper) * 0x1_0000_0000 + (-lower - this.#baseLower)
      : (upper - this.#baseUpper) * 0x1_0000_0000 + (lower - this.#baseLower);
  }

  #sinceBase(stamp: bigint): number {
    if (this.#base === undefined) this.#setBase(stamp);
    return Number(stamp - this.#base!);
  }

  #setBase(base: bigint): void {
    this.#base = base;
    // BigInt division truncates towards zero, so both halves carry the sign.
    this.#baseUpper = Number(base / 0x1_0000_0000n);
    this.#baseLower = Number(base % 0x1_0000_0000n);
  }
}
