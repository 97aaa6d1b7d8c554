/**
 * Variables of a piece of code. Erlang has no blocks: a variable lives from where it is bound to the end of its clause, and funs
 * and comprehensions see what is around them. So a name is free of collisions when no variable of the whole function has it.
 */
import type { Atom } from "../erlang";
import { atom } from "../erlang";
import { walk } from "./children";
import type { Expr, Node } from "./forms";

/** Names of all variables in a piece of code, those of funs within it included. */
export function variableNames(root: Node | readonly Node[]): Set<string> {
  const names = new Set<string>();
  walk(root, (node) => {
    if (node.type === "var") names.add(node.name.name);
    else if (node.type === "named_fun") names.add(node.name.name);
  });
  names.delete("_");
  return names;
}

/** Makes variable names that nothing in the given code has, each once. */
export class FreshNames {
  /** Whether the code has a `try` or a `catch`: all of it is gone through here anyway. */
  readonly catches: boolean;
  private readonly taken = new Set<string>();
  /** Per base the number to try next: functions of thousands of clauses ask for thousands of names. */
  private readonly numbers = new Map<string, number>();

  constructor(root: Node | readonly Node[]) {
    let catches = false;
    walk(root, (node) => {
      if (node.type === "var" || node.type === "named_fun") this.taken.add(node.name.name);
      else if (node.type === "try" || node.type === "catch") catches = true;
    });
    this.catches = catches;
  }

  /** `Base`, or `Base2`, `Base3` … when it is taken. */
  next(base: string): Atom {
    let n = this.numbers.get(base) ?? 1;
    let name: string;
    do {
      name = n === 1 ? base : `${base}${n}`;
      n++;
    } while (this.taken.has(name));
    this.numbers.set(base, n);
    this.taken.add(name);
    return atom(name);
  }
}

/** Nodes whose variables don't get out. */
const CLOSED = new Set<Node["type"]>(["fun", "named_fun", "lc", "bc", "mc", "catch"]);

/** Variables that an expression may bind for what comes after it; some of them may be bound before already. */
export function mayBind(root: Expr): Set<string> {
  const names = new Set<string>();
  const pattern = (node: Node): void => variableNames(node).forEach((name) => names.add(name));
  walk(root, (node) => {
    if (CLOSED.has(node.type)) return false;
    if (node.type === "match" || node.type === "maybe_match") pattern(node.pattern);
    else if (node.type === "clause") node.patterns.forEach(pattern);
    return true;
  });
  return names;
}
