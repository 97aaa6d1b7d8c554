/**
 * Elixir source parsed by the node, without the node learning new atoms: `Code.string_to_quoted/2` hands every name to an encoder
 * that leaves it a binary, `{'$atom', <<"name">>}`. Here that is read back as a small typed tree (Elixir: "Syntax reference").
 */
import { Atom, atom, binary, ErlFloat, Tuple, tuple, type Term } from "../../erlang/term";
import { BeamtraceError } from "../../erlang/errors";
import { MatchSpecError, type TextPosition } from "./error";
import { charsToString, type Evaluate, evaluateOr, tagged } from "./evaluate";

/** A node of the syntax tree. `at` is undefined for literals: Elixir keeps no position of them. */
export type Ast =
  /** Numbers, binaries, and atoms (`:ok`, `nil`, `true`, `Shop.Cart`). */
  | { readonly kind: "literal"; readonly term: Term; readonly at?: TextPosition | undefined }
  | { readonly kind: "list"; readonly items: readonly Ast[]; readonly at?: undefined }
  | { readonly kind: "pair"; readonly items: readonly [Ast, Ast]; readonly at?: undefined }
  | { readonly kind: "variable"; readonly name: string; readonly at: TextPosition | undefined }
  /** Operators, special forms (`{}`, `%{}`, `%`, `<<>>`, `fn`, `->`, `__block__` …), local calls. */
  | {
      readonly kind: "call";
      readonly name: string;
      readonly args: readonly Ast[];
      readonly at: TextPosition | undefined;
    }
  /** `Module.function(…)`, or `value.field`, which has no parentheses. */
  | {
      readonly kind: "dot";
      readonly left: Ast;
      readonly name: string;
      readonly args: readonly Ast[];
      readonly parentheses: boolean;
      readonly at: TextPosition | undefined;
    };

const NAME = "$atom";

/** `'Elixir.Code':string_to_quoted(Text, [{columns, true}, …])` as abstract forms; `Text` is a binding. */
function parserCall(): Term {
  const anno = 0;
  const a = (name: string): Term => tuple(atom("atom"), anno, atom(name));
  const v = (name: string): Term => tuple(atom("var"), anno, atom(name));
  const t = (...items: Term[]): Term => tuple(atom("tuple"), anno, items);
  const list = (items: readonly Term[]): Term =>
    items.reduceRight<Term>((tail, item) => tuple(atom("cons"), anno, item, tail), tuple(atom("nil"), anno));
  // fun(Name, _Meta) -> {ok, {'$atom', Name}} end
  const encoder = tuple(
    atom("fun"),
    anno,
    tuple(atom("clauses"), [
      tuple(atom("clause"), anno, [v("Name"), v("_")], [], [t(a("ok"), t(a(NAME), v("Name")))]),
    ]),
  );
  const options = list([
    t(a("columns"), a("true")),
    t(a("emit_warnings"), a("false")),
    t(a("static_atoms_encoder"), encoder),
  ]);
  const callee = tuple(atom("remote"), anno, a("Elixir.Code"), a("string_to_quoted"));
  return [tuple(atom("call"), anno, callee, [v("Text"), options])];
}

/**
 * Parses Elixir on the node. Only the parser runs there; no name in the text becomes an atom.
 * @throws BeamtraceError `BT_NO_CODE` when the node has no Elixir; MatchSpecError with the parser's message and position.
 */
export async function parseElixir(text: string, evaluate: Evaluate): Promise<Ast> {
  const loaded = await evaluate("code", "ensure_loaded", [atom("Elixir.Code")]);
  if (tagged(loaded, "module") === undefined)
    throw new BeamtraceError(
      "BT_NO_CODE",
      "the node has no Elixir, so it can't parse an Elixir match specification; write it in Erlang (matchSpecFromErlang) or build it (matchSpec)",
    );
  const [result] =
    tagged(
      await evaluateOr("the node could not parse the text", evaluate, "erl_eval", "exprs", [
        parserCall(),
        [tuple(atom("Text"), binary(text))],
      ]),
      "value",
    ) ?? [];
  const error = tagged(result, "error");
  if (error !== undefined) throw syntaxError(error[0]);
  const [ast] = tagged(result, "ok") ?? [];
  if (ast === undefined) throw new MatchSpecError("the node's Elixir gave no syntax tree");
  return readAst(ast);
}

