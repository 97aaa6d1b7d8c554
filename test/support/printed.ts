/** Printed forms for tests: on one line, sites by their places in the table, without the version before them. */
import { SITES_MAX } from "../../src/buffer";
import { type FunctionNode, printFunction } from "../../src/transform";

/** The text of a function. */
export function printed(node: FunctionNode): string {
  return printFunction(node)
    .replace(/\s+/g, " ")
    .replace(/\b\d{6,10}\b/g, (number) => String(Number(number) % SITES_MAX));
}
