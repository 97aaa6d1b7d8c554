/** Patterns of Elixir, as patterns of a match specification. */
import { type Ast } from "./elixir-ast";
import { mapPairs } from "./elixir-expression";
import { literalForm } from "./elixir-literals";
import { MatchSpecError } from "./error";
import { any, listOf, mapOf, type PatternInput, tupleOf, v } from "./nodes";

/**
 * @param names - Receives the names of the variables that the pattern binds.
 * @throws MatchSpecError with the position in the text.
 */
export function elixirPattern(ast: Ast, names: Set<string>): PatternInput {
  const inner = (part: Ast): PatternInput => elixirPattern(part, names);
  switch (ast.kind) {
    case "literal":
      return ast.term;
    case "pair":
      return tupleOf(...ast.items.map(inner));
    case "list":
      return listPattern(ast.items, inner);
    case "variable":
      if (ast.name === "_") return any;
      names.add(ast.name);
      return v(ast.name);
    case "call":
      return form(ast, inner);
    case "dot":
      throw new MatchSpecError(`.${ast.name} can't be part of a pattern`, { position: ast.at });
  }
}

function listPattern(items: readonly Ast[], inner: (part: Ast) => PatternInput): PatternInput {
  const last = items.at(-1);
  if (last?.kind === "call" && last.name === "|" && last.args.length === 2) {
    const [head, tail] = last.args as readonly [Ast, Ast];
    const parts = [...items.slice(0, -1), head].map(inner);
    return listOf(parts, inner(tail));
  }
  return items.map(inner);
}

function form(ast: Extract<Ast, { kind: "call" }>, inner: (part: Ast) => PatternInput): PatternInput {
  const { name, args, at: position } = ast;
  const literal = literalForm(ast);
  if (literal !== undefined) return literal;
  switch (name) {
    case "{}":
      return tupleOf(...args.map(inner));
    case "%{}":
    case "%":
      return mapOf(mapPairs(ast).map(([key, value]) => [key, inner(value)] as const));
    case "^":
      throw new MatchSpecError("there is nothing outside to pin; write the value itself", { position });
    case "=":
      throw new MatchSpecError("only the whole list of arguments can be matched with = in the head", {
        position,
      });
    case "<>":
      throw new MatchSpecError(
        "the beginning of a binary can't be matched; compare binary_part/3 in a guard",
        {
          position,
        },
      );
    default:
      throw new MatchSpecError(`${name}/${args.length} can't be part of a pattern`, { position });
  }
}
