/** The holder's life on a real node: start, lease, clean-up whatever ends it, loading and unloading. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectClean, leftovers } from "../support/clean";
import { eventually } from "../support/erl-node";
import { startPair, type AgentPair } from "./agent-erl/agent-pair";

let pair: AgentPair;
beforeAll(async () => void (pair = await startPair()));
afterAll(() => pair.stop());

/** Everything of a session's is gone; the client node of these tests stays connected, that is not a leftover. */
async function expectGone(modules: string[] = []): Promise<void> {
  await eventually(
    async () => (await leftovers(pair.target, modules)).replace(/,?\{hidden,[^}]*\}/g, ""),
    (left) => left === "[]",
  );
}

const TRACE_ALL = `agent_client:spec(#{processes => all, flags => [send, 'receive', procs], calls => [{{lists, seq, 2}, [], [local]}]})`;

test("a session starts, says what it is, and leaves nothing when it ends", async () => {
  const answer = await pair.on(
    `S = agent_client:open(Node), {H, I} = {agent_client:pid(S), 1}, R = agent_client:request(S, renew), C = agent_client:close(S), {is_pid(H), R, C, agent_client:said(S)}`,
  );
  expect(answer).toBe("{true,ok,ok,[{down,normal}]}");
  await expectGone();
});

test("calls return, raise, exit and time out as they would on the node itself", async () => {
  const answer = await pair.on(`S = agent_client:open(Node),
    Call = fun(M, F, A, T) -> agent_client:request(S, {call, M, F, A, T}) end,
    R = [Call(erlang, node, [], 1000) =:= {ok, {return, Node}}, Call(erlang, throw, [ball], 1000), Call(erlang, exit, [bye], 1000),
      element(2, element(2, Call(erlang, hd, [[]], 1000))), Call(timer, sleep, [infinity], 50), Call(erlang, exit, [kill], 1000)],
    K = agent_client:request(S, {call, erl_eval, exprs, [element(2, erl_parse:parse_exprs(element(2, erl_scan:string("exit(self(), kill), receive after infinity -> ok end.")))), []], 1000}),
    agent_client:close(S), {R, K}`);
  expect(answer).toBe(
    "{[true,{ok,{throw,ball}},{ok,{exit,bye}},badarg,{error,timeout},{ok,{exit,kill}}],{ok,{exit,killed}}}",
  );
  await expectGone();
});

test("a session whose lease is not renewed ends by itself", async () => {
  const answer = await pair.on(
    `S = agent_client:open(Node, #{lease_ms => 150}), B = agent_client:trace(S, 1, ${TRACE_ALL}), true = is_pid(B),
     (fun W() -> case agent_client:said(S) of [] -> timer:sleep(20), W(); X -> X end end)()`,
  );
  expect(answer).toBe("[{down,lease_expired}]");
  await expectGone(["lists"]);
});

test.each([
  ["holder", `exit(agent_client:pid(S), kill)`],
  ["holder by an ordinary exit", `exit(agent_client:pid(S), boom)`],
  ["client process", `agent_client:crash(S)`],
])("the end of the %s undoes everything", async (_who, how) => {
  await pair.on(
    `S = agent_client:open(Node), B = agent_client:trace(S, 1, ${TRACE_ALL}), true = is_pid(B), ${how}, ok`,
  );
  await expectGone(["lists"]);
});

test("a tracer that is killed is reported, and its trace undone while the session lives on", async () => {
  const answer =
    await pair.on(`S = agent_client:open(Node), {_, V} = agent_client:trace(S, 1, ${TRACE_ALL}, full),
    exit(maps:get(tracer, V), kill),
    Stopped = (fun W() -> case agent_client:said(S) of [{beamtrace_stopped, 1, R, _} | _] -> R; _ -> timer:sleep(20), W() end end)(),
    {ok, #{}} = agent_client:stop(S, 1),
    F = rpc:call(Node, erlang, trace_info, [{lists, seq, 2}, traced]),
    B2 = agent_client:trace(S, 2, ${TRACE_ALL}), agent_client:stop(S, 2), {Stopped, F, is_pid(B2), agent_client:close(S)}`);
  expect(answer).toBe("{{tracer_died,killed},{traced,false},true,ok}");
  await expectGone(["lists"]);
});

