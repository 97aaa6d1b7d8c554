/**
 * Erlang's abstract format as typed nodes: every node of OTP 25 to 29 (erts, "The Abstract Format"; types `af_…` of erl_parse).
 * `type` is the BEAM's own tag; where one tag means several things by its size, the rarer ones have a name of their own
 * (`record_update`, `receive_after` …). Nodes are plain, mutable objects, as in Babel; a node belongs to one place of one tree.
 */
import type { Atom, ErlFloat, Term } from "../../erlang";

/** Where a node is from: an integer, `{Line, Column}` or a keyword list (erl_anno). Opaque; see `lineOf` and its kin. */
export type Anno = Term;

interface Base<T extends string> {
  readonly type: T;
  anno: Anno;
}

// Literals
export interface AtomNode extends Base<"atom"> {
  value: Atom;
}
export interface CharNode extends Base<"char"> {
  value: Term;
}
export interface IntegerNode extends Base<"integer"> {
  value: number | bigint;
}
export interface FloatNode extends Base<"float"> {
  value: ErlFloat;
}
export interface StringNode extends Base<"string"> {
  /** Code points. */
  value: Term;
}
/** Only made by tools: a term that has no syntax, such as a pid or a fun. */
export interface ValueNode extends Base<"value"> {
  value: Term;
}

// Data
export interface VarNode extends Base<"var"> {
  name: Atom;
}
export type NilNode = Base<"nil">;
export interface ConsNode extends Base<"cons"> {
  head: Expr;
  tail: Expr;
}
export interface TupleNode extends Base<"tuple"> {
  elements: Expr[];
}
export interface BinNode extends Base<"bin"> {
  elements: BinElementNode[];
}
export interface BinElementNode extends Base<"bin_element"> {
  value: Expr;
  size: Expr | Atom;
  /** `default` or a list of `integer`, `little`, `{unit, 8}` … */
  specifiers: Term;
}
export interface MapNode extends Base<"map"> {
  fields: MapFieldNode[];
}
export interface MapUpdateNode extends Base<"map_update"> {
  map: Expr;
  fields: MapFieldNode[];
}
/** `K => V` */
export interface MapFieldAssocNode extends Base<"map_field_assoc"> {
  key: Expr;
  value: Expr;
}
/** `K := V` */
export interface MapFieldExactNode extends Base<"map_field_exact"> {
  key: Expr;
  value: Expr;
}
export type MapFieldNode = MapFieldAssocNode | MapFieldExactNode;

// Records
export interface RecordNode extends Base<"record"> {
  /** An atom; of a native record (OTP 29) also `{Module, Name}`, and `[]` for `#_{…}`. */
  name: Term;
  fields: RecordFieldNode[];
}
export interface RecordUpdateNode extends Base<"record_update"> {
  record: Expr;
  name: Term;
  fields: RecordFieldNode[];
}
/** `R#r.field` */
export interface RecordAccessNode extends Base<"record_access"> {
  record: Expr;
  name: Term;
  field: Expr;
}
/** `#r.field` */
export interface RecordIndexNode extends Base<"record_index"> {
  name: Term;
  field: Expr;
}
/** `field = Value` */
export interface RecordFieldNode extends Base<"record_field"> {
  name: Expr;
  value: Expr;
}
/** OTP 29, as erl_parse's types have it; `name` is `{Module, Name}` or `{}`. */
export interface NativeRecordNode extends Base<"native_record"> {
  name: Term;
  fields: RecordFieldNode[];
}
export interface NativeRecordUpdateNode extends Base<"native_record_update"> {
  record: Expr;
  name: Term;
  fields: RecordFieldNode[];
}

