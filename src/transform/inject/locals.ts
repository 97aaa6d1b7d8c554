/**
 * The values of variables at a line: before the expression there, a call that tells of those that are bound for certain. Nothing is stopped,
 * no variable is renamed, and what was in tail position stays there.
 */
import { Tuple } from "../../erlang";
import { OptionError } from "../../erlang/errors";
import { type Body, forEachBody, ownLines, sourceName, type Step } from "../bodies";
import { type Builder, builderBeside } from "../builder";
import { type Expr, fileOf, type Form, type FunctionNode, lineOf } from "../forms";
import { type CallContext, hasTailCall, tailIndex } from "../tail-position";
import type { HelpersInUse } from "./helpers";

/** A line whose variables are wanted. */
export interface LocalsRequest {
  /** As the module names it, or its end: `cart.ex`, `lib/shop/cart.ex`. */
  readonly file: string;
  readonly line: number;
  /** How much of each value travels. Default: 256. */
  readonly maxBytes?: number;
}

/** A line of a module's source. */
export interface SourceLine {
  readonly file: string;
  readonly line: number;
}

/** Registers a site and returns its number. */
export type LocalsSite = (
  form: FunctionNode,
  clause: number,
  at: SourceLine,
  variables: readonly string[],
  b: Builder,
) => Expr;

const DEFAULT_BYTES = 256;
const MAX_BYTES = 65_536;
/** Variables of one line that are told; the last ones bound are the ones that matter. */
const VARIABLES_MAX = 64;
const NEAREST = 4;

/** Whether the file is the one that is asked for, by its whole name or by its end. */
const isFile = (file: string, asked: string): boolean => file === asked || file.endsWith(`/${asked}`);

/** The name in a `-file` attribute. */
export function fileAttribute(form: Form): string | undefined {
  if (form.type !== "attribute" || form.name.name !== "file" || !(form.value instanceof Tuple))
    return undefined;
  const [name] = form.value.elements;
  return Array.isArray(name) ? (name as number[]).map((c) => String.fromCodePoint(c)).join("") : undefined;
}

/** A place in a body, and the lines of what stands there. */
interface Place extends SourceLine {
  readonly form: FunctionNode;
  /** From 1. */
  readonly clause: number;
  readonly step: Step;
}

/** Goes through every expression of every body; `visit` says whether what is within it is left out. */
function forEachStep(
  forms: readonly Form[],
  visit: (
    body: Body,
    places: readonly (Omit<Place, "line"> & { lines: ReadonlySet<number> })[],
  ) => ReadonlySet<Expr>,
): void {
  let file = "";
  for (const form of forms) {
    file = fileAttribute(form) ?? file;
    if (form.type !== "function") continue;
    form.clauses.forEach((clause, i) => {
      forEachBody(clause, (body) =>
        visit(
          body,
          body.steps.map((step) => ({
            ...{ form, clause: i + 1, step, file: fileOf(step.expression.anno) ?? file },
            lines: ownLines(step.expression, ({ anno }) => lineOf(anno)),
          })),
        ),
      );
    });
  }
}

const NOTHING: ReadonlySet<Expr> = new Set();

/**
 * The lines of a module that have an expression: where `locals` can look. A source file may have several modules: this says which of them a
 * line belongs to.
 */
export function expressionLines(forms: readonly Form[]): SourceLine[] {
  const files = new Map<string, Set<number>>();
  forEachStep(forms, (_, places) => {
    for (const { file, lines } of places) {
      const all = files.get(file) ?? new Set();
      lines.forEach((line) => all.add(line));
      files.set(file, all);
    }
    return NOTHING;
  });
  return [...files].flatMap(([file, lines]) =>
    [...lines].sort((a, b) => a - b).map((line) => ({ file, line })),
  );
}

