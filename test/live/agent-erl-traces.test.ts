/** What a trace promises under stress and refusal: exact accounting, limits, patterns, exclusion, clean-up. On a real node. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { leftovers } from "../support/clean";
import { eventually, PROCESSES, processesAdded } from "../support/erl-node";
import { startPair, type AgentPair } from "./agent-erl/agent-pair";

let pair: AgentPair;
let own = false;
beforeAll(async () => {
  // A small buffer for the connection, so that it refuses soon.
  pair = await startPair(["+zdbbl", "64"]);
  own = (await pair.target.eval(`code:ensure_loaded(trace)`)) === "{module,trace}";
});
afterAll(() => pair.stop());
afterEach(async () => void (await pair.on(`agent_client:reset()`)));

const open = `S = agent_client:open(Node)`;

async function expectGone(modules: string[] = []): Promise<void> {
  await eventually(
    async () => (await leftovers(pair.target, modules)).replace(/,?\{hidden,[^}]*\}/g, ""),
    (left) => left === "[]",
  );
}

/** A process `pump` on the target that sends `N` messages to nobody in particular when told to. */
async function startPump(): Promise<void> {
  await pair.target.eval(
    `catch exit(whereis(pump), kill), (fun W() -> case whereis(pump) of undefined -> ok; _ -> W() end end)(),
     {ok, M, B} = compile:forms([element(2, erl_parse:parse_form(element(2, erl_scan:string(T)))) || T <- ["-module(pump).", "-export([loop/1, send/2, start/0]).",
       "start() -> Sink = spawn(fun() -> receive stop -> ok end end), register(pump, spawn(pump, loop, [Sink])).",
       "loop(Sink) -> receive {go, N, From} -> send(Sink, N), From ! done, loop(Sink) end.",
       "send(_, 0) -> ok; send(Sink, N) -> Sink ! {tick, N}, send(Sink, N - 1)."]], []), code:load_binary(M, "pump.beam", B), pump:start()`,
  );
}

const pump = (n: number): Promise<string> =>
  pair.target.eval(`pump ! {go, ${n}, self()}, receive done -> ok end`);

