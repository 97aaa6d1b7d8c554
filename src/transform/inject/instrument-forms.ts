/** Puts events into the functions of a module's forms. Pure: forms in, forms and site table out; the forms given are changed. */
import {
  embeddedSites,
  type Site,
  type SiteKind,
  siteNumber,
  SITES_FUNCTION,
  SITES_MAX,
  type SiteTable,
  tableVersion,
} from "../../buffer";
import { atom, Atom, BeamtraceError, tuple, Tuple } from "../../erlang";
import { OptionError } from "../../erlang/errors";
import { type Callback, callbacksOf } from "../behaviours/callbacks";
import { type Continuation, continuationsOf } from "../behaviours/continuations";
import { type Builder, builderAt } from "../builder";
import { walk } from "../children";
import {
  type Anno,
  columnOf,
  type Expr,
  fileOf,
  type Form,
  type FunctionNode,
  generatedAnno,
  type IntegerNode,
  lineOf,
  placeOf,
} from "../forms";
import {
  attribute,
  exportAttribute,
  exportedFunctions,
  type FunctionName,
  namedIn,
  withoutExportAll,
} from "./exports";
import { HELPERS, HelpersInUse } from "./helpers";
import { fileAttribute, injectLocals, type LocalsRequest } from "./locals";
import {
  hasTailCalls,
  type InjectOptions,
  instrumentFunction,
  type ModuleContext,
} from "./instrument-function";

/** Bytes that one term of a callback may take at most: they are made in the process that is traced. */
const MAX_CALLBACK_BYTES = 65_536;

/** A function that was left as it is, and why. */
export interface Refusal extends FunctionName {
  readonly reason: string;
}

/** What and how to instrument. */
export interface InstrumentOptions extends InjectOptions {
  /** Lines before which the values of the variables in scope are told, whether their functions are selected or not. */
  readonly locals?: readonly LocalsRequest[];
  /** Which functions; all when not given. Options in place of `true` hold for that function instead of the general ones. */
  readonly select?: (
    fun: FunctionName & { readonly module: string; readonly exported: boolean },
  ) => boolean | InjectOptions;
  /**
   * Also exports a function that gives the module's sites, for code that is loaded from memory or stripped of its chunks, where a
   * session can't read them from the file. Default false: what the module exports stays as it is.
   */
  readonly embedSites?: boolean;
}

/** Instrumented forms. */
export interface InstrumentedForms {
  readonly forms: Form[];
  readonly table: SiteTable;
  readonly instrumented: readonly FunctionName[];
  readonly refused: readonly Refusal[];
  /** Options for the compiler that spare it work on what was added, and warnings about it, and change nothing else. */
  readonly compileOptions: readonly Atom[];
}

/**
 * The compiler's optimisation of `try` finds something new in its own output each time, up to 16 times, and our helpers are half of what it then goes
 * through. Where the module has no `try` and no `catch` of its own, it is left out: there is nothing else for it to do.
 */
const NO_TRY_OPTIMISATION = atom("no_ssa_opt_try");

function catches(form: FunctionNode): boolean {
  let found = false;
  walk(form, ({ type }) => {
    found ||= type === "try" || type === "catch";
    return !found;
  });
  return found;
}

/** How many bytes of each term of a callback travel; undefined when callbacks are nothing of their own. */
function callbackBytes(option: Exclude<InjectOptions["callbacks"], undefined>): number | undefined {
  if (option === "none") return undefined;
  if (option === "shape") return 0;
  if (!Number.isSafeInteger(option.maxBytes) || option.maxBytes < 1 || option.maxBytes > MAX_CALLBACK_BYTES)
    throw new OptionError(
      "BT_OPTION_INVALID",
      "callbacks.maxBytes",
      `must be a whole number from 1 to ${MAX_CALLBACK_BYTES}, not ${option.maxBytes}`,
    );
  return option.maxBytes;
}

/**
 * What is put in has no specs and no docs; whether the module's own functions have them, the first compilation has said. As options and as an
 * attribute: releases differ in which of the two goes before the other.
 */
