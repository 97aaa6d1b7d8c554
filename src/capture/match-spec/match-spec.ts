/**
 * The builder of match specifications for trace events: `matchSpec.call(head).when(guard).do(actions).clause(head)…`.
 * Immutable: every step returns a new one. What can be said depends on the event, and variables exist only where the head binds them.
 */
import { atom, improper, tuple, type Term } from "../../erlang/term";
import { type Actions, actionsFor } from "./actions";
import { checkMatchSpec, type MatchSpecOptions } from "./check";
import { compileExpression, compilePattern, Scope, unbound } from "./compile";
import { MatchSpecError } from "./error";
import type { MatchTarget } from "./functions";
import { type Guards, guardsFor } from "./guards";
import {
  AnyPattern,
  type Expression,
  type ExpressionInput,
  type NamesIn,
  type NodeInput,
  type PatternInput,
  Rest,
  Variable,
} from "./nodes";
import { sampleOneIn } from "./sample";

/** Head of a clause: what the event must look like. A variable alone binds the whole list. */
export type Head<T extends MatchTarget> =
  | Variable
  | AnyPattern
  | (T extends "call"
      ? readonly (PatternInput | Rest)[]
      : T extends "send"
        ? readonly [receiver: PatternInput, message: PatternInput]
        : readonly [node: PatternInput, sender: PatternInput, message: PatternInput]);

/** The variables that a head has bound, by name. */
export type Variables<N extends string> = { readonly [K in N]: Variable<K> };

interface Clause {
  readonly head: Term;
  readonly scope: Scope;
  readonly guards: readonly Term[];
  readonly body: readonly Term[];
}

/** A match specification, ready for `toTerm()`. */
export class MatchSpec<T extends MatchTarget = MatchTarget> {
  /** The event that it filters. */
  readonly target: T;
  /** @internal */
  protected readonly clauses: readonly Clause[] | undefined;
  /** @internal */
  protected readonly term: readonly Term[] | undefined;
  private readonly checked: boolean;
  private readonly oneIn: number;

  /** @internal Made by `matchSpec`. */
  constructor(
    target: T,
    source:
      { readonly clauses: readonly Clause[] } | { readonly term: readonly Term[]; readonly checked: boolean },
    oneIn = 1,
  ) {
    this.target = target;
    this.clauses = "clauses" in source ? source.clauses : undefined;
    this.term = "term" in source ? source.term : undefined;
    this.checked = "term" in source ? source.checked : true;
    this.oneIn = oneIn;
  }

  /**
   * Lets one in `oneIn` of the matching events through, counted on the node in its trace control word: one number for the whole node,
   * which other tools may use as well, and which schedulers count without a lock (exact for one process, close for many).
   * Two sampled specifications at work at once share the count.
   */
  sample(oneIn: number): MatchSpec<T> {
    sampleOneIn([], oneIn);
    const source =
      this.clauses !== undefined
        ? { clauses: this.clauses }
        : { term: this.term ?? [], checked: this.checked };
    return new MatchSpec(this.target, source, oneIn);
  }

  /**
   * The match specification in the VM's form: `[{Head, Guards, Body}]`.
   * @param options - Checked against when given: the function's arity, the node's release.
   * @throws MatchSpecError `BT_MATCH_SPEC_INVALID`
   */
  toTerm(options: MatchSpecOptions = {}): readonly Term[] {
    const spec =
      this.clauses?.map((c) => tuple(c.head, [...c.scope.guards, ...c.guards], [...c.body])) ??
      this.term ??
      [];
    if (this.checked) checkMatchSpec(spec, this.target, options);
    return sampleOneIn(spec, this.oneIn);
  }
}

/** A match specification that is being built; its last clause binds the variables `N`. */
export class MatchSpecBuilder<T extends MatchTarget, N extends string = never> extends MatchSpec<T> {
  /** @internal */
  declare protected readonly clauses: readonly Clause[];

  /**
   * The clause matches only when this holds too. Several conditions, in a list or by several calls, must all hold.
   * @param guard - Receives the variables of the head and the guard functions.
   */
  when(
    guard: (variables: Variables<N>, guards: Guards<T>) => Expression | readonly Expression[],
  ): MatchSpecBuilder<T, N> {
    return this.extend("guards", (variables) => guard(variables, guardsFor(this.target)));
  }

