/**
 * What may be called in a match specification for tracing: name, arity, where, for which events, since which release.
 * Follows "Match Specifications in Erlang" (ERTS User's Guide), checked against OTP 25, 27 and 29 by the tests.
 */

/** What a match specification filters. */
export type MatchTarget = "call" | "send" | "receive";

/** A function of match specifications. */
export interface MatchFunction {
  /** Numbers of arguments it takes; from one upwards when not given. */
  readonly arities?: readonly number[];
  /** Allowed in the body only. */
  readonly action?: true;
  /** Events it is allowed for; all when not given. */
  readonly targets?: readonly MatchTarget[];
  /** First OTP release that has it; all supported ones when not given. */
  readonly since?: number;
}

const CALL = ["call"] as const;
const CALL_SEND = ["call", "send"] as const;

const guard = (arity: number, since?: number): MatchFunction =>
  since === undefined ? { arities: [arity] } : { arities: [arity], since };
const action = (
  arities: readonly number[],
  targets?: readonly MatchTarget[],
  since?: number,
): MatchFunction => ({
  arities,
  action: true,
  ...(targets === undefined ? {} : { targets }),
  ...(since === undefined ? {} : { since }),
});

const TABLE: Readonly<Record<string, MatchFunction>> = {
  // type tests
  is_atom: guard(1),
  is_binary: guard(1),
  is_bitstring: guard(1, 26),
  is_boolean: guard(1, 26),
  is_float: guard(1),
  is_function: { arities: [1, 2] },
  is_integer: { arities: [1, 3] },
  is_list: guard(1),
  is_map: guard(1),
  is_map_key: guard(2),
  is_number: guard(1),
  is_pid: guard(1),
  is_port: guard(1),
  is_record: guard(3),
  is_reference: guard(1),
  is_tuple: guard(1),
  is_seq_trace: { arities: [0], targets: CALL_SEND },
  // logic
  and: {},
  or: {},
  andalso: {},
  orelse: {},
  not: guard(1),
  xor: guard(2),
  // values
  abs: guard(1),
  binary_part: { arities: [2, 3] },
  bit_size: guard(1),
  byte_size: guard(1),
  ceil: guard(1, 26),
  element: guard(2),
  float: guard(1),
  floor: guard(1, 26),
  get_tcw: guard(0),
  hd: guard(1),
  length: guard(1),
  map_get: guard(2),
  map_size: guard(1),
  max: guard(2, 26),
  min: guard(2, 26),
  node: { arities: [0, 1] },
  round: guard(1),
  self: guard(0),
  size: guard(1),
  tl: guard(1),
  trunc: guard(1),
  tuple_size: guard(1, 26),
  // operators
  "+": { arities: [1, 2] },
  "-": { arities: [1, 2] },
  "*": guard(2),
  "/": guard(2),
  div: guard(2),
  rem: guard(2),
  band: guard(2),
  bor: guard(2),
  bxor: guard(2),
  bnot: guard(1),
  bsl: guard(2),
  bsr: guard(2),
  ">": guard(2),
  ">=": guard(2),
  "<": guard(2),
  "=<": guard(2),
  "==": guard(2),
  "/=": guard(2),
  "=:=": guard(2),
  "=/=": guard(2),
  // actions
  message: action([1]),
  return_trace: action([0], CALL),
  exception_trace: action([0], CALL),
  caller: action([0], CALL),
  caller_line: action([0], CALL),
  current_stacktrace: action([0, 1], CALL, 26),
  process_dump: action([0], CALL_SEND),
  silent: action([1], CALL_SEND),
  enable_trace: action([1, 2], CALL_SEND),
  disable_trace: action([1, 2], CALL_SEND),
  trace: action([2, 3], CALL_SEND),
  set_seq_token: action([2], CALL_SEND),
  get_seq_token: action([0], CALL_SEND),
  set_tcw: action([1]),
  display: action([1]),
};

/** The function of this name, or undefined when match specifications have none. */
export function matchFunction(name: string): MatchFunction | undefined {
  return Object.hasOwn(TABLE, name) ? TABLE[name] : undefined;
}

/** First OTP release that takes it with that many arguments. */
export function availableSince(name: string, fn: MatchFunction, argumentCount: number): number {
  if (name === "is_function" && argumentCount === 2) return 26;
  if (name === "is_integer" && argumentCount === 3) return 29;
  return fn.since ?? 0;
}

/** Names of all functions. */
export const MATCH_FUNCTIONS: readonly string[] = Object.keys(TABLE);
