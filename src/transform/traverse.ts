/**
 * Visitors in the manner of Babel: an object with a function per node type, called with a path that knows where the node stands and can
 * change it there. What a visitor puts in is not visited itself. Nodes are changed in place; the tree belongs to the caller.
 */
import type { Atom } from "../erlang";
import { nodeParts } from "./children";
import type { Form, FunctionNode, Node, NodeOf, NodeType } from "./forms";
import { FreshNames, variableNames } from "./scope";

/** Called on a node: before what is below it, or also after. */
export type Visit<T extends NodeType> =
  | ((path: NodePath<T>) => void)
  | { readonly enter?: (path: NodePath<T>) => void; readonly exit?: (path: NodePath<T>) => void };

/** A function per node type, such as `{ call(path) { … } }`. */
export type Visitor = { readonly [T in NodeType]?: Visit<T> };

/** The variables of the function (or the lone expression) that a node is in. */
export class Scope {
  /** The function's node, or the root that was given. */
  readonly root: Node;
  private names: FreshNames | undefined;

  /** @internal */
  constructor(root: Node) {
    this.root = root;
  }

  /** Whether any variable of the function has this name. */
  has(name: string): boolean {
    return variableNames(this.root).has(name);
  }

  /** A variable name that nothing in the function has, each time another. */
  fresh(base: string): Atom {
    this.names ??= new FreshNames(this.root);
    return this.names.next(base);
  }
}

/** Where a node stands: in a part of its parent, or at a place of a list there. */
type Place = { readonly holder: Record<string, unknown>; readonly part: string } | { readonly list: Node[] };

/** A node in its place. */
export class NodePath<T extends NodeType = NodeType> {
  /** The node; another one after `replaceWith`. */
  node: NodeOf<T>;
  readonly parentPath: NodePath | undefined;
  readonly scope: Scope;
  private readonly place: Place;
  private readonly walk: Walk;
  /** @internal Whether what is below is left out. */
  skipped = false;

  /** @internal */
  constructor(node: NodeOf<T>, place: Place, parentPath: NodePath | undefined, scope: Scope, walk: Walk) {
    this.node = node;
    this.place = place;
    this.parentPath = parentPath;
    this.scope = scope;
    this.walk = walk;
  }

  get parent(): Node | undefined {
    return this.parentPath?.node;
  }

  /** Whether the node is one of a list, so that others can stand beside it. */
  get inList(): boolean {
    return "list" in this.place;
  }

  /** The nearest path above for which `test` holds. */
  findParent(test: (path: NodePath) => boolean): NodePath | undefined {
    let path = this.parentPath;
    while (path !== undefined && !test(path)) path = path.parentPath;
    return path;
  }

  /** The function that the node is in. */
  get function(): FunctionNode | undefined {
    return this.scope.root.type === "function" ? this.scope.root : undefined;
  }

  /** Puts another node in this one's place. */
  replaceWith(node: Node): void {
    if ("list" in this.place) this.place.list.splice(this.index(), 1, node);
    else this.place.holder[this.place.part] = node;
    this.node = node as NodeOf<T>;
    this.skipped = true;
  }

  /** Puts several in its place, which must be one of a list. */
  replaceWithMultiple(nodes: readonly Node[]): void {
    this.list().splice(this.index(), 1, ...nodes);
    this.node = (nodes[0] ?? this.node) as NodeOf<T>;
    this.skipped = true;
  }

  /** Puts nodes before this one in its list: expressions of a body, arguments, forms … */
  insertBefore(...nodes: readonly Node[]): void {
    this.list().splice(this.index(), 0, ...nodes);
  }

  insertAfter(...nodes: readonly Node[]): void {
    this.list().splice(this.index() + 1, 0, ...nodes);
  }

  /** Takes the node out of its list. */
  remove(): void {
    this.list().splice(this.index(), 1);
    this.skipped = true;
  }

  /** Leaves out what is below this node. */
  skip(): void {
    this.skipped = true;
  }

  /** Ends the whole traversal. */
  stop(): void {
    this.walk.stopped = true;
  }

  private list(): Node[] {
    if ("list" in this.place) return this.place.list;
    throw new TypeError(`a ${this.node.type} that is no element of a list has no neighbours`);
  }

  private index(): number {
    const at = this.list().indexOf(this.node);
    if (at < 0) throw new TypeError(`the ${this.node.type} is no longer where it was`);
    return at;
  }
}

interface Walk {
  readonly visitor: Visitor;
  stopped: boolean;
}

type AnyVisit = Visit<NodeType> | undefined;

function visitNode(node: Node, place: Place, parent: NodePath | undefined, scope: Scope, walk: Walk): void {
  if (walk.stopped) return;
  const own = node.type === "function" ? new Scope(node) : scope;
  const path = new NodePath<NodeType>(node, place, parent, own, walk);
  const visit = walk.visitor[node.type] as AnyVisit;
  if (typeof visit === "function") visit(path);
  else visit?.enter?.(path);
  if (walk.stopped || path.skipped) return;
  for (const part of nodeParts(node)) {
    const holder = node as unknown as Record<string, unknown>;
    visitPart(holder[part], { holder, part }, path, own, walk);
  }
  if (!walk.stopped && typeof visit === "object") visit.exit?.(path);
}

function visitPart(value: unknown, place: Place, path: NodePath, scope: Scope, walk: Walk): void {
  if (Array.isArray(value)) {
    // A copy: what visitors add is not visited.
    for (const one of [...(value as unknown[])]) {
      if (!Array.isArray(one) && (value as unknown[]).indexOf(one) < 0) continue;
      visitPart(one, { list: value as Node[] }, path, scope, walk);
    }
  } else if (typeof value === "object" && value !== null && "type" in value && "anno" in value) {
    visitNode(value as Node, place, path, scope, walk);
  }
}

/**
 * Visits forms, or one node, and all that is below.
 * @example
 * traverse(forms, {
 *   call(path) {
 *     if (path.inList) path.insertBefore(builderAt(path.node.anno).call("before", []));
 *   },
 * });
 */
export function traverse(root: Form[] | Node, visitor: Visitor): void {
  const walk: Walk = { visitor, stopped: false };
  if (Array.isArray(root)) {
    for (const form of [...root]) visitNode(form, { list: root }, undefined, new Scope(form), walk);
  } else {
    visitNode(root, { list: [root] }, undefined, new Scope(root), walk);
  }
}
