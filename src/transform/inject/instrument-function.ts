/**
 * Puts events into one function. Per clause: at the start an entry, whose answer is the frame's id (0: nobody listens); before a tail
 * call *left by tail call*, the call itself unchanged; elsewhere a call that tells of the result and gives it. Whether anybody is to be told
 * is asked by the helpers: a branch at each site is what the compiler would spend its time on. Heads only gain aliases of whole arguments,
 * guards nothing. All that is added is marked as generated, at the line of what it stands beside.
 */
import type { Atom } from "../../erlang";
import type { Callback } from "../behaviours/callbacks";
import { ownCallee } from "../behaviours/continuations";
import { type Builder, builderBeside } from "../builder";
import { generatedAnno, type ClauseNode, type Expr, type FunctionNode, type VarNode } from "../forms";
import { FreshNames, mayBind } from "../scope";
import type { SiteKind } from "../../buffer";
import {
  type CallContext,
  hasTailCall,
  isPassedOn,
  isTailCall,
  neverReturns,
  tailIndex,
} from "../tail-position";
import type { EntryCall, HelpersInUse } from "./helpers";
import { isPlain, makesFunctions, partsOf } from "./values";

/** How functions are instrumented. */
export interface InjectOptions {
  /** `infer` (default): an exception shows as the end of the enclosing frame. `wrap`: each frame tells of it, where that breaks no tail call. */
  readonly exceptions?: "infer" | "wrap";
  /**
   * What callbacks of behaviours tell when they return: `shape` (default) of message, reply and state, with the keys of the state that changed;
   * also the terms themselves, each cut to `maxBytes`; or `none`: they are functions like any other.
   */
  readonly callbacks?: "none" | "shape" | { readonly maxBytes: number };
}

/** What one function needs from its module. */
export interface ModuleContext extends CallContext {
  readonly module: string;
  readonly helpers: HelpersInUse;
  readonly exceptions: "infer" | "wrap";
  /** The callback that the function is, and how many bytes of each of its terms are to travel. */
  readonly callback: { readonly is: Callback; readonly maxBytes: number } | undefined;
  /** Registers a site and returns its id. */
  site(
    kind: SiteKind,
    node: { readonly anno: Expr["anno"] },
    clause: number,
    args: readonly number[],
    callee?: string,
  ): number;
  /** A site's number as events carry it, which is known when the module's last site is. */
  siteNumber(id: number, b: Builder): Expr;
}

/** What a callback has not, to the runtime. */
const NOTHING = "-beamtrace-none-";

/** Instruments the function in place. Answers whether it had a `try` or a `catch` of its own. */
export function instrumentFunction(node: FunctionNode, context: ModuleContext): boolean {
  const names = new FreshNames(node);
  const captured = capturedArguments(node);
  node.clauses.forEach((clause, i) => {
    new ClauseInjector(context, names, i + 1).inject(clause, captured);
  });
  return names.catches;
}

/** Whether a tail call of the function stands in the way of `exceptions: "wrap"`. */
export function hasTailCalls(node: FunctionNode, context: CallContext): boolean {
  return node.clauses.some(({ body }) => hasTailCall(body[tailIndex(body)]!, context));
}

/**
 * Arguments that events carry: all but those that some clause takes apart as a binary. To name such a one as a whole would make
 * the VM build a sub-binary in each turn of a loop that now needs none.
 */
function capturedArguments(node: FunctionNode): number[] {
  return Array.from({ length: node.arity }, (_, i) => i).filter(
    (i) => !node.clauses.some(({ patterns }) => isBinaryPattern(patterns[i]!)),
  );
}

function isBinaryPattern(pattern: Expr): boolean {
  return (
    pattern.type === "bin" ||
    (pattern.type === "match" && (isBinaryPattern(pattern.pattern) || isBinaryPattern(pattern.value)))
  );
}

class ClauseInjector {
  private id: VarNode | undefined;
  /** What the callback was called with: a variable of its own, so that nothing of it is kept where nobody listens. */
  private asked: Atom | undefined;
  private readonly arguments = new Map<number, Atom>();
  private readonly context: ModuleContext;
  private readonly names: FreshNames;
  private readonly clause: number;

  constructor(context: ModuleContext, names: FreshNames, clause: number) {
    this.context = context;
    this.names = names;
    this.clause = clause;
  }

