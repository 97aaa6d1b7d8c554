/**
 * The functions and operators that guards and bodies of match specifications may use, with the names of Erlang in camel case.
 * In a guard an exception makes the clause not match; in a body it gives the atom `'EXIT'`.
 */
import { atom, type Atom, type Term } from "../../erlang/term";
import type { MatchTarget } from "./functions";
import { MatchSpecError } from "./error";
import { Call, Constant, type Expression, type ExpressionInput, RawExpression } from "./nodes";

type X = ExpressionInput;
type Unary = (a: X) => Expression;
type Binary = (a: X, b: X) => Expression;
type Variadic = (first: X, ...more: readonly X[]) => Expression;

const nullary = (fn: string) => (): Expression => new Call(fn, []);
const unary =
  (fn: string): Unary =>
  (a) =>
    new Call(fn, [a]);
const binaryOf =
  (fn: string): Binary =>
  (a, b) =>
    new Call(fn, [a, b]);
const variadic =
  (fn: string): Variadic =>
  (...all) =>
    new Call(fn, all);

/** What every guard and every body can use. */
export const guardFunctions = {
  // Type tests.
  isAtom: unary("is_atom"),
  isBinary: unary("is_binary"),
  /** OTP 26. */
  isBitstring: unary("is_bitstring"),
  /** OTP 26. */
  isBoolean: unary("is_boolean"),
  isFloat: unary("is_float"),
  /** With an arity: OTP 26. */
  isFunction: (a: X, arity?: X): Expression =>
    new Call("is_function", arity === undefined ? [a] : [a, arity]),
  isInteger: unary("is_integer"),
  isList: unary("is_list"),
  isMap: unary("is_map"),
  isMapKey: (key: X, map: X): Expression => new Call("is_map_key", [key, map]),
  isNumber: unary("is_number"),
  isPid: unary("is_pid"),
  isPort: unary("is_port"),
  /** Whether it is a tuple of that size that begins with that atom. The size counts the name: `record_info(size, Name)`. */
  isRecord: (a: X, name: Atom | string, size: number): Expression =>
    new Call("is_record", [a, typeof name === "string" ? atom(name) : name, size]),
  isReference: unary("is_reference"),
  isTuple: unary("is_tuple"),

  // Logic. Everything but `true` counts as false.
  and: variadic("and"),
  or: variadic("or"),
  /** Left to right, ends at the first that is not true. */
  andalso: variadic("andalso"),
  /** Left to right, ends at the first that is true. */
  orelse: variadic("orelse"),
  not: unary("not"),
  xor: binaryOf("xor"),
  /** Whether the value is exactly one of these. */
  oneOf: (a: X, values: readonly X[]): Expression => {
    if (values.length === 0) throw new MatchSpecError("oneOf needs at least one value");
    const tests = values.map((value) => new Call("=:=", [a, value]));
    return tests.length === 1 ? (tests[0] as Expression) : new Call("orelse", tests);
  },

  // Comparisons, in Erlang's order of terms.
  /** `==`: 1 and 1.0 are equal. */
  eq: binaryOf("=="),
  /** `/=` */
  ne: binaryOf("/="),
  /** `=:=`: 1 and 1.0 differ. */
  strictEq: binaryOf("=:="),
  /** `=/=` */
  strictNe: binaryOf("=/="),
  gt: binaryOf(">"),
  ge: binaryOf(">="),
  lt: binaryOf("<"),
  le: binaryOf("=<"),

  // Arithmetic.
  add: binaryOf("+"),
  sub: binaryOf("-"),
  mul: binaryOf("*"),
  /** `/`, gives a float. */
  divide: binaryOf("/"),
  /** Division of integers, towards zero. */
  div: binaryOf("div"),
  rem: binaryOf("rem"),
  neg: unary("-"),
  abs: unary("abs"),
  round: unary("round"),
  trunc: unary("trunc"),
  /** OTP 26. */
  floor: unary("floor"),
  /** OTP 26. */
  ceil: unary("ceil"),
  float: unary("float"),
  /** OTP 26. */
  max: binaryOf("max"),
  /** OTP 26. */
  min: binaryOf("min"),
  band: binaryOf("band"),
  bor: binaryOf("bor"),
  bxor: binaryOf("bxor"),
  bnot: unary("bnot"),
  bsl: binaryOf("bsl"),
  bsr: binaryOf("bsr"),

  // Parts and sizes.
  /** Element of a tuple; the first is 1. */
  element: (index: X, tuple: X): Expression => new Call("element", [index, tuple]),
  hd: unary("hd"),
  tl: unary("tl"),
  length: unary("length"),
  /** Of a tuple or a binary. */
  size: unary("size"),
  /** OTP 26; before, use `size`. */
  tupleSize: unary("tuple_size"),
  mapSize: unary("map_size"),
  mapGet: (key: X, map: X): Expression => new Call("map_get", [key, map]),
  byteSize: unary("byte_size"),
  bitSize: unary("bit_size"),
  binaryPart: (binary: X, start: X, length: X): Expression =>
    new Call("binary_part", [binary, start, length]),

  // Where we are.
  /** The process in which the event happens. */
  self: nullary("self"),
  /** Name of the node, or of the node of a pid, port or reference. */
  node: (of?: X): Expression => new Call("node", of === undefined ? [] : [of]),
  /** The trace control word: a 32-bit number of the whole node. */
  getTcw: nullary("get_tcw"),

  /** All that is matched: the arguments; `[Receiver, Message]`; `[Node, Sender, Message]`. `'$_'` in Erlang. */
  whole: (): Expression => new RawExpression(atom("$_")),
  /** The values of all variables of the head, as a list. `'$$'` in Erlang. */
  bound: (): Expression => new RawExpression(atom("$$")),
  /** A term that stands for itself. Only needed for what looks like something else; literal terms are escaped anyway. */
  constant: (term: Term): Expression => new Constant(term),
  /** A piece of match specification in Erlang's own form, `{'>', '$1', 5}`. Functions that beamtrace does not know are left to the node. */
  raw: (term: Term): Expression => new RawExpression(term),
} as const;

const seqTraceGuards = {
  /** Whether the process has a sequential trace token. */
  isSeqTrace: nullary("is_seq_trace"),
} as const;

/** Functions of the guards of a match specification for that event. */
export type Guards<T extends MatchTarget> = T extends "receive"
  ? typeof guardFunctions
  : typeof guardFunctions & typeof seqTraceGuards;

const withSeqTrace = { ...guardFunctions, ...seqTraceGuards };

/** The guard functions for that event. */
export function guardsFor<T extends MatchTarget>(target: T): Guards<T> {
  return (target === "receive" ? guardFunctions : withSeqTrace) as Guards<T>;
}
