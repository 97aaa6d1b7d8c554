/**
 * The functions that instrumented code calls, added to each instrumented module: the only places that know the runtime module
 * `beamtrace_rt`. They never raise. Where the runtime is missing the first call puts the one that does nothing in its place
 * (`erlang:load_module/2`, which needs no code server), so that all further calls cost next to nothing.
 */
import { atom, type Atom } from "../../erlang";
import { RUNTIME_OFF } from "../beam-code.generated";
import { type Builder, builderAt } from "../builder";
import type { Anno, Expr, FunctionNode } from "../forms";

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
  continues: atom("-beamtrace-continues-"),
  locals: atom("-beamtrace-locals-"),
  absent: atom("-beamtrace-absent-"),
} as const;

/** Which helpers a module needs. */
export class HelpersInUse {
  private readonly enterArities = new Set<number>();
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

  use(helper: "leave" | "tail" | "exception" | "callback" | "callbackTail" | "continues" | "locals"): Atom {
    this.names.add(HELPERS[helper]);
    return HELPERS[helper];
  }

  /** The functions to add to the module. */
  functions(module: Atom, anno: Anno): FunctionNode[] {
    const b = builderAt(anno);
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
    if (this.names.has(HELPERS.leave))
      functions.push(guardedCall(HELPERS.leave, 3, "leave", withModule(1), b.atom("ok")));
    if (this.names.has(HELPERS.tail))
      functions.push(guardedCall(HELPERS.tail, 2, "tail", withModule(1), b.atom("ok")));
    if (this.names.has(HELPERS.exception))
      functions.push(guardedCall(HELPERS.exception, 5, "exception", withModule(1), b.atom("ok")));
    if (this.names.has(HELPERS.callback))
      functions.push(guardedCall(HELPERS.callback, 5, "callback", withModule(1), b.atom("ok")));
    if (this.names.has(HELPERS.callbackTail))
      functions.push(guardedCall(HELPERS.callbackTail, 4, "callback_tail", withModule(1), b.atom("ok")));
    if (this.names.has(HELPERS.continues))
      functions.push(guardedCall(HELPERS.continues, 2, "continues", withModule(1), b.atom("ok")));
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
