/**
 * The sites of an instrumented module: what an event's number stands for. Kept in chunk `BtSt` of the module as an external term
 * (`{beamtrace_sites, Version, Module, Files, Sites}`), so that whoever has the beam can read its events.
 */
import type { BeamFile } from "../erlang";
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
const VERSION = 1;
const TAG = atom("beamtrace_sites");
const KINDS = ["entry", "return", "tail"] as const;
const KIND_ATOMS = KINDS.map((kind) => atom(kind));

/** What happens at a site. */
export type SiteKind = (typeof KINDS)[number];

/** One place of a module that sends events. */
export interface Site {
  /** Number within its module, from 0. */
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
}

/** The sites of one module. */
export interface SiteTable {
  readonly module: string;
  readonly sites: readonly Site[];
}

/** Puts the table into the beam. */
export function withSiteTable(beam: BeamFile, table: SiteTable): BeamFile {
  const files = [...new Set(table.sites.map((site) => site.file))];
  const index = new Map(files.map((file, i) => [file, i]));
  let last = "";
  let name = atom(last);
  const sites = table.sites.map((s) => {
    if (s.function !== last) name = atom((last = s.function));
    const kind = KIND_ATOMS[KINDS.indexOf(s.kind)]!;
    return tuple(kind, name, s.arity, s.clause, index.get(s.file)!, s.line, s.column, s.arguments);
  });
  const term = tuple(TAG, VERSION, atom(table.module), files.map(charlist), sites);
  return withChunkTerm(beam, SITE_CHUNK, term);
}

/**
 * The table of an instrumented beam, or undefined when it has none.
 * @throws CorruptBeamError `BT_CORRUPT_BEAM`
 */
export function readSiteTable(beam: BeamFile): SiteTable | undefined {
  const term = chunkTerm(beam, SITE_CHUNK);
  if (term === undefined) return undefined;
  const corrupt = (): CorruptBeamError =>
    new CorruptBeamError(`chunk ${SITE_CHUNK} holds no site table of version ${VERSION}`, 0);
  const [tag, version, module, files, sites] = term instanceof Tuple ? term.elements : [];
  if (tag !== TAG || version !== VERSION || !(module instanceof Atom)) throw corrupt();
  if (!Array.isArray(files) || !Array.isArray(sites)) throw corrupt();
  const names = (files as readonly Term[]).map((file) => {
    if (!Array.isArray(file)) throw corrupt();
    return (file as readonly number[]).map((code) => String.fromCodePoint(code)).join("");
  });
  const number = (value: Term | undefined): number => {
    if (typeof value !== "number") throw corrupt();
    return value;
  };
  return {
    module: module.name,
    sites: (sites as readonly Term[]).map((site, id) => {
      if (!(site instanceof Tuple) || site.length !== 8) throw corrupt();
      const [kind, of, arity, clause, file, line, column, args] = site.elements;
      const position = KIND_ATOMS.indexOf(kind as Atom);
      const name = names[number(file)];
      if (position < 0 || !(of instanceof Atom) || name === undefined || !Array.isArray(args))
        throw corrupt();
      return {
        id,
        kind: KINDS[position]!,
        function: of.name,
        arity: number(arity),
        clause: number(clause),
        file: name,
        line: number(line),
        column: number(column),
        arguments: (args as readonly Term[]).map(number),
      };
    }),
  };
}