  inject(clause: ClauseNode, captured: readonly number[]): void {
    const b = builderBeside(clause);
    const site = this.context.site("entry", clause, this.clause, captured);
    const args = captured.map((i) => this.nameArgument(clause, i));
    const wrapped = this.context.exceptions === "wrap";
    const [only] = clause.body;
    const number = this.context.siteNumber(site, b);
    const { helpers } = this.context;
    if (!wrapped && this.context.callback === undefined && clause.body.length === 1 && only !== undefined) {
      // A value and nothing else: one call tells of all. Tables of thousands of clauses stay small so.
      if (isPlain(only)) {
        this.context.site("return", only, this.clause, []);
        clause.body = [this.call(helpers.once(number, args, only, b), b)];
        return;
      }
      if (only.type === "call" && isTailCall(only, this.context) && partsOf(only).every(isPlain)) {
        clause.body = [this.passingOn(this.call(helpers.enter(number, args, b), b), only), only];
        return;
      }
    }
    const enter = this.call(helpers.enter(number, args, b), b);
    const name = this.names.next("BeamtraceId");
    this.id = b.variable(name);
    const body = wrapped ? this.wrapped(clause) : this.tailBody(clause.body);
    const { callback } = this.context;
    const continues = callback?.is.trigger === "continuation";
    const begins = callback !== undefined && !continues;
    // Where nothing tells of the frame's end (it ends by an exception) its id is of no use, unless a callback is in it.
    const used = wrapped || this.told > 0 || callback !== undefined;
    const start: Expr[] = [used ? b.match(b.variable(name), enter) : b.match(b.wildcard(), enter)];
    if (begins || this.asked !== undefined) start.push(this.askedOf(clause, begins ? site : undefined));
    if (continues) {
      const helper = this.context.helpers.use("continues");
      const number = this.context.siteNumber(site, b);
      start.push(b.call(helper, [b.variable(name), number]));
    }
    clause.body = [...start, ...body];
  }

  /** Entry and tail call with nothing in between: where nobody listens the frame's id need not be kept until there, nor a second helper be called. */
  private passingOn(enter: Expr, call: Expr): Expr {
    const b = builderBeside(call);
    const id = this.names.next("BeamtraceId");
    const site = this.context.siteNumber(this.context.site("tail", call, this.clause, []), b);
    const told = b.call(this.context.helpers.use("tail"), [b.variable(id), site]);
    return b.case(enter, [b.clause([b.integer(0)], [b.atom("ok")]), b.clause([b.variable(id)], [told])]);
  }

  private call({ name, args }: EntryCall, b: Builder): Expr {
    return b.call(name, [...args]);
  }

  /** `Asked = case Id of 0 -> none; _ -> {Message, From, State, StateName} end`; that of a callback is told at once, as what it begins with. */
  private askedOf(clause: ClauseNode, site: number | undefined): Expr {
    const b = builderBeside(clause);
    const { message, from, state, stateName } = this.context.callback!.is;
    const part = (at: number | string | undefined): Expr =>
      typeof at === "number" ? this.nameArgument(clause, at) : b.atom(at ?? NOTHING);
    const parts = b.tuple(part(message), part(from), part(state), part(stateName));
    const id = (): Expr => b.variable(this.id!.name);
    const told =
      site === undefined
        ? parts
        : b.call(this.context.helpers.use("begins"), [
            ...[id(), this.context.siteNumber(site, b), this.how(b), parts],
          ]);
    return b.match(
      this.asked === undefined ? b.wildcard() : b.variable(this.asked),
      b.case(id(), [b.clause([b.integer(0)], [b.atom("none")]), b.clause([b.wildcard()], [told])]),
    );
  }

  /** What the runtime needs to know of the callback: `Class` or `{Class, MaxBytes}`, and what it was asked. */
  private callbackArguments(b: Builder): Expr[] {
    this.asked ??= this.names.next("BeamtraceC");
    return [this.how(b), b.variable(this.asked)];
  }

  private how(b: Builder): Expr {
    const { is, maxBytes } = this.context.callback!;
    return maxBytes === 0 ? b.atom(is.class) : b.tuple(b.atom(is.class), b.integer(maxBytes));
  }

  /** How many events speak of this frame's id. */
  private told = 0;

  /** A variable that is the whole argument. */
  private nameArgument(clause: ClauseNode, position: number): Expr {
    const pattern = clause.patterns[position]!;
    const b = builderBeside(pattern);
    const known = this.arguments.get(position);
    if (known !== undefined) return b.variable(known);
    if (pattern.type === "var" && !pattern.name.name.startsWith("_")) return b.variable(pattern.name);
    const name = this.names.next(`BeamtraceA${position + 1}`);
    this.arguments.set(position, name);
    const alias = b.variable(name);
    clause.patterns[position] =
      pattern.type === "var" && pattern.name.name === "_" ? alias : b.match(pattern, alias);
    return b.variable(name);
  }

