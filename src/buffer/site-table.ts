/**
 * The sites of an instrumented module: what an event's number stands for. An external term
 * `{beamtrace_sites, Format, Module, Files, Sites, Callbacks, Version}`, kept in chunk `BtSt` of the module, so that whoever has the beam can read its events, and, where that is wanted, compressed in a function of
 * the module, so that loaded code answers for itself: its file may be stripped, be of another version, or never have been there.
 */
import { deflateRawSync, inflateRawSync } from "node:zlib";
import type { BeamFile } from "../erlang";
import { decode, encode } from "../erlang/etf";
import {
  atom,
  Atom,
  CorruptBeamError,
  charlist,
  chunkTerm,
  type Term,
  tuple,
  Tuple,
  withChunkTerm,
} from "../erlang";

/** The chunk that holds the table. */
export const SITE_CHUNK = "BtSt";
/** Of this form; in 2 there was no version, and events carried bare places. */
const FORMAT = 3;
const UNVERSIONED = 2;
/** No module has so many sites; a damaged table must not cost memory. */
const MAX_TABLE_BYTES = 1 << 28;
const TAG = atom("beamtrace_sites");
const KINDS = ["entry", "return", "tail", "locals"] as const;
const KIND_ATOMS = KINDS.map((kind) => atom(kind));

/** What happens at a site. */
export type SiteKind = (typeof KINDS)[number];

/** What makes a behaviour call a callback. */
export type CallbackTrigger =
  | "init"
  | "call"
  | "cast"
  | "info"
  | "continue"
  | "event"
  | "terminate"
  | "code_change"
  | "start"
  | "stop"
  | "config_change"
  | "mount"
  | "params"
  | "async"
  | "update"
  | "render"
  | "join"
  | "in"
  | "out"
  | "plug"
  | "task"
  /** The function finishes callbacks that end in a tail call of it. */
  | "continuation";

/** The callback of a behaviour that a function is. */
export interface SiteCallback {
  /** As `behavioursOf` names it. */
  readonly behaviour: string;
  /** Such as `handle_call/3`; state functions of a state machine are `StateName/3`. */
  readonly name: string;
  readonly trigger: CallbackTrigger;
}

/** One place of a module that sends events. */
export interface Site {
  /** Place in the table, from 0. Events have it together with the table's version, as one number. */
  readonly id: number;
  readonly kind: SiteKind;
  readonly function: string;
  readonly arity: number;
  /** Clause of the function, from 1. */
  readonly clause: number;
  /** Source file as the module names it. */
  readonly file: string;
  readonly line: number;
  /** From 1; 0 when it is not known. */
  readonly column: number;
  /** Of an entry: positions of the arguments that the event carries, from 0. */
  readonly arguments: readonly number[];
  /** Of `locals`: what the source calls the variables whose values the event carries, in their order. */
  readonly variables?: readonly string[];
  /** Of a tail call in a callback: the function of the same module that is called, as `name/arity`. */
  readonly callee?: string;
  /** Of a function that is a callback. */
  readonly callback?: SiteCallback;
}

/** The sites of one module. */
export interface SiteTable {
  readonly module: string;
  /** Which events it holds for: those whose numbers have it (`site-number.ts`). */
  readonly version: number;
  readonly sites: readonly Site[];
}

const asTerm = (value: string | number): Term => (typeof value === "string" ? atom(value) : value);
/** The function that gives `embeddedSites`; a module that has it exports it. */
export const SITES_FUNCTION = "-beamtrace-sites-";

/** Puts the table into the beam. */
export function withSiteTable(beam: BeamFile, table: SiteTable): BeamFile {
  return withChunkTerm(beam, SITE_CHUNK, siteTerm(table));
}

/** The table as an instrumented module carries it in its code. */
export function embeddedSites(table: SiteTable): Uint8Array {
  return deflateRawSync(encode(siteTerm(table)), { level: 9 });
}

/**
 * The table that an instrumented module gives.
 * @throws CorruptBeamError `BT_CORRUPT_BEAM`
 */
export function siteTableOf(embedded: Uint8Array): SiteTable {
  let term: Term;
  try {
    term = decode(inflateRawSync(embedded, { maxOutputLength: MAX_TABLE_BYTES }));
  } catch {
    throw corrupt();
  }
  return siteTableFromTerm(term);
}

