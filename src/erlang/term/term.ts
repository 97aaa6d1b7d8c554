/** The type of all Erlang terms. */
import type { Atom } from "./atom";
import type { BitString } from "./bit-string";
import type { ErlMap } from "./erl-map";
import type { ExportFun } from "./export-fun";
import type { ErlFloat } from "./float";
import type { Fun } from "./fun";
import type { ImproperList } from "./improper-list";
import type { LocalExt } from "./local-ext";
import type { NativeRecord } from "./native-record";
import type { Pid } from "./pid";
import type { Port } from "./port";
import type { Reference } from "./reference";
import type { Tuple } from "./tuple";

/**
 * An Erlang term.
 *
 * - Integers are `number` within ±(2^53 - 1), otherwise `bigint`. (A safe integer given as a bigint is accepted when encoding.)
 *   A `number` with a fraction is no term: floats are `ErlFloat`.
 * - Binaries are `Uint8Array`. Text of Elixir is a binary, text of Erlang usually a list of code points.
 * - Proper lists are arrays.
 */
export type Term =
  | number
  | bigint
  | Atom
  | ErlFloat
  | Uint8Array
  | BitString
  | Tuple
  | readonly Term[]
  | ImproperList
  | ErlMap
  | Pid
  | Port
  | Reference
  | Fun
  | ExportFun
  | NativeRecord
  | LocalExt;
