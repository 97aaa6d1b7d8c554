/** What a new process really runs, behind `proc_lib` or a fun, by the same rules as the agent's own (`beamtrace_event:initial_call/1`). */
import { Atom, ExportFun, Fun, Tuple, type Term } from "../erlang/term";
import type { Mfa } from "./dictionary";

/**
 * The initial call of a process that was spawned with this function and these arguments; undefined when it is the function itself.
 * The external form of a closure does not name its function; it is given as `-fun/arity-`, with the fun's arity.
 */
export function initialCall(module: string, fun: string, args: Term): Mfa | undefined {
  if (!Array.isArray(args)) return undefined;
  const list = args as readonly Term[];
  if (module === "proc_lib" && fun === "init_p") {
    if (list.length === 3) return funCall(list[2]!);
    if (list.length === 5) return behaviour(list[2]!, list[3]!, list[4]!);
  }
  if (module === "erlang" && fun === "apply") {
    if (list.length === 2) return funCall(list[0]!);
    if (list.length === 3) return call(list[0]!, list[1]!, list[2]!);
  }
  return undefined;
}

function behaviour(module: Term, fun: Term, args: Term): Mfa | undefined {
  if (isAtom(module, "gen") && isAtom(fun, "init_it") && Array.isArray(args)) {
    const list = args as readonly Term[];
    // [gen_server, Starter, Parent, [Name,] Module, Arguments, Options]; a supervisor's own module is in its arguments.
    const at = list.length === 7 ? 4 : list.length === 6 ? 3 : -1;
    const callback = list[at];
    const start = list[at + 1];
    if (isAtom(list[0], "gen_server") && isAtom(callback, "supervisor") && start instanceof Tuple) {
      const supervisor = start.elements[1];
      if (start.length === 3 && supervisor instanceof Atom)
        return { module: supervisor.name, function: "init", arity: 1 };
    }
    if (callback instanceof Atom) return { module: callback.name, function: "init", arity: 1 };
  }
  return call(module, fun, args);
}

function call(module: Term, fun: Term, args: Term): Mfa | undefined {
  if (!(module instanceof Atom) || !(fun instanceof Atom)) return undefined;
  return { module: module.name, function: fun.name, arity: Array.isArray(args) ? args.length : 0 };
}

function funCall(fun: Term): Mfa | undefined {
  if (fun instanceof ExportFun)
    return { module: fun.module.name, function: fun.function.name, arity: fun.arity };
  if (fun instanceof Fun)
    return { module: fun.module.name, function: `-fun/${fun.arity}-`, arity: fun.arity };
  return undefined;
}

function isAtom(term: Term | undefined, name: string): boolean {
  return term instanceof Atom && term.name === name;
}
