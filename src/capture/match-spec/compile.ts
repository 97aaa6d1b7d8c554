/**
 * From patterns and expressions to the terms of a match specification ("Match Specifications in Erlang", Variables and Literals).
 * A head takes literals as they are, but for atoms that look like variables; guards and bodies take tuples for calls,
 * so that literal tuples and `$` atoms are escaped there.
 */
import { Atom, atom, ErlMap, improper, ImproperList, Tuple, tuple, type Term } from "../../erlang/term";
import { MatchSpecError } from "./error";
import {
  type Call,
  type CompositeNode,
  type Constant,
  type ExpressionInput,
  Node,
  type NodeInput,
  type RawExpression,
  type Variable,
} from "./nodes";

type AnyNode = Variable | Call | CompositeNode | RawExpression | Constant | { readonly node: "any" | "rest" };

/** Most pairs for which the VM takes the keys of a map in a body literally. */
const FLAT_MAP_PAIRS = 32;

/** Whether an atom in a head would bind or match anything: `'_'`, `'$0'`, `'$17'`. */
export function looksLikePattern(name: string): boolean {
  return name === "_" || /^\$(?:0|[1-9][0-9]*)$/.test(name);
}

/** Variables of one clause: names, in the order of their first place in the head, and hidden ones. */
export class Scope {
  private readonly numbers = new Map<string, number>();
  private last = 0;
  /** Guards that a head needs to mean what it says. */
  readonly guards: Term[] = [];

  bind(name: string): Atom {
    let number = this.numbers.get(name);
    if (number === undefined) {
      number = this.last += 1;
      this.numbers.set(name, number);
    }
    return atom(`$${number}`);
  }

  /** A variable that must equal this atom, which can't stand in a head itself. */
  hidden(literal: Atom): Atom {
    const variable = atom(`$${(this.last += 1)}`);
    this.guards.push(tuple(atom("=:="), variable, tuple(atom("const"), literal)));
    return variable;
  }

  get names(): readonly string[] {
    return [...this.numbers.keys()];
  }

  lookup(name: string): Atom {
    const number = this.numbers.get(name);
    if (number === undefined) throw unbound(name, this.names);
    return atom(`$${number}`);
  }
}

/** The error for a variable that the head does not bind. */
export function unbound(name: string, bound: readonly string[]): MatchSpecError {
  const what = bound.length === 0 ? "it binds none" : `it binds ${bound.join(", ")}`;
  return new MatchSpecError(`variable ${name} is not bound in the head (${what})`);
}

function asNode(input: NodeInput): AnyNode | undefined {
  return input instanceof Node ? (input as AnyNode) : undefined;
}

function refuseValue(input: unknown, where: string): never {
  const hint =
    typeof input === "string"
      ? `; for a name use atom(${JSON.stringify(input)}), for text binary(${JSON.stringify(input)})`
      : typeof input === "boolean"
        ? `; use atom("${String(input)}")`
        : input === undefined
          ? "; is the variable bound in the head?"
          : typeof input === "number"
            ? "; for a float use float()"
            : "";
  throw new MatchSpecError(
    `${typeof input === "object" ? "this object" : String(input)} in ${where} is no term${hint}`,
  );
}

function checkTerm(input: NodeInput, where: string): Term {
  if (
    typeof input === "number"
      ? !Number.isSafeInteger(input)
      : typeof input !== "bigint" && typeof input !== "object"
  )
    refuseValue(input, where);
  if (input === null || (typeof input === "object" && Object.getPrototypeOf(input) === Object.prototype))
    refuseValue(input, where);
  return input as Term;
}

