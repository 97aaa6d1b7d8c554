/** The nodes within a node, in the order of the source. Driven by the node table, so no node type can be forgotten. */
import type { Node } from "./forms";
import { SHAPES } from "./forms/node-table";

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && "type" in value && "anno" in value;

/** Parts of each type that can hold nodes. */
const holders = new Map(
  [...SHAPES].map(([type, { parts }]) => [
    type,
    parts.filter(({ kind }) => kind !== "term").map(({ name, kind }) => ({ name, flat: kind === "node" })),
  ]),
);

function pushAll(value: unknown, into: Node[]): void {
  if (Array.isArray(value)) for (const one of value) pushAll(one, into);
  else if (isNode(value)) into.push(value);
}

/** Names of the parts of a node that hold nodes. */
export function nodeParts(node: Node): readonly string[] {
  return holders.get(node.type)!.map(({ name }) => name);
}

function pushChildren(node: Node, into: Node[]): void {
  const fields = node as unknown as Readonly<Record<string, unknown>>;
  const parts = holders.get(node.type)!;
  for (let i = 0; i < parts.length; i++) {
    const { name, flat } = parts[i]!;
    if (flat) into.push(fields[name] as Node);
    else pushAll(fields[name], into);
  }
}

/** The nodes right below. */
export function children(node: Node): Node[] {
  const found: Node[] = [];
  pushChildren(node, found);
  return found;
}

/**
 * Calls `visit` on the node and everything below it, parents first, without recursion. When `visit` answers false, what is
 * below that node is left out.
 */
export function walk(root: Node | readonly Node[], visit: (node: Node) => boolean | void): void {
  const stack: Node[] = Array.isArray(root) ? [...(root as Node[])].reverse() : [root as Node];
  for (;;) {
    const node = stack.pop();
    if (node === undefined) return;
    if (visit(node) === false) continue;
    const from = stack.length;
    pushChildren(node, stack);
    // The first child is to be on top.
    for (let i = from, j = stack.length - 1; i < j; i++, j--) {
      const other = stack[i]!;
      stack[i] = stack[j]!;
      stack[j] = other;
    }
  }
}
