/** Positions of terms by structure: what a map's keys are looked up in. */
import type { Term } from "./term";
import { type Key, TermNumbers } from "./term-numbers";

/** Distinct terms in the order of their first `add`. */
export class TermIndex {
  private readonly positions = new Map<Key, number>();
  private readonly numbers = new TermNumbers();

  get size(): number {
    return this.positions.size;
  }

  /** The position of this term, a new one if it was not there. */
  add(term: Term): number {
    const key = this.numbers.keyOf(term, true) as Key;
    const known = this.positions.get(key);
    if (known !== undefined) return known;
    const position = this.positions.size;
    this.positions.set(key, position);
    return position;
  }

  /** The position of this term, or undefined. Remembers nothing. */
  find(term: Term): number | undefined {
    const key = this.numbers.keyOf(term, false);
    return key === undefined ? undefined : this.positions.get(key);
  }
}
