/**
 * Expressions, patterns, guards and types as Erlang source. Everything that could bind differently stands in parentheses by its
 * precedence (reference manual, "Operator Precedence"); what is written parses to the same forms again.
 */
import { Atom, BeamtraceError } from "../../erlang";
import type { ClauseNode, Expr, Node } from "../forms";
import { atomText, charText, floatText, recordText, stringText, termText, variableText } from "./literals";

/** Left operand, operator itself and right operand: the least precedence each must have. Larger binds tighter. */
const BINARY: Readonly<Record<string, readonly [number, number, number]>> = {
  "=": [150, 100, 100],
  "!": [150, 100, 100],
  "?=": [150, 100, 100],
  orelse: [160, 150, 150],
  andalso: [200, 160, 160],
  ...Object.fromEntries(
    ["==", "/=", "=<", "<", ">=", ">", "=:=", "=/="].map((op) => [op, [300, 200, 300]] as const),
  ),
  "++": [400, 300, 300],
  "--": [400, 300, 300],
  ...Object.fromEntries(
    ["+", "-", "bor", "bxor", "bsl", "bsr", "or", "xor"].map((op) => [op, [400, 400, 500]] as const),
  ),
  ...Object.fromEntries(["/", "*", "div", "rem", "band", "and"].map((op) => [op, [500, 500, 600]] as const)),
};
const PREFIX = 600;
const CALL = 700;
const REMOTE = 800;
const MAX = 900;

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && "type" in value && "anno" in value;

/** Writes expressions, indented. */
export class ExpressionPrinter {
  private depth = 0;

  /** An expression that stands where one of at least this precedence must. */
  expr(node: Expr, least = 0): string {
    const [text, precedence] = this.write(node);
    return precedence < least ? `(${text})` : text;
  }

  private line(): string {
    return `\n${"    ".repeat(this.depth)}`;
  }

  private list(nodes: readonly Expr[]): string {
    return nodes.map((node) => this.expr(node)).join(", ");
  }

  /** A body on lines of its own. */
  body(nodes: readonly Expr[]): string {
    this.depth++;
    const text = nodes.map((node) => this.line() + this.expr(node)).join(",");
    this.depth--;
    return text;
  }

  /** ` when G1, G2; G3`, or nothing. */
  guard(guards: readonly (readonly Expr[])[]): string {
    return guards.length === 0 ? "" : ` when ${this.guardTests(guards)}`;
  }

  private guardTests(guards: readonly (readonly Expr[])[]): string {
    return guards.map((tests) => this.list(tests)).join("; ");
  }

  private clauses(clauses: readonly ClauseNode[], head: (clause: ClauseNode) => string): string {
    this.depth++;
    const text = clauses
      .map((clause) => `${this.line()}${head(clause)} ->${this.body(clause.body)}`)
      .join(";");
    this.depth--;
    return text;
  }

  private patternClauses(clauses: readonly ClauseNode[]): string {
    return this.clauses(clauses, (c) => this.list(c.patterns) + this.guard(c.guards));
  }

  private handlers(clauses: readonly ClauseNode[]): string {
    return this.clauses(clauses, (c) => {
      const [pattern] = c.patterns;
      if (pattern?.type !== "tuple" || pattern.elements.length !== 3) {
        throw new BeamtraceError("BT_NOT_ENCODABLE", "a catch clause without class, reason and stack");
      }
      const [kind, reason, stack] = pattern.elements as [Expr, Expr, Expr];
      const trace = stack.type === "var" && stack.name.name === "_" ? "" : `:${this.expr(stack)}`;
      return `${this.expr(kind)}:${this.expr(reason)}${trace}${this.guard(c.guards)}`;
    });
  }

  private fun(name: string, clauses: readonly ClauseNode[]): string {
    const head = (c: ClauseNode): string => `${name}(${this.list(c.patterns)})${this.guard(c.guards)}`;
    return `fun${this.clauses(clauses, head)}${this.line()}end`;
  }

