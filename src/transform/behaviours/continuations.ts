/**
 * Functions that finish what a callback began. A callback that ends in a tail call has given its frame away: what it answers is what the
 * function that it called last answers. Of those that are in the same module this finds out which, and where the callback's state comes in
 * as an argument, so that they can tell in its stead; no frame is kept, nothing is passed on that was not passed before.
 */
import type { CallNode, ClauseNode, Expr, Form, FunctionNode } from "../forms";
import { type CallContext, isTailCall, tailIndex, tailsOf } from "../tail-position";
import type { Callback, ResultClass } from "./callbacks";

/** A function that answers for a callback. */
export interface Continuation {
  readonly behaviour: string;
  readonly class: ResultClass;
  /** Position of the argument that is the callback's state, where all that call it so agree. */
  readonly state: number | undefined;
}

/** The tail calls of a body. */
function tailCalls(body: readonly Expr[], context: CallContext): CallNode[] {
  const found: CallNode[] = [];
  const stack = [body[tailIndex(body)]!];
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (node.type === "call" && isTailCall(node, context)) found.push(node);
    else stack.push(...tailsOf(node));
  }
  return found;
}

/** `name/arity` of the function of the same module that is called, or undefined. */
export function ownCallee(call: CallNode, module: string): string | undefined {
  const { callee } = call;
  const own =
    callee.type === "remote" && callee.module.type === "atom" && callee.module.value.name === module
      ? callee.function
      : callee;
  return own.type === "atom" ? `${own.value.name}/${call.arguments.length}` : undefined;
}

/** The variable that a clause has for one of its arguments, as a whole. */
function argumentName(clause: ClauseNode, position: number | undefined): string | undefined {
  let pattern = position === undefined ? undefined : clause.patterns[position];
  for (; pattern !== undefined; pattern = pattern.type === "match" ? pattern.value : undefined) {
    if (pattern.type === "var") return pattern.name.name === "_" ? undefined : pattern.name.name;
    if (pattern.type === "match" && pattern.pattern.type === "var") return pattern.pattern.name.name;
  }
  return undefined;
}

/** What a state machine's event answers is read the same in all of its callbacks. */
const classOf = (callback: Callback): ResultClass =>
  callback.class === "statem_state" ? "statem_event" : callback.class;

interface Found {
  readonly behaviour: string;
  readonly class: ResultClass | "several";
  readonly state: number | "several" | undefined;
}

/** Both at once: what they don't agree on is not known. */
function both(a: Found | undefined, b: Found): Found {
  if (a === undefined) return b;
  return {
    behaviour: a.behaviour,
    class: a.class === b.class ? a.class : "several",
    state: a.state === b.state ? a.state : "several",
  };
}

/** The functions that finish callbacks, by `name/arity`. Callbacks themselves are not among them. */
export function continuationsOf(
  forms: readonly Form[],
  callbacks: ReadonlyMap<string, Callback>,
  module: string,
  context: CallContext,
): ReadonlyMap<string, Continuation> {
  const functions = new Map<string, FunctionNode>();
  for (const form of forms)
    if (form.type === "function") functions.set(`${form.name.name}/${form.arity}`, form);
  const found = new Map<string, Found>();
  const toDo: [string, Found][] = [];
  for (const [key, callback] of callbacks) {
    if (callback.class === "plain") continue;
    toDo.push([key, { behaviour: callback.behaviour, class: classOf(callback), state: callback.state }]);
  }
  for (let next = toDo.pop(); next !== undefined; next = toDo.pop()) {
    const [key, from] = next;
    const state = typeof from.state === "number" ? from.state : undefined;
    for (const clause of functions.get(key)?.clauses ?? []) {
      const name = argumentName(clause, state);
      for (const call of tailCalls(clause.body, context)) {
        const callee = ownCallee(call, module);
        if (callee === undefined || !functions.has(callee) || callbacks.has(callee)) continue;
        const at = call.arguments.findIndex((arg) => arg.type === "var" && arg.name.name === name);
        const known = found.get(callee);
        const now = both(known, { ...from, state: at < 0 ? "several" : at });
        if (known?.class === now.class && known.state === now.state) continue;
        found.set(callee, now);
        toDo.push([callee, now]);
      }
    }
  }
  const result = new Map<string, Continuation>();
  for (const [key, { behaviour, class: how, state }] of found)
    if (how !== "several")
      result.set(key, { behaviour, class: how, state: typeof state === "number" ? state : undefined });
  return result;
}
