/**
 * Terms to nodes. What is no known form is refused with `BT_UNKNOWN_FORM`, which names the tag and the line: a node that was
 * skipped would be a piece of program that is gone. Runs of right-nested nodes (long lists, `A ++ B ++ …`) are converted in a loop;
 * other nesting costs JavaScript stack.
 */
import { atom, Atom, BeamtraceError, inspect, type Term, Tuple } from "../../erlang";
import { isAnno, lineOf } from "./anno";
import { BY_TAG, type NodeShape } from "./node-table";
import type { Anno, ClauseNode, ElseNode, Expr, FieldDeclarationNode, Form, TypeArguments } from "./nodes";
import {
  CLAUSE,
  ELSE,
  FUN,
  CLAUSES,
  FUNCTION,
  ATTRIBUTE,
  EOF,
  RECORD_FIELD,
  TYPED_RECORD_FIELD,
} from "./tags";

const SPECS = new Set([atom("spec"), atom("callback")]);
const TYPES = new Set([atom("type"), atom("opaque"), atom("nominal")]);
const RECORDS = new Set([atom("record"), atom("native_record")]);
const MARKERS = new Set([atom("error"), atom("warning")]);

function unknown(term: Term | undefined, where: string): BeamtraceError {
  const anno = term instanceof Tuple ? term.elements[1] : undefined;
  const line = isAnno(anno) ? lineOf(anno) : 0;
  return new BeamtraceError(
    "BT_UNKNOWN_FORM",
    `${where}${line > 0 ? ` at line ${line}` : ""}: ${
      term === undefined ? "nothing" : inspect(term, { maxLength: 200 })
    } is no form of OTP 25 to 29 that beamtrace knows, so the module is left alone`,
  );
}

function listOf(term: Term | undefined, where: string): readonly Term[] {
  if (!Array.isArray(term)) throw unknown(term, where);
  return term as readonly Term[];
}

function annoOf(tuple: Tuple): Anno {
  const anno = tuple.elements[1];
  if (!isAnno(anno)) throw unknown(tuple, "annotation");
  return anno;
}

/** Nodes are built part by part; their types hold by the table. */
type Building = Record<string, unknown>;

function clause(term: Term): ClauseNode {
  if (!(term instanceof Tuple) || term.elements[0] !== CLAUSE || term.length !== 5) {
    throw unknown(term, "clause");
  }
  const [, , patterns, guards, body] = term.elements;
  return {
    type: "clause",
    anno: annoOf(term),
    patterns: exprs(patterns),
    guards: listOf(guards, "guard").map(exprs),
    body: exprs(body),
  };
}

function clauses(term: Term | undefined): ClauseNode[] {
  return listOf(term, "clauses").map(clause);
}

function elseNode(term: Term | undefined): ElseNode {
  if (!(term instanceof Tuple) || term.elements[0] !== ELSE || term.length !== 3) throw unknown(term, "else");
  return { type: "else", anno: annoOf(term), clauses: clauses(term.elements[2]) };
}

function exprs(term: Term | undefined): Expr[] {
  const list = listOf(term, "expressions");
  const nodes = new Array<Expr>(list.length);
  for (let i = 0; i < list.length; i++) nodes[i] = expr(list[i]);
  return nodes;
}

function typeArguments(term: Term): TypeArguments {
  if (term instanceof Atom) return term;
  return listOf(term, "type").map((one) =>
    Array.isArray(one) ? (typeArguments(one) as Expr[]) : one instanceof Atom ? one : expr(one),
  );
}

/** A node where there is one, else the term as it is. */
function loose(term: Term): Expr | Term {
  return term instanceof Tuple ? expr(term) : term;
}

function fun(term: Tuple): Expr {
  const anno = annoOf(term);
  const what = term.elements[2];
  if (term.length === 3 && what instanceof Tuple) {
    const [tag, first, second, third] = what.elements;
    if (tag === CLAUSES && what.length === 2) return { type: "fun", anno, clauses: clauses(first) };
    if (tag === FUNCTION && what.length === 3 && first instanceof Atom) {
      return { type: "fun_local", anno, name: first, arity: second as Term };
    }
    if (tag === FUNCTION && what.length === 4) {
      return {
        type: "fun_remote",
        anno,
        module: loose(first as Term),
        function: loose(second as Term),
        arity: loose(third as Term),
      };
    }
  }
  throw unknown(term, "fun");
}

function shapeOf(term: Tuple): NodeShape {
  const tag = term.elements[0];
  const shape = tag instanceof Atom ? BY_TAG.get(tag)?.[term.length] : undefined;
  if (shape === undefined) throw unknown(term, "expression");
  return shape;
}