describe("accounting", () => {
  test("what happened is what arrived", async () => {
    await startPump();
    await pair.on(
      `${open}, register(s, S), B = agent_client:trace(S, 1, agent_client:spec(#{processes => {registered, [pump]}, flags => [send], limits => #{queue => 4000000}})), register(b, B)`,
    );
    await pump(100_000);
    expect(
      await pair.on(
        `{ok, #{received := R}} = agent_client:stop(whereis(s), 1), {final, #{shipped := Sh, lost_tracer := 0, lost_link := 0, filtered := 0}} = agent_client:collect(whereis(b)), {R, Sh, agent_client:close(whereis(s))}`,
      ),
    ).toBe("{100001,100001,ok}");
    await expectGone();
  });

  test("a backlog over its bound is counted, not encoded, and told in place", async () => {
    await startPump();
    await pair.on(`${open}, register(s, S), {B, #{tracer := T}} = agent_client:trace(S, 1, agent_client:spec(#{processes => {registered, [pump]}, flags => [send], limits => #{queue => 1000000}}), full), register(b, B),
      rpc:call(Node, persistent_term, put, [tracer, T])`);
    // The tracer stands still while the backlog grows beyond its bound, which is a quarter of the limit.
    await pair.target.eval(
      `P = self(), spawn(fun() -> register(keeper, self()), erlang:suspend_process(persistent_term:get(tracer)), P ! held, receive go -> ok end end), receive held -> ok end`,
    );
    await pump(300_000);
    await pair.target.eval(`keeper ! go, persistent_term:erase(tracer)`);
    await pump(1);
    const result = await pair.on(
      `{ok, #{received := R, shipped := Sh, lost_tracer := L, lost_link := K, queue_max := Q}} = agent_client:stop(whereis(s), 1), {final, _} = agent_client:collect(whereis(b)),
       Gaps = agent_client:events(whereis(b), 31), Stamps = [element(2, E) || E <- agent_client:events(whereis(b), 4)],
       {R, R =:= Sh + L + K, L > 0, Q > 250000, L =:= lists:sum([element(5, G) || G <- Gaps, element(4, G) =:= tracer]), K =:= lists:sum([element(5, G) || G <- Gaps, element(4, G) =:= link]), Stamps =:= lists:sort(Stamps),
        [] =:= [G || {31, _, 0, _, _, From, To} = G <- Gaps, From > To], agent_client:close(whereis(s))}`,
    );
    expect(result).toBe("{300003,true,true,true,true,true,true,true,ok}");
    await expectGone();
  });

  test("a connection that takes nothing costs events, never order or count", async () => {
    await startPump();
    const other = await pair.anotherClient();
    await other.eval(
      `S = agent_client:open('${pair.target.name}'), register(s, S), B = agent_client:trace(S, 1, agent_client:spec(#{processes => {registered, [pump]}, flags => [send]})), register(b, B)`,
    );
    other.kill("SIGSTOP");
    // More than the buffers of the system and of the connection hold together.
    await pump(500_000);
    // Not before the tracer has dealt with all of them: shed in its backlog, or refused by the connection.
    await eventually(
      () =>
        pair.target.eval(
          `[element(2, process_info(P, message_queue_len)) || P <- processes(), {initial_call, {beamtrace_agent, tracer_init, 1}} <- [process_info(P, initial_call)]]`,
        ),
      (queues) => queues === "[0]",
    );
    other.kill("SIGCONT");
    await pump(1000);
    const result = await other.eval(
      `{ok, #{received := R, shipped := Sh, lost_tracer := L, lost_link := K}} = agent_client:stop(whereis(s), 1), {final, _} = agent_client:collect(whereis(b)),
       Gaps = agent_client:events(whereis(b), 31), {R, R =:= Sh + L + K, K + L > 0, lists:sum([element(5, G) || G <- Gaps]) =:= K + L, agent_client:close(whereis(s))}`,
    );
    expect(result).toBe("{501002,true,true,true,ok}");
    await other.stop();
    await expectGone();
  });
});

describe("limits", () => {
  const stopped = (limits: string, batch = 512): Promise<string> =>
    pair.on(
      `${open}, register(s, S), B = agent_client:trace(S, 1, agent_client:spec(#{processes => {registered, [pump]}, flags => [send], limits => ${limits}, batch => #{events => ${batch}, ms => 10}})), register(b, B)`,
    );
  const reason = (): Promise<string> =>
    pair.on(`[{beamtrace_stopped, 1, Why, #{received := R, shipped := Sh, lost_tracer := LT, lost_link := LL}}] = (fun W() -> case agent_client:said(whereis(s)) of [] -> timer:sleep(10), W(); X -> X end end)(),
      {final, _} = agent_client:collect(whereis(b)), true = R =:= Sh + LT + LL, {ok, _} = agent_client:stop(whereis(s), 1), true = length(agent_client:said(whereis(s))) =:= 1, ok = agent_client:close(whereis(s)), {Why, R}`);

  test("events: exact", async () => {
    await startPump();
    await stopped("#{events => 1234}", 100);
    await pump(5000);
    expect(await reason()).toBe("{{limit,events,1234,1234},1234}");
  });

  test("rate", async () => {
    await startPump();
    await stopped("#{rate => 1000}");
    await pump(20_000);
    const why = await reason();
    expect(why).toMatch(/^\{\{limit,rate,\d+,1000\},\d+\}$/);
    expect(Number(/rate,(\d+)/.exec(why)?.[1])).toBeGreaterThan(1000);
  });

  test("overhead", async () => {
    await startPump();
    await stopped("#{overhead => 1000}");
    await pump(20_000);
    expect(await reason()).toMatch(/^\{\{limit,overhead,\d+,1000\},\d+\}$/);
  });

  test("seconds", async () => {
    await startPump();
    await stopped("#{seconds => 1}");
    await pump(10);
    expect(await reason()).toBe("{{limit,seconds,1,1},11}");
  });

  test("queue", async () => {
    await startPump();
    await stopped("#{queue => 100}", 10);
    await pump(50_000);
    expect(await reason()).toMatch(/^\{\{limit,queue,\d+,100\},\d+\}$/);
  });

  test("memory", async () => {
    await startPump();
    await stopped("#{memory => 1000}", 10);
    for (let i = 0; i < 40; i += 1) {
      await pump(100);
      if ((await pair.on(`agent_client:said(whereis(s))`)) !== "[]") break;
      await new Promise((r) => setTimeout(r, 20));
    }
    expect(await reason()).toMatch(/^\{\{limit,memory,\d+,1000\},\d+\}$/);
  });

  test("there is always one", async () => {
    expect(
      await pair.on(
        `${open}, R = agent_client:trace(S, 1, agent_client:spec(#{processes => all, flags => [send], limits => #{seconds => infinity}})), {element(1, element(2, R)), element(2, element(2, R)), agent_client:close(S)}`,
      ),
    ).toBe("{bad_spec,limits,ok}");
    await expectGone();
  });
});

