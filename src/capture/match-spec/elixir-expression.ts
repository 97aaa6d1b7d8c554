/**
 * Guards and bodies of Elixir, as expressions of a match specification: the functions of `Kernel` that are allowed in guards,
 * those of `Bitwise`, `:erlang.…`, and the actions, by the names that Erlang has for them.
 */
import { Atom, atom, type Term } from "../../erlang/term";
import { type Ast } from "./elixir-ast";
import { literalForm } from "./elixir-literals";
import { MatchSpecError, type TextPosition } from "./error";
import { matchFunction } from "./functions";
import { Call, type ExpressionInput, listOf, mapOf, tupleOf } from "./nodes";
import { guardFunctions as g } from "./guards";

type X = ExpressionInput;
type Maker = (args: readonly X[]) => X;

/** Elixir's operators and functions that have another name, another order of arguments or another meaning in Erlang. */
const RENAMED: Readonly<Record<string, Maker>> = {
  "!=/2": (a) => new Call("/=", a),
  "<=/2": (a) => new Call("=<", a),
  "===/2": (a) => new Call("=:=", a),
  "!==/2": (a) => new Call("=/=", a),
  "and/2": ([a, b]) => chain("andalso", a as X, b as X),
  "or/2": ([a, b]) => chain("orelse", a as X, b as X),
  "&&&/2": (a) => new Call("band", a),
  "|||/2": (a) => new Call("bor", a),
  "<<</2": (a) => new Call("bsl", a),
  ">>>/2": (a) => new Call("bsr", a),
  "~~~/1": (a) => new Call("bnot", a),
  "elem/2": ([tuple, index]) => new Call("element", [successor(index as X), tuple as X]),
  "is_map_key/2": ([map, key]) => new Call("is_map_key", [key as X, map as X]),
  "is_nil/1": ([a]) => new Call("=:=", [a as X, atom("nil")]),
  "is_struct/1": ([a]) => isStruct(a as X),
  "is_struct/2": ([a, name]) =>
    g.andalso(isStruct(a as X), g.strictEq(g.mapGet(atom("__struct__"), a as X), name as X)),
  "bindings/0": () => g.bound(),
  "object/0": () => g.whole(),
};

/** Names that Elixir spells as Erlang does but that its guards don't have, or that mean something else there. */
const NOT_ELIXIR: ReadonlySet<string> = new Set([
  "andalso",
  "orelse",
  "element",
  "map_get",
  "size",
  "float",
  "is_record",
]);

/** What people write that can't work, with what can. */
const INSTEAD: Readonly<Record<string, string>> = {
  "&&": "use and",
  "||": "use or",
  "!": "use not",
  "=": "patterns stand in the head only",
  "|>": "write the call out",
  "<>": "compare binary_part/3",
  "++": "lists can't be joined here",
  "^": "there is nothing outside to pin; write the value itself",
  if: "write a clause for each case",
  case: "write a clause for each case",
  cond: "write a clause for each case",
  andalso: "use and",
  orelse: "use or",
  element: "use elem/2, whose first index is 0",
  map_get: "use value.key, or :erlang.map_get/2",
  size: "use tuple_size/1 or byte_size/1, or :erlang.size/1",
};

/** `(a and b) and c`, which is how Elixir reads a chain, as `a andalso (b andalso c)`, which is how Erlang reads it. */
function chain(fn: "andalso" | "orelse", a: X, b: X): Call {
  if (!(a instanceof Call) || a.fn !== fn || a.args.length !== 2) return new Call(fn, [a, b]);
  return new Call(fn, [a.args[0] as X, chain(fn, a.args[1] as X, b)]);
}

function successor(index: X): X {
  return typeof index === "number" ? index + 1 : g.add(index, 1);
}

function isStruct(a: X): X & Call {
  const key = atom("__struct__");
  return g.andalso(g.isMap(a), g.isMapKey(key, a), g.isAtom(g.mapGet(key, a))) as X & Call;
}

/**
 * @param variables - What the names that the head binds stand for.
 * @throws MatchSpecError with the position in the text.
 */
export function elixirExpression(ast: Ast, variables: ReadonlyMap<string, X>): X {
  const inner = (part: Ast): X => elixirExpression(part, variables);
  switch (ast.kind) {
    case "literal":
      return ast.term;
    case "pair":
      return tupleOf(...ast.items.map(inner));
    case "list":
      return listExpression(ast.items, inner);
    case "variable":
      return variable(ast.name, ast.at, variables);
    case "call":
      return form(ast, inner);
    case "dot":
      return dotted(ast, inner);
  }
}

function variable(name: string, position: TextPosition | undefined, variables: ReadonlyMap<string, X>): X {
  const bound = variables.get(name);
  if (bound !== undefined) return bound;
  const hint = matchFunction(name) === undefined ? "" : `; for the function write ${name}()`;
  throw new MatchSpecError(`variable ${name} is not bound in the head${hint}`, { position });
}

function listExpression(items: readonly Ast[], inner: (part: Ast) => X): X {
  const last = items.at(-1);
  if (last?.kind === "call" && last.name === "|" && last.args.length === 2) {
    const [head, tail] = last.args as readonly [Ast, Ast];
    return listOf([...items.slice(0, -1).map(inner), inner(head)], inner(tail));
  }
  return items.map(inner);
}

