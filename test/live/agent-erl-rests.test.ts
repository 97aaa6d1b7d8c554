/** The portable tracer's rests: it is suspended while events keep coming, and that costs no event, no count and no clean-up. */
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { leftovers } from "../support/clean";
import { eventually } from "../support/erl-node";
import { startPair, type AgentPair } from "./agent-erl/agent-pair";

let pair: AgentPair;
beforeAll(async () => {
  pair = await startPair();
});
afterAll(() => pair.stop());
afterEach(async () => {
  await pair.target.eval(`catch exit(whereis(stream), kill), ok`);
  await pair.on(`agent_client:reset()`);
  await eventually(
    async () => (await leftovers(pair.target, [])).replace(/,?\{hidden,[^}]*\}/g, ""),
    (left) => left === "[]",
  );
});

/** A process `stream` that sends a hundred messages a millisecond to nobody in particular, and says how many when it is asked to stop; and a trace of it. */
async function startStream(): Promise<void> {
  await pair.target.eval(
    `Sink = spawn(fun() -> receive stop -> ok end end), register(stream, spawn(fun() -> receive go -> ok end, (fun L(N) -> receive {stop, From} -> From ! {sent, N} after 1 -> [Sink ! {tick, I} || I <- lists:seq(1, 100)], L(N + 100) end end)(0) end))`,
  );
  await pair.on(
    `S = agent_client:open(Node), register(s, S), {B, #{tracer := T}} = agent_client:trace(S, 1, agent_client:spec(#{processes => {registered, [stream]}, flags => [send], batch => #{events => 512, ms => 50}}), full),
       register(b, B), rpc:call(Node, persistent_term, put, [tracer, T])`,
  );
  await pair.target.eval(`stream ! go, ok`);
}

/** Waits until the tracer has been seen at rest. */
const atRest = (): Promise<string> =>
  eventually(
    () => pair.target.eval(`process_info(persistent_term:get(tracer), status)`),
    (status) => status === "{status,suspended}",
  );

test("a steady stream is complete although the tracer rests", async () => {
  await startStream();
  await atRest();
  const sent = await pair.target.eval(`stream ! {stop, self()}, receive {sent, N} -> N end`);
  const [received, shipped] = JSON.parse(
    (
      await pair.on(
        `{ok, #{received := R}} = agent_client:stop(whereis(s), 1), {final, #{shipped := Sh, lost_tracer := 0, lost_link := 0}} = agent_client:collect(whereis(b)), {R, Sh, agent_client:close(whereis(s))}`,
      )
    )
      .replace("{", "[")
      .replace(",ok}", "]"),
  ) as [number, number];
  // All messages, and the answer to us.
  expect([received, shipped]).toEqual([Number(sent) + 1, Number(sent) + 1]);
});

test("events that came before a quiet time travel without any further one", async () => {
  await startStream();
  await atRest();
  await pair.target.eval(`stream ! {stop, self()}, receive {sent, N} -> N end`);
  await eventually(
    () =>
      pair.on(
        `{ok, #{received := R, shipped := Sh, queue := Q}} = agent_client:request(whereis(s), {stats, 1}), {R =:= Sh, Q, R - length(agent_client:events(whereis(b), all))}`,
      ),
    (state) => state === "{true,0,0}",
  );
});

test.each(["tracer", "pacer"])(
  "a %s that is killed during a rest ends the trace, and both are gone",
  async (which) => {
    await startStream();
    await atRest();
    await pair.target.eval(
      `T = persistent_term:get(tracer), {_, Watchers} = process_info(T, monitored_by), {_, Links} = process_info(T, links), [Pacer] = [P || P <- Watchers, lists:member(P, Links)],
       exit(${which === "tracer" ? "T" : "Pacer"}, kill), [begin M = monitor(process, P), receive {'DOWN', M, _, _, _} -> ok end end || P <- [T, Pacer]]`,
    );
    await eventually(
      () => pair.on(`[R || {beamtrace_stopped, 1, R, _} <- agent_client:said(whereis(s))]`),
      (said) => said === "[{tracer_died,killed}]",
    );
  },
);