describe("patterns", () => {
  const refused = (spec: string): Promise<string> =>
    pair.on(
      `${open}, R = agent_client:trace(S, 1, agent_client:spec(maps:merge(#{processes => all, flags => [call]}, ${spec}))), ok = agent_client:close(S), R`,
    );

  test("a pattern that matches nothing suggests near names and leaves nothing set", async () => {
    expect(await refused(`#{calls => [{{lists, seqq, 2}, [], [local]}]}`)).toMatch(
      /^\{error,\{no_match,\{lists,seqq,2\},\[\{seq,2\},\{seq,3\}/,
    );
    expect(
      await refused(`#{calls => [{{lists, seq, 2}, [], [local]}, {{lits, seq, 2}, [], [local]}]}`),
    ).toMatch(/^\{error,\{no_match,\{lits,seq,2\},\[lists/);
    await expectGone(["lists"]);
  });

  test("a module is loaded first", async () => {
    await pair.target.eval(`code:delete(array), code:purge(array)`);
    expect(
      await pair.on(
        `${open}, {_, V} = agent_client:trace(S, 1, agent_client:spec(#{processes => all, flags => [call], calls => [{{array, new, '_'}, [], [local]}]}), full), agent_client:stop(S, 1), agent_client:close(S), {maps:get(matched, V), maps:get(patterns, V)}`,
      ),
    ).toMatch(/^\{(\d),\[\{\{array,new,'_'\},\1\}\]\}$/);
    await expectGone(["array"]);
  });

  test("bad match specs, agent modules and unbounded wildcards are refused", async () => {
    expect(
      await refused(`#{calls => [{{lists, seq, 2}, [{'_', [], [{no_such_action}]}], [local]}]}`),
    ).toMatch(/^\{error,\{bad_match_spec,\{lists,seq,2\},\[/);
    expect(await refused(`#{send_spec => [{'_', [], [{caller}]}]}`)).toMatch(
      /^\{error,\{bad_match_spec,send,/,
    );
    expect(await refused(`#{calls => [{{beamtrace_agent, '_', '_'}, [], [local]}]}`)).toBe(
      "{error,{trace_self,beamtrace_agent}}",
    );
    expect(await refused(`#{calls => [{{'_', '_', '_'}, [], [local]}]}`)).toMatch(
      /^\{error,\{bad_spec,calls,/,
    );
    await expectGone(["lists"]);
  });

  test("every function of every module, with a limit, and never ours", async () => {
    expect(
      await pair.on(`${open}, {B, #{matched := N}} = agent_client:trace(S, 1, agent_client:spec(#{processes => {registered, [code_server]}, flags => [call], calls => [{{'_', '_', '_'}, [], [local]}], limits => #{events => 1000}}), full),
        Ours = rpc:call(Node, erlang, trace_info, [{beamtrace_agent, tracer_init, 1}, traced]), rpc:call(Node, code, which, [lists]), agent_client:stop(S, 1), {final, _} = agent_client:collect(B), ok = agent_client:close(S), {N > 1000, Ours}`),
    ).toBe("{true,{traced,false}}");
    await expectGone(["lists"]);
  });

  test("a reloaded module is traced again, and an event says so", async () => {
    const load = `{ok, M, B} = compile:forms([element(2, erl_parse:parse_form(element(2, erl_scan:string(T)))) || T <- ["-module(hot).", "-export([f/0, g/0]).", "f() -> ok.", "g() -> VERSION."]], []), code:load_binary(M, "hot.beam", B), ok`;
    await pair.target.eval(load.replace("VERSION", "1"));
    await pair.on(
      `${open}, register(s, S), B = agent_client:trace(S, 1, agent_client:spec(#{processes => all, flags => [call], calls => [{{hot, '_', '_'}, [], [global]}]})), register(b, B)`,
    );
    await pair.target.eval(`hot:f()`);
    await pair.target.eval(load.replace("VERSION", "2"));
    await eventually(
      () => pair.on(`[list_to_tuple(tl(tl(tuple_to_list(E)))) || E <- agent_client:events(whereis(b), 32)]`),
      (events) => events === "[{0,module_reloaded,hot,4}]",
    );
    await pair.target.eval(`hot:g()`);
    expect(
      await pair.on(
        `agent_client:stop(whereis(s), 1), {final, _} = agent_client:collect(whereis(b)), ok = agent_client:close(whereis(s)), [element(5, E) || E <- agent_client:events(whereis(b), 13)]`,
      ),
    ).toBe("[f,g]");
    await expectGone(["hot"]);
  });
});

describe("exclusion", () => {
  test("our own processes are refused, and never seen when all are traced", async () => {
    const result = await pair.on(`${open}, H = agent_client:pid(S),
      One = agent_client:trace(S, 1, agent_client:spec(#{processes => {pids, [H]}, flags => [send]})),
      Two = agent_client:trace(S, 1, agent_client:spec(#{processes => {registered, [beamtrace_janitor_1]}, flags => [send]})),
      {B, #{tracer := T}} = agent_client:trace(S, 2, agent_client:spec(#{processes => all, ports => all, flags => [send, 'receive', procs, running], port_flags => [send, 'receive', running_ports, ports]}), full),
      [agent_client:request(S, {call, erlang, node, [], 1000}) || _ <- lists:seq(1, 50)],
      J = rpc:call(Node, erlang, whereis, [beamtrace_janitor_1]),
      C = proplists:get_value(node(), rpc:call(Node, erlang, system_info, [dist_ctrl])),
      {connected, Con} = rpc:call(Node, erlang, port_info, [C, connected]),
      {ok, #{filtered := F}} = agent_client:stop(S, 2), {final, _} = agent_client:collect(B),
      Es = agent_client:events(B, all), Seen = [E || E <- Es, lists:member(element(3, E), [H, J, T, C, Con])],
      Execs = [E || E <- Es, lists:member(element(1, E), [1, 2]), element(5, E) =:= beamtrace_agent orelse element(5, E) =:= erpc],
      ok = agent_client:close(S), {element(1, element(2, One)), element(1, element(2, Two)), Seen, Execs, F > 0}`);
    expect(result).toBe("{trace_self,trace_self,[],[],true}");
    await expectGone();
  });

  test("unknown processes are refused", async () => {
    expect(
      await pair.on(
        `${open}, R = [agent_client:trace(S, 1, agent_client:spec(#{processes => P, flags => [send]})) || P <- [{registered, [no_such_name]}, {application, no_such_app}, {pids, [self()]}]], ok = agent_client:close(S), [element(1, element(2, X)) || X <- R]`,
      ),
    ).toBe("[bad_process,bad_process,bad_process]");
    await expectGone();
  });

  test("an application's processes are traced", async () => {
    expect(
      await pair.on(
        `${open}, {B, #{processes := N}} = agent_client:trace(S, 1, agent_client:spec(#{processes => {application, kernel}, flags => [send]}), full), agent_client:stop(S, 1), ok = agent_client:close(S), N > 10`,
      ),
    ).toBe("true");
    await expectGone();
  });

  test("another tracer is respected on a legacy node, left alone on a newer one", async () => {
    await pair.target.eval(
      `T = spawn(fun L() -> receive _ -> L() end end), register(their_tracer, T), erlang:trace(whereis(init), true, [send, {tracer, T}])`,
    );
    const trace = (takeOver: boolean): string =>
      `agent_client:trace(S, 1, agent_client:spec(#{processes => {registered, [code_server]}, flags => [send], take_over => ${takeOver}}))`;
    const theirs = () =>
      pair.target.eval(`{tracer, T} = erlang:trace_info(whereis(init), tracer), T =:= whereis(their_tracer)`);
    expect(
      await pair.on(
        `${open}, R = ${trace(false)}, ok = agent_client:close(S), case R of {error, {tracer_busy, P}} when is_pid(P) -> busy; P when is_pid(P) -> free end`,
      ),
    ).toBe(own ? "free" : "busy");
    expect(await theirs()).toBe("true");
    expect(await pair.on(`${open}, R = ${trace(true)}, ok = agent_client:close(S), is_pid(R)`)).toBe("true");
    expect(await theirs()).toBe(own ? "true" : "false");
    await pair.target.eval(`erlang:trace(all, false, [all]), exit(whereis(their_tracer), kill)`);
    await expectGone();
  });

  test("two sessions: side by side where the VM can, one at a time where it can't", async () => {
    const spec = (takeOver: boolean): string =>
      `agent_client:spec(#{processes => {registered, [code_server]}, flags => [send], take_over => ${takeOver}})`;
    const result =
      await pair.on(`A = agent_client:open(Node), B = agent_client:open(Node), BoxA = agent_client:trace(A, 1, ${spec(false)}), true = is_pid(BoxA),
      Second = agent_client:trace(B, 1, ${spec(false)}), Third = agent_client:trace(B, 2, ${spec(true)}), Fourth = agent_client:trace(A, 2, ${spec(true)}),
      Told = [W || {beamtrace_stopped, _, W, _} <- agent_client:said(A) ++ agent_client:said(B)],
      [ok, ok] = [agent_client:close(X) || X <- [A, B]], {is_pid(Second), is_pid(Third), is_pid(Fourth), Told}`);
    expect(result).toBe(
      own ? "{true,true,true,[]}" : "{false,true,true,[{tracer_died,taken_over},{tracer_died,taken_over}]}",
    );
    await expectGone();
  });

  test("two sessions on garbage collections of one process are refused where they would crash the VM", async () => {
    if (!own) return;
    const safe =
      (await pair.target.eval(
        `list_to_integer(hd(string:lexemes(erlang:system_info(version), "."))) >= 17`,
      )) === "true";
    const spec = `agent_client:spec(#{processes => {registered, [code_server]}, flags => [garbage_collection]})`;
    const result =
      await pair.on(`A = agent_client:open(Node), B = agent_client:open(Node), BoxA = agent_client:trace(A, 1, ${spec}), true = is_pid(BoxA), R = agent_client:trace(B, 1, ${spec}),
      [ok, ok] = [agent_client:close(X) || X <- [A, B]], case R of P when is_pid(P) -> both; {error, {gc_conflict, P}} when is_pid(P) -> refused end`);
    expect(result).toBe(safe ? "both" : "refused");
    await expectGone();
  });
});

describe("load", () => {
  test("a thousand traces leave a session as it was", async () => {
    const figures = `{erlang:system_info(atom_count), length(code:all_loaded()), erlang:system_info(port_count), length(ets:all())}`;
    const spec = `agent_client:spec(#{processes => all, flags => [send, procs], calls => [{{lists, seq, 2}, [], [local]}]})`;
    await pair.on(`${open}, register(s, S), ok = agent_client:cycle(S, ${spec}, 20)`);
    const memory = `[erlang:garbage_collect(P) || P <- processes()], {memory, M} = process_info(whereis(beamtrace_1), memory), M`;
    const before = await pair.target.eval(figures);
    const processes = await pair.target.eval(PROCESSES);
    const memoryBefore = Number(await pair.target.eval(memory));
    await pair.on(`ok = agent_client:cycle(whereis(s), ${spec}, 1000)`);
    expect(await pair.target.eval(figures)).toBe(before);
    await eventually(
      async () => processesAdded(await pair.target.eval(PROCESSES), processes),
      (added) => added.length === 0,
    );
    expect(Number(await pair.target.eval(memory))).toBeLessThan(memoryBefore + 200_000);
    await pair.on(`agent_client:close(whereis(s))`);
    await expectGone(["lists"]);
  });

  test("the end of 100,000 processes is told of each", async () => {
    await pair.on(
      `${open}, register(s, S), B = agent_client:trace(S, 1, agent_client:spec(#{processes => new, flags => [procs], kinds => agent_client:kinds([3]), limits => #{queue => 10000000}})), register(b, B)`,
    );
    await pair.target.eval(
      `Ps = [spawn(fun() -> receive die -> ok end end) || _ <- lists:seq(1, 100000)], [P ! die || P <- Ps], (fun W() -> case lists:any(fun(P) -> is_process_alive(P) end, Ps) of true -> timer:sleep(10), W(); false -> ok end end)()`,
    );
    const result = await pair.on(
      `{ok, #{received := R, shipped := Sh, lost_tracer := LT, lost_link := LL}} = agent_client:stop(whereis(s), 1), {final, _} = agent_client:collect(whereis(b)), ok = agent_client:close(whereis(s)), {R >= 100000, R =:= Sh + LT + LL}`,
    );
    expect(result).toBe("{true,true}");
    await expectGone();
  });

  test("sixty thousand processes are taken one by one, and none keeps its flags", async () => {
    await pair.target.eval(
      `register(crowd, spawn(fun() -> [spawn_link(fun() -> receive never -> ok end end) || _ <- lists:seq(1, 60000)], receive stop -> exit(stop) end end))`,
    );
    await eventually(
      () => pair.target.eval(`erlang:system_info(process_count) > 60000`),
      (there) => there === "true",
    );
    const result = await pair.on(
      `${open}, {B, #{processes := N}} = agent_client:trace(S, 1, agent_client:spec(#{processes => all, flags => [send, procs]}), full), {ok, _} = agent_client:stop(S, 1), {final, _} = agent_client:collect(B), {N > 60000, agent_client:close(S)}`,
    );
    expect(result).toBe("{true,ok}");
    await expectGone();
    await pair.target.eval(`crowd ! stop`);
  });

  test("a process with a million queued messages does not hold up a trace", async () => {
    await pair.target.eval(
      `P = spawn(fun() -> receive never -> ok end end), register(full, P), [P ! I || I <- lists:seq(1, 1000000)], ok`,
    );
    const result = await pair.on(
      `${open}, B = agent_client:trace(S, 1, agent_client:spec(#{processes => all, flags => ['receive', send, running]})), true = is_pid(B), {ok, _} = agent_client:stop(S, 1), {final, _} = agent_client:collect(B),
       B2 = agent_client:trace(S, 2, agent_client:spec(#{processes => {registered, [full]}, flags => ['receive']})), true = is_pid(B2), {ok, _} = agent_client:stop(S, 2), agent_client:close(S)`,
    );
    expect(result).toBe("ok");
    await pair.target.eval(`exit(whereis(full), kill)`);
    await expectGone();
  });
});
