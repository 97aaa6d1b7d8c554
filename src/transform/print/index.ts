/**
 * Functions and modules as readable Erlang, one expression a line, so that what was put in shows as a diff against the original.
 * Types and specs are left out: they are never touched.
 */
import type { Atom } from "../../erlang";
import { BeamtraceError, Tuple } from "../../erlang";
import type { Expr, Form, FunctionNode } from "../forms";
import { ExpressionPrinter } from "./expressions";
import { atomText, termText } from "./literals";

/** An expression, pattern or guard test as source. */
export function printExpr(node: Expr): string {
  return new ExpressionPrinter().expr(node);
}

/** A function as source, final dot included. */
export function printFunction(node: FunctionNode): string {
  const printer = new ExpressionPrinter();
  const name = atomText(node.name);
  const clauses = node.clauses.map(
    ({ patterns, guards, body }) =>
      `${name}(${patterns.map((pattern) => printer.expr(pattern)).join(", ")})${printer.guard(guards)} ->${printer.body(body)}`,
  );
  return `${clauses.join(";\n")}.\n`;
}

function attributeText(name: Atom, value: Parameters<typeof termText>[0]): string {
  const list = (items: unknown): string =>
    `[${(items as readonly Tuple[]).map(({ elements: [f, a] }) => `${atomText(f as Atom)}/${String(a)}`).join(", ")}]`;
  switch (name.name) {
    case "export":
    case "export_type":
    case "nifs":
      return `-${name.name}(${list(value)}).\n`;
    case "import":
      if (value instanceof Tuple)
        return `-import(${atomText(value.elements[0] as Atom)}, ${list(value.elements[1])}).\n`;
      break;
    default:
  }
  return `-${atomText(name)}(${termText(value)}).\n`;
}

/** One form as source; an empty text for those without meaning of their own (files, types, specs, the end). */
export function printForm(form: Form): string {
  switch (form.type) {
    case "function":
      return printFunction(form);
    case "attribute":
      return form.name.name === "file" ? "" : attributeText(form.name, form.value);
    case "record_declaration": {
      const printer = new ExpressionPrinter();
      const fields = form.fields.map((declared) => {
        const field = declared.type === "typed_record_field" ? declared.field : declared;
        if (field.type === "typed_record_field")
          throw new BeamtraceError("BT_NOT_ENCODABLE", "a field with two types");
        return field.type === "field" ? printer.expr(field.name) : printer.expr(field);
      });
      return form.name.name === "record"
        ? `-record(${atomText(form.recordName)}, {${fields.join(", ")}}).\n`
        : `-record #${atomText(form.recordName)}{${fields.join(", ")}}.\n`;
    }
    case "spec":
    case "type_declaration":
    case "eof":
    case "marker":
      return "";
  }
}

/** A module as source. */
export function printForms(forms: readonly Form[]): string {
  return forms
    .map(printForm)
    .filter((text) => text !== "")
    .join("\n");
}
