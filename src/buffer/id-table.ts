/**
 * Triples of 32-bit numbers ↔ dense ids from 1, without allocation on lookup. The dictionary keeps MFAs (module, function, arity)
 * and nodes (name, creation, 0) in it. Open addressing, linear probing, at most half full; owned by one thread.
 */

/** Dense ids for triples of 32-bit numbers. */
export class IdTable {
  #values = new Uint32Array(3 * 256);
  #slots = new Int32Array(512);
  #mask = 511;
  #count = 0;
  readonly #seed: number;

  /** @param seed - varies the hash, so that nobody outside can aim at one slot */
  constructor(seed: number) {
    this.#seed = seed;
  }

  /** How many ids there are; ids are 1 … count. */
  get count(): number {
    return this.#count;
  }

  /** The id of a triple, 0 when it has none. */
  find(a: number, b: number, c: number): number {
    const slots = this.#slots;
    const values = this.#values;
    const mask = this.#mask;
    for (let slot = this.#hash(a, b, c) & mask; ; slot = (slot + 1) & mask) {
      const id = slots[slot]!;
      if (id === 0) return 0;
      const at = id * 3;
      if (values[at] === a && values[at + 1] === b && values[at + 2] === c) return id;
    }
  }

  /** Gives a triple that has no id yet the next one. */
  add(a: number, b: number, c: number): number {
    const id = ++this.#count;
    if ((id + 1) * 3 > this.#values.length) {
      const larger = new Uint32Array(this.#values.length * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values.set([a, b, c], id * 3);
    if (id * 2 > this.#mask) this.#rehash();
    else this.#place(id);
    return id;
  }

  /** Column 0, 1 or 2 of an id's triple; 0 for an id that does not exist. */
  value(id: number, column: 0 | 1 | 2): number {
    return id <= this.#count ? (this.#values[id * 3 + column] ?? 0) : 0;
  }

  #hash(a: number, b: number, c: number): number {
    let h = Math.imul(a ^ this.#seed, 0x9e3779b1);
    h = Math.imul((h ^ (h >>> 15)) + b, 0x85ebca77);
    h = Math.imul((h ^ (h >>> 13)) + c, 0xc2b2ae3d);
    return h ^ (h >>> 16);
  }

  #place(id: number): void {
    const at = id * 3;
    const values = this.#values;
    let slot = this.#hash(values[at]!, values[at + 1]!, values[at + 2]!) & this.#mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & this.#mask;
    this.#slots[slot] = id;
  }

  #rehash(): void {
    this.#slots = new Int32Array(this.#slots.length * 2);
    this.#mask = this.#slots.length - 1;
    for (let id = 1; id <= this.#count; id++) this.#place(id);
  }
}
