/** Lists that do not end in `[]`. */
import { BeamtraceError } from "../errors";
import type { Term } from "./term";

/** An improper list, `[a, b | tail]`. `tail` is no list: a list there would make the whole a longer list. */
export class ImproperList {
  readonly elements: readonly Term[];
  readonly tail: Term;

  constructor(elements: readonly Term[], tail: Term) {
    if (elements.length === 0 || Array.isArray(tail) || tail instanceof ImproperList) {
      throw new BeamtraceError(
        "BT_NOT_ENCODABLE",
        "an improper list has at least one element and a tail that is no list",
      );
    }
    this.elements = elements;
    this.tail = tail;
  }

  get kind(): "improper-list" {
    return "improper-list";
  }
}
