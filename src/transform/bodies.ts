/**
 * The bodies of a piece of code (lists of expressions that are evaluated one after the other) and which variables are bound for certain
 * before each of their expressions. Follows erl_lint's rules for `unsafe` variables, and errs to the side of leaving one out: what is not
 * named here may be bound, what is named is bound.
 */
import { children } from "./children";
import type { ClauseNode, Expr, Node } from "./forms";
import { variableNames } from "./scope";
import { isPassedOn } from "./tail-position";

/** Names of variables. */
type Names = ReadonlySet<string>;

/** One of several expressions that are evaluated one after the other. */
export interface Step {
  readonly expression: Expr;
  /** Variables that are bound for certain before it. */
  readonly bound: Names;
}

/** A body. */
export interface Body {
  /** Its expressions, as they were when it was entered. */
  readonly steps: readonly Step[];
  /** Puts another expression before this one. */
  insertBefore(expression: Expr, added: Expr): void;
}

const union = (...sets: readonly Names[]): Names => {
  const filled = sets.filter((set) => set.size > 0);
  return filled.length === 1 ? filled[0]! : new Set(filled.flatMap((set) => [...set]));
};

/** Elixir's `x` is `_x@1`, `_x@2` … in the forms, each bound once. */
const ELIXIR_NAME = /^_(.*)@(\d+)$/;

/**
 * What all clauses bind. Not of Elixir's variables: there what a clause binds is not seen after it, though for Erlang it is.
 */
function boundByAll(sets: readonly Names[]): Names {
  const [first, ...rest] = sets;
  if (first === undefined) return new Set();
  return new Set(
    [...first].filter((name) => !ELIXIR_NAME.test(name) && rest.every((other) => other.has(name))),
  );
}

const clauseBinds = ({ patterns, body }: ClauseNode): Names =>
  union(variableNames(patterns), boundInTurn(body));

/** Variables that expressions, one after the other, bind for what comes after them. */
export function boundInTurn(body: readonly Expr[]): Names {
  return union(...body.map(boundBy));
}

/** Variables that an expression binds for what comes after it, whatever way it takes through it. */
export function boundBy(root: Expr): Names {
  const found = new Set<string>();
  const add = (names: Names): void => names.forEach((name) => found.add(name));
  const stack: Node[] = [root];
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    switch (node.type) {
      case "match":
        add(variableNames(node.pattern));
        stack.push(node.value);
        break;
      case "case":
        stack.push(node.value);
        add(boundByAll(node.clauses.map(clauseBinds)));
        break;
      case "if":
      case "receive":
        add(boundByAll(node.clauses.map(clauseBinds)));
        break;
      case "receive_after":
        add(boundByAll([...node.clauses.map(clauseBinds), boundInTurn(node.body)]));
        break;
      case "binary_op":
        stack.push(node.left);
        if (node.operator.name !== "andalso" && node.operator.name !== "orelse") stack.push(node.right);
        break;
      // What these bind is unsafe after them, or their own.
      case "try":
      case "catch":
      case "maybe":
      case "maybe_else":
      case "fun":
      case "named_fun":
      case "lc":
      case "bc":
      case "mc":
        break;
      default:
        stack.push(...children(node));
    }
  }
  return found;
}

/** Nodes whose parts have bodies or scopes of their own. */
interface Place {
  readonly node: Node;
  readonly bound: Names;
}

/** Whether a `case` is nothing but its value: what stands in its clause can't be told from what stands before it. */
const isTransparent = (node: Node): boolean => node.type === "case" && isPassedOn(node);

/**
 * Calls `visit` with each body of a function's clause, outer ones first. What is within the expressions that it answers with is left out.
 */
