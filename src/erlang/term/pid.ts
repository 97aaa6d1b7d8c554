/** Process identifiers. */
import type { Atom } from "./atom";

/** A pid. Equal when all four fields are equal; `creation` tells apart the lives of a node. */
export class Pid {
  readonly node: Atom;
  readonly id: number;
  readonly serial: number;
  readonly creation: number;

  constructor(node: Atom, id: number, serial: number, creation: number) {
    this.node = node;
    this.id = id;
    this.serial = serial;
    this.creation = creation;
  }

  get kind(): "pid" {
    return "pid";
  }
}
