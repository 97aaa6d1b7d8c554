/** A load on a test node that can be turned up and down: workers that compute a little for each message, and feeders that send them. */
import type { ErlNode } from "./erl-node";

/**
 * Starts `workers` processes and two feeders. The load is messages a millisecond by the clock, however seldom a feeder gets its turn; 0 at
 * first. A feeder waits 20 ms: from OTP 27 on each timeout is a `receive` of its own.
 * A message is a binary of `size` bytes; by default its length counts the messages of its worker, modulo 50,000, so that a trace of shapes shows
 * whether one is missing.
 */
export async function startLoad(
  node: ErlNode,
  workers: number,
  work = 60,
  size: number | "counting" = "counting",
): Promise<void> {
  await node.eval(`
Work = fun W(0, A) -> A; W(N, A) -> W(N - 1, (A * 31 + N) rem 65537) end,
Worker = fun L() -> receive stop -> ok; _ -> Work(${work}, 1), L() end end,
_ = Work(1, 1),
Forms = [erl_parse:parse_form(element(2, erl_scan:string(T))) || T <- [
  "-module(bt_load).", "-export([worker/0, feeder/5, work/2]).",
  "work(0, A) -> A; work(N, A) -> work(N - 1, (A * 31 + N) rem 65537).",
  "worker() -> receive stop -> ok; _ -> _ = work(${work}, 1), worker() end.",
  "feeder(Ws, N, Load, Big, Since) -> T = counters:get(Load, 1), Now = erlang:monotonic_time(microsecond), K = T * min(Now - Since, 100000) div 1000,
     {Ws1, N1} = send(K, Ws, N, Ws, Big), receive stop -> ok after 20 -> feeder(Ws1, N1, Load, Big, if K > 0 -> Now - (T * min(Now - Since, 100000) rem 1000) div T; T > 0 -> Since; true -> Now end) end.",
  "send(0, Ws, N, _, _) -> {Ws, N}; send(K, {I, T}, N, All, Big) when I > tuple_size(T) -> send(K, {1, T}, ${size === "counting" ? "(N + 1) rem 50000" : "N"}, All, Big); send(K, {I, T}, N, All, Big) -> element(I, T) ! binary:part(Big, 0, N), send(K - 1, {I + 1, T}, N, All, Big)."]],
{ok, bt_load, Beam} = compile:forms([F || {ok, F} <- Forms]),
{module, bt_load} = code:load_binary(bt_load, "bt_load", Beam),
Big = binary:copy(<<0>>, 50000), Load = counters:new(1, []),
Feeders = [begin
  Ws = [spawn(bt_load, worker, []) || _ <- lists:seq(1, ${workers} div 2)],
  F = spawn(bt_load, feeder, [{1, list_to_tuple(Ws)}, ${size === "counting" ? 0 : size}, Load, Big, erlang:monotonic_time(microsecond)]), {F, Ws} end || _ <- [1, 2]],
persistent_term:put(bt_load, {Load, Feeders}), ok`);
}

/** Messages a millisecond. */
export async function setLoad(node: ErlNode, perMs: number): Promise<void> {
  await node.eval(
    `{Load, _} = persistent_term:get(bt_load), counters:put(Load, 1, ${Math.round(perMs / 2)})`,
  );
}

/** Ends the load; its processes are gone when this returns. */
export async function stopLoad(node: ErlNode): Promise<void> {
  await node.eval(`{_, Feeders} = persistent_term:get(bt_load),
[begin Ms = [begin M = monitor(process, P), P ! stop, M end || P <- [F | Ws]], [receive {'DOWN', M, _, _, _} -> ok end || M <- Ms] end || {F, Ws} <- Feeders], ok`);
}
