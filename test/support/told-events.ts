/** What instrumented modules tell while an expression runs, through an ordinary call trace of the runtime. */
import { RUNTIME_ON } from "../../src/transform/beam-code.generated";
import type { ErlNode } from "./erl-node";
import { load, unload } from "./transform";

/** Runs an expression in a traced process, with the runtime that traces; gives `Module:site` of each entry, in order. */
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
      [lists:flatten(io_lib:format("~ts:~w", [M, S])) || {M, S} <- Collect([])]`);
    return JSON.parse(text) as string[];
  } finally {
    await node.eval("erlang:trace_pattern({beamtrace_rt, '_', '_'}, false, [local])");
    await unload(node, "beamtrace_rt");
  }
}
