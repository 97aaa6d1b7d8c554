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

/** A call of a helper that tells of an entry. */
export interface EntryCall {
  readonly name: Atom;
  readonly args: readonly Expr[];
}

/** Whether such a helper tells of the return as well, whose value is then its last argument. */
type Entry = "enter" | "once";
const LISTS = { enter: HELPERS.enterList, once: HELPERS.onceList };
const LIST = -1;

/** Which helpers a module needs. */
export class HelpersInUse {
  /** How many arguments the entries have; LIST: a list. */
  private readonly entries = { enter: new Set<number>(), once: new Set<number>() };
  private readonly names = new Set<Atom>();
  private readonly module: Atom;

  constructor(module: Atom) {
    this.module = module;
  }

  /**
   * Callee and arguments of the call that tells of an entry: module and site first, as the runtime has them. A helper that had to move its
   * arguments by one place to say the module would cost a tenth of an instrumented call.
   */
  private entry(kind: Entry, site: Expr, args: readonly Expr[], b: Builder): EntryCall {
    const many = args.length > MAX_SINGLE_ARGUMENTS;
    for (const needed of ["enter", kind] as const) this.entries[needed].add(many ? LIST : args.length);
    return {
      name: many ? LISTS[kind] : HELPERS[kind],
      args: [b.atom(this.module), site, ...(many ? [b.list(args)] : args)],
    };
  }

  enter(site: Expr, args: readonly Expr[], b: Builder): EntryCall {
    return this.entry("enter", site, args, b);
  }

  /** Likewise of entry and return at once; gives the result. The return's site is the next one. */
  once(site: Expr, args: readonly Expr[], result: Expr, b: Builder): EntryCall {
    const { name, args: told } = this.entry("once", site, args, b);
    this.names.add(HELPERS.leave);
    return { name, args: [...told, result] };
  }

  use(helper: Exclude<keyof typeof HELPERS, Entry | "enterList" | "onceList" | "absent">): Atom {
    this.names.add(HELPERS[helper]);
    return HELPERS[helper];
  }

  /** The functions to add to the module. */
  functions(anno: Anno): FunctionNode[] {
    const b = builderBeside({ anno });
    const any = () => b.tuple(b.wildcard(), b.wildcard(), b.wildcard());
    const variables = (count: number): VarNode[] =>
      Array.from({ length: count }, (_, i) => b.variable(`V${i}`));
    /** `try beamtrace_rt:Callee(…) catch _:_:_ -> Or end` */
    const guarded = (callee: string, args: readonly Expr[], or: Expr) =>
      b.try([b.remoteCall(RUNTIME, callee, [...args])], [b.clause([any()], [or])]);
    const withModule = (at: number, vars: readonly Expr[]): Expr[] => [
      ...vars.slice(0, at),
      b.atom(this.module),
      ...vars.slice(at),
    ];
    const functions: FunctionNode[] = [];
    // Each `try` is what the compiler spends time on: one for each number of arguments, which `once` calls.
    const entry = (kind: Entry, count: number): FunctionNode => {
      const many = count === LIST;
      const vars = variables(2 + (many ? 1 : count));
      const [name, enter] = many ? [LISTS[kind], LISTS.enter] : [HELPERS[kind], HELPERS.enter];
      if (kind === "enter") {
        const id = guarded(many ? "enter_list" : "enter", vars, b.call(HELPERS.absent, []));
        return b.function(name, vars.length, [b.clause([...vars], [id])]);
      }
      const result = b.variable("R");
      const next = b.operator("+", vars[1]!, b.integer(1));
      const id = b.variable("I");
      const told = b.case(b.call(enter, [...vars]), [
        b.clause([b.integer(0)], [result]),
        b.clause([id], [b.call(HELPERS.leave, [id, result, next])]),
      ]);
      return b.function(name, vars.length + 1, [b.clause([...vars, result], [told])]);
    };
    for (const kind of ["enter", "once"] as const)
      for (const count of [...this.entries[kind]].sort((x, y) => x - y)) functions.push(entry(kind, count));
    /**
     * Tells of a frame that has an id; gives the result where it has one, which the runtime takes last. Of a return it is not the helper's last
     * argument: the site is where the runtime has it, and arguments that had to be moved in pairs would be waited for.
     */
    const told = (name: Atom, arity: number, callee: string, result?: number) => {
      if (!this.names.has(name)) return;
      const vars = variables(arity);
      const given = result === undefined ? b.atom("ok") : vars[result]!;
      const nothing = vars.map((v, i) => (i === result ? v : b.wildcard()));
      const inOrder = result === undefined ? vars : [...vars.filter((_, i) => i !== result), vars[result]!];
      const tried = guarded(callee, withModule(1, inOrder), b.atom("ok"));
      functions.push(
        b.function(name, arity, [
          b.clause([b.integer(0), ...nothing.slice(1)], [given]),
          b.clause([...vars], result === undefined ? [tried] : [tried, given]),
        ]),
      );
    };
    told(HELPERS.leave, 3, "leave", 1);
    told(HELPERS.tail, 2, "tail");
    told(HELPERS.exception, 5, "exception");
    told(HELPERS.begins, 4, "begins", 3);
    told(HELPERS.callback, 5, "callback", 4);
    told(HELPERS.callbackTail, 4, "callback_tail");
    told(HELPERS.callbackException, 7, "callback_exception");
    told(HELPERS.continues, 2, "continues");
    if (this.names.has(HELPERS.locals)) {
      const vars = variables(3);
      const tried = guarded("locals", withModule(0, vars), b.atom("ok"));
      functions.push(b.function(HELPERS.locals, 3, [b.clause([...vars], [tried])]));
    }
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