/** A part that is not the last of its kind `node`. */
function part(kind: NodeShape["parts"][number]["kind"], term: Term): unknown {
  switch (kind) {
    case "term":
      return term;
    case "node":
      return expr(term);
    case "nodes":
      return exprs(term);
    case "either":
      return Array.isArray(term) ? exprs(term) : expr(term);
    case "clauses":
      return clauses(term);
    case "else":
      return elseNode(term);
    case "guards":
      return listOf(term, "guard").map(exprs);
    case "arguments":
      return typeArguments(term);
    case "loose":
      return loose(term);
  }
}

/** An expression, pattern, guard test, qualifier or type. */
function expr(first: Term | undefined): Expr {
  let root: Expr | undefined;
  let parent: Building | undefined;
  let slot = "";
  let term = first;
  for (;;) {
    if (!(term instanceof Tuple)) throw unknown(term, "expression");
    let node: Building;
    let next: Term | undefined;
    let nextSlot = "";
    if (term.elements[0] === FUN) {
      node = fun(term) as unknown as Building;
    } else {
      const { type, parts } = shapeOf(term);
      node = { type, anno: annoOf(term) };
      for (let i = 0; i < parts.length; i++) {
        const { name, kind } = parts[i]!;
        const value = term.elements[i + 2]!;
        if (kind === "node" && i === parts.length - 1) {
          node[name] = undefined;
          next = value;
          nextSlot = name;
        } else node[name] = part(kind, value);
      }
    }
    if (parent === undefined) root = node as unknown as Expr;
    else parent[slot] = node;
    if (next === undefined) return root as Expr;
    parent = node;
    slot = nextSlot;
    term = next;
  }
}

function fieldDeclaration(term: Term): FieldDeclarationNode {
  if (term instanceof Tuple) {
    const [tag, second, third] = term.elements;
    if (tag === TYPED_RECORD_FIELD && term.length === 3) {
      const field = fieldDeclaration(second as Term);
      return { type: "typed_record_field", anno: field.anno, field, fieldType: expr(third) };
    }
    if (tag === RECORD_FIELD && term.length === 3)
      return { type: "field", anno: annoOf(term), name: expr(third) };
    if (tag === RECORD_FIELD && term.length === 4) {
      return {
        type: "record_field",
        anno: annoOf(term),
        name: expr(third),
        value: expr(term.elements[3]),
      };
    }
  }
  throw unknown(term, "field of a record");
}

function attribute(term: Tuple): Form {
  const anno = annoOf(term);
  const name = term.elements[2];
  const value = term.elements[3];
  if (!(name instanceof Atom) || value === undefined) throw unknown(term, "attribute");
  if (value instanceof Tuple) {
    const [first, second, third] = value.elements;
    if (SPECS.has(name) && value.length === 2 && first instanceof Tuple && Array.isArray(second)) {
      return { type: "spec", anno, name, of: first, types: exprs(second) };
    }
    if (TYPES.has(name) && value.length === 3 && first instanceof Atom && Array.isArray(third)) {
      return {
        type: "type_declaration",
        anno,
        name,
        typeName: first,
        definition: expr(second),
        parameters: exprs(third),
      };
    }
    if (RECORDS.has(name) && value.length === 2 && first instanceof Atom && Array.isArray(second)) {
      const fields = (second as readonly Term[]).map(fieldDeclaration);
      return { type: "record_declaration", anno, name, recordName: first, fields };
    }
  }
  return { type: "attribute", anno, name, value };
}

/**
 * One form of a module.
 * @throws BeamtraceError `BT_UNKNOWN_FORM`
 */
export function formFromTerm(term: Term): Form {
  if (term instanceof Tuple) {
    const [tag, second, name, arity, rest] = term.elements;
    if (tag === FUNCTION && term.length === 5 && name instanceof Atom && typeof arity === "number") {
      return { type: "function", anno: annoOf(term), name, arity, clauses: clauses(rest) };
    }
    if (tag === ATTRIBUTE && term.length === 4) return attribute(term);
    if (tag === EOF && term.length === 2 && isAnno(second)) return { type: "eof", anno: second };
    if (tag instanceof Atom && MARKERS.has(tag) && term.length === 2) {
      return { type: "marker", anno: 0, name: tag, info: second as Term };
    }
  }
  throw unknown(term, "form");
}

/** All forms of a module. */
export function formsFromTerm(terms: readonly Term[]): Form[] {
  return terms.map(guarded(formFromTerm));
}

/** An expression by itself, as `erl_parse:parse_exprs/1` gives it. */
export const exprFromTerm: (term: Term) => Expr = guarded(expr);

/** Nesting that JavaScript's stack does not hold is refused like any other form that can't be read. */
function guarded<T, R>(convert: (term: T) => R): (term: T) => R {
  return (term) => {
    try {
      return convert(term);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new BeamtraceError("BT_UNKNOWN_FORM", "a form is nested too deeply to be read", { cause });
    }
  };
}
