/** Short functions that make nodes, all at one annotation: `const b = builderAt(anno); b.call("f", [b.integer(1)])`. */
import type { Atom } from "../erlang";
import { atom } from "../erlang";
import type {
  Anno,
  CallNode,
  CaseNode,
  ClauseNode,
  Expr,
  FunctionNode,
  MatchNode,
  TryNode,
  VarNode,
} from "./forms";

const name = (given: string | Atom): Atom => (typeof given === "string" ? atom(given) : given);

/** Builders of nodes at one place. */
export function builderAt(anno: Anno) {
  const atomNode = (value: string | Atom): Expr => ({ type: "atom", anno, value: name(value) });
  const variable = (of: string | Atom): VarNode => ({ type: "var", anno, name: name(of) });
  const clause = (patterns: Expr[], body: Expr[], guards: Expr[][] = []): ClauseNode => ({
    type: "clause",
    anno,
    patterns,
    guards,
    body,
  });
  return {
    atom: atomNode,
    variable,
    clause,
    integer: (value: number): Expr => ({ type: "integer", anno, value }),
    wildcard: (): VarNode => variable("_"),
    tuple: (...elements: Expr[]): Expr => ({ type: "tuple", anno, elements }),
    list: (items: readonly Expr[]): Expr =>
      items.reduceRight<Expr>((tail, head) => ({ type: "cons", anno, head, tail }), { type: "nil", anno }),
    match: (pattern: Expr, value: Expr): MatchNode => ({ type: "match", anno, pattern, value }),
    call: (callee: string | Atom, args: Expr[]): CallNode => ({
      type: "call",
      anno,
      callee: atomNode(callee),
      arguments: args,
    }),
    remoteCall: (module: string | Atom, callee: string | Atom, args: Expr[]): CallNode => ({
      type: "call",
      anno,
      callee: { type: "remote", anno, module: atomNode(module), function: atomNode(callee) },
      arguments: args,
    }),
    operator: (operator: string, left: Expr, right: Expr): Expr => ({
      type: "binary_op",
      anno,
      operator: atom(operator),
      left,
      right,
    }),
    case: (value: Expr, clauses: ClauseNode[]): CaseNode => ({ type: "case", anno, value, clauses }),
    try: (body: Expr[], handlers: ClauseNode[]): TryNode => ({
      type: "try",
      anno,
      body,
      clauses: [],
      handlers,
      after: [],
    }),
    /** Bytes as a binary literal. */
    binary: (bytes: Uint8Array): Expr => ({
      type: "bin",
      anno,
      elements: [
        {
          type: "bin_element",
          anno,
          value: { type: "string", anno, value: [...bytes] },
          size: atom("default"),
          specifiers: atom("default"),
        },
      ],
    }),
    function: (of: string | Atom, arity: number, clauses: ClauseNode[]): FunctionNode => ({
      type: "function",
      anno,
      name: name(of),
      arity,
      clauses,
    }),
  };
}

/** What `builderAt` gives. */
export type Builder = ReturnType<typeof builderAt>;
