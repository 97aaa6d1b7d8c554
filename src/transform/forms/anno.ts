/** Annotations of nodes (erl_anno): an integer, `{Line, Column}`, or a keyword list with `location`, `file`, `generated` … */
import { Atom, atom, type Term, tuple, Tuple } from "../../erlang";
import type { Anno } from "./nodes";

const LOCATION = atom("location");
const GENERATED = atom("generated");
const FILE = atom("file");
const TRUE = atom("true");

function entry(anno: Anno, key: Atom): Term | undefined {
  if (!Array.isArray(anno)) return undefined;
  for (const pair of anno as readonly Term[]) {
    if (pair instanceof Tuple && pair.elements[0] === key) return pair.elements[1];
  }
  return undefined;
}

const location = (anno: Anno): Term | undefined => (Array.isArray(anno) ? entry(anno, LOCATION) : anno);

/** The line, or 0 when the annotation has none. */
export function lineOf(anno: Anno): number {
  const where = location(anno);
  const line = where instanceof Tuple ? where.elements[0] : where;
  return typeof line === "number" ? line : 0;
}

/** Line and column alone, as short as an annotation can be. */
export function placeOf(anno: Anno): Anno {
  const where = location(anno);
  return typeof where === "number" || where instanceof Tuple ? (where as Anno) : 0;
}

/** The column, from 1, or undefined. */
export function columnOf(anno: Anno): number | undefined {
  const where = location(anno);
  const column = where instanceof Tuple ? where.elements[1] : undefined;
  return typeof column === "number" ? column : undefined;
}

/** Whether the node is marked as made by a tool: the compiler and erl_lint then don't warn about it. */
export function isGenerated(anno: Anno): boolean {
  return entry(anno, GENERATED) === TRUE;
}

/** The file that the annotation itself names, or undefined: then the last `-file` attribute counts. */
export function fileOf(anno: Anno): string | undefined {
  const file = entry(anno, FILE);
  return Array.isArray(file) ? String.fromCodePoint(...(file as readonly number[])) : undefined;
}

const MARK = tuple(GENERATED, TRUE);
/** What is added beside one node is asked for several times in a row. */
let lastAsked: Anno = 0;
let lastMarked: Anno = [MARK, tuple(LOCATION, 0)];

/** The same place, marked as generated (`erl_anno:set_generated(true, Anno)`). */
export function generatedAnno(anno: Anno): Anno {
  if (anno === lastAsked) return lastMarked;
  lastAsked = anno;
  if (isGenerated(anno)) lastMarked = anno;
  else
    lastMarked = Array.isArray(anno) ? [MARK, ...(anno as readonly Term[])] : [MARK, tuple(LOCATION, anno)];
  return lastMarked;
}

/** Whether this is an annotation at all. */
export function isAnno(term: Term | undefined): term is Anno {
  if (typeof term === "number") return true;
  if (term instanceof Tuple) return term.length === 2 && typeof term.elements[0] === "number";
  return (
    Array.isArray(term) && (term as readonly Term[]).every((e) => e instanceof Tuple || e instanceof Atom)
  );
}