  private block(word: string, nodes: readonly Expr[]): string {
    return `${word}${this.body(nodes)}`;
  }

  private either(value: Expr | Expr[]): string {
    return Array.isArray(value) ? this.list(value) : this.expr(value);
  }

  private comprehension(node: Extract<Expr, { type: "lc" | "bc" | "mc" }>): string {
    return `${this.either(node.template)} || ${this.list(node.qualifiers)}`;
  }

  private binary(operator: string, left: Expr, right: Expr): [string, number] {
    const [l, own, r] = BINARY[operator] ?? [MAX, 0, MAX];
    return [`${this.expr(left, l)} ${operator} ${this.expr(right, r)}`, own];
  }

  private write(node: Expr): [string, number] {
    switch (node.type) {
      case "atom":
        return [atomText(node.value), MAX];
      case "char":
        return [charText(node.value), MAX];
      case "integer":
        return [String(node.value), node.value < 0 ? PREFIX : MAX];
      case "float":
        return [floatText(node.value), node.value.value < 0 ? PREFIX : MAX];
      case "string":
        return [stringText(node.value), MAX];
      case "value":
        throw new BeamtraceError("BT_NOT_ENCODABLE", "a term that has no syntax can't be written as source");
      case "var":
        return [variableText(node.name), MAX];
      case "nil":
        return ["[]", MAX];
      case "cons":
        return [this.cons(node), MAX];
      case "tuple":
        return [`{${this.list(node.elements)}}`, MAX];
      case "bin":
        return [`<<${this.list(node.elements)}>>`, MAX];
      case "bin_element":
        return [this.binElement(node), MAX];
      case "map":
        return [`#{${this.list(node.fields)}}`, MAX];
      case "map_update":
        return [`${this.expr(node.map, MAX)}#{${this.list(node.fields)}}`, CALL];
      case "map_field_assoc":
        return [`${this.expr(node.key)} => ${this.expr(node.value)}`, 0];
      case "map_field_exact":
        return [`${this.expr(node.key)} := ${this.expr(node.value)}`, 0];
      case "record":
      case "native_record":
        return [`${recordText(node.name)}{${this.list(node.fields)}}`, CALL];
      case "record_update":
      case "native_record_update":
        return [`${this.expr(node.record, MAX)}${recordText(node.name)}{${this.list(node.fields)}}`, CALL];
      case "record_access":
        return [`${this.expr(node.record, MAX)}${recordText(node.name)}.${this.expr(node.field)}`, CALL];
      case "record_index":
        return [`${recordText(node.name)}.${this.expr(node.field)}`, CALL];
      case "record_field":
        return [`${this.expr(node.name)} = ${this.expr(node.value)}`, 100];
      case "match":
        return this.binary("=", node.pattern, node.value);
      case "maybe_match":
        return this.binary("?=", node.pattern, node.value);
      case "binary_op":
        return this.binary(node.operator.name, node.left, node.right);
      case "unary_op":
        return [`${node.operator.name} ${this.expr(node.operand, CALL)}`, PREFIX];
      case "call":
        return [
          `${this.expr(node.callee, node.callee.type === "remote" ? REMOTE : MAX)}(${this.list(node.arguments)})`,
          CALL,
        ];
      case "remote":
        return [`${this.expr(node.module, MAX)}:${this.expr(node.function, MAX)}`, REMOTE];
      case "catch":
        return [`catch ${this.expr(node.body)}`, 0];
      case "block":
        return [`${this.block("begin", node.body)}${this.line()}end`, MAX];
      case "if":
        return [`if${this.clauses(node.clauses, (c) => this.guardTests(c.guards))}${this.line()}end`, MAX];
      case "case":
        return [`case ${this.expr(node.value)} of${this.patternClauses(node.clauses)}${this.line()}end`, MAX];
      case "try":
        return [this.try(node), MAX];
      case "receive":
        return [`receive${this.patternClauses(node.clauses)}${this.line()}end`, MAX];
      case "receive_after":
        return [
          `receive${this.patternClauses(node.clauses)}${this.line()}after ${this.expr(node.timeout)} ->${this.body(node.body)}${this.line()}end`,
          MAX,
        ];
      case "maybe":
        return [`${this.block("maybe", node.body)}${this.line()}end`, MAX];
      case "maybe_else":
        return [
          `${this.block("maybe", node.body)}${this.line()}else${this.patternClauses(node.otherwise.clauses)}${this.line()}end`,
          MAX,
        ];
      case "fun":
        return [this.fun("", node.clauses), MAX];
      case "named_fun":
        return [this.fun(` ${variableText(node.name)}`, node.clauses), MAX];
      case "fun_local":
        return [`fun ${atomText(node.name)}/${termText(node.arity)}`, MAX];
      case "fun_remote": {
        const [module, name, arity] = [node.module, node.function, node.arity].map((part) =>
          isNode(part) ? this.expr(part as Expr, MAX) : part instanceof Atom ? atomText(part) : String(part),
        );
        return [`fun ${module}:${name}/${arity}`, MAX];
      }
      case "lc":
        return [`[${this.comprehension(node)}]`, MAX];
      case "bc":
        return [`<<${this.bcTemplate(node.template)} || ${this.list(node.qualifiers)}>>`, MAX];
      case "mc":
        return [`#{${this.comprehension(node)}}`, MAX];
      case "generate":
      case "m_generate":
        return [`${this.expr(node.pattern)} <- ${this.expr(node.value)}`, 0];
      case "generate_strict":
      case "m_generate_strict":
        return [`${this.expr(node.pattern)} <:- ${this.expr(node.value)}`, 0];
      case "b_generate":
        return [`${this.expr(node.pattern)} <= ${this.expr(node.value)}`, 0];
      case "b_generate_strict":
        return [`${this.expr(node.pattern)} <:= ${this.expr(node.value)}`, 0];
      case "zip":
        return [node.generators.map((generator) => this.expr(generator)).join(" && "), 0];
      case "type":
      case "type_any":
      case "user_type":
      case "remote_type":
      case "ann_type":
        throw new BeamtraceError("BT_NOT_ENCODABLE", "a type where an expression belongs");
    }
  }

