/** `fun Module:Function/Arity`. */
import type { Atom } from "./atom";

/** A reference to an exported function, `fun lists:map/2`. */
export class ExportFun {
  readonly module: Atom;
  readonly function: Atom;
  readonly arity: number;

  constructor(module: Atom, fun: Atom, arity: number) {
    this.module = module;
    this.function = fun;
    this.arity = arity;
  }

  get kind(): "export-fun" {
    return "export-fun";
  }
}
