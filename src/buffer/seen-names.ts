/**
 * Small caches in front of the dictionary: names that were just seen are recognised by comparing their bytes with a copy, most of them eight at
 * a time. Direct-mapped, fixed size, owned by one reader. Equality of two float64 is equality of their bytes as long as neither is NaN
 * or zero, which `remember` makes sure of; what can't be compared in that way is not remembered, and costs a look into the dictionary.
 */

const ENTRIES = 1 << 10;
/** An entry is one cache line: up to seven float64 of bytes, and one that holds id × 256 + length. */
const DOUBLES = 8;
const META = 7;
/** Longest bytes that are remembered. */
const MAX_BYTES = META * 8;

/** Byte strings of 8 to 56 bytes and the ids that they stand for. */
export class SeenNames {
  readonly #entries = new Float64Array(ENTRIES * DOUBLES);

  /** The id for the bytes in `view` at [at, at + length), 0 when not known. `hash` is any number that depends on nothing else. */
  find(view: DataView, at: number, length: number, hash: number): number {
    let word = ((hash ^ (hash >>> 11) ^ (hash >>> 22)) & (ENTRIES - 1)) * DOUBLES;
    const entries = this.#entries;
    const meta = entries[word + META]! >>> 0;
    const end = at + length - 8;
    if ((meta & 0xff) !== length || view.getFloat64(end, true) !== entries[word]) return 0;
    for (let i = at; i < end; i += 8) if (view.getFloat64(i, true) !== entries[++word]) return 0;
    return meta >>> 8;
  }

  /** Keeps an id for these bytes, in place of others with the same hash. */
  remember(view: DataView, at: number, length: number, hash: number, id: number): void {
    if (length < 8 || length > MAX_BYTES || id > 0xffffff) return;
    const first = ((hash ^ (hash >>> 11) ^ (hash >>> 22)) & (ENTRIES - 1)) * DOUBLES;
    const end = at + length - 8;
    let word = first;
    this.#entries[first + META] = 0;
    if (!comparable((this.#entries[word] = view.getFloat64(end, true)))) return;
    for (let i = at; i < end; i += 8)
      if (!comparable((this.#entries[++word] = view.getFloat64(i, true)))) return;
    this.#entries[first + META] = id * 256 + length;
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
