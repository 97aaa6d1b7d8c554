/**
 * Atom texts ↔ dense ids from 1, looked up straight from the UTF-8 bytes of a message: no string, no allocation, no copy.
 * Owned by one thread; texts lie word-aligned and zero-padded in an arena of its own, so that a text is verified four bytes at a time.
 */

const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });

/** Dense ids for atom texts. */
export class AtomTable {
  /** Pairs: hash, id. */
  #slots = new Int32Array(2 * 1024);
  #mask = 1023;
  /** By id, pairs: first word in the arena, bytes. */
  #places = new Uint32Array(2 * 512);
  #hashes = new Int32Array(512);
  #arena = new Int32Array(4096);
  #arenaWords = 0;
  #count = 0;
  readonly #names = new Map<number, string>();
  readonly #seed: number;

  /** @param seed - varies the hash, so that nobody outside can aim at one slot */
  constructor(seed: number) {
    this.#seed = seed;
  }

  /** How many ids there are; ids are 1 … count. */
  get count(): number {
    return this.#count;
  }

  /** The id of the text in `view` at [at, at + length), 0 when it has none. Long on purpose: this is the hot loop of decoding. */
  find(view: DataView, at: number, length: number): number {
    const whole = at + (length & ~3);
    const rest = length & 3;
    const tail = rest === 0 ? 0 : readTail(view, whole, rest);
    let h = this.#seed ^ length;
    for (let i = at; i < whole; i += 4) {
      h = Math.imul(h ^ view.getInt32(i, true), 0x9e3779b1);
      h ^= h >>> 15;
    }
    h = Math.imul(h ^ tail, 0x9e3779b1);
    h ^= h >>> 15;

    const slots = this.#slots;
    const mask = this.#mask;
    const arena = this.#arena;
    probe: for (let slot = h & mask; ; slot = (slot + 1) & mask) {
      const id = slots[slot * 2 + 1]!;
      if (id === 0) return 0;
      if (slots[slot * 2] !== h || this.#places[id * 2 + 1] !== length) continue;
      let word = this.#places[id * 2]!;
      for (let i = at; i < whole; i += 4) if (arena[word++] !== view.getInt32(i, true)) continue probe;
      if (rest !== 0 && arena[word] !== tail) continue;
      return id;
    }
  }

  /** Gives a text that has no id yet the next one. */
  add(view: DataView, at: number, length: number): number {
    const id = ++this.#count;
    if ((id + 1) * 2 > this.#places.length) {
      this.#places = grown(this.#places, Uint32Array);
      this.#hashes = grown(this.#hashes, Int32Array);
    }
    const words = (length + 3) >>> 2;
    while (this.#arenaWords + words > this.#arena.length) this.#arena = grown(this.#arena, Int32Array);
    let h = this.#seed ^ length;
    const start = this.#arenaWords;
    for (let i = 0; i < words; i++) {
      const rest = length - i * 4;
      const word = rest >= 4 ? view.getInt32(at + i * 4, true) : readTail(view, at + i * 4, rest);
      this.#arena[start + i] = word;
      h = Math.imul(h ^ word, 0x9e3779b1);
      h ^= h >>> 15;
    }
    if ((length & 3) === 0) {
      h = Math.imul(h, 0x9e3779b1);
      h ^= h >>> 15;
    }
    this.#arenaWords += words;
    this.#places[id * 2] = start;
    this.#places[id * 2 + 1] = length;
    this.#hashes[id] = h;
    if (id * 2 > this.#mask) this.#rehash();
    else this.#place(id);
    return id;
  }

  /** The text of an id, `undefined` for an id that does not exist. The string is made once. */
  name(id: number): string | undefined {
    const known = this.#names.get(id);
    if (known !== undefined || id < 1 || id > this.#count) return known;
    const start = this.#places[id * 2]! * 4;
    const name = DECODER.decode(new Uint8Array(this.#arena.buffer, start, this.#places[id * 2 + 1]));
    this.#names.set(id, name);
    return name;
  }

  #place(id: number): void {
    const h = this.#hashes[id]!;
    let slot = h & this.#mask;
    while (this.#slots[slot * 2 + 1] !== 0) slot = (slot + 1) & this.#mask;
    this.#slots[slot * 2] = h;
    this.#slots[slot * 2 + 1] = id;
  }

  #rehash(): void {
    this.#slots = new Int32Array(this.#slots.length * 2);
    this.#mask = this.#slots.length / 2 - 1;
    for (let id = 1; id <= this.#count; id++) this.#place(id);
  }
}

/** The last one to three bytes as a zero-padded word, never reading beyond them. */
function readTail(view: DataView, at: number, rest: number): number {
  let word = view.getUint8(at);
  if (rest > 1) word |= view.getUint8(at + 1) << 8;
  if (rest > 2) word |= view.getUint8(at + 2) << 16;
  return word;
}

function grown<T extends Int32Array | Uint32Array>(array: T, make: new (length: number) => T): T {
  const larger = new make(array.length * 2);
  larger.set(array);
  return larger;
}
