/** Floats are boxed: `1.0` and `1` are different terms in Erlang, and JavaScript can't tell them apart. */
import { BeamtraceError } from "../errors";

/** An Erlang float: a finite 64-bit float. */
export class ErlFloat {
  readonly value: number;

  /** @throws BeamtraceError `BT_NOT_ENCODABLE` for NaN and infinities, which Erlang does not have. */
  constructor(value: number) {
    if (!Number.isFinite(value)) throw new BeamtraceError("BT_NOT_ENCODABLE", `Erlang has no float ${value}`);
    this.value = value;
  }

  get kind(): "float" {
    return "float";
  }
}