  /**
   * What happens when the clause matches, besides the event. Called again, it adds.
   * @param actions - Receives the variables of the head and the actions that this kind of event allows.
   */
  do(
    actions: (variables: Variables<N>, act: Actions<T>) => Expression | readonly Expression[],
  ): MatchSpecBuilder<T, N> {
    return this.extend("body", (variables) => actions(variables, actionsFor(this.target)));
  }

  /** A further clause, tried where those before it do not match. */
  clause<const H extends Head<T>>(head: H): MatchSpecBuilder<T, NamesIn<H>> {
    return new MatchSpecBuilder<T, NamesIn<H>>(this.target, {
      clauses: [...this.clauses, startClause(this.target, head as NodeInput)],
    });
  }

  private extend(
    part: "guards" | "body",
    callback: (variables: Variables<N>) => Expression | readonly Expression[],
  ): MatchSpecBuilder<T, N> {
    const last = this.clauses.at(-1) as Clause;
    const result = callback(variablesOf<N>(last.scope)) as ExpressionInput | readonly ExpressionInput[];
    const added = (Array.isArray(result) ? (result as readonly NodeInput[]) : [result as NodeInput]).map(
      (e) => compileExpression(e, last.scope),
    );
    const clause = { ...last, [part]: [...last[part], ...added] };
    const clauses = [...this.clauses.slice(0, -1), clause];
    const spec = clauses.map((c) => tuple(c.head, [...c.scope.guards, ...c.guards], [...c.body]));
    checkMatchSpec(spec, this.target);
    return new MatchSpecBuilder<T, N>(this.target, { clauses });
  }
}

function startClause(target: MatchTarget, head: NodeInput): Clause {
  const scope = new Scope();
  const term = compileHead(head, scope);
  checkMatchSpec([tuple(term, [], [])], target);
  return { head: term, scope, guards: [], body: [] };
}

function compileHead(head: NodeInput, scope: Scope): Term {
  if (head instanceof Variable) return scope.bind(head.name);
  if (head instanceof AnyPattern) return atom("_");
  if (!Array.isArray(head))
    throw new MatchSpecError("the head is a list of patterns, a variable for the whole list, or `any`");
  const parts = head as readonly (NodeInput | Rest)[];
  const last = parts.at(-1);
  const open = last instanceof Rest;
  const terms = (open ? parts.slice(0, -1) : parts).map((part) => {
    if (part instanceof Rest) throw new MatchSpecError("`rest` can only be the last argument of a head");
    return compilePattern(part as NodeInput, scope);
  });
  if (!open) return terms;
  return terms.length === 0 ? atom("_") : improper(terms, atom("_"));
}

function variablesOf<N extends string>(scope: Scope): Variables<N> {
  const names = scope.names;
  const variables: Record<string, Variable> = Object.create(null) as Record<string, Variable>;
  for (const name of names) variables[name] = new Variable(name);
  return new Proxy(Object.freeze(variables), {
    get(known, name) {
      if (typeof name === "string" && known[name] === undefined) throw unbound(name, names);
      return typeof name === "string" ? known[name] : undefined;
    },
  }) as Variables<N>;
}

function start<T extends MatchTarget, H>(target: T, head: H): MatchSpecBuilder<T, NamesIn<H>> {
  return new MatchSpecBuilder<T, NamesIn<H>>(target, { clauses: [startClause(target, head as NodeInput)] });
}

/**
 * Match specifications: filters and actions that the VM itself carries out at each event, before anything leaves the process.
 *
 * @example
 * // Only big orders; send the caller along and the return value.
 * matchSpec
 *   .call([v("cart"), v("count")])
 *   .when(({ count }, g) => g.gt(count, 100))
 *   .do(({ cart }, act) => [act.message(tupleOf(cart, act.caller())), act.returnTrace()]);
 */
export const matchSpec = {
  /** For a call pattern; the head lists the arguments. */
  call: <const H extends Head<"call">>(head: H): MatchSpecBuilder<"call", NamesIn<H>> => start("call", head),
  /** For sent messages. */
  send: <const H extends Head<"send">>(head: H): MatchSpecBuilder<"send", NamesIn<H>> => start("send", head),
  /** For received messages. The sender is `undefined` where the VM does not know it. */
  receive: <const H extends Head<"receive">>(head: H): MatchSpecBuilder<"receive", NamesIn<H>> =>
    start("receive", head),
  /** A match specification in Erlang's own form, unchecked. */
  raw: <T extends MatchTarget = "call">(term: readonly Term[], target?: T): MatchSpec<T> =>
    new MatchSpec<T>(target ?? ("call" as T), { term, checked: false }),
} as const;