  private tailBody(body: readonly Expr[]): Expr[] {
    const at = tailIndex(body);
    return [...body.slice(0, at), ...this.tail(body[at]!, body.slice(at + 1))];
  }

  /** Expressions as one. */
  private asOne(nodes: Expr[], anno: Expr["anno"]): Expr {
    return nodes.length === 1 ? nodes[0]! : { type: "block", anno: generatedAnno(anno), body: nodes };
  }

  private tailClauses(clauses: readonly ClauseNode[]): void {
    for (const clause of clauses) clause.body = this.tailBody(clause.body);
  }

  /**
   * What takes the place of an expression in tail position. `rest` names its value once more (`X = E, X`): as long as all else is
   * within E, the compiler still sees that E is all there is.
   */
  private tail(node: Expr, rest: readonly Expr[] = []): Expr[] {
    if (rest.length > 0) {
      if (hasTailCall(node, this.context)) return [this.asOne(this.tail(node), node.anno), ...rest];
      return [node, ...rest.slice(0, -1), ...this.tail(rest[rest.length - 1]!)];
    }
    if (!hasTailCall(node, this.context))
      return neverReturns(node, this.context) ? [node] : this.tellOf(node);
    switch (node.type) {
      case "call":
        return isTailCall(node, this.context) ? this.beforeTailCall(node) : this.tellOf(node);
      case "lc":
      case "bc":
        return this.beforeComprehension(node);
      case "block":
        return this.tailBody(node.body);
      case "match":
        node.value = this.asOne(this.tail(node.value), node.anno);
        return [node];
      case "case":
        if (isPassedOn(node)) node.value = this.asOne(this.tail(node.value), node.anno);
        else this.tailClauses(node.clauses);
        return [node];
      case "if":
      case "receive":
        this.tailClauses(node.clauses);
        return [node];
      case "receive_after":
        this.tailClauses(node.clauses);
        node.body = this.tailBody(node.body);
        return [node];
      case "try": {
        const clauses = node.clauses;
        this.tailClauses(clauses);
        this.tailClauses(node.handlers);
        // The value of the body alone would go past us: `of Value -> Value` is what its absence means.
        if (clauses.length === 0) node.clauses = [this.passing(node)];
        return [node];
      }
      case "maybe":
        // Likewise: a value that didn't match is the value of the whole.
        node.body = this.tailBody(node.body);
        return [
          {
            type: "maybe_else",
            anno: node.anno,
            body: node.body,
            otherwise: { type: "else", anno: generatedAnno(node.anno), clauses: [this.passing(node)] },
          },
        ];
      case "maybe_else":
        node.body = this.tailBody(node.body);
        this.tailClauses(node.otherwise.clauses);
        return [node];
      case "binary_op":
        return [this.lazyOperator(node)];
      default:
        throw new TypeError(`a ${node.type} has no tail call`);
    }
  }

  /** `Value -> Value`, told. */
  private passing(node: Expr): ClauseNode {
    const b = builderBeside(node);
    const name = this.names.next("BeamtraceV");
    return b.clause([b.variable(name)], this.leaving(node, b.variable(name)));
  }

  /** `L andalso R`, R a tail call, as a `case` that tells of the value when it is L that decides. */
  private lazyOperator(node: Extract<Expr, { type: "binary_op" }>): Expr {
    const b = builderBeside(node);
    const goesOn = node.operator.name === "andalso" ? "true" : "false";
    const other = this.names.next("BeamtraceV");
    // Of another value than a boolean the operator itself makes its error.
    const decided: Expr = {
      type: "binary_op",
      anno: node.anno,
      operator: node.operator,
      left: b.variable(other),
      right: b.atom(goesOn),
    };
    return b.case(node.left, [
      b.clause([b.atom(goesOn)], this.tail(node.right)),
      b.clause([b.variable(other)], this.tellOf(decided)),
    ]);
  }

  /** `leave(Id, Expr, Site)`, which gives the value of the expression. */
  private tellOf(node: Expr): Expr[] {
    if (node.type === "maybe_match") {
      // `P ?= E` ends a `maybe`: it can stand nowhere else, and is E's value where P matches.
      const b = builderBeside(node);
      const name = this.names.next("BeamtraceR");
      node.pattern = b.match(node.pattern, b.variable(name));
      return [node, ...this.leaving(node, b.variable(name))];
    }
    return this.leaving(node, node);
  }

  /** The call that tells of a value at `node` and gives it: no branch of our own for the compiler to optimise. */
  private leaving(node: Expr, value: Expr): Expr[] {
    const b = builderBeside(node);
    const site = this.context.site("return", node, this.clause, []);
    const { helpers, callback } = this.context;
    const [frame, at] = [this.frame(node), this.context.siteNumber(site, b)];
    this.told++;
    return [
      callback === undefined
        ? b.call(helpers.use("leave"), [frame, value, at])
        : b.call(helpers.use("callback"), [frame, at, ...this.callbackArguments(b), value]),
    ];
  }