function form(ast: Extract<Ast, { kind: "call" }>, inner: (part: Ast) => X): X {
  const { name, args, at: position } = ast;
  const literal = literalForm(ast);
  if (literal !== undefined) return literal;
  if (name === "{}") return tupleOf(...args.map(inner));
  if (name === "%{}" || name === "%") return mapExpression(ast, inner);
  if (name === "in" && args.length === 2)
    return membership(inner(args[0] as Ast), args[1] as Ast, inner, position);
  if (name === "__block__" && args.length === 1) return inner(args[0] as Ast);
  return call(name, args, inner, position);
}

function call(
  name: string,
  asts: readonly Ast[],
  inner: (part: Ast) => X,
  position: TextPosition | undefined,
): X {
  const renamed = RENAMED[`${name}/${asts.length}`];
  if (renamed !== undefined) return renamed(asts.map(inner));
  if (matchFunction(name) === undefined || NOT_ELIXIR.has(name)) {
    const instead = Object.hasOwn(INSTEAD, name) ? `; ${INSTEAD[name]}` : "";
    throw new MatchSpecError(`${name}/${asts.length} can't be part of a match specification${instead}`, {
      position,
    });
  }
  return erlangCall(name, asts.map(inner), position);
}

function erlangCall(name: string, args: readonly X[], position: TextPosition | undefined): X {
  const arities = matchFunction(name)?.arities;
  if (arities === undefined ? args.length === 0 : !arities.includes(args.length))
    throw new MatchSpecError(`match specifications have no ${name}/${args.length}`, { position });
  return new Call(name, args);
}

function dotted(ast: Extract<Ast, { kind: "dot" }>, inner: (part: Ast) => X): X {
  const { left, name, args, parentheses, at: position } = ast;
  if (left.kind === "literal" && left.term instanceof Atom) {
    const module = left.term.name;
    if (module === "erlang") {
      if (matchFunction(name) === undefined || matchFunction(name)?.action)
        throw new MatchSpecError(`:erlang.${name}/${args.length} can't be part of a match specification`, {
          position,
        });
      return erlangCall(name, args.map(inner), position);
    }
    if (["Elixir.Kernel", "Elixir.Bitwise"].includes(module)) return call(name, args, inner, position);
    const shown = module.startsWith("Elixir.") ? module.slice("Elixir.".length) : `:${module}`;
    const hint =
      module === "Elixir.Access"
        ? "value[key] can't be part of a match specification; use value.key, or match the key in the head"
        : `${shown}.${name}/${args.length} can't be part of a match specification: it runs no functions of modules`;
    throw new MatchSpecError(hint, { position });
  }
  if (parentheses || args.length > 0)
    throw new MatchSpecError(`.${name}() on a value can't be part of a match specification`, { position });
  return g.mapGet(atom(name), inner(left));
}

/** `a in [1, 2]`, `a in 1..5` */
function membership(a: X, right: Ast, inner: (part: Ast) => X, position: TextPosition | undefined): X {
  if (right.kind === "list")
    return right.items.length === 0 ? atom("false") : g.oneOf(a, right.items.map(inner));
  if (right.kind === "call" && right.name === "..") {
    const [from, to] = right.args.map(inner) as readonly X[];
    if (typeof from === "number" && typeof to === "number")
      return g.andalso(g.isInteger(a), g.ge(a, Math.min(from, to)), g.le(a, Math.max(from, to)));
  }
  if (right.kind === "call") {
    const literal = literalForm(right);
    if (Array.isArray(literal)) return g.oneOf(a, literal as readonly Term[]);
  }
  throw new MatchSpecError("the right side of `in` must be a list or a range of integers", { position });
}

/** `%{k => v}` and `%Name{k: v}` */
function mapExpression(ast: Extract<Ast, { kind: "call" }>, inner: (part: Ast) => X): X {
  return mapOf(mapPairs(ast).map(([key, value]) => [key, inner(value)] as const));
}

/** Pairs of a map or struct form, keys as terms. */
export function mapPairs(ast: Extract<Ast, { kind: "call" }>): (readonly [Term, Ast])[] {
  const position = ast.at;
  if (ast.name === "%") {
    const [name, fields] = ast.args;
    if (name?.kind !== "literal" || !(name.term instanceof Atom) || fields?.kind !== "call")
      throw new MatchSpecError("a struct needs its name written out", { position });
    return [[atom("__struct__"), name], ...mapPairs(fields)];
  }
  return ast.args.map((pair) => {
    if (pair.kind !== "pair")
      throw new MatchSpecError("a map can't be updated in a match specification", { position });
    return [mapKey(pair.items[0], position), pair.items[1]] as const;
  });
}

function mapKey(ast: Ast, position: TextPosition | undefined): Term {
  if (ast.kind === "literal") return ast.term;
  if (ast.kind === "list") return ast.items.map((item) => mapKey(item, position));
  const literal = ast.kind === "call" ? literalForm(ast) : undefined;
  if (literal === undefined)
    throw new MatchSpecError("a key of a map must be a simple literal", { position: ast.at ?? position });
  return literal;
}
