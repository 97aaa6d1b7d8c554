/** Native records of OTP 29 (RECORD_EXT, tag 67). */
import { BeamtraceError } from "../errors";
import type { Atom } from "./atom";
import type { Term } from "./term";

/** A native record, `#module:name{field = value}`. Fields in wire order. */
export class NativeRecord {
  readonly module: Atom;
  readonly name: Atom;
  /** Flag byte of the wire format, kept as it came. */
  readonly flags: number;
  readonly fields: readonly Atom[];
  /** As many as `fields`. */
  readonly values: readonly Term[];

  constructor(module: Atom, name: Atom, flags: number, fields: readonly Atom[], values: readonly Term[]) {
    if (fields.length !== values.length) {
      throw new BeamtraceError("BT_NOT_ENCODABLE", "a native record has one value for each field");
    }
    this.module = module;
    this.name = name;
    this.flags = flags;
    this.fields = fields;
    this.values = values;
  }

  get kind(): "native-record" {
    return "native-record";
  }
}
