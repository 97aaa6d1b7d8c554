/** Maps with any term as key. Entries lie flat (key, value, key, value …) in insertion order; the index for lookups is made on first use. */
import type { Term } from "./term";
import { TermIndex } from "./term-index";

/** An Erlang map. Immutable; keys are compared structurally, as `equals` does. Made by `map(entries)`. */
export class ErlMap implements Iterable<readonly [Term, Term]> {
  /** Keys at even, their values at odd positions. */
  readonly flat: readonly Term[];
  private index: TermIndex | undefined;

  /** @internal Trusts that all keys are distinct. */
  constructor(flat: readonly Term[]) {
    this.flat = flat;
    this.index = undefined;
  }

  /** From pairs; of several with equal keys the last one counts, as in `maps:from_list/1`. */
  static of(entries: Iterable<readonly [Term, Term]>): ErlMap {
    const flat: Term[] = [];
    const index = new TermIndex();
    for (const [key, value] of entries) {
      const position = index.add(key);
      if (position * 2 === flat.length) flat.push(key, value);
      else flat[position * 2 + 1] = value;
    }
    return new ErlMap(flat);
  }

  get kind(): "map" {
    return "map";
  }

  get size(): number {
    return this.flat.length / 2;
  }

  /** The value of this key, or undefined. */
  get(key: Term): Term | undefined {
    const position = this.lookup().find(key);
    return position === undefined ? undefined : this.flat[position * 2 + 1];
  }

  has(key: Term): boolean {
    return this.lookup().find(key) !== undefined;
  }

  *keys(): IterableIterator<Term> {
    for (let i = 0; i < this.flat.length; i += 2) yield this.flat[i] as Term;
  }

  *values(): IterableIterator<Term> {
    for (let i = 1; i < this.flat.length; i += 2) yield this.flat[i] as Term;
  }

  *entries(): IterableIterator<readonly [Term, Term]> {
    for (let i = 0; i < this.flat.length; i += 2) yield [this.flat[i] as Term, this.flat[i + 1] as Term];
  }

  [Symbol.iterator](): IterableIterator<readonly [Term, Term]> {
    return this.entries();
  }

  private lookup(): TermIndex {
    if (this.index === undefined) {
      const index = new TermIndex();
      for (let i = 0; i < this.flat.length; i += 2) index.add(this.flat[i] as Term);
      this.index = index;
    }
    return this.index;
  }
}
