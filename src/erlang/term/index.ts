/** Erlang terms. */
export { Atom } from "./atom";
export { BitString } from "./bit-string";
export { atom, binary, charlist, float, improper, map, tuple } from "./constructors";
export { ErlMap } from "./erl-map";
export { ExportFun } from "./export-fun";
export { ErlFloat } from "./float";
export { Fun } from "./fun";
export type { FunFields } from "./fun";
export { ImproperList } from "./improper-list";
export { LocalExt } from "./local-ext";
export { NativeRecord } from "./native-record";
export { Pid } from "./pid";
export { Port } from "./port";
export { Reference } from "./reference";
export type { Term } from "./term";
export { Tuple } from "./tuple";
