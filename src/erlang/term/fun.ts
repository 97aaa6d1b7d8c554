/** Funs: closures and references to exported functions. They are data here: beamtrace carries them, it can't call them. */
import type { Atom } from "./atom";
import type { Pid } from "./pid";
import type { Term } from "./term";

/** A closure (NEW_FUN_EXT). */
export class Fun {
  readonly module: Atom;
  readonly arity: number;
  /** Position in the module's table of funs. */
  readonly index: number;
  /** MD5 of the significant parts of the module, 16 bytes. */
  readonly uniq: Uint8Array;
  readonly oldIndex: number;
  readonly oldUniq: number;
  /** The process that made it. */
  readonly pid: Pid;
  /** Values of the variables it closes over. */
  readonly freeVars: readonly Term[];

  constructor(fields: FunFields) {
    this.module = fields.module;
    this.arity = fields.arity;
    this.index = fields.index;
    this.uniq = fields.uniq;
    this.oldIndex = fields.oldIndex;
    this.oldUniq = fields.oldUniq;
    this.pid = fields.pid;
    this.freeVars = fields.freeVars;
  }

  get kind(): "fun" {
    return "fun";
  }
}

/** What a `Fun` is made of. */
export interface FunFields {
  readonly module: Atom;
  readonly arity: number;
  readonly index: number;
  readonly uniq: Uint8Array;
  readonly oldIndex: number;
  readonly oldUniq: number;
  readonly pid: Pid;
  readonly freeVars: readonly Term[];
}