export function forEachBody(clause: ClauseNode, visit: (body: Body) => ReadonlySet<Expr>): void {
  const places: Place[] = [];
  const enter = (expressions: Expr[], bound: Names): void => {
    let seen = bound;
    const steps = expressions.map((expression) => {
      const step = { expression, bound: seen };
      seen = union(seen, boundOfStep(expression));
      return step;
    });
    const left = visit({
      steps,
      insertBefore: (expression, added) => void expressions.splice(expressions.indexOf(expression), 0, added),
    });
    for (const { expression, bound: before } of steps)
      if (!left.has(expression)) places.push({ node: expression, bound: before });
  };
  const enterClauses = (clauses: readonly ClauseNode[], bound: Names): void => {
    for (const { patterns, body } of clauses) enter(body, union(bound, variableNames(patterns)));
  };
  enterClauses([clause], new Set());
  for (let place = places.pop(); place !== undefined; place = places.pop()) {
    const { node, bound } = place;
    const push = (...nodes: readonly Node[]): void => {
      for (const below of nodes) places.push({ node: below, bound });
    };
    switch (node.type) {
      case "block":
        enter(node.body, bound);
        break;
      case "case":
        push(node.value);
        if (!isTransparent(node)) enterClauses(node.clauses, union(bound, boundBy(node.value)));
        break;
      case "if":
      case "receive":
      case "fun":
      case "named_fun":
        enterClauses(node.clauses, bound);
        break;
      case "receive_after":
        enterClauses(node.clauses, bound);
        push(node.timeout);
        enter(node.body, bound);
        break;
      case "try":
        enter(node.body, bound);
        enterClauses(node.clauses, union(bound, boundInTurn(node.body)));
        enterClauses(node.handlers, bound);
        if (node.after.length > 0) enter(node.after, bound);
        break;
      case "maybe":
        enter(node.body, bound);
        break;
      case "maybe_else":
        enter(node.body, bound);
        enterClauses(node.otherwise.clauses, bound);
        break;
      case "maybe_match":
      case "match":
        push(node.value);
        break;
      case "binary_op":
        push(node.left);
        places.push({
          node: node.right,
          bound: isLazy(node) ? union(bound, boundBy(node.left)) : bound,
        });
        break;
      case "lc":
      case "bc":
      case "mc":
        enterComprehension(node, bound, places, enter);
        break;
      default:
        push(...children(node));
    }
  }
}

const isLazy = (node: Extract<Node, { type: "binary_op" }>): boolean =>
  node.operator.name === "andalso" || node.operator.name === "orelse";

/** Within `maybe`, `P ?= E` binds for what follows. */
const boundOfStep = (expression: Expr): Names =>
  expression.type === "maybe_match"
    ? union(variableNames(expression.pattern), boundBy(expression.value))
    : boundBy(expression);

function enterComprehension(
  node: Extract<Node, { type: "lc" | "bc" | "mc" }>,
  bound: Names,
  places: Place[],
  enter: (expressions: Expr[], bound: Names) => void,
): void {
  let seen = bound;
  const generator = (of: Node): void => {
    if (of.type === "zip") {
      const before = seen;
      for (const one of of.generators) {
        if (!("pattern" in one)) continue;
        places.push({ node: one.value, bound: before });
        seen = union(seen, variableNames(one.pattern));
      }
    } else if ("pattern" in of && of.type !== "match" && of.type !== "maybe_match") {
      places.push({ node: of.value as Node, bound: seen });
      seen = union(seen, variableNames(of.pattern as Node));
    } else {
      places.push({ node: of, bound: seen });
    }
  };
  node.qualifiers.forEach(generator);
  if (node.type !== "lc" || Array.isArray(node.template)) {
    for (const one of [node.template].flat()) places.push({ node: one, bound: seen });
    return;
  }
  // A body of one: what is put before it makes it a block.
  const body = [node.template];
  enter(body, seen);
  if (body.length > 1) node.template = { type: "block", anno: node.template.anno, body };
}

/** Lines of an expression itself, without those of the bodies within it. */
export function ownLines(root: Expr, lineOf: (node: Node) => number): Set<number> {
  const lines = new Set<number>();
  const stack: Node[] = [root];
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    const line = lineOf(node);
    if (line > 0) lines.add(line);
    switch (node.type) {
      case "block":
      case "fun":
      case "named_fun":
      case "if":
      case "receive":
      case "try":
      case "maybe":
      case "maybe_else":
        break;
      case "case":
        stack.push(node.value);
        if (isTransparent(node)) stack.push(...node.clauses.flatMap(({ body }) => body));
        break;
      case "receive_after":
        stack.push(node.timeout);
        break;
      case "lc":
        stack.push(...node.qualifiers);
        break;
      default:
        stack.push(...children(node));
    }
  }
  return lines;
}

/** What the source calls a variable: Elixir's `_total@2` is `total`. Undefined for those that a compiler made. */
export function sourceName(name: string): { readonly name: string; readonly version: number } | undefined {
  const [, base, version] = ELIXIR_NAME.exec(name) ?? [];
  if (base !== undefined) return base === "" ? undefined : { name: base, version: Number(version) };
  return /^_\d*$/.test(name) ? undefined : { name, version: 0 };
}