/** The table as a term, `siteTableFromTerm` of which gives it back. */
export function siteTerm(table: SiteTable): Term {
  const files = [...new Set(table.sites.map((site) => site.file))];
  const index = new Map(files.map((file, i) => [file, i]));
  const details = (s: Site): readonly Term[] => {
    if (s.variables !== undefined) return s.variables.map(asTerm);
    if (s.callee === undefined) return s.arguments;
    const slash = s.callee.lastIndexOf("/");
    return [atom(s.callee.slice(0, slash)), Number(s.callee.slice(slash + 1))];
  };
  // Without calls that take what is spread: a build makes thousands of these in its first second.
  const sites = table.sites.map((s) => {
    const kind = KIND_ATOMS[KINDS.indexOf(s.kind)]!;
    const place = index.get(s.file)!;
    return new Tuple([kind, atom(s.function), s.arity, s.clause, place, s.line, s.column, details(s)]);
  });
  const callbacks = new Map<string, Term>();
  for (const { function: name, arity, callback } of table.sites) {
    if (callback === undefined) continue;
    const { behaviour, name: of, trigger } = callback;
    callbacks.set(`${name}/${arity}`, tuple(...[name, arity, behaviour, of, trigger].map(asTerm)));
  }
  const names = files.map(charlist);
  return tuple(...[TAG, FORMAT, atom(table.module), names, sites, [...callbacks.values()], table.version]);
}

/** What stands where an entry has the positions of its arguments: of `locals` the variables' names, of a callback's tail call whom it calls. */
function detailsOf(
  kind: SiteKind,
  args: readonly Term[],
  corrupt: () => CorruptBeamError,
): Pick<Site, "arguments" | "variables" | "callee"> {
  if (kind === "locals") {
    const variables = args.map((arg) => {
      if (!(arg instanceof Atom)) throw corrupt();
      return arg.name;
    });
    return { arguments: [], variables };
  }
  if (kind === "tail" && args.length > 0) {
    const [name, arity] = args;
    if (!(name instanceof Atom) || typeof arity !== "number") throw corrupt();
    return { arguments: [], callee: `${name.name}/${arity}` };
  }
  if (!args.every((arg) => typeof arg === "number")) throw corrupt();
  return { arguments: args };
}

/**
 * The table of an instrumented beam, or undefined when it has none.
 * @throws CorruptBeamError `BT_CORRUPT_BEAM`
 */
export function readSiteTable(beam: BeamFile): SiteTable | undefined {
  const term = chunkTerm(beam, SITE_CHUNK);
  return term === undefined ? undefined : siteTableFromTerm(term);
}

const corrupt = (): CorruptBeamError => new CorruptBeamError(`there is no site table of format ${FORMAT}`, 0);

function character(code: Term): string {
  if (typeof code !== "number" || !(code >= 0 && code <= 0x10ffff)) throw corrupt();
  return String.fromCodePoint(code);
}

/**
 * The table that a chunk holds as a term.
 * @throws CorruptBeamError `BT_CORRUPT_BEAM`
 */
export function siteTableFromTerm(term: Term): SiteTable {
  const [tag, format, module, files, sites, marked, given] = term instanceof Tuple ? term.elements : [];
  if (tag !== TAG || (format !== FORMAT && format !== UNVERSIONED) || !(module instanceof Atom))
    throw corrupt();
  const version = format === UNVERSIONED ? 0 : given;
  if (typeof version !== "number") throw corrupt();
  if (!Array.isArray(files) || !Array.isArray(sites)) throw corrupt();
  const names = (files as readonly Term[]).map((file) => {
    if (!Array.isArray(file)) throw corrupt();
    return (file as readonly Term[]).map(character).join("");
  });
  const number = (value: Term | undefined): number => {
    if (typeof value !== "number") throw corrupt();
    return value;
  };
  if (!Array.isArray(marked)) throw corrupt();
  const callbacks = new Map<string, SiteCallback>();
  for (const one of marked as readonly Term[]) {
    const [of, arity, behaviour, callback, trigger] = one instanceof Tuple ? one.elements : [];
    const names = [of, behaviour, callback, trigger].map((part) => (part instanceof Atom ? part.name : ""));
    if (names.includes("") || typeof arity !== "number") throw corrupt();
    callbacks.set(`${names[0]!}/${arity}`, {
      ...{ behaviour: names[1]!, name: names[2]!, trigger: names[3] as CallbackTrigger },
    });
  }
  return {
    ...{ module: module.name, version },
    sites: (sites as readonly Term[]).map((site, id) => {
      if (!(site instanceof Tuple) || site.length !== 8) throw corrupt();
      const [kind, of, arity, clause, file, line, column, args] = site.elements;
      const position = KIND_ATOMS.indexOf(kind as Atom);
      const name = names[number(file)];
      if (position < 0 || !(of instanceof Atom) || name === undefined || !Array.isArray(args))
        throw corrupt();
      const callback = callbacks.get(`${of.name}/${number(arity)}`);
      return {
        ...(callback === undefined ? {} : { callback }),
        id,
        kind: KINDS[position]!,
        function: of.name,
        arity: number(arity),
        clause: number(clause),
        file: name,
        line: number(line),
        column: number(column),
        ...detailsOf(KINDS[position]!, args as readonly Term[], corrupt),
      };
    }),
  };
}