/** `{Meta, Message | {Before, After}, Token}` */
function syntaxError(error: Term | undefined): MatchSpecError {
  const [meta, message, token] = error instanceof Tuple ? error.elements : [];
  const [before, after] = message instanceof Tuple ? message.elements : [message, binary("")];
  return new MatchSpecError(`${charsToString(before)}${charsToString(token)}${charsToString(after)}`.trim(), {
    position: metaPosition(meta, "end_line", "end_column") ?? metaPosition(meta, "line", "column"),
  });
}

function metaValue(meta: Term | undefined, key: string): Term | undefined {
  if (!Array.isArray(meta)) return undefined;
  for (const entry of meta as readonly Term[]) {
    const found = tagged(entry, key);
    if (found !== undefined) return found[0];
  }
  return undefined;
}

function metaPosition(
  meta: Term | undefined,
  lineKey = "line",
  columnKey = "column",
): TextPosition | undefined {
  const line = metaValue(meta, lineKey);
  const column = metaValue(meta, columnKey);
  if (typeof line !== "number") return undefined;
  return typeof column === "number" ? { line, column } : { line };
}

/** The name behind an encoded or a plain atom. */
function nameOf(term: Term | undefined): string | undefined {
  if (term instanceof Atom) return term.name;
  const [name, more] = tagged(term, NAME) ?? [];
  return name instanceof Uint8Array && more === undefined ? charsToString(name) : undefined;
}

function readAst(term: Term): Ast {
  if (
    typeof term === "number" ||
    typeof term === "bigint" ||
    term instanceof Uint8Array ||
    term instanceof ErlFloat
  )
    return { kind: "literal", term };
  const name = nameOf(term);
  if (name !== undefined) return { kind: "literal", term: atom(name) };
  if (Array.isArray(term)) return { kind: "list", items: (term as readonly Term[]).map(readAst) };
  if (term instanceof Tuple && term.length === 2) {
    const [left, right] = term.elements as readonly [Term, Term];
    return { kind: "pair", items: [readAst(left), readAst(right)] };
  }
  if (term instanceof Tuple && term.length === 3)
    return readForm(...(term.elements as readonly [Term, Term, Term]));
  throw new MatchSpecError("the node's Elixir gave a syntax tree that beamtrace does not know");
}

function readForm(head: Term, meta: Term, rest: Term): Ast {
  const at = metaPosition(meta);
  const name = nameOf(head);
  if (name !== undefined) {
    if (!Array.isArray(rest)) return { kind: "variable", name, at };
    const parts = rest as readonly Term[];
    if (name === "__aliases__") return { kind: "literal", term: aliasAtom(parts, at), at };
    return { kind: "call", name, args: parts.map(readAst), at };
  }
  // {{:., _, [left, name]}, meta, args}
  const dot =
    head instanceof Tuple && head.length === 3 && nameOf(head.elements[0]) === "."
      ? head.elements[2]
      : undefined;
  const [left, right] = Array.isArray(dot) ? (dot as readonly Term[]) : [];
  const field = nameOf(right);
  if (left === undefined || field === undefined || !Array.isArray(rest))
    throw new MatchSpecError("calling a value can't be part of a match specification", { position: at });
  const parentheses = nameOf(metaValue(meta, "no_parens")) !== "true";
  const args = (rest as readonly Term[]).map(readAst);
  return { kind: "dot", left: readAst(left), name: field, args, parentheses, at };
}

function aliasAtom(parts: readonly Term[], position: TextPosition | undefined): Atom {
  const names = parts.map((part) => nameOf(part));
  if (names.some((n) => n === undefined))
    throw new MatchSpecError("a module name must be written out", { position });
  return atom(names[0] === "Elixir" ? names.join(".") : `Elixir.${names.join(".")}`);
}
