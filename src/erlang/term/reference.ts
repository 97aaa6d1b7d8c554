/** References. */
import type { Atom } from "./atom";

/** A reference: up to 5 unsigned 32-bit numbers, usually 3, in wire order (`#Ref<…>` prints them in reverse). */
export class Reference {
  readonly node: Atom;
  readonly creation: number;
  readonly numbers: readonly number[];

  constructor(node: Atom, creation: number, numbers: readonly number[]) {
    this.node = node;
    this.creation = creation;
    this.numbers = numbers;
  }

  get kind(): "reference" {
    return "reference";
  }
}
