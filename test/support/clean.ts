/**
 * Looks for anything of beamtrace's that is left on a node: flags, breakpoints, sessions, modules, processes, names, hidden connections.
 * Asked through the node's own stdin (see erl-node.ts), so that asking leaves nothing itself.
 */
import { expect } from "vitest";
import { eventually, type ErlNode } from "./erl-node";

/** An Erlang expression whose value is the list of what is left; `[]` on a clean node. */
const LEFTOVERS = `
Ours = fun(A) -> lists:prefix("beamtrace", atom_to_list(A)) end,
Legacy = [{flags, P, F} || P <- processes() ++ erlang:ports(), {flags, F} <- [erlang:trace_info(P, flags)], F =/= []],
New = [{K, F} || K <- [new_processes, new_ports], {flags, F} <- [erlang:trace_info(K, flags)], F =/= []],
Sessions = case erlang:function_exported(trace, session_info, 1) orelse code:ensure_loaded(trace) =:= {module, trace} of
  true -> [{session, S} || {_, {N, _}} = S <- lists:filter(fun({_, {_, _}}) -> true; (_) -> false end, apply(trace, session_info, [all])), N =/= default] ++
          [{session, S} || {N, _} = S <- apply(trace, session_info, [all]), is_atom(N), N =/= legacy];
  false -> []
end,
Modules = [{module, M} || {M, _} <- code:all_loaded(), Ours(M)] ++
          [{old_code, M} || M <- [beamtrace_agent, beamtrace_nif], erlang:check_old_code(M)],
Runtime = case erlang:module_loaded(beamtrace_rt) andalso erlang:function_exported(beamtrace_rt, info, 0) andalso element(3, beamtrace_rt:info()) of
  Build when Build =:= false; Build =:= off -> [];
  Build -> [{runtime, Build}]
end,
Names = [{name, N} || N <- registered(), Ours(N)],
Procs = [{process, P, I} || P <- processes(), {initial_call, {M, _, _} = I} <- [erlang:process_info(P, initial_call)], Ours(M)],
Hidden = [{hidden, N} || N <- nodes(hidden)],
Breakpoints = [{breakpoint, {M, F, A}, T} || M <- __MODULES__, {F, A} <- M:module_info(functions), {traced, T} <- [catch erlang:trace_info({M, F, A}, traced)], T =/= false, T =/= undefined],
OnLoad = [{on_load, T} || {traced, T} <- [catch erlang:trace_info(on_load, traced)], T =/= false, T =/= undefined],
SendRecv = [{K, T} || K <- [send, 'receive'], {match_spec, T} <- [catch erlang:trace_info(K, match_spec)], T =/= true, T =/= [], T =/= undefined],
Legacy ++ New ++ Sessions ++ Modules ++ Runtime ++ Names ++ Procs ++ Hidden ++ Breakpoints ++ OnLoad ++ SendRecv`;

/** What is left on the node, as printed terms; `"[]"` when nothing is. `modules`: those whose functions were traced. */
export function leftovers(node: ErlNode, modules: readonly string[] = []): Promise<string> {
  return node.eval(LEFTOVERS.replace("__MODULES__", `[${modules.map((m) => `'${m}'`).join(", ")}]`));
}

/** Expects that within the deadline nothing of ours is left on the node. */
export async function expectClean(
  node: ErlNode,
  options: { modules?: readonly string[]; deadlineMs?: number } = {},
): Promise<void> {
  let last = "";
  try {
    await eventually(
      async () => (last = await leftovers(node, options.modules)),
      (left) => left === "[]",
      options.deadlineMs ?? 15_000,
    );
  } catch {
    expect(last).toBe("[]");
  }
}
