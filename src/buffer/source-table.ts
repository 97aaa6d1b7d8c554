/**
 * The sources of a ring's events, shared between threads: a slot names its source by index. Lies beside the ring; names are ids of its dictionary.
 * An entry is written once, then the count is published. After 256 sources (each re-attachment is one) the oldest index is used again.
 */
import { OptionError } from "../erlang/errors";
import type { Dictionary } from "./dictionary";
import type { AtomId } from "./ids";
import type { SourceInfo } from "./source-info";

/** A source index is one byte of the slot. */
const SOURCES_MAX = 256;
const ENTRY_BYTES = 32;
const HEADER_BYTES = 8;

/** What another thread needs; can be sent by `postMessage`. */
export type SourceTableHandle = SharedArrayBuffer;

/** Sources by index. */
export class SourceTable {
  readonly handle: SourceTableHandle;
  readonly #dictionary: Dictionary;
  readonly #count: Int32Array;
  readonly #view: DataView;
  readonly #list: SourceInfo[] = [];
  #known = 0;

  constructor(dictionary: Dictionary, handle?: SourceTableHandle) {
    const bytes = HEADER_BYTES + SOURCES_MAX * ENTRY_BYTES;
    this.handle = handle ?? new SharedArrayBuffer(bytes);
    if (this.handle.byteLength !== bytes)
      throw new OptionError("BT_RING_INVALID", "handle", "holds no table of sources");
    this.#dictionary = dictionary;
    this.#count = new Int32Array(this.handle, 0, 1);
    this.#view = new DataView(this.handle, HEADER_BYTES);
  }

  /** Adds a source and returns its index. Call it in one thread only. */
  add(info: SourceInfo): number {
    const count = Atomics.load(this.#count, 0);
    const at = (count % SOURCES_MAX) * ENTRY_BYTES;
    this.#view.setUint32(at, this.#dictionary.atomId(info.node), true);
    this.#view.setUint32(at + 4, info.creation, true);
    this.#view.setBigInt64(at + 8, info.base, true);
    this.#view.setBigInt64(at + 16, info.timeOffset, true);
    this.#view.setUint32(at + 24, this.#dictionary.atomId(info.otp), true);
    Atomics.store(this.#count, 0, count + 1);
    return count % SOURCES_MAX;
  }

  /** Sources by index. The array is always the same one and grows when a source is added, in whichever thread; see `refresh`. */
  get list(): readonly SourceInfo[] {
    this.refresh();
    return this.#list;
  }

  /** Takes over what other threads have added. */
  refresh(): void {
    const count = Atomics.load(this.#count, 0);
    for (; this.#known < count; this.#known++) {
      const index = this.#known % SOURCES_MAX;
      const at = index * ENTRY_BYTES;
      this.#list[index] = Object.freeze({
        node: this.#dictionary.atomName(this.#view.getUint32(at, true) as AtomId) ?? "",
        creation: this.#view.getUint32(at + 4, true),
        otp: this.#dictionary.atomName(this.#view.getUint32(at + 24, true) as AtomId) ?? "",
        base: this.#view.getBigInt64(at + 8, true),
        timeOffset: this.#view.getBigInt64(at + 16, true),
      });
    }
  }
}
