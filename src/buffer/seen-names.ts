/**
 * Small caches in front of the dictionary: names that were just seen are recognised by comparing their bytes with a copy, most of them eight at
 * a time. Direct-mapped, fixed size, owned by one reader. Equality of two float64 is equality of their bytes as long as neither is NaN
 * or zero, which `remember` makes sure of; what can't be compared in that way is not remembered, and costs a look into the dictionary.
 */

const ENTRIES = 1 << 10;
/** Longest bytes that are remembered. */
const MAX_BYTES = 64;
const DOUBLES = MAX_BYTES / 8;

/** Byte strings of 8 to 64 bytes and the ids that they stand for. */
export class SeenNames {
  readonly #ids = new Uint32Array(ENTRIES);
  readonly #lengths = new Uint8Array(ENTRIES);
  readonly #copies = new Float64Array(ENTRIES * DOUBLES);

  /** The id for the bytes in `view` at [at, at + length), 0 when not known. `hash` is any number that depends on nothing else. */
  find(view: DataView, at: number, length: number, hash: number): number {
    const entry = (hash ^ (hash >>> 11) ^ (hash >>> 22)) & (ENTRIES - 1);
    if (this.#lengths[entry] !== length) return 0;
    const copies = this.#copies;
    let copy = entry * DOUBLES;
    const end = at + length - 8;
    if (view.getFloat64(end, true) !== copies[copy]) return 0;
    for (let i = at; i < end; i += 8) if (view.getFloat64(i, true) !== copies[++copy]) return 0;
    return this.#ids[entry]!;
  }

  /** Keeps an id for these bytes, in place of others with the same hash. */
  remember(view: DataView, at: number, length: number, hash: number, id: number): void {
    if (length < 8 || length > MAX_BYTES) return;
    const entry = (hash ^ (hash >>> 11) ^ (hash >>> 22)) & (ENTRIES - 1);
    const end = at + length - 8;
    let copy = entry * DOUBLES;
    this.#lengths[entry] = 0;
    if (!comparable((this.#copies[copy] = view.getFloat64(end, true)))) return;
    for (let i = at; i < end; i += 8)
      if (!comparable((this.#copies[++copy] = view.getFloat64(i, true)))) return;
    this.#lengths[entry] = length;
    this.#ids[entry] = id;
  }
}

const SHORT_ENTRIES = 1 << 9;

/** Texts of 2 to 5 bytes, behind a tag byte and their length, and the ids that they stand for. */
export class SeenShortNames {
  /** Quadruples: last four bytes (tag and length before texts of 2 and 3), length and first byte, id, unused. */
  readonly #entries = new Int32Array(SHORT_ENTRIES * 4);

  /** The id for the text of `length` bytes at `at`, 0 when not known. */
  find(view: DataView, at: number, length: number): number {
    const last = view.getInt32(at + length - 4, true);
    const entry = (((last ^ (last >>> 9) ^ (last >>> 18)) + length) & (SHORT_ENTRIES - 1)) * 4;
    const entries = this.#entries;
    if (entries[entry] !== last || entries[entry + 1] !== ((length << 8) | view.getUint8(at))) return 0;
    return entries[entry + 2]!;
  }

  /** Keeps an id for this text. */
  remember(view: DataView, at: number, length: number, id: number): void {
    const last = view.getInt32(at + length - 4, true);
    const entry = (((last ^ (last >>> 9) ^ (last >>> 18)) + length) & (SHORT_ENTRIES - 1)) * 4;
    this.#entries[entry] = last;
    this.#entries[entry + 1] = (length << 8) | view.getUint8(at);
    this.#entries[entry + 2] = id;
  }
}

function comparable(value: number): boolean {
  return value === value && value !== 0;
}