/** A part of a head. */
export function compilePattern(input: NodeInput, scope: Scope): Term {
  const node = asNode(input);
  if (node === undefined)
    return Array.isArray(input)
      ? (input as readonly NodeInput[]).map((part) => compilePattern(part, scope))
      : literalPattern(checkTerm(input, "a head"), scope);
  switch (node.node) {
    case "var":
      return scope.bind(node.name);
    case "any":
      return atom("_");
    case "constant":
      return literalPattern(node.term, scope);
    case "tuple":
      return new Tuple(node.parts.map((part) => compilePattern(part, scope)));
    case "list": {
      const parts = node.parts.map((part) => compilePattern(part, scope));
      return improper(parts, compilePattern(node.tail as NodeInput, scope));
    }
    case "map":
      return ErlMap.of(
        node.keys.map(
          (key, i) => [patternKey(key), compilePattern(node.parts[i] as NodeInput, scope)] as const,
        ),
      );
    case "rest":
      throw new MatchSpecError("`rest` can only be the last argument of a head");
    case "call":
      throw new MatchSpecError(`${node.fn} can't be called in a head; compare in a guard`);
    case "raw":
      throw new MatchSpecError("a raw expression can't stand in a head");
  }
}

function patternKey(key: Term): Term {
  const scope = new Scope();
  const term = literalPattern(key, scope);
  if (scope.guards.length > 0)
    throw new MatchSpecError("a key of a map in a head can't be the atom '_' or one like '$1'");
  return term;
}

function literalPattern(term: Term, scope: Scope): Term {
  if (term instanceof Atom) return looksLikePattern(term.name) ? scope.hidden(term) : term;
  if (Array.isArray(term)) return (term as readonly Term[]).map((t) => literalPattern(t, scope));
  if (term instanceof Tuple) return new Tuple(term.elements.map((t) => literalPattern(t, scope)));
  if (term instanceof ImproperList)
    return improper(
      term.elements.map((t) => literalPattern(t, scope)),
      literalPattern(term.tail, scope),
    );
  if (term instanceof ErlMap)
    return ErlMap.of(
      [...term].map(([key, value]) => [patternKey(key), literalPattern(value, scope)] as const),
    );
  return term;
}

/** An expression of a guard or a body. */
export function compileExpression(input: NodeInput, scope: Scope): Term {
  const node = asNode(input);
  if (node === undefined) {
    if (!Array.isArray(input)) return literalExpression(checkTerm(input, "an expression"));
    return (input as readonly NodeInput[]).map((part) => compileExpression(part, scope));
  }
  switch (node.node) {
    case "var":
      return scope.lookup(node.name);
    case "raw":
      return node.term;
    case "constant":
      return tuple(atom("const"), node.term);
    case "call":
      return tuple(atom(node.fn), ...node.args.map((arg: ExpressionInput) => compileExpression(arg, scope)));
    case "tuple":
      return tuple(new Tuple(node.parts.map((part) => compileExpression(part, scope))));
    case "list": {
      const parts = node.parts.map((part) => compileExpression(part, scope));
      return improper(parts, compileExpression(node.tail as NodeInput, scope));
    }
    case "map":
      if (node.keys.length > FLAT_MAP_PAIRS && node.keys.some((key) => !isPlain(key)))
        throw new MatchSpecError(`a map of more than ${FLAT_MAP_PAIRS} pairs takes only simple keys`);
      return ErlMap.of(
        node.keys.map((key, i) => [key, compileExpression(node.parts[i] as NodeInput, scope)] as const),
      );
    case "any":
      throw new MatchSpecError("`any` matches in a head; it has no value in a guard or a body");
    case "rest":
      throw new MatchSpecError("`rest` can only be the last argument of a head");
  }
}

/** Whether a literal means itself in guards and bodies without escaping. */
function isPlain(term: Term): boolean {
  if (term instanceof Atom) return !term.name.startsWith("$");
  if (Array.isArray(term)) return (term as readonly Term[]).every(isPlain);
  return !(term instanceof Tuple || term instanceof ErlMap || term instanceof ImproperList);
}

function literalExpression(term: Term): Term {
  return isPlain(term) ? term : tuple(atom("const"), term);
}