// Expressions
export interface MatchNode extends Base<"match"> {
  pattern: Expr;
  value: Expr;
}
/** `P ?= E`, within `maybe` */
export interface MaybeMatchNode extends Base<"maybe_match"> {
  pattern: Expr;
  value: Expr;
}
export interface BinaryOpNode extends Base<"binary_op"> {
  operator: Atom;
  left: Expr;
  right: Expr;
}
export interface UnaryOpNode extends Base<"unary_op"> {
  operator: Atom;
  operand: Expr;
}
export interface CallNode extends Base<"call"> {
  callee: Expr;
  arguments: Expr[];
}
export interface RemoteNode extends Base<"remote"> {
  module: Expr;
  function: Expr;
}
export interface CatchNode extends Base<"catch"> {
  body: Expr;
}
export interface BlockNode extends Base<"block"> {
  body: Expr[];
}
export interface IfNode extends Base<"if"> {
  clauses: ClauseNode[];
}
export interface CaseNode extends Base<"case"> {
  value: Expr;
  clauses: ClauseNode[];
}
export interface TryNode extends Base<"try"> {
  body: Expr[];
  /** `of` */
  clauses: ClauseNode[];
  /** `catch`; the pattern is `{Class, Reason, Stack}`. */
  handlers: ClauseNode[];
  after: Expr[];
}
export interface ReceiveNode extends Base<"receive"> {
  clauses: ClauseNode[];
}
export interface ReceiveAfterNode extends Base<"receive_after"> {
  clauses: ClauseNode[];
  timeout: Expr;
  body: Expr[];
}
export interface MaybeNode extends Base<"maybe"> {
  body: Expr[];
}
export interface MaybeElseNode extends Base<"maybe_else"> {
  body: Expr[];
  otherwise: ElseNode;
}
export interface ElseNode extends Base<"else"> {
  clauses: ClauseNode[];
}

// Funs
/** `fun(…) -> … end` */
export interface FunNode extends Base<"fun"> {
  clauses: ClauseNode[];
}
export interface NamedFunNode extends Base<"named_fun"> {
  name: Atom;
  clauses: ClauseNode[];
}
/** `fun f/1` */
export interface FunLocalNode extends Base<"fun_local"> {
  name: Atom;
  arity: Term;
}
/** `fun m:f/1`; the three are nodes, or plain terms in forms of old compilers. */
export interface FunRemoteNode extends Base<"fun_remote"> {
  module: Expr | Term;
  function: Expr | Term;
  arity: Expr | Term;
}

// Comprehensions
export interface ListComprehensionNode extends Base<"lc"> {
  /** Several templates since OTP 29. */
  template: Expr | Expr[];
  qualifiers: Expr[];
}
export interface BinaryComprehensionNode extends Base<"bc"> {
  template: Expr | Expr[];
  qualifiers: Expr[];
}
export interface MapComprehensionNode extends Base<"mc"> {
  template: Expr | Expr[];
  qualifiers: Expr[];
}
interface Generator<T extends string> extends Base<T> {
  pattern: Expr;
  value: Expr;
}
export type GenerateNode = Generator<"generate">;
export type GenerateStrictNode = Generator<"generate_strict">;
export type BinaryGenerateNode = Generator<"b_generate">;
export type BinaryGenerateStrictNode = Generator<"b_generate_strict">;
export type MapGenerateNode = Generator<"m_generate">;
export type MapGenerateStrictNode = Generator<"m_generate_strict">;
/** `G1 && G2 && …` (OTP 28) */
export interface ZipNode extends Base<"zip"> {
  generators: Expr[];
}
export type GeneratorNode =
  | GenerateNode
  | GenerateStrictNode
  | BinaryGenerateNode
  | BinaryGenerateStrictNode
  | MapGenerateNode
  | MapGenerateStrictNode;

/** A clause of a function, fun, `case`, `receive` … */
export interface ClauseNode extends Base<"clause"> {
  patterns: Expr[];
  /** Guard alternatives, each a list of tests. */
  guards: Expr[][];
  body: Expr[];
}

