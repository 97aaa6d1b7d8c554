/**
 * `Pid` and `Port` objects by the two words of their identity, so that events of one process share one object and making an event does not
 * allocate one. Bounded: two generations; what was not asked for while `generation` other identities were, is forgotten.
 */
import type { Pid, Port } from "../erlang/term";

const GENERATION = 1 << 18;
/** Identities of a node are numbered in a row, so that those in use mostly differ in the low bits. */
const RECENT = 1 << 12;

class Table {
  mask: number;
  /** Triples: low, high, node. */
  keys: Uint32Array;
  values: (Pid | Port | undefined)[];
  count = 0;

  constructor(slots: number) {
    this.mask = slots - 1;
    this.keys = new Uint32Array(slots * 3);
    this.values = new Array<undefined>(slots).fill(undefined);
  }

  find(low: number, high: number, node: number): Pid | Port | undefined {
    const { keys, mask, values } = this;
    for (let slot = hash(low, high, node) & mask; ; slot = (slot + 1) & mask) {
      const value = values[slot];
      if (value === undefined) return undefined;
      const at = slot * 3;
      if (keys[at] === low && keys[at + 1] === high && keys[at + 2] === node) return value;
    }
  }

  add(low: number, high: number, node: number, value: Pid | Port): void {
    if (this.count * 2 >= this.mask) this.#grow();
    let slot = hash(low, high, node) & this.mask;
    while (this.values[slot] !== undefined) slot = (slot + 1) & this.mask;
    const at = slot * 3;
    this.keys[at] = low;
    this.keys[at + 1] = high;
    this.keys[at + 2] = node;
    this.values[slot] = value;
    this.count++;
  }

  #grow(): void {
    const { keys, values } = this;
    const larger = new Table((this.mask + 1) * 2);
    values.forEach((value, slot) => {
      if (value !== undefined) larger.add(keys[slot * 3]!, keys[slot * 3 + 1]!, keys[slot * 3 + 2]!, value);
    });
    this.mask = larger.mask;
    this.keys = larger.keys;
    this.values = larger.values;
  }
}

/** Bounded cache of term objects by identity. `node` is any number that tells nodes apart. */
export class IdentityCache {
  #young = new Table(1024);
  #old = new Table(2);
  readonly #generation: number;
  /** What was found lately, by the lowest bits of its number: triples of low, high, node, and the objects. */
  readonly #recentKeys = new Uint32Array(RECENT * 3);
  readonly #recent = new Array<Pid | Port | undefined>(RECENT).fill(undefined);

  constructor(generation = GENERATION) {
    this.#generation = generation;
  }

  /** The object kept for this identity. */
  find(low: number, high: number, node: number): Pid | Port | undefined {
    const slot = (low >>> 4) & (RECENT - 1);
    const keys = this.#recentKeys;
    const key = slot * 3;
    const recent = this.#recent[slot];
    if (recent !== undefined && keys[key] === low && keys[key + 1] === high && keys[key + 2] === node)
      return recent;
    let value = this.#young.find(low, high, node);
    if (value === undefined) {
      value = this.#old.find(low, high, node);
      if (value === undefined) return undefined;
      this.add(low, high, node, value);
    }
    keys[key] = low;
    keys[key + 1] = high;
    keys[key + 2] = node;
    this.#recent[slot] = value;
    return value;
  }

  /** Keeps an object that `find` did not know. */
  add(low: number, high: number, node: number, value: Pid | Port): void {
    if (this.#young.count >= this.#generation) {
      this.#old = this.#young;
      this.#young = new Table(1024);
    }
    this.#young.add(low, high, node, value);
  }
}

function hash(low: number, high: number, node: number): number {
  const h = Math.imul(low ^ Math.imul(high, 0x85ebca77) ^ Math.imul(node, 0xc2b2ae3d), 0x9e3779b1);
  return h ^ (h >>> 15);
}