  /** Likewise for a comprehension; what it first goes through is evaluated in this frame. */
  private beforeComprehension(node: Extract<Expr, { type: "lc" | "bc" }>): Expr[] {
    const first = node.qualifiers[0];
    const before: Expr[] = [];
    const generator = first !== undefined && "pattern" in first && first.type !== "match";
    if (generator && !isPlain(first.value) && !makesFunctions(first.value)) {
      const b = builderBeside(first.value);
      const name = this.names.next("BeamtraceV");
      before.push(b.match(b.variable(name), first.value));
      first.value = b.variable(name);
    }
    return [...before, this.tailEvent(node), node];
  }

  private tailEvent(node: Expr): Expr {
    const b = builderBeside(node);
    const { helpers, callback, module } = this.context;
    const callee = callback !== undefined && node.type === "call" ? ownCallee(node, module) : undefined;
    const site = this.context.site("tail", node, this.clause, [], callee);
    const start = [this.frame(node), this.context.siteNumber(site, b)];
    const event =
      callback === undefined
        ? b.call(helpers.use("tail"), start)
        : b.call(helpers.use("callbackTail"), [...start, ...this.callbackArguments(b)]);
    this.told++;
    return event;
  }

  private beforeTailCall(node: Extract<Expr, { type: "call" }>): Expr[] {
    const event = this.tailEvent(node);
    return [...this.evaluatedFirst(node), event, node];
  }

  private frame(node: { readonly anno: Expr["anno"] }): Expr {
    return builderBeside(node).variable(this.id!.name);
  }

  /**
   * Takes what is not yet a value out of the call, in the order of evaluation (the function first, then the arguments), so that the
   * frame is left after its arguments were made and not before. Not where two of them bind the same variable, or where it would show.
   */
  private evaluatedFirst(call: Extract<Expr, { type: "call" }>): Expr[] {
    const { callee } = call;
    // Whether the compiler puts a fun that is called on the spot in line depends on what is around it, and stack traces show it.
    if (callee.type === "fun" || callee.type === "named_fun") return [];
    const parts = partsOf(call);
    const toDo = parts.filter((part) => !isPlain(part));
    if (toDo.length === 0) return [];
    // Arguments are numbered from the right, expressions from the left: with two of them the names in stack traces would change.
    if (parts.filter(makesFunctions).length > 1) return [];
    const bound = new Set<string>();
    for (const part of toDo) {
      for (const name of mayBind(part)) {
        if (bound.has(name)) return [];
        bound.add(name);
      }
    }
    const before: Expr[] = [];
    const evaluated = (part: Expr): Expr => {
      if (isPlain(part)) return part;
      const b = builderBeside(part);
      const name = this.names.next("BeamtraceV");
      before.push(b.match(b.variable(name), part));
      return b.variable(name);
    };
    if (callee.type === "remote") {
      callee.module = evaluated(callee.module);
      callee.function = evaluated(callee.function);
    } else call.callee = evaluated(callee);
    call.arguments = call.arguments.map(evaluated);
    return before;
  }

  /** The whole body within a `try` that tells of an exception and raises it again, stack trace and all. */
  private wrapped(clause: ClauseNode): Expr[] {
    const b = builderBeside(clause);
    const last = clause.body[clause.body.length - 1]!;
    const result = this.names.next("BeamtraceR");
    const [kind, reason, stack] = ["C", "E", "S"].map((base) => this.names.next(`Beamtrace${base}`)) as [
      Atom,
      Atom,
      Atom,
    ];
    const site = this.context.site("return", last, this.clause, []);
    const { helpers, callback } = this.context;
    const told = [
      this.frame(last),
      this.context.siteNumber(site, b),
      ...[kind, reason, stack].map((name) => b.variable(name)),
    ];
    const raised =
      callback === undefined
        ? b.call(helpers.use("exception"), told)
        : b.call(helpers.use("callbackException"), [...told, ...this.callbackArguments(b)]);
    const node = b.try(clause.body, [
      b.clause(
        [b.tuple(b.variable(kind), b.variable(reason), b.variable(stack))],
        [
          raised,
          b.remoteCall(
            "erlang",
            "raise",
            [kind, reason, stack].map((name) => b.variable(name)),
          ),
        ],
      ),
    ]);
    node.clauses = [b.clause([b.variable(result)], this.leaving(last, b.variable(result)))];
    return [node];
  }
}
