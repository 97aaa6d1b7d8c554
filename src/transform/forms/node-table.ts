/**
 * Which tuple is which node: one row a node type, its parts in the order of the tuple. Conversion both ways, traversal and
 * comparison are driven by it, so a node type is known everywhere or nowhere.
 */
import { atom, type Atom } from "../../erlang";
import type { NodeOf, NodeType } from "./nodes";

/**
 * What a part of a node is. `node`: one node; `nodes`: a list; `either`: one node or a list (templates of OTP 29); `clauses`; `else`;
 * `guards`: lists of lists; `arguments`: of a type, nested lists; `loose`: a node or a plain term; `term`: no node at all.
 */
export type PartKind =
  "node" | "nodes" | "either" | "clauses" | "else" | "guards" | "arguments" | "loose" | "term";

export interface Part {
  readonly name: string;
  readonly kind: PartKind;
}

/** One row. */
export interface NodeShape {
  readonly type: NodeType;
  readonly tag: Atom;
  readonly parts: readonly Part[];
}

type PartName<T extends NodeType> = Exclude<keyof NodeOf<T>, "type" | "anno"> & string;
type Rows = { readonly [T in NodeType]: readonly (readonly [PartName<T>, PartKind])[] };

const value = [["value", "term"]] as const;
const generator = [
  ["pattern", "node"],
  ["value", "node"],
] as const;
const comprehension = [
  ["template", "either"],
  ["qualifiers", "nodes"],
] as const;
const field = [
  ["key", "node"],
  ["value", "node"],
] as const;

const ROWS: Rows = {
  atom: value,
  char: value,
  integer: value,
  float: value,
  string: value,
  value,
  var: [["name", "term"]],
  nil: [],
  cons: [
    ["head", "node"],
    ["tail", "node"],
  ],
  tuple: [["elements", "nodes"]],
  bin: [["elements", "nodes"]],
  bin_element: [
    ["value", "node"],
    ["size", "loose"],
    ["specifiers", "term"],
  ],
  map: [["fields", "nodes"]],
  map_update: [
    ["map", "node"],
    ["fields", "nodes"],
  ],
  map_field_assoc: field,
  map_field_exact: field,
  record: [
    ["name", "term"],
    ["fields", "nodes"],
  ],
  record_update: [
    ["record", "node"],
    ["name", "term"],
    ["fields", "nodes"],
  ],
  record_access: [
    ["record", "node"],
    ["name", "term"],
    ["field", "node"],
  ],
  record_index: [
    ["name", "term"],
    ["field", "node"],
  ],
  record_field: [
    ["name", "node"],
    ["value", "node"],
  ],
  native_record: [
    ["name", "term"],
    ["fields", "nodes"],
  ],
  native_record_update: [
    ["record", "node"],
    ["name", "term"],
    ["fields", "nodes"],
  ],
  match: generator,
  maybe_match: generator,
  binary_op: [
    ["operator", "term"],
    ["left", "node"],
    ["right", "node"],
  ],
  unary_op: [
    ["operator", "term"],
    ["operand", "node"],
  ],
  call: [
    ["callee", "node"],
    ["arguments", "nodes"],
  ],
  remote: [
    ["module", "node"],
    ["function", "node"],
  ],
  catch: [["body", "node"]],
  block: [["body", "nodes"]],
  if: [["clauses", "clauses"]],
  case: [
    ["value", "node"],
    ["clauses", "clauses"],
  ],
  try: [
    ["body", "nodes"],
    ["clauses", "clauses"],
    ["handlers", "clauses"],
    ["after", "nodes"],
  ],
  receive: [["clauses", "clauses"]],
  receive_after: [
    ["clauses", "clauses"],
    ["timeout", "node"],
    ["body", "nodes"],
  ],
  maybe: [["body", "nodes"]],
  maybe_else: [
    ["body", "nodes"],
    ["otherwise", "else"],
  ],
  else: [["clauses", "clauses"]],
  fun: [["clauses", "clauses"]],
  named_fun: [
    ["name", "term"],
    ["clauses", "clauses"],
  ],
  fun_local: [
    ["name", "term"],
    ["arity", "term"],
  ],
  fun_remote: [
    ["module", "loose"],
    ["function", "loose"],
    ["arity", "loose"],
  ],
  lc: comprehension,
  bc: comprehension,
  mc: comprehension,
  generate: generator,
  generate_strict: generator,
  b_generate: generator,
  b_generate_strict: generator,
  m_generate: generator,
  m_generate_strict: generator,
  zip: [["generators", "nodes"]],
  clause: [
    ["patterns", "nodes"],
    ["guards", "guards"],
    ["body", "nodes"],
  ],
  type: [
    ["name", "term"],
    ["arguments", "arguments"],
  ],
  type_any: [["name", "term"]],
  user_type: [
    ["name", "term"],
    ["arguments", "arguments"],
  ],
  remote_type: [["arguments", "arguments"]],
  ann_type: [["arguments", "arguments"]],
  function: [
    ["name", "term"],
    ["arity", "term"],
    ["clauses", "clauses"],
  ],
  attribute: [
    ["name", "term"],
    ["value", "term"],
  ],
  spec: [
    ["name", "term"],
    ["of", "term"],
    ["types", "nodes"],
  ],
  type_declaration: [
    ["name", "term"],
    ["typeName", "term"],
    ["definition", "node"],
    ["parameters", "nodes"],
  ],
  record_declaration: [
    ["name", "term"],
    ["recordName", "term"],
    ["fields", "nodes"],
  ],
  field: [["name", "node"]],
  typed_record_field: [
    ["field", "node"],
    ["fieldType", "node"],
  ],
  eof: [],
  marker: [
    ["name", "term"],
    ["info", "term"],
  ],
};

/** Tags of nodes whose name here differs from the tag. */
const TAGS: Partial<Record<NodeType, string>> = {
  map_update: "map",
  record_update: "record",
  record_access: "record_field",
  field: "record_field",
  binary_op: "op",
  unary_op: "op",
  receive_after: "receive",
  maybe_else: "maybe",
  fun_local: "fun",
  fun_remote: "fun",
  type_any: "type",
  spec: "attribute",
  type_declaration: "attribute",
  record_declaration: "attribute",
};

const shapes = (Object.keys(ROWS) as NodeType[]).map((type): NodeShape => ({
  type,
  tag: atom(TAGS[type] ?? type),
  parts: (ROWS[type] as readonly (readonly [string, PartKind])[]).map(([name, kind]) => ({ name, kind })),
}));

/** The shape of each node type. */
export const SHAPES: ReadonlyMap<NodeType, NodeShape> = new Map(shapes.map((shape) => [shape.type, shape]));

/** Nodes whose tuple is not `{Tag, Anno, Part…}`: their own code converts them. */
const SPECIAL: ReadonlySet<NodeType> = new Set([
  "fun",
  "fun_local",
  "fun_remote",
  "function",
  "attribute",
  "spec",
  "type_declaration",
  "record_declaration",
  "typed_record_field",
  "field",
  "clause",
  "else",
  "eof",
  "marker",
]);

/** Per tag: shapes by size of the tuple. */
export const BY_TAG: ReadonlyMap<Atom, readonly (NodeShape | undefined)[]> = (() => {
  const table = new Map<Atom, (NodeShape | undefined)[]>();
  for (const shape of shapes) {
    if (SPECIAL.has(shape.type)) continue;
    const bySize = table.get(shape.tag) ?? [];
    bySize[shape.parts.length + 2] = shape;
    table.set(shape.tag, bySize);
  }
  return table;
})();
