/**
 * What is in tail position, and which calls there are tail calls: nothing may come after them, or a server's loop grows until its
 * node dies. In doubt a call counts as a tail call; then at worst its return is not seen. A list or binary comprehension is a call too:
 * the compiler makes a function of it, and in tail position the frame around it is gone, as stack traces show.
 */
import type { Atom } from "../erlang";
import type { CallNode, CaseNode, ClauseNode, Expr, VarNode } from "./forms";

/** What a module's own names mean. */
export interface CallContext {
  /** Functions that the module defines or imports, as `name/arity`. */
  readonly known: ReadonlySet<string>;
}

/** BIFs that never come back. */
const NO_RETURN = new Set([
  ...["error/1", "error/2", "error/3", "exit/1", "throw/1", "raise/3"],
  ...["nif_error/1", "nif_error/2", "halt/0", "halt/1", "halt/2"],
]);
/** BIFs that go on in other code: calls like any other. */
const APPLIES = new Set(["apply/2", "apply/3", "hibernate/0", "hibernate/3"]);

/** `name/arity` when the call is to a BIF of module `erlang`, else undefined. */
export function bifOf(call: CallNode, { known }: CallContext): string | undefined {
  const { callee } = call;
  const arity = call.arguments.length;
  if (callee.type === "remote") {
    return callee.module.type === "atom" &&
      callee.module.value.name === "erlang" &&
      callee.function.type === "atom"
      ? `${callee.function.value.name}/${arity}`
      : undefined;
  }
  if (callee.type !== "atom") return undefined;
  const name = `${(callee.value as Atom).name}/${arity}`;
  return known.has(name) ? undefined : name;
}

/** Whether this call, in tail position, hands its frame on. BIFs don't: they come back to where they were called. */
export function isTailCall(call: CallNode, context: CallContext): boolean {
  const bif = bifOf(call, context);
  return bif === undefined || APPLIES.has(bif);
}

const isVariable = (node: Expr | undefined, name?: Atom): node is VarNode =>
  node?.type === "var" && (name === undefined || node.name === name);

/**
 * The expression whose value a body gives: its last one, or, of `X = E, X`, the match before it. The compiler makes one of the two, so a
 * call in E is a tail call.
 */
export function tailIndex(body: readonly Expr[]): number {
  let at = body.length - 1;
  let node = body[at];
  while (isVariable(node) && at > 0) {
    const before: Expr | undefined = body[at - 1];
    if (before?.type !== "match" || !isVariable(before.pattern, node.name)) break;
    at--;
    node = before.value;
  }
  return at;
}

const last = (body: readonly Expr[]): Expr | undefined => body[tailIndex(body)];

/** `case E of X -> X end`: nothing but E. */
export function isPassedOn(node: CaseNode): boolean {
  const only = node.clauses.length === 1 ? node.clauses[0] : undefined;
  const pattern = only?.patterns[0];
  return (
    only !== undefined &&
    only.guards.length === 0 &&
    only.body.length === 1 &&
    isVariable(pattern) &&
    isVariable(only.body[0], pattern.name)
  );
}

/** The expressions in tail position right below one that is in tail position; empty for those that are leaves. */
export function tailsOf(node: Expr): Expr[] {
  const bodies = (clauses: readonly ClauseNode[]): (Expr | undefined)[] =>
    clauses.map(({ body }) => last(body));
  const present = (found: readonly (Expr | undefined)[]): Expr[] =>
    found.filter((e): e is Expr => e !== undefined);
  switch (node.type) {
    case "block":
    case "maybe":
      return present([last(node.body)]);
    case "maybe_else":
      return present([last(node.body), ...bodies(node.otherwise.clauses)]);
    case "match":
      return isVariable(node.pattern) ? [node.value] : [];
    case "case":
      return isPassedOn(node) ? [node.value] : present(bodies(node.clauses));
    case "if":
    case "receive":
      return present(bodies(node.clauses));
    case "receive_after":
      return present([...bodies(node.clauses), last(node.body)]);
    case "try":
      // Within `try … of` and within `after` the frame is needed for what comes after.
      return node.after.length > 0 ? [] : present([...bodies(node.clauses), ...bodies(node.handlers)]);
    case "binary_op":
      return node.operator.name === "andalso" || node.operator.name === "orelse" ? [node.right] : [];
    default:
      return [];
  }
}

/** Whether a tail call can be reached from this expression in tail position. */
export function hasTailCall(root: Expr, context: CallContext): boolean {
  const stack = [root];
  for (;;) {
    const node = stack.pop();
    if (node === undefined) return false;
    if (node.type === "call" && isTailCall(node, context)) return true;
    if (node.type === "lc" || node.type === "bc") return true;
    stack.push(...tailsOf(node));
  }
}

/** Whether this expression, in tail position, is a call that never comes back. */
export function neverReturns(node: Expr, context: CallContext): boolean {
  if (node.type === "call") {
    const bif = bifOf(node, context);
    return bif !== undefined && NO_RETURN.has(bif);
  }
  if (node.type === "try" || node.type === "binary_op" || node.type === "maybe") return false;
  if (node.type === "match") return false;
  const tails = tailsOf(node);
  return tails.length > 0 && tails.every((tail) => neverReturns(tail, context));
}
