/** Makes nodes, all at one annotation: `const b = builderAt(anno); b.call("f", [b.integer(1)])`. */
import type { Atom } from "../erlang";
import { atom } from "../erlang";
import {
  type Anno,
  type CallNode,
  type CaseNode,
  type ClauseNode,
  type Expr,
  type FunctionNode,
  generatedAnno,
  type IntegerNode,
  type MatchNode,
  placeOf,
  type TryNode,
  type VarNode,
} from "./forms";

const named = (given: string | Atom): Atom => (typeof given === "string" ? atom(given) : given);

/** Builders of nodes at one place. A class, as one is made for nearly every node that is changed; its methods need their `b.`. */
export class Builder {
  private readonly anno: Anno;
  /** Of atoms, integers and variables. */
  private readonly leaf: Anno;

  /** @internal Use `builderAt` or `builderBeside`. */
  constructor(anno: Anno, leaf = anno) {
    this.anno = anno;
    this.leaf = leaf;
  }

  atom(value: string | Atom): Expr {
    return { type: "atom", anno: this.leaf, value: named(value) };
  }

  variable(name: string | Atom): VarNode {
    return { type: "var", anno: this.leaf, name: named(name) };
  }

  wildcard(): VarNode {
    return this.variable("_");
  }

  integer(value: number): IntegerNode {
    return { type: "integer", anno: this.leaf, value };
  }

  clause(patterns: Expr[], body: Expr[], guards: Expr[][] = []): ClauseNode {
    return { type: "clause", anno: this.anno, patterns, guards, body };
  }

  tuple(...elements: Expr[]): Expr {
    return { type: "tuple", anno: this.anno, elements };
  }

  list(items: readonly Expr[]): Expr {
    const { anno } = this;
    return items.reduceRight<Expr>((tail, head) => ({ type: "cons", anno, head, tail }), {
      type: "nil",
      anno,
    });
  }

  match(pattern: Expr, value: Expr): MatchNode {
    return { type: "match", anno: this.anno, pattern, value };
  }

  call(callee: string | Atom, args: Expr[]): CallNode {
    return { type: "call", anno: this.anno, callee: this.atom(callee), arguments: args };
  }

  remoteCall(module: string | Atom, callee: string | Atom, args: Expr[]): CallNode {
    const { anno } = this;
    return {
      type: "call",
      anno,
      callee: { type: "remote", anno, module: this.atom(module), function: this.atom(callee) },
      arguments: args,
    };
  }

  operator(operator: string, left: Expr, right: Expr): Expr {
    return { type: "binary_op", anno: this.anno, operator: atom(operator), left, right };
  }

  case(value: Expr, clauses: ClauseNode[]): CaseNode {
    return { type: "case", anno: this.anno, value, clauses };
  }

  try(body: Expr[], handlers: ClauseNode[]): TryNode {
    return { type: "try", anno: this.anno, body, clauses: [], handlers, after: [] };
  }

  /** Bytes as a binary literal. */
  binary(bytes: Uint8Array): Expr {
    const { anno } = this;
    const [size, specifiers] = [atom("default"), atom("default")];
    const value: Expr = { type: "string", anno, value: [...bytes] };
    return { type: "bin", anno, elements: [{ type: "bin_element", anno, value, size, specifiers }] };
  }

  function(name: string | Atom, arity: number, clauses: ClauseNode[]): FunctionNode {
    return { type: "function", anno: this.anno, name: named(name), arity, clauses };
  }
}

/** Builders of nodes at one place. */
export function builderAt(anno: Anno): Builder {
  return new Builder(anno);
}

/**
 * Builders of what is added beside a node: at its place and marked as generated, but for atoms, integers and variables, of which no compiler
 * warns. The mark takes twenty times the bytes of a line, and forms travel.
 */
export function builderBeside({ anno }: { readonly anno: Anno }): Builder {
  return new Builder(generatedAnno(anno), placeOf(anno));
}
