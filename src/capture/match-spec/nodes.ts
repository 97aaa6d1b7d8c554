/**
 * What patterns and expressions of a match specification are made of: variables, wildcards, composites, calls.
 * Everything else in them is a literal term. Nodes are immutable and know nothing of the specification they stand in.
 */
import { atom, ErlMap, type Term } from "../../erlang/term";
import { MatchSpecError } from "./error";

declare const NAMES: unique symbol;
declare const EXPRESSION: unique symbol;

/** Something that can stand in a head; `N` are the names of the variables that it binds. */
export interface Pattern<N extends string = string> {
  readonly [NAMES]: N;
}

/** Something that can stand in a guard or a body and has a value. */
export interface Expression {
  readonly [EXPRESSION]: true;
}

/** A pattern, a list of patterns, or a literal. */
export type PatternInput = Pattern | Term | readonly PatternInput[];
/** An expression, a list of expressions, or a literal. */
export type ExpressionInput = Expression | Term | readonly ExpressionInput[];
/** Either of them, before it is clear where it will stand. */
export type NodeInput = Pattern | Expression | Term | readonly NodeInput[];

/** Names of the variables that a pattern binds; any name where the type of a list says nothing of its elements. */
export type NamesIn<P> =
  P extends Pattern<infer N>
    ? N
    : P extends readonly (infer E)[]
      ? [Term] extends [E]
        ? Extract<E, Pattern> extends never
          ? never
          : string
        : NamesIn<E>
      : never;

/** A composite of parts is a pattern when all its parts are, and an expression when all its parts are. */
export type Composite<Part> = (Part extends PatternInput ? never : 1) extends never
  ? (Part extends ExpressionInput ? never : 1) extends never
    ? Pattern<NamesIn<Part>> & Expression
    : Pattern<NamesIn<Part>>
  : Expression;

/** @internal */
export abstract class Node {
  abstract readonly node: "var" | "any" | "rest" | "tuple" | "list" | "map" | "call" | "raw" | "constant";
}

function plainTerm(term: Term): Term {
  if ((term as unknown) instanceof Node)
    throw new MatchSpecError("a term is expected here, not a variable or an expression");
  return term;
}

/** A variable. In a head it binds, and where it stands a second time it must match the same value. */
export class Variable<N extends string = string> extends Node implements Pattern<N>, Expression {
  declare readonly [NAMES]: N;
  declare readonly [EXPRESSION]: true;
  readonly node = "var";
  readonly name: N;

  constructor(name: N) {
    super();
    this.name = name;
  }
}

/** The wildcard, `_`. */
export class AnyPattern extends Node implements Pattern<never> {
  declare readonly [NAMES]: never;
  readonly node = "any";
}

/** The rest of the arguments. */
export class Rest extends Node {
  readonly node = "rest";
}

/** @internal Tuples, lists with or without a tail, and maps of nodes. */
export class CompositeNode extends Node {
  readonly node: "tuple" | "list" | "map";
  readonly parts: readonly NodeInput[];
  /** Tail of a list. */
  readonly tail: NodeInput | undefined;
  /** Keys of a map, one for each part. */
  readonly keys: readonly Term[];

  constructor(
    node: "tuple" | "list" | "map",
    parts: readonly NodeInput[],
    options: { readonly tail?: NodeInput | undefined; readonly keys?: readonly Term[] } = {},
  ) {
    super();
    this.node = node;
    this.parts = parts;
    this.tail = options.tail;
    this.keys = options.keys ?? [];
  }
}

/** The value of a function of match specifications. */
export class Call extends Node implements Expression {
  declare readonly [EXPRESSION]: true;
  readonly node = "call";
  readonly fn: string;
  readonly args: readonly ExpressionInput[];

  constructor(fn: string, args: readonly ExpressionInput[]) {
    super();
    this.fn = fn;
    this.args = args;
  }
}

/** A piece of a match specification given as a term, put in as it is. */
export class RawExpression extends Node implements Expression {
  declare readonly [EXPRESSION]: true;
  readonly node = "raw";
  readonly term: Term;

  constructor(term: Term) {
    super();
    this.term = plainTerm(term);
  }
}

/** A term that stands for itself wherever it is, even if it looks like a variable. */
export class Constant extends Node implements Expression, Pattern<never> {
  declare readonly [NAMES]: never;
  declare readonly [EXPRESSION]: true;
  readonly node = "constant";
  readonly term: Term;

  constructor(term: Term) {
    super();
    this.term = plainTerm(term);
  }
}

/**
 * A variable by name. In a head it binds; in guards and bodies take it from the first parameter of the callback, where only bound names exist.
 * @example
 * matchSpec.call([v("cart"), v("count")]).when(({ count }, g) => g.gt(count, 5));
 */
export function v<const N extends string>(name: N): Variable<N> {
  if (typeof name !== "string" || name === "") throw new MatchSpecError("a variable needs a name");
  return new Variable(name);
}

/** Matches anything and binds nothing: `_`. As a whole head: any arguments. */
export const any: AnyPattern = new AnyPattern();

/** As the last part of a head of a call: any further arguments. Needs OTP 29. */
export const rest: Rest = new Rest();

/** A tuple of patterns or of expressions. (A tuple of plain terms can be given as a term as well.) */
export function tupleOf<const Parts extends readonly NodeInput[]>(...parts: Parts): Composite<Parts[number]> {
  return new CompositeNode("tuple", parts) as unknown as Composite<Parts[number]>;
}

/** `[a, b | tail]`. Lists without a tail are arrays. */
export function listOf<const Parts extends readonly NodeInput[], const Tail extends NodeInput>(
  parts: Parts,
  tail: Tail,
): Composite<Parts[number] | Tail> {
  if (parts.length === 0) throw new MatchSpecError("a list with a tail needs at least one element before it");
  return new CompositeNode("list", parts, { tail }) as unknown as Composite<Parts[number] | Tail>;
}

/**
 * A map: in a head it matches maps that have at least these keys. Property names are atoms; for other keys give pairs.
 * @example
 * mapOf({ id: v("id") }); // #{id := Id}
 * mapOf([[binary("id"), v("id")]]); // #{<<"id">> := Id}
 */
export function mapOf<const Part extends NodeInput>(
  entries: Readonly<Record<string, Part>> | readonly (readonly [Term, Part])[],
): Composite<Part> {
  const pairs: (readonly [Term, NodeInput])[] = Array.isArray(entries)
    ? [...(entries as readonly (readonly [Term, Part])[])]
    : Object.entries(entries as Readonly<Record<string, Part>>).map(([name, value]) => [atom(name), value]);
  const keys = pairs.map(([key]) => key);
  if (ErlMap.of(pairs.map(([key]) => [key, 0] as const)).size !== keys.length)
    throw new MatchSpecError("a map can't have the same key twice");
  return new CompositeNode(
    "map",
    pairs.map(([, value]) => value),
    { keys },
  ) as unknown as Composite<Part>;
}

/** A term that stands for itself; only needed where a literal would be taken for something else. */
export function constant(term: Term): Constant {
  return new Constant(term);
}