/** The variables to tell of, by what the source calls them; of Elixir's `x@1` and `x@2` the later one. */
export function namedVariables(
  bound: ReadonlySet<string>,
): { readonly name: string; readonly variable: string }[] {
  const found = new Map<string, { variable: string; version: number }>();
  for (const variable of bound) {
    const source = sourceName(variable);
    if (source === undefined) continue;
    const known = found.get(source.name);
    if (known !== undefined && known.version >= source.version) continue;
    found.set(source.name, { variable, version: source.version });
  }
  return [...found].slice(-VARIABLES_MAX).map(([name, { variable }]) => ({ name, variable }));
}

/** `AccessToken` as `access_token`: keys to redact are in that form. */
const redactionKey = (name: string): string => name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toLowerCase();

/**
 * Puts the calls in.
 * @throws OptionError `BT_OPTION_INVALID` when the module has no such file, or no expression at the line
 */
export function injectLocals(
  forms: readonly Form[],
  requests: readonly LocalsRequest[],
  context: CallContext & { readonly helpers: HelpersInUse },
  site: LocalsSite,
): void {
  requests.forEach((request, i) => check(request, i));
  const lines = requests.length === 0 ? [] : expressionLines(forms);
  requests.forEach((request, i) => {
    if (requests.findIndex(({ file, line }) => file === request.file && line === request.line) < i) return;
    if (injectAt(forms, request, context, site) > 0) return;
    const files = [...new Set(lines.map(({ file }) => file))];
    const here = lines.filter(({ file }) => isFile(file, request.file)).map(({ line }) => line);
    const distance = (line: number): number => Math.abs(line - request.line);
    const nearest = [...new Set(here)].sort((a, b) => distance(a) - distance(b) || a - b).slice(0, NEAREST);
    throw new OptionError(
      "BT_OPTION_INVALID",
      `locals[${i}]`,
      here.length === 0
        ? `the module has no code of ${request.file}; it is made of ${files.join(", ") || "nothing"}`
        : `${request.file} has no expression at line ${request.line}; the nearest lines that have one: ${nearest.sort((a, b) => a - b).join(", ")}`,
    );
  });
}

function check({ file, line, maxBytes = DEFAULT_BYTES }: LocalsRequest, i: number): void {
  const invalid = (what: string): never => {
    throw new OptionError("BT_OPTION_INVALID", `locals[${i}]`, what);
  };
  if (file === "") invalid("the file's name is empty");
  if (!Number.isSafeInteger(line) || line < 1) invalid(`line ${line} is no line`);
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 1 || maxBytes > MAX_BYTES)
    invalid(`maxBytes must be a whole number from 1 to ${MAX_BYTES}, not ${maxBytes}`);
}

/** `X = f(), X` is a tail call of f: nothing may come between the two. */
function mayStandBefore(body: readonly Expr[], index: number, context: CallContext): number {
  const last = tailIndex(body);
  return index > last && hasTailCall(body[last]!, context) ? last : index;
}

/** Returns in how many places. */
function injectAt(
  forms: readonly Form[],
  { file, line, maxBytes = DEFAULT_BYTES }: LocalsRequest,
  context: CallContext & { readonly helpers: HelpersInUse },
  site: LocalsSite,
): number {
  let count = 0;
  forEachStep(forms, (body, places) => {
    const there = places.filter((place) => isFile(place.file, file) && place.lines.has(line));
    const [first] = there;
    if (first === undefined) return NOTHING;
    const at =
      places[
        mayStandBefore(
          places.map(({ step }) => step.expression),
          places.indexOf(first),
          context,
        )
      ]!;
    const variables = namedVariables(at.step.bound);
    const b = builderBeside(at.step.expression);
    const number = site(
      at.form,
      at.clause,
      { file: at.file, line },
      variables.map(({ name }) => name),
      b,
    );
    const pairs = variables.map(({ name, variable }) =>
      b.tuple(b.atom(redactionKey(name)), b.variable(variable)),
    );
    body.insertBefore(
      at.step.expression,
      b.call(context.helpers.use("locals"), [number, b.list(pairs), b.integer(maxBytes)]),
    );
    count++;
    return new Set(there.map(({ step }) => step.expression));
  });
  return count;
}
