/** What instrumented modules tell while an expression runs, through an ordinary call trace of the runtime. */
import { SITES_MAX } from "../../src/buffer";
import { RUNTIME_ON } from "../../src/transform/beam-code.generated";
import type { ErlNode } from "./erl-node";
import { load, unload } from "./transform";

/** Functions with a return of each kind, for modules of tests; they begin at their module's third line. */
export const TOLD_FUNCTIONS = `add(A, _B) ->
    A + 1.
loop(0) -> done;
loop(N) ->
    loop(N - 1).
pick({ok, X}) ->
    add(X, X);
pick(L) when is_list(L) ->
    [E * 2 || E <- L];
pick(X) ->
    case X of
        a -> {a};
        b -> add(hd([1]), add(1, 2))
    end.
`;

/** Runs an expression in a traced process, with the runtime that traces; gives `Module:site` of each entry, in order, sites by their places. */
export async function entriesOf(node: ErlNode, expression: string): Promise<string[]> {
  await load(node, "beamtrace_rt", RUNTIME_ON);
  try {
    const text = await node.eval(`
      1 = erlang:trace_pattern({beamtrace_rt, entered, 4}, true, [local]),
      Self = self(),
      {P, Ref} = spawn_monitor(fun() -> receive go -> ok end, ${expression} end),
      1 = erlang:trace(P, true, [call, {tracer, Self}]),
      P ! go,
      receive {'DOWN', Ref, _, _, normal} -> ok; {'DOWN', Ref, _, _, Why} -> error(Why) end,
      D = erlang:trace_delivered(P), receive {trace_delivered, P, D} -> ok end,
      Collect = fun C(Acc) -> receive {trace, P, call, {_, entered, [_, M, Site, _]}} -> C([{M, Site} | Acc]) after 0 -> lists:reverse(Acc) end end,
      [lists:flatten(io_lib:format("~ts:~w", [M, S rem ${SITES_MAX}])) || {M, S} <- Collect([])]`);
    return JSON.parse(text) as string[];
  } finally {
    await node.eval("erlang:trace_pattern({beamtrace_rt, '_', '_'}, false, [local])");
    await unload(node, "beamtrace_rt");
  }
}
