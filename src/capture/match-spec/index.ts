/** Match specifications: what the VM itself filters and does at a trace event. */
export type { Actions as MatchActions, MatchSpecTraceFlag, SeqTokenPart } from "./actions";
export { checkMatchSpec } from "./check";
export type { MatchSpecOptions } from "./check";
export { checkMatchSpecOnNode } from "./check-on-node";
export { MatchSpecError } from "./error";
export type { TextPosition } from "./error";
export type { Evaluate } from "./evaluate";
export { matchSpecFromElixir } from "./from-elixir";
export { matchSpecFromErlang } from "./from-erlang";
export type { MatchSpecTextOptions } from "./from-erlang";
export type { MatchTarget } from "./functions";
export type { Guards as MatchGuards } from "./guards";
export { MatchSpec, matchSpec, MatchSpecBuilder } from "./match-spec";
export type { Head as MatchHead, Variables as MatchVariables } from "./match-spec";
export { any, constant, listOf, mapOf, rest, tupleOf, v } from "./nodes";
export type {
  Expression as MatchExpression,
  ExpressionInput as MatchExpressionInput,
  Pattern as MatchPattern,
  PatternInput as MatchPatternInput,
  Variable as MatchVariable,
} from "./nodes";
