/** Puts events into the functions of a module's forms. Pure: forms in, forms and site table out; the forms given are changed. */
import { atom, Atom, BeamtraceError, type Term, tuple, Tuple } from "../../erlang";
import { columnOf, fileOf, type Form, type FunctionNode, generatedAnno, lineOf } from "../forms";
import type { Site, SiteKind, SiteTable } from "../site-table";
import { HELPERS, HelpersInUse } from "./helpers";
import {
  hasTailCalls,
  type InjectOptions,
  instrumentFunction,
  type ModuleContext,
} from "./instrument-function";

/** A function of a module. */
export interface FunctionName {
  readonly function: string;
  readonly arity: number;
}

/** A function that was left as it is, and why. */
export interface Refusal extends FunctionName {
  readonly reason: string;
}

/** What and how to instrument. */
export interface InstrumentOptions extends InjectOptions {
  /** Which functions; all when not given. */
  readonly select?: (fun: FunctionName & { readonly module: string; readonly exported: boolean }) => boolean;
}

/** Instrumented forms. */
export interface InstrumentedForms {
  readonly forms: Form[];
  readonly table: SiteTable;
  readonly instrumented: readonly FunctionName[];
  readonly refused: readonly Refusal[];
}

/** The value of an attribute, or undefined. */
function attribute(forms: readonly Form[], name: string): Term | undefined {
  const found = forms.find((form) => form.type === "attribute" && form.name.name === name);
  return found?.type === "attribute" ? found.value : undefined;
}

const pairs = (forms: readonly Form[], name: string): string[] =>
  forms.flatMap((form) => {
    if (form.type !== "attribute" || form.name.name !== name) return [];
    const list = name === "import" && form.value instanceof Tuple ? form.value.elements[1] : form.value;
    if (!Array.isArray(list)) return [];
    return (list as readonly Term[]).flatMap((entry) =>
      entry instanceof Tuple && entry.elements[0] instanceof Atom
        ? [`${entry.elements[0].name}/${String(entry.elements[1])}`]
        : [],
    );
  });

/** Functions that only stand in for native code: their bodies are never run, or only to say so. */
function isNifStub(node: FunctionNode): boolean {
  return node.clauses.every(({ body }) => {
    const only = body.length === 1 ? body[0] : undefined;
    if (only?.type !== "call" || only.callee.type !== "remote") return false;
    const { module, function: name } = only.callee;
    if (module.type !== "atom" || name.type !== "atom") return false;
    return module.value.name === "erlang" && name.value.name === "nif_error";
  });
}

/**
 * Instruments the functions of a module.
 * @throws BeamtraceError `BT_INSTRUMENT_REFUSED` when the module has names of beamtrace already.
 */
export function instrumentForms(forms: Form[], options: InstrumentOptions = {}): InstrumentedForms {
  const moduleTerm = attribute(forms, "module");
  const module = moduleTerm instanceof Tuple ? moduleTerm.elements[0] : moduleTerm;
  if (!(module instanceof Atom)) {
    throw new BeamtraceError("BT_INSTRUMENT_REFUSED", "the forms have no -module attribute");
  }
  const functions = forms.filter((form) => form.type === "function");
  const own = Object.values(HELPERS);
  if (functions.some((form) => own.includes(form.name))) {
    throw new BeamtraceError(
      "BT_INSTRUMENT_REFUSED",
      `module ${module.name} is instrumented already: give the forms of its debug info`,
    );
  }
  const exported = new Set(pairs(forms, "export"));
  const nifs = new Set(pairs(forms, "nifs"));
  const known = new Set([
    ...functions.map((form) => `${form.name.name}/${form.arity}`),
    ...pairs(forms, "import"),
  ]);
  const sites: Site[] = [];
  const helpers = new HelpersInUse();
  const instrumented: FunctionName[] = [];
  const refused: Refusal[] = [];
  let file = "";
  for (const form of forms) {
    if (form.type === "attribute" && form.name.name === "file" && form.value instanceof Tuple) {
      const [name] = form.value.elements;
      if (Array.isArray(name)) file = (name as number[]).map((c) => String.fromCodePoint(c)).join("");
    }
    if (form.type !== "function") continue;
    const name: FunctionName = { function: form.name.name, arity: form.arity };
    const key = `${name.function}/${name.arity}`;
    const isExported = exported.has(key);
    if (options.select?.({ ...name, module: module.name, exported: isExported }) === false) continue;
    const context: ModuleContext = {
      known,
      helpers,
      exceptions: options.exceptions ?? "infer",
      site: (kind: SiteKind, { anno }, clause, args) => {
        const id = sites.length;
        const place = { file: fileOf(anno) ?? file, line: lineOf(anno), column: columnOf(anno) ?? 0 };
        sites.push({ id, kind, ...name, clause, ...place, arguments: args });
        return id;
      },
    };
    const reason = reasonAgainst(form, nifs.has(key), context);
    if (reason !== undefined) {
      refused.push({ ...name, reason });
      continue;
    }
    instrumentFunction(form, context);
    instrumented.push(name);
  }
  const table = { module: module.name, sites };
  if (instrumented.length === 0) return { forms, table, instrumented, refused };
  const anno = generatedAnno(functions[0]?.anno ?? 1);
  const added = helpers.functions(module, anno);
  // Where all that calls a helper is unused itself, the compiler would speak of the helper too.
  const names = added.map(({ name, arity }) => tuple(name, arity));
  const quiet: Form = {
    ...{ type: "attribute", anno, name: atom("compile") },
    value: tuple(atom("nowarn_unused_function"), names),
  };
  const start = forms.findIndex((form) => form.type === "attribute" && form.name.name === "module") + 1;
  const end = forms.findIndex((form) => form.type === "eof");
  const at = end < 0 ? forms.length : end;
  const whole = [...forms.slice(0, start), quiet, ...forms.slice(start, at), ...added, ...forms.slice(at)];
  return { forms: whole, table, instrumented, refused };
}

function reasonAgainst(form: FunctionNode, nif: boolean, context: ModuleContext): string | undefined {
  if (nif || isNifStub(form)) return "it stands in for native code";
  if (context.exceptions === "wrap" && hasTailCalls(form, context)) {
    return 'it has tail calls, which `exceptions: "wrap"` would break';
  }
  return undefined;
}
