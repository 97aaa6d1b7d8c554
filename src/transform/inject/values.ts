/** What the compiler makes of an expression, as far as it says where an event may stand beside it. */
import { Atom } from "../../erlang";
import { walk } from "../children";
import type { CallNode, Expr } from "../forms";

/** What a call is made of, in the order of evaluation. */
export function partsOf({ callee, arguments: args }: CallNode): Expr[] {
  return [...(callee.type === "remote" ? [callee.module, callee.function] : [callee]), ...args];
}

/** Whether the compiler makes functions of parts of it. It numbers them in their order, and stack traces show the numbers. */
export function makesFunctions(node: Expr): boolean {
  let found = false;
  walk(node, ({ type }) => {
    found ||= [
      "lc",
      "bc",
      "mc",
      "fun",
      "named_fun",
      "try",
      "receive",
      "receive_after",
      "maybe",
      "maybe_else",
    ].includes(type);
    return !found;
  });
  return found;
}

/** Whether an expression is a value already: evaluating it has no effect, can't fail and takes no time to speak of. */
export function isPlain(node: Expr): boolean {
  switch (node.type) {
    case "var":
    case "atom":
    case "integer":
    case "float":
    case "char":
    case "string":
    case "nil":
    case "value":
    case "fun":
    case "fun_local":
      return true;
    case "cons": {
      let cell: Expr = node;
      while (cell.type === "cons") {
        if (!isPlain(cell.head)) return false;
        cell = cell.tail;
      }
      return isPlain(cell);
    }
    case "tuple":
      return node.elements.every(isPlain);
    case "map":
      return node.fields.every(({ key, value }) => isPlain(key) && isPlain(value));
    case "bin":
      return node.elements.every(
        ({ value, size, specifiers }) =>
          size instanceof Atom &&
          specifiers instanceof Atom &&
          (value.type === "string" || value.type === "integer"),
      );
    default:
      return false;
  }
}
