/**
 * Match specifications written as an Erlang fun, `fun([A, B]) when A > 5 -> return_trace() end`: scanned, parsed and translated by
 * the node's own erl_scan, erl_parse and ms_transform, as `dbg:fun2ms/1` does in its shell. The fun is never made, let alone called.
 */
import {
  Atom,
  atom,
  charlist,
  ErlMap,
  improper,
  ImproperList,
  Tuple,
  tuple,
  type Term,
} from "../../erlang/term";
import { checkMatchSpec, type MatchSpecOptions } from "./check";
import { MatchSpecError } from "./error";
import { charsToString, checkText, type Evaluate, evaluateOr, positionOf, tagged } from "./evaluate";
import type { MatchTarget } from "./functions";
import { MatchSpec } from "./match-spec";

/** Options of the text forms. */
export interface MatchSpecTextOptions<T extends MatchTarget = MatchTarget> extends MatchSpecOptions {
  /** The event it is for. Default: `"call"`. */
  readonly target?: T;
}

/** Modules of the node that explain errors; no other is ever called. */
const EXPLAINERS: ReadonlySet<string> = new Set(["erl_scan", "erl_parse", "ms_transform"]);

/**
 * Makes a match specification from the text of an Erlang fun, with the node's own tools.
 * The names in the text become atoms on the node, as in its shell.
 *
 * @param text - `fun([A, B]) when A > 5 -> return_trace() end`; several clauses by `;`, a dot at the end may be left out.
 * @param evaluate - Applies a function on the node, such as `session.call`.
 * @throws MatchSpecError `BT_MATCH_SPEC_INVALID` with line, column and the node's own message.
 * @example
 * await matchSpecFromErlang("fun([_, N]) when N > 100 -> message(caller()) end", (m, f, a) => session.call(m, f, a));
 */
export async function matchSpecFromErlang<T extends MatchTarget = "call">(
  text: string,
  evaluate: Evaluate,
  options: MatchSpecTextOptions<T> = {},
): Promise<MatchSpec<T>> {
  checkText(text);
  const clauses = funClauses(await parse(await scan(text, evaluate), evaluate));
  const spec = await evaluateOr(
    "the node's ms_transform could not translate the fun",
    evaluate,
    "ms_transform",
    "transform_from_shell",
    [atom("dbg"), clauses, []],
  );
  const errors = tagged(spec, "error");
  if (errors !== undefined) throw await explain(firstError(errors[0]), evaluate);
  const target = options.target ?? ("call" as T);
  const term = (spec as readonly Term[]).map(bindingsMeant);
  checkMatchSpec(term, target, options);
  return new MatchSpec<T>(target, { term, checked: true });
}

/**
 * ms_transform makes `'$*'` of `bindings()`, which no VM knows (it is an atom there); `'$$'` is meant. One that was written in the text
 * is `{const, '$*'}`.
 */
function bindingsMeant(term: Term): Term {
  if (term instanceof Atom) return term.name === "$*" ? atom("$$") : term;
  if (tagged(term, "const") !== undefined) return term;
  if (Array.isArray(term)) return (term as readonly Term[]).map(bindingsMeant);
  if (term instanceof Tuple) return new Tuple(term.elements.map(bindingsMeant));
  if (term instanceof ErlMap)
    return ErlMap.of([...term].map(([k, value]) => [k, bindingsMeant(value)] as const));
  if (term instanceof ImproperList)
    return improper(term.elements.map(bindingsMeant), bindingsMeant(term.tail));
  return term;
}

async function scan(text: string, evaluate: Evaluate): Promise<readonly Term[]> {
  const start = tuple(1, 1);
  const scanned = await evaluateOr("the node could not scan the text", evaluate, "erl_scan", "string", [
    charlist(text),
    start,
  ]);
  const error = tagged(scanned, "error");
  if (error !== undefined) throw await explain(error[0], evaluate);
  const [tokens, end] = tagged(scanned, "ok") ?? [];
  const list = (Array.isArray(tokens) ? tokens : []) as readonly Term[];
  return tagged(list.at(-1), "dot") === undefined ? [...list, tuple(atom("dot"), end ?? start)] : list;
}

async function parse(tokens: readonly Term[], evaluate: Evaluate): Promise<readonly Term[]> {
  const parsed = await evaluateOr("the node could not parse the text", evaluate, "erl_parse", "parse_exprs", [
    tokens,
  ]);
  const error = tagged(parsed, "error");
  if (error !== undefined) throw await explain(error[0], evaluate);
  return (tagged(parsed, "ok")?.[0] ?? []) as readonly Term[];
}

function funClauses(expressions: readonly Term[]): Term {
  const [first, second] = expressions;
  if (second !== undefined)
    throw new MatchSpecError("the text must be one fun; something follows it", {
      position: positionOf((second as Tuple).elements?.[1]),
    });
  const fun = tagged(first, "fun");
  const clauses = tagged(fun?.[1], "clauses")?.[0];
  if (clauses === undefined)
    throw new MatchSpecError(
      "the text must be a fun with its clauses, such as fun([A, B]) -> return_trace() end",
      {
        position: first instanceof Tuple ? positionOf(first.elements[1]) : undefined,
      },
    );
  return clauses;
}

/** The `{Location, Module, Description}` of `[{File, [Info | _]} | _]`. */
function firstError(files: Term | undefined): Term | undefined {
  const file = Array.isArray(files) ? (files as readonly Term[])[0] : undefined;
  const infos = file instanceof Tuple ? file.elements[1] : undefined;
  return Array.isArray(infos) ? (infos as readonly Term[])[0] : undefined;
}

/** The error that the node's own `Module:format_error/1` makes of `{Location, Module, Description}`. */
async function explain(info: Term | undefined, evaluate: Evaluate): Promise<MatchSpecError> {
  const [location, module, description] = info instanceof Tuple ? info.elements : [];
  const position = positionOf(location);
  if (module instanceof Atom && EXPLAINERS.has(module.name) && description !== undefined) {
    const chars = await evaluateOr("the node refused the text", evaluate, module.name, "format_error", [
      description,
    ]);
    return new MatchSpecError(charsToString(chars), { position });
  }
  return new MatchSpecError("the node refused the text and did not say why", { position });
}
