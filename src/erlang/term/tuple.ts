/** Tuples. */
import type { Term } from "./term";

/** An Erlang tuple, `{a, 1}`. */
export class Tuple implements Iterable<Term> {
  readonly elements: readonly Term[];

  constructor(elements: readonly Term[]) {
    this.elements = elements;
  }

  get kind(): "tuple" {
    return "tuple";
  }

  get length(): number {
    return this.elements.length;
  }

  [Symbol.iterator](): IterableIterator<Term> {
    return this.elements[Symbol.iterator]();
  }
}