  private bcTemplate(template: Expr | Expr[]): string {
    return Array.isArray(template)
      ? template.map((t) => this.expr(t, MAX)).join(", ")
      : this.expr(template, MAX);
  }

  private cons(node: Extract<Expr, { type: "cons" }>): string {
    const items: string[] = [];
    let cell: Expr = node;
    while (cell.type === "cons") {
      items.push(this.expr(cell.head));
      cell = cell.tail;
    }
    return cell.type === "nil" ? `[${items.join(", ")}]` : `[${items.join(", ")} | ${this.expr(cell)}]`;
  }

  private binElement({ value, size, specifiers }: Extract<Expr, { type: "bin_element" }>): string {
    // Only a plain value or a prefix operator before one needs no parentheses.
    let text =
      value.type === "unary_op"
        ? `${value.operator.name} ${this.expr(value.operand, MAX)}`
        : this.expr(value, MAX);
    if (!(size instanceof Atom)) text += `:${this.expr(size, MAX)}`;
    if (Array.isArray(specifiers)) {
      const parts = (specifiers as readonly (Atom | { elements: readonly [Atom, number] })[]).map((part) =>
        part instanceof Atom ? part.name : `${part.elements[0].name}:${part.elements[1]}`,
      );
      text += `/${parts.join("-")}`;
    }
    return text;
  }

  private try(node: Extract<Expr, { type: "try" }>): string {
    let text = this.block("try", node.body);
    if (node.clauses.length > 0) text += `${this.line()}of${this.patternClauses(node.clauses)}`;
    if (node.handlers.length > 0) text += `${this.line()}catch${this.handlers(node.handlers)}`;
    if (node.after.length > 0) text += `${this.line()}${this.block("after", node.after)}`;
    return `${text}${this.line()}end`;
  }
}
