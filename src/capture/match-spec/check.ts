/**
 * Checks the term of a match specification before any node sees it: shape, bound variables, what the event and the release allow,
 * number of arguments. Functions that it doesn't know it leaves to the VM, which refuses wrong specifications too, but only with `badarg`.
 */
import { Atom, ErlMap, ImproperList, Tuple, type Term } from "../../erlang/term";
import { availableSince, matchFunction, type MatchTarget } from "./functions";
import { looksLikePattern } from "./compile";
import { MatchSpecError } from "./error";

/** What a match specification is for; what is not given is not checked. */
export interface MatchSpecOptions {
  /** Arity of the function that is traced. */
  readonly arity?: number | undefined;
  /** Release of the node: 25, 27 … */
  readonly otp?: number | undefined;
}

interface Clause extends MatchSpecOptions {
  readonly target: MatchTarget;
  readonly bound: ReadonlySet<string>;
  readonly where: "guard" | "body";
  readonly at: string;
}

const HEAD_LENGTH = { send: 2, receive: 3 } as const;
const HEAD_PARTS = { send: "[Receiver, Message]", receive: "[Node, Sender, Message]" } as const;

/**
 * Checks a match specification for trace events.
 * @throws MatchSpecError `BT_MATCH_SPEC_INVALID`
 */
export function checkMatchSpec(spec: Term, target: MatchTarget, options: MatchSpecOptions = {}): void {
  if (!Array.isArray(spec)) throw new MatchSpecError("a match specification is a list of clauses");
  const clauses = spec as readonly Term[];
  for (const [i, clause] of clauses.entries()) {
    const at = clauses.length === 1 ? "" : `clause ${i + 1}: `;
    if (!(clause instanceof Tuple) || clause.length !== 3)
      throw new MatchSpecError(`${at}a clause is a tuple {Head, Guards, Body}`);
    const [head, guards, body] = clause.elements as readonly [Term, Term, Term];
    checkHead(head, target, options, at);
    const bound = new Set<string>();
    collectVariables(head, bound);
    for (const [where, terms] of [
      ["guard", guards],
      ["body", body],
    ] as const) {
      if (!Array.isArray(terms))
        throw new MatchSpecError(`${at}the ${where === "guard" ? "guards are" : "body is"} not a list`);
      for (const term of terms as readonly Term[])
        checkExpression(term, { ...options, target, bound, where, at });
    }
  }
}

function checkHead(head: Term, target: MatchTarget, options: MatchSpecOptions, at: string): void {
  if (head instanceof Atom) {
    if (looksLikePattern(head.name)) return;
    throw new MatchSpecError(`${at}the head is an atom; it must be a list, a variable or '_'`);
  }
  const open = head instanceof ImproperList;
  if (!open && !Array.isArray(head))
    throw new MatchSpecError(`${at}the head must be a list, a variable or '_'`);
  if (open) {
    if (!(head.tail instanceof Atom && head.tail.name === "_"))
      throw new MatchSpecError(`${at}the only tail that a head can have is '_'`);
    if (options.otp !== undefined && options.otp < 29)
      throw new MatchSpecError(
        `${at}a head for "at least so many arguments" needs OTP 29, the node has ${options.otp}`,
      );
  }
  const length = open ? head.elements.length : (head as readonly Term[]).length;
  if (target === "call") {
    const { arity } = options;
    if (arity !== undefined && (open ? length > arity : length !== arity))
      throw new MatchSpecError(`${at}the head has ${argumentsText([length])}, the function has ${arity}`);
  } else if (open ? length > HEAD_LENGTH[target] : length !== HEAD_LENGTH[target]) {
    throw new MatchSpecError(
      `${at}the head for ${target} is ${HEAD_PARTS[target]}; this one has ${length} parts`,
    );
  }
}

function collectVariables(pattern: Term, into: Set<string>): void {
  if (pattern instanceof Atom) {
    if (pattern.name !== "_" && looksLikePattern(pattern.name)) into.add(pattern.name);
  } else if (Array.isArray(pattern))
    for (const part of pattern as readonly Term[]) collectVariables(part, into);
  else if (pattern instanceof Tuple) for (const part of pattern.elements) collectVariables(part, into);
  else if (pattern instanceof ErlMap) for (const value of pattern.values()) collectVariables(value, into);
  else if (pattern instanceof ImproperList) {
    for (const part of pattern.elements) collectVariables(part, into);
    collectVariables(pattern.tail, into);
  }
}

function checkExpression(term: Term, clause: Clause): void {
  if (term instanceof Atom) {
    if (term.name !== "_" && looksLikePattern(term.name) && !clause.bound.has(term.name))
      throw new MatchSpecError(`${clause.at}variable ${term.name} is not bound in the head`);
  } else if (Array.isArray(term)) {
    for (const part of term as readonly Term[]) checkExpression(part, clause);
  } else if (term instanceof ImproperList) {
    for (const part of term.elements) checkExpression(part, clause);
    checkExpression(term.tail, clause);
  } else if (term instanceof ErlMap) {
    for (const value of term.values()) checkExpression(value, clause);
  } else if (term instanceof Tuple) {
    checkTuple(term, clause);
  }
}

function checkTuple(term: Tuple, clause: Clause): void {
  const [first, ...args] = term.elements;
  if (first instanceof Tuple && args.length === 0) {
    for (const part of first.elements) checkExpression(part, clause);
    return;
  }
  if (!(first instanceof Atom))
    throw new MatchSpecError(
      `${clause.at}a tuple that is neither a call nor {{…}} stands in a ${clause.where}`,
    );
  if (first.name === "const") {
    if (args.length !== 1) throw new MatchSpecError(`${clause.at}{const, Term} takes one term`);
    return;
  }
  checkCall(first.name, args.length, clause);
  for (const arg of args) checkExpression(arg, clause);
}

function checkCall(name: string, count: number, { target, where, otp, at }: Clause): void {
  const fn = matchFunction(name);
  if (fn === undefined)
    throw new MatchSpecError(`${at}match specifications have no function ${name}/${count}`);
  if (fn.arities === undefined ? count === 0 : !fn.arities.includes(count))
    throw new MatchSpecError(
      `${at}${name} takes ${fn.arities === undefined ? "at least one argument" : argumentsText(fn.arities)}, not ${count}`,
    );
  if (fn.action && where === "guard")
    throw new MatchSpecError(`${at}${name} is an action: it can't be used in a guard`);
  if (fn.targets !== undefined && !fn.targets.includes(target))
    throw new MatchSpecError(
      `${at}${name} can't be used in a match specification for ${target}, only for ${fn.targets.join(" and ")}`,
    );
  const since = availableSince(name, fn, count);
  if (otp !== undefined && otp < since)
    throw new MatchSpecError(
      `${at}${name}/${count} needs OTP ${since} in match specifications, the node has ${otp}`,
    );
}

function argumentsText(counts: readonly number[]): string {
  return `${counts.join(" or ")} ${counts.length === 1 && counts[0] === 1 ? "argument" : "arguments"}`;
}
