/**
 * The functions that instrumented code calls, added to each instrumented module: the only places that know the runtime module
 * `beamtrace_rt`. They never raise. Where the runtime is missing the first call puts the one that does nothing in its place
 * (`erlang:load_module/2`, which needs no code server), so that all further calls cost next to nothing.
 */
import { atom, type Atom } from "../../erlang";
import { RUNTIME_OFF } from "../beam-code.generated";
import { type Builder, builderBeside } from "../builder";
import type { Anno, Expr, FunctionNode, VarNode } from "../forms";

const RUNTIME = "beamtrace_rt";
/** Arguments that travel one by one; more are put into a list first. */
export const MAX_SINGLE_ARGUMENTS = 6;

/** Names of helper functions; none of the module's own has them. */
export const HELPERS = {
  enter: atom("-beamtrace-enter-"),
  enterList: atom("-beamtrace-enter-list-"),
  leave: atom("-beamtrace-leave-"),
  tail: atom("-beamtrace-tail-"),
  exception: atom("-beamtrace-exception-"),
  callback: atom("-beamtrace-callback-"),
  callbackTail: atom("-beamtrace-callback-tail-"),
  callbackException: atom("-beamtrace-callback-exception-"),
  begins: atom("-beamtrace-begins-"),
  continues: atom("-beamtrace-continues-"),
  locals: atom("-beamtrace-locals-"),
  once: atom("-beamtrace-once-"),
  onceList: atom("-beamtrace-once-list-"),
  absent: atom("-beamtrace-absent-"),
} as const;

/** Which helpers a module needs. */
export class HelpersInUse {
  private readonly enterArities = new Set<number>();
  private readonly onceArities = new Set<number>();
  private readonly names = new Set<Atom>();

  /** Callee and arguments of the call that tells of an entry. */
  enter(args: readonly Expr[], b: Builder): { name: Atom; args: Expr[] } {
    if (args.length > MAX_SINGLE_ARGUMENTS) {
      this.names.add(HELPERS.enterList);
      return { name: HELPERS.enterList, args: [b.list(args)] };
    }
    this.enterArities.add(args.length);
    return { name: HELPERS.enter, args: [...args] };
  }

  /** Likewise of the call that tells of entry and return at once and gives the result, its last argument; the return's site is the next one. */
  once(args: readonly Expr[], b: Builder): { name: Atom; args: Expr[] } {
    const entry = this.enter(args, b);
    this.names.add(HELPERS.leave);
    if (entry.name === HELPERS.enterList) {
      this.names.add(HELPERS.onceList);
      return { name: HELPERS.onceList, args: entry.args };
    }
    this.onceArities.add(args.length);
    return { name: HELPERS.once, args: entry.args };
  }

  use(helper: Exclude<keyof typeof HELPERS, "enter" | "enterList" | "once" | "onceList" | "absent">): Atom {
    this.names.add(HELPERS[helper]);
    return HELPERS[helper];
  }

  /** The functions to add to the module. */
  functions(module: Atom, anno: Anno): FunctionNode[] {
    const b = builderBeside({ anno });
    const any = () => b.tuple(b.wildcard(), b.wildcard(), b.wildcard());
    const guardedCall = (
      name: Atom,
      arity: number,
      callee: string,
      order: (vars: Expr[]) => Expr[],
      or: Expr,
    ) => {
      const vars = Array.from({ length: arity }, (_, i) => b.variable(`V${i}`));
      const call = b.remoteCall(RUNTIME, callee, order(vars));
      return b.function(name, arity, [b.clause([...vars], [b.try([call], [b.clause([any()], [or])])])]);
    };
    const withModule =
      (at: number) =>
      (vars: Expr[]): Expr[] => [...vars.slice(0, at), b.atom(module), ...vars.slice(at)];
    const absent = () => b.call(HELPERS.absent, []);
    const functions = [...this.enterArities]
      .sort((x, y) => x - y)
      .map((count) => guardedCall(HELPERS.enter, count + 1, "enter", withModule(0), absent()));
    if (this.names.has(HELPERS.enterList))
      functions.push(guardedCall(HELPERS.enterList, 2, "enter_list", withModule(0), absent()));
    const once = (name: Atom, enter: Atom, count: number): FunctionNode => {
      const [site, result] = ["S", "R"].map((base) => b.variable(base)) as [VarNode, VarNode];
      const vars = Array.from({ length: count }, (_, i) => b.variable(`V${i}`));
      const entered = b.call(enter, [site, ...vars]);
      return b.function(name, count + 2, [
        b.clause(
          [site, ...vars, result],
          [b.call(HELPERS.leave, [entered, b.operator("+", site, b.integer(1)), result])],
        ),
      ]);
    };
    for (const count of [...this.onceArities].sort((x, y) => x - y))
      functions.push(once(HELPERS.once, HELPERS.enter, count));
    if (this.names.has(HELPERS.onceList)) functions.push(once(HELPERS.onceList, HELPERS.enterList, 1));
    /** Tells of a frame that has an id; gives the last argument where that is a result. */
    const told = (name: Atom, arity: number, callee: string, result: boolean) => {
      if (!this.names.has(name)) return;
      const vars = Array.from({ length: arity }, (_, i) => b.variable(`V${i}`));
      const call = b.remoteCall(RUNTIME, callee, withModule(1)(vars));
      const last = vars[arity - 1]!;
      const given = result ? last : b.atom("ok");
      const nothing = vars.map((v, i) => (result && i === arity - 1 ? v : b.wildcard()));
      const tried = b.try([call], [b.clause([any()], [b.atom("ok")])]);
      functions.push(
        b.function(name, arity, [
          b.clause([b.integer(0), ...nothing.slice(1)], [given]),
          b.clause([...vars], result ? [tried, last] : [tried]),
        ]),
      );
    };
    told(HELPERS.leave, 3, "leave", true);
    told(HELPERS.tail, 2, "tail", false);
    told(HELPERS.exception, 5, "exception", false);
    told(HELPERS.begins, 4, "begins", true);
    told(HELPERS.callback, 5, "callback", true);
    told(HELPERS.callbackTail, 4, "callback_tail", false);
    told(HELPERS.callbackException, 7, "callback_exception", false);
    told(HELPERS.continues, 2, "continues", false);
    if (this.names.has(HELPERS.locals))
      functions.push(guardedCall(HELPERS.locals, 3, "locals", withModule(0), b.atom("ok")));
    const load = b.remoteCall("erlang", "load_module", [
      b.atom(RUNTIME),
      b.binary(Buffer.from(RUNTIME_OFF, "base64")),
    ]);
    functions.push(
      b.function(HELPERS.absent, 0, [
        b.clause([], [b.try([load], [b.clause([any()], [b.atom("error")])]), b.integer(0)]),
      ]),
    );
    return functions;
  }
}