test("a janitor that is killed is replaced, and the new one knows what to undo", async () => {
  await pair.on(`S = agent_client:open(Node), B = agent_client:trace(S, 1, ${TRACE_ALL}), true = is_pid(B), put(s, S),
    J = rpc:call(Node, erlang, whereis, [beamtrace_janitor_1]), exit(J, kill),
    (fun W() -> case rpc:call(Node, erlang, whereis, [beamtrace_janitor_1]) of P when is_pid(P), P =/= J -> ok; _ -> timer:sleep(5), W() end end)(),
    exit(agent_client:pid(S), kill), ok`);
  await expectGone(["lists"]);
});

test("a client node that is killed leaves nothing", async () => {
  const other = await pair.anotherClient();
  await other.eval(
    `S = agent_client:open('${pair.target.name}'), B = agent_client:trace(S, 1, ${TRACE_ALL}), true = is_pid(B)`,
  );
  other.kill("SIGKILL");
  await other.exited;
  await expectGone(["lists"]);
});

test("a second session keeps the modules, the last one takes them away", async () => {
  const answer =
    await pair.on(`A = agent_client:open(Node), B = agent_client:open(Node), agent_client:close(A),
    Loaded = rpc:call(Node, code, is_loaded, [beamtrace_agent]) =/= false, Alive = agent_client:request(B, renew), {Loaded, Alive, agent_client:close(B)}`);
  expect(answer).toBe("{true,ok,ok}");
  await expectGone();
});

test("fifty sessions that come and go at the same time never meet half-loaded code", async () => {
  const answer = await pair.on(`Me = self(),
    Ps = [spawn(fun() -> timer:sleep(rand:uniform(300)), Me ! {self(), agent_client:quick(Node)} end) || _ <- lists:seq(1, 50)],
    lists:usort([receive {P, R} -> R after 60000 -> timeout end || P <- Ps])`);
  expect(answer).toBe("[ok]");
  await expectGone();
});

test("modules that were loaded for a session that never came are taken away", async () => {
  // The unloader of an earlier session would do it at once.
  await eventually(
    () =>
      pair.target.eval(
        `[P || P <- processes(), process_info(P, initial_call) =:= {initial_call, {erl_eval, exprs, 2}}]`,
      ),
    (unloaders) => unloaders === "[]",
  );
  expect(await pair.on(`agent_client:load(Node)`)).toBe("ok");
  expect(await leftovers(pair.target)).toContain("beamtrace_guard");
  await eventually(
    async () => (await leftovers(pair.target)).replace(/,?\{hidden,[^}]*\}/g, ""),
    (left) => left === "[]",
    20_000,
  );
});

test("a foreign module of the same name is left alone", async () => {
  await pair.target.eval(
    `{ok, M, B} = compile:forms([{attribute,1,module,beamtrace_agent}], []), code:load_binary(M, "theirs", B)`,
  );
  expect(await pair.on(`agent_client:load(Node)`)).toBe("{error,{foreign,[beamtrace_agent]}}");
  expect(await pair.target.eval(`code:is_loaded(beamtrace_agent)`)).toBe('{file,"theirs"}');
  await pair.target.eval(`code:delete(beamtrace_agent), code:purge(beamtrace_agent)`);
});

test("when the client node has gone as well the target is as it was", async () => {
  const other = await startPair();
  await other.on(`S = agent_client:open(Node), B = agent_client:trace(S, 1, ${TRACE_ALL}), true = is_pid(B)`);
  await other.client.stop();
  await expectClean(other.target, { modules: ["lists"] });
  await other.stop();
});
