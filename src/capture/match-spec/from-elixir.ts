/**
 * Match specifications written as an Elixir function, `fn [a, %{id: id}] when a > 5 -> return_trace() end`: parsed by the node's own
 * Elixir, translated here. Neither the function nor anything else of the text is run.
 */
import { Atom, tuple, type Term } from "../../erlang/term";
import { checkMatchSpec } from "./check";
import { compileExpression, compilePattern, Scope } from "./compile";
import { type Ast, parseElixir } from "./elixir-ast";
import { elixirExpression } from "./elixir-expression";
import { elixirPattern } from "./elixir-pattern";
import { MatchSpecError } from "./error";
import { checkText, type Evaluate } from "./evaluate";
import type { MatchSpecTextOptions } from "./from-erlang";
import type { MatchTarget } from "./functions";
import { guardFunctions } from "./guards";
import { MatchSpec } from "./match-spec";
import { type ExpressionInput, v } from "./nodes";

/**
 * Makes a match specification from the text of an Elixir function that takes the list of arguments.
 * Functions in guards are those of `Kernel` and `Bitwise`; actions have their Erlang names (`return_trace()`, `message(x)`, `caller()` …).
 * No name in the text becomes an atom on the node, but for literal atoms once the specification is set.
 *
 * @param text - `fn [cart, n] when n > 5 -> message(caller()) end`, with as many clauses as wanted.
 * @param evaluate - Applies a function on the node, such as `session.call`.
 * @throws MatchSpecError `BT_MATCH_SPEC_INVALID` with line and column; BeamtraceError `BT_NO_CODE` when the node has no Elixir.
 */
export async function matchSpecFromElixir<T extends MatchTarget = "call">(
  text: string,
  evaluate: Evaluate,
  options: MatchSpecTextOptions<T> = {},
): Promise<MatchSpec<T>> {
  checkText(text);
  const ast = await parseElixir(text, evaluate);
  if (ast.kind !== "call" || ast.name !== "fn")
    throw new MatchSpecError("the text must be a function, such as fn [a, b] -> return_trace() end", {
      position: ast.at,
    });
  const spec = ast.args.flatMap(clauseTerms);
  const target = options.target ?? ("call" as T);
  checkMatchSpec(spec, target, options);
  return new MatchSpec<T>(target, { term: spec, checked: true });
}

/** One clause of the function; alternatives by several `when` give one clause each. */
function clauseTerms(arrow: Ast): Term[] {
  if (arrow.kind !== "call" || arrow.name !== "->" || arrow.args.length !== 2)
    throw new MatchSpecError("the function has no clauses", { position: arrow.at });
  const [left, right] = arrow.args as readonly [Ast, Ast];
  const { parameters, guards } = splitWhen(left.kind === "list" ? left.items : [left]);
  const [parameter] = parameters;
  if (parameter === undefined || parameters.length !== 1)
    throw new MatchSpecError("the function takes one parameter: the list of arguments, fn [a, b] -> … end", {
      position: parameter?.at ?? arrow.at,
    });
  const names = new Set<string>();
  const scope = new Scope();
  const { head, whole } = compileHead(parameter, names, scope);
  const variables = new Map<string, ExpressionInput>([...names].map((name) => [name, v(name)]));
  if (whole !== undefined) variables.set(whole, guardFunctions.whole());
  const expression = (part: Ast): Term => compileExpression(elixirExpression(part, variables), scope);
  const body = bodyOf(right).map(expression);
  const alternatives = guards.length === 0 ? [[]] : guards.map((guard) => [expression(guard)]);
  return alternatives.map((guard) => tuple(head, [...scope.guards, ...guard], body));
}

function splitWhen(parameters: readonly Ast[]): {
  readonly parameters: readonly Ast[];
  readonly guards: readonly Ast[];
} {
  const [only] = parameters;
  if (only?.kind !== "call" || only.name !== "when") return { parameters, guards: [] };
  const guards: Ast[] = [];
  let rest = only.args.at(-1) as Ast;
  while (rest.kind === "call" && rest.name === "when" && rest.args.length === 2) {
    guards.push(rest.args[0] as Ast);
    rest = rest.args[1] as Ast;
  }
  return { parameters: only.args.slice(0, -1), guards: [...guards, rest] };
}

/** `[a, b]`, `args`, `_`, or `[a, b] = args`, whose name then stands for the whole list. */
function compileHead(
  ast: Ast,
  names: Set<string>,
  scope: Scope,
): { readonly head: Term; readonly whole: string | undefined } {
  if (ast.kind === "call" && ast.name === "=" && ast.args.length === 2) {
    const [left, right] = ast.args as readonly [Ast, Ast];
    const [name, pattern] = left.kind === "variable" ? [left, right] : [right, left];
    if (name.kind !== "variable" || pattern.kind !== "list")
      throw new MatchSpecError("in the head, = joins a name and the list of arguments", { position: ast.at });
    const inner = compileHead(pattern, names, scope);
    if (name.name === "_") return inner;
    if (names.has(name.name))
      throw new MatchSpecError(`${name.name} can't be both the whole list and a part of it`, {
        position: name.at,
      });
    return { head: inner.head, whole: name.name };
  }
  if (ast.kind !== "list" && ast.kind !== "variable")
    throw new MatchSpecError("the parameter must be the list of arguments, a variable for all of it, or _", {
      position: ast.at,
    });
  return { head: compilePattern(elixirPattern(ast, names), scope), whole: undefined };
}

function bodyOf(ast: Ast): readonly Ast[] {
  // An empty body reads as nil.
  if (ast.kind === "literal" && ast.term instanceof Atom && ast.term.name === "nil") return [];
  return ast.kind === "call" && ast.name === "__block__" ? ast.args : [ast];
}