// Types
/** `{type, Anno, Name, Arguments}`; the arguments are types, lists of them (constraints), or the atom `any`. */
export interface TypeNode extends Base<"type"> {
  name: Atom;
  arguments: TypeArguments;
}
/** `{type, Anno, any}`: the arguments of `fun((...) -> T)`. */
export interface AnyArgumentsNode extends Base<"type_any"> {
  name: Atom;
}
export interface UserTypeNode extends Base<"user_type"> {
  name: Atom;
  arguments: TypeArguments;
}
export interface RemoteTypeNode extends Base<"remote_type"> {
  /** Module, name and a list of arguments. */
  arguments: TypeArguments;
}
export interface AnnotatedTypeNode extends Base<"ann_type"> {
  arguments: TypeArguments;
}
export type TypeArgument = Expr | Atom | TypeArgument[];
export type TypeArguments = Atom | TypeArgument[];

// Forms
export interface FunctionNode extends Base<"function"> {
  name: Atom;
  arity: number;
  clauses: ClauseNode[];
}
/** Any attribute that has no node of its own. */
export interface AttributeNode extends Base<"attribute"> {
  name: Atom;
  value: Term;
}
/** `-spec` and `-callback` */
export interface SpecNode extends Base<"spec"> {
  name: Atom;
  /** `{Function, Arity}` or `{Module, Function, Arity}` */
  of: Term;
  types: Expr[];
}
/** `-type`, `-opaque` and `-nominal` */
export interface TypeDeclarationNode extends Base<"type_declaration"> {
  name: Atom;
  typeName: Atom;
  definition: Expr;
  parameters: Expr[];
}
/** `-record`, and native records of OTP 29 */
export interface RecordDeclarationNode extends Base<"record_declaration"> {
  name: Atom;
  recordName: Atom;
  fields: FieldDeclarationNode[];
}
export interface RecordFieldDeclarationNode extends Base<"field"> {
  name: Expr;
}
export type FieldDeclarationNode = RecordFieldDeclarationNode | RecordFieldNode | TypedFieldNode;
/** A field with its type; has no annotation of its own (`anno` is the field's). */
export interface TypedFieldNode extends Base<"typed_record_field"> {
  field: FieldDeclarationNode;
  fieldType: Expr;
}
export type EofNode = Base<"eof">;
/** `{error, Info}` and `{warning, Info}` of the preprocessor. */
export interface MarkerNode extends Base<"marker"> {
  name: Atom;
  info: Term;
}

/** Whatever can stand where an expression, a pattern, a guard test, a qualifier or a type can. */
export type Expr =
  | AtomNode
  | CharNode
  | IntegerNode
  | FloatNode
  | StringNode
  | ValueNode
  | VarNode
  | NilNode
  | ConsNode
  | TupleNode
  | BinNode
  | BinElementNode
  | MapNode
  | MapUpdateNode
  | MapFieldAssocNode
  | MapFieldExactNode
  | RecordNode
  | RecordUpdateNode
  | RecordAccessNode
  | RecordIndexNode
  | RecordFieldNode
  | NativeRecordNode
  | NativeRecordUpdateNode
  | MatchNode
  | MaybeMatchNode
  | BinaryOpNode
  | UnaryOpNode
  | CallNode
  | RemoteNode
  | CatchNode
  | BlockNode
  | IfNode
  | CaseNode
  | TryNode
  | ReceiveNode
  | ReceiveAfterNode
  | MaybeNode
  | MaybeElseNode
  | FunNode
  | NamedFunNode
  | FunLocalNode
  | FunRemoteNode
  | ListComprehensionNode
  | BinaryComprehensionNode
  | MapComprehensionNode
  | GeneratorNode
  | ZipNode
  | TypeNode
  | AnyArgumentsNode
  | UserTypeNode
  | RemoteTypeNode
  | AnnotatedTypeNode;

export type Form =
  | FunctionNode
  | AttributeNode
  | SpecNode
  | TypeDeclarationNode
  | RecordDeclarationNode
  | EofNode
  | MarkerNode;

/** Any node. */
export type Node = Expr | Form | ClauseNode | ElseNode | RecordFieldDeclarationNode | TypedFieldNode;

export type NodeType = Node["type"];
/** The node of a type. */
export type NodeOf<T extends NodeType> = Extract<Node, { readonly type: T }>;