const UNSAID = ["nowarn_missing_spec", "nowarn_missing_spec_all", "nowarn_missing_doc"].map((name) =>
  atom(name),
);

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
  const own = [...Object.values(HELPERS), atom(SITES_FUNCTION)];
  const ours = functions.find((form) => own.includes(form.name));
  if (ours !== undefined) {
    throw new BeamtraceError(
      "BT_INSTRUMENT_REFUSED",
      `module ${module.name} has a function '${ours.name.name}'/${ours.arity}, a name of beamtrace's: if these are forms of instrumented code, give those of its debug info; if not, the function needs another name`,
    );
  }
  const exported = exportedFunctions(forms);
  const nifs = new Set(namedIn(forms, "nifs"));
  const known = new Set([
    ...functions.map((form) => `${form.name.name}/${form.arity}`),
    ...namedIn(forms, "import"),
  ]);
  // A wrong option is one whether or not any function has it.
  callbackBytes(options.callbacks ?? "shape");
  const callbacks =
    options.callbacks === "none" && options.select === undefined
      ? new Map<string, Callback>()
      : callbacksOf(forms, (key) => exported.has(key));
  const continuations = continuationsOf(forms, callbacks, module.name, { known });
  const sites: Site[] = [];
  const helpers = new HelpersInUse(module);
  const instrumented: FunctionName[] = [];
  const refused: Refusal[] = [];
  const numbers: IntegerNode[] = [];
  const number = (id: number, b: Builder): Expr => {
    const node = b.integer(id);
    numbers.push(node);
    return node;
  };
  injectLocals(forms, options.locals ?? [], { known, helpers }, (form, clause, at, variables, b) => {
    sites.push({
      ...{ id: sites.length, kind: "locals", function: form.name.name, arity: form.arity, clause },
      ...{ file: at.file, line: at.line, column: 0, arguments: [], variables },
    });
    return number(sites.length - 1, b);
  });
  let file = "";
  let ownTry = false;
  for (const form of forms) {
    file = fileAttribute(form) ?? file;
    if (form.type !== "function") continue;
    const name: FunctionName = { function: form.name.name, arity: form.arity };
    const key = `${name.function}/${name.arity}`;
    const isExported = exported.has(key);
    const chosen = options.select?.({ ...name, module: module.name, exported: isExported }) ?? true;
    if (chosen === false) {
      ownTry ||= catches(form);
      continue;
    }
    const how: InjectOptions = chosen === true ? options : { ...options, ...chosen };
    const maxBytes = callbackBytes(how.callbacks ?? "shape");
    const callback =
      maxBytes === undefined ? undefined : (callbacks.get(key) ?? asCallback(key, continuations.get(key)));
    const marked =
      callback === undefined
        ? undefined
        : { behaviour: callback.behaviour, name: callback.name, trigger: callback.trigger };
    const context: ModuleContext = {
      ...{ known, helpers, module: module.name },
      exceptions: how.exceptions ?? "infer",
      callback: callback === undefined ? undefined : { is: callback, maxBytes: maxBytes ?? 0 },
      site: (kind: SiteKind, { anno }, clause, args, callee) => {
        const id = sites.length;
        const site: Site = {
          id,
          kind,
          function: name.function,
          arity: name.arity,
          clause,
          file: fileOf(anno) ?? file,
          line: lineOf(anno),
          column: columnOf(anno) ?? 0,
          arguments: args,
        };
        // Nearly all are neither, and made in one step.
        if (callee === undefined && marked === undefined) sites.push(site);
        else
          sites.push({
            ...site,
            ...(callee === undefined ? {} : { callee }),
            ...(marked === undefined ? {} : { callback: marked }),
          });
        return id;
      },
      siteNumber: number,
    };
    const reason = reasonAgainst(form, nifs.has(key), context);
    if (reason !== undefined) {
      refused.push({ ...name, reason });
      ownTry ||= catches(form);
      continue;
    }
    if (instrumentFunction(form, context)) ownTry = true;
    instrumented.push(name);
  }
  const version = tableVersion(sites);
  const table = { module: module.name, version, sites };
  for (const node of numbers) node.value = siteNumber(version, node.value as number);
  if (sites.length > SITES_MAX)
    throw new BeamtraceError(
      "BT_INSTRUMENT_REFUSED",
      `module ${module.name} has ${sites.length} places for events and events can name ${SITES_MAX}: select fewer functions`,
    );
  const compileOptions = [...UNSAID, ...(ownTry ? [] : [NO_TRY_OPTIMISATION])];
  const result = { table, instrumented, refused, compileOptions };
  if (sites.length === 0) return { ...result, forms };
  const anno = generatedAnno(functions[0]?.anno ?? 1);
  // No compiler has a warning for them, so they go without the mark: forms travel.
  const added = helpers.functions(placeOf(functions[0]?.anno ?? 1));
  // Where all that calls a helper is unused itself, the compiler would speak of the helper too.
  const names = added.map(({ name, arity }) => tuple(name, arity));
  const quiet: Form = {
    ...{ type: "attribute", anno, name: atom("compile") },
    value: tuple(atom("nowarn_unused_function"), names),
  };
  const unsaid: Form = { type: "attribute", anno, name: atom("compile"), value: UNSAID };
  const start = forms.findIndex((form) => form.type === "attribute" && form.name.name === "module") + 1;
  const first = forms.findIndex(({ type }) => type === "function");
  const end = forms.findIndex((form) => form.type === "eof");
  const at = end < 0 ? forms.length : end;
  const attributes = withoutExportAll(forms.slice(start, first), exported, anno);
  const embed = options.embedSites === true;
  const whole = [
    ...forms.slice(0, start),
    quiet,
    ...(embed ? [exportAttribute([{ function: SITES_FUNCTION, arity: 0 }], anno)] : []),
    ...attributes,
    unsaid,
    ...forms.slice(first, at),
    ...added,
    ...(embed ? [sitesFunction(table, anno)] : []),
    ...forms.slice(at),
  ];
  return { ...result, forms: whole };
}

/** What a function has to tell that finishes a callback. */
function asCallback(key: string, continuation: Continuation | undefined): Callback | undefined {
  if (continuation === undefined) return undefined;
  const { behaviour, class: how, state } = continuation;
  return {
    ...{ behaviour, name: key, trigger: "continuation", class: how, state },
    ...{ message: undefined, from: undefined, stateName: undefined },
  };
}

/** The module's own answer to what its sites are. */
function sitesFunction(table: SiteTable, anno: Anno): FunctionNode {
  const b = builderAt(anno);
  return b.function(SITES_FUNCTION, 0, [b.clause([], [b.binary(embeddedSites(table))])]);
}

function reasonAgainst(form: FunctionNode, nif: boolean, context: ModuleContext): string | undefined {
  if (nif || isNifStub(form)) return "it stands in for native code";
  if (context.exceptions === "wrap" && hasTailCalls(form, context)) {
    return 'it has tail calls, which `exceptions: "wrap"` would break';
  }
  return undefined;
}
