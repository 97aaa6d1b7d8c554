/** References. */
import type { Atom } from "./atom";

/** A reference: 1 to 5 unsigned 32-bit numbers in wire order (`#Ref<…>` prints them in reverse). */
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
