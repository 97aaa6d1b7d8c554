/** Port identifiers. */
import type { Atom } from "./atom";

/** A port. `id` is a bigint beyond 2^53 - 1 only. */
export class Port {
  readonly node: Atom;
  readonly id: number | bigint;
  readonly creation: number;

  constructor(node: Atom, id: number | bigint, creation: number) {
    this.node = node;
    this.id = id;
    this.creation = creation;
  }

  get kind(): "port" {
    return "port";
  }
}
