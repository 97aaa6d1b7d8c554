/** Nodes to terms, the exact inverse of from-term: what was read and not changed comes out equal. */
import { type Term, tuple, Tuple } from "../../erlang";
import { SHAPES } from "./node-table";
import type { ClauseNode, Expr, Form, Node, TypeArguments } from "./nodes";
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

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && "type" in value && "anno" in value;

const clause = (node: ClauseNode): Term =>
  tuple(CLAUSE, node.anno, exprs(node.patterns), node.guards.map(exprs), exprs(node.body));

function exprs(nodes: readonly Node[]): Term[] {
  const terms = new Array<Term>(nodes.length);
  for (let i = 0; i < nodes.length; i++) terms[i] = expr(nodes[i] as Expr);
  return terms;
}

function typeArguments(value: TypeArguments | Expr): Term {
  if (Array.isArray(value)) return value.map((one) => typeArguments(one as TypeArguments));
  return isNode(value) ? expr(value) : (value as Term);
}

const loose = (value: Expr | Term): Term => (isNode(value) ? expr(value) : value);

/** An expression, pattern, guard test, qualifier or type as a term. */
function expr(node: Expr): Term {
  switch (node.type) {
    case "fun":
      return tuple(FUN, node.anno, tuple(CLAUSES, node.clauses.map(clause)));
    case "fun_local":
      return tuple(FUN, node.anno, tuple(FUNCTION, node.name, node.arity));
    case "fun_remote":
      return tuple(
        FUN,
        node.anno,
        tuple(FUNCTION, loose(node.module), loose(node.function), loose(node.arity)),
      );
    case "cons":
      return list(node);
    default:
  }
  const shape = SHAPES.get(node.type);
  if (shape === undefined) throw new TypeError(`no node type ${String((node as Node).type)}`);
  const { tag, parts } = shape;
  const elements = new Array<Term>(parts.length + 2);
  elements[0] = tag;
  elements[1] = node.anno;
  const fields = node as unknown as Readonly<Record<string, never>>;
  for (let i = 0; i < parts.length; i++) {
    const { name, kind } = parts[i]!;
    const value: unknown = fields[name];
    elements[i + 2] = part(kind, value);
  }
  return new Tuple(elements);
}

function part(kind: string, value: unknown): Term {
  switch (kind) {
    case "node":
      return expr(value as Expr);
    case "nodes":
      return exprs(value as Expr[]);
    case "either":
      return Array.isArray(value) ? exprs(value as Expr[]) : expr(value as Expr);
    case "clauses":
      return (value as ClauseNode[]).map(clause);
    case "else": {
      const otherwise = value as Extract<Node, { type: "else" }>;
      return tuple(ELSE, otherwise.anno, otherwise.clauses.map(clause));
    }
    case "guards":
      return (value as Expr[][]).map(exprs);
    case "arguments":
      return typeArguments(value as TypeArguments);
    case "loose":
      return loose(value as Expr | Term);
    default:
      return value as Term;
  }
}

/** A list literal, which nests as deep as it is long. */
function list(node: Extract<Node, { type: "cons" }>): Term {
  const { tag } = SHAPES.get("cons")!;
  const cells = [node];
  let last: Expr = node.tail;
  while (last.type === "cons") {
    cells.push(last);
    last = last.tail;
  }
  let term = expr(last);
  for (let i = cells.length - 1; i >= 0; i--) {
    const cell = cells[i]!;
    term = tuple(tag, cell.anno, expr(cell.head), term);
  }
  return term;
}

function field(node: Node): Term {
  switch (node.type) {
    case "typed_record_field":
      return tuple(TYPED_RECORD_FIELD, field(node.field), expr(node.fieldType));
    case "field":
      return tuple(RECORD_FIELD, node.anno, expr(node.name));
    case "record_field":
      return tuple(RECORD_FIELD, node.anno, expr(node.name), expr(node.value));
    default:
      throw new TypeError(`a ${node.type} is no field of a record`);
  }
}

/** One form as the term that the compiler takes. */
export function formToTerm(node: Form): Term {
  const { anno } = node;
  switch (node.type) {
    case "function":
      return tuple(FUNCTION, anno, node.name, node.arity, node.clauses.map(clause));
    case "attribute":
      return tuple(ATTRIBUTE, anno, node.name, node.value);
    case "spec":
      return tuple(ATTRIBUTE, anno, node.name, tuple(node.of, exprs(node.types)));
    case "type_declaration":
      return tuple(
        ATTRIBUTE,
        anno,
        node.name,
        tuple(node.typeName, expr(node.definition), exprs(node.parameters)),
      );
    case "record_declaration":
      return tuple(ATTRIBUTE, anno, node.name, tuple(node.recordName, node.fields.map(field)));
    case "eof":
      return tuple(EOF, anno);
    case "marker":
      return tuple(node.name, node.info);
  }
}

/** All forms of a module as terms. */
export function formsToTerm(nodes: readonly Form[]): Term[] {
  return nodes.map(formToTerm);
}

/** An expression by itself. */
export const exprToTerm: (node: Expr) => Term = expr;
