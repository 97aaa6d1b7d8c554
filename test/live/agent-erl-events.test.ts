/** The wire form of every event kind, from a real VM through the portable tracer (docs/agent-protocol.md, "Batches"). */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { startPair, type AgentPair } from "./agent-erl/agent-pair";

let pair: AgentPair;
let traces = 0;

beforeAll(async () => {
  pair = await startPair();
  await pair.target
    .eval(`{ok, M, B} = compile:forms([element(2, erl_parse:parse_form(element(2, erl_scan:string(T)))) || T <- [
      "-module(work).", "-export([id/1, boom/1, tail/1, twice/2, init/1]).", "init(supervisor) -> {ok, {#{}, []}}; init(_) -> {ok, state}.",
      "id(X) -> X.", "boom(X) -> error({boom, X}).", "tail(X) -> id(X).", "twice(A, B) -> {work:id(A), work:id(B)}."]], []),
    code:load_binary(M, "work.beam", B)`);
});
afterAll(() => pair.stop());
beforeEach(async () => {
  await pair.target.eval(
    `catch unregister(victim), P = spawn(fun V() -> receive {do, F, From} -> From ! {done, F()}, V() end end), register(victim, P)`,
  );
});

/** Traces the victim while it evaluates, then matches the events of some kinds (bound to `Es`; `V` is the victim). */
async function traced(spec: string, does: string, kinds: number[], check: string): Promise<string> {
  traces += 1;
  await pair.on(
    `S = case whereis(session) of undefined -> X = agent_client:open(Node), register(session, X), X; X -> X end,
     {B, #{processes := 1}} = agent_client:trace(S, ${traces}, agent_client:spec(maps:merge(#{processes => {registered, [victim]}}, ${spec})), full),
     catch unregister(box), register(box, B)`,
  );
  await pair.target.eval(`victim ! {do, fun() -> ${does} end, self()}, receive {done, R} -> R end`);
  return pair.on(
    `{ok, _} = agent_client:stop(whereis(session), ${traces}), {final, Stats} = agent_client:collect(whereis(box)),
     V = rpc:call(Node, erlang, whereis, [victim]), Me = self(),
     Es = [E || E <- agent_client:events(whereis(box), all), lists:member(element(1, E) band 255, [${kinds.join(",")}])], ${check}`,
  );
}

test("send, to a process, a name, an alias and to nobody", async () => {
  const check = await traced(
    `#{flags => [send]}`,
    `Sink = spawn(fun S() -> receive _ -> S() end end), Sink ! {'$gen_call', {self(), make_ref()}, {put, 1}}, Sink ! {'$gen_cast', stop}, register(sinkhole, Sink), sinkhole ! {tag, [1,2,3]},
     A = alias(), A ! <<1,2,3>>, Dead = spawn(fun() -> ok end), M = monitor(process, Dead), receive {'DOWN', M, _, _, _} -> ok end, Dead ! [a, b | c], {sinkhole, node()} ! #{'__struct__' => 'Elixir.User', name => 1}, unregister(sinkhole)`,
    [4, 5],
    `[{4, _, V, _Sink, 16#38, '$gen_call', put}, {4, _, V, _, 16#28, '$gen_cast', stop}, {4, _, V, sinkhole, 16#28, tag, 0}, {4, _, V, Alias, 16#34, 0, 0},
      {5, _, V, Dead, 16#27, 0, 0}, {4, _, V, {sinkhole, Node}, 16#29, 'Elixir.User', 0}, {4, _, V, _, 16#28, done, _}] = [E || E <- Es, element(4, E) =/= code_server], {is_reference(Alias), is_pid(Dead)}`,
  );
  expect(check).toBe("{true,true}");
});

test("receive carries the shape of the message", async () => {
  const check = await traced(
    `#{flags => ['receive']}`,
    `self() ! 7, self() ! 1.5, self() ! {}, self() ! {one}, self() ! [], self() ! fun lists:seq/2, self() ! self(), self() ! <<1:3>>, self() ! lists:seq(1, 100), self() ! #{a => 1}, self() ! {make_ref(), {ok, 1}}, self() ! some_atom`,
    [6],
    `[{6, _, V, 16#38, do, 0} | Rest] = Es, [list_to_tuple(tl(tl(tl(tuple_to_list(E))))) || E <- Rest]`,
  );
  expect(check).toBe(
    "[{2,0,0},{3,0,0},{8,0,0},{24,one,0},{6,0,0},{13,0,0},{10,0,0},{53,0,0},{263,0,0},{25,0,0},{40,0,ok},{1,some_atom,0}]",
  );
});

test("spawn tells what was spawned and what that stands for", async () => {
  const check = await traced(
    `#{flags => [procs]}`,
    `A = spawn(work, id, [1]), B = proc_lib:spawn(work, twice, [1, 2]), {ok, C} = gen_server:start(work, server, []), {ok, D} = supervisor:start_link({local, worksup}, work, supervisor), unlink(D), [A, B, C, D]`,
    [1],
    `[{M, F, A, IM, IF, IA} || {1, _, _, _, M, F, A, IM, IF, IA} <- Es]`,
  );
  expect(check).toBe(
    "[{work,id,1,0,0,0},{proc_lib,init_p,5,work,twice,2},{proc_lib,init_p,5,work,init,1},{proc_lib,init_p,5,work,init,1}]",
  );
});

test("link, unlink, register, unregister, spawned and exit", async () => {
  const check = await traced(
    `#{flags => [procs, set_on_spawn]}`,
    `C = spawn(fun() -> receive go -> exit({shutdown, bye}) end end), link(C), unlink(C), register(child, C), unregister(child), M = monitor(process, C), C ! go, receive {'DOWN', M, _, _, _} -> ok end`,
    [1, 2, 3, 7, 8, 9, 10, 11, 12],
    `C = element(4, hd([E || E <- Es, element(1, E) =:= 1])),
     ByV = [list_to_tuple([element(1, E) | tl(tl(tl(tuple_to_list(E))))]) || E <- Es, element(3, E) =:= V, element(1, E) =/= 1],
     ByC = [list_to_tuple([element(1, E) | tl(tl(tl(tuple_to_list(E))))]) || E <- Es, element(3, E) =:= C, element(1, E) =/= 2],
     [{2, _, C, V, erlang, apply, 2, erl_eval, _, _}] = [E || E <- Es, element(1, E) =:= 2],
     {[{element(1, E), element(2, E) =:= C} || E <- ByV], lists:sort([{element(1, E), [X || X <- tl(tuple_to_list(E)), X =/= V]} || E <- ByC])}`,
  );
  expect(check).toBe(
    "{[{7,true},{8,true}],[{3,[40,shutdown,bye]},{9,[]},{10,[]},{11,[child]},{12,[child]}]}",
  );
});

test("call, return, exception, return_to and caller", async () => {
  const check = await traced(
    `#{flags => [call, return_to], calls => [{{work, '_', '_'}, [{'_', [], [{exception_trace}, {message, {caller}}]}], [local]}]}`,
    `work:twice(ok, {error, x}), catch work:boom([1]), ok`,
    [13, 14, 15, 16],
    `[list_to_tuple([element(1, E) | tl(tl(tl(tuple_to_list(E))))]) || E <- Es, not (element(1, E) =:= 16 andalso element(4, E) =:= erl_eval)]`,
  );
  expect(check).toBe(
    "[{13,work,twice,2,46,ok,error,{erl_eval,do_apply,7}},{13,work,id,1,30,ok,0,{work,twice,2}},{14,work,id,1,1,ok,0},{16,work,twice,2}," +
      "{13,work,id,1,30,error,0,{work,twice,2}},{14,work,id,1,40,error,x},{16,work,twice,2},{14,work,twice,2,40,ok,error}," +
      "{13,work,boom,1,30,0,0,{erl_eval,do_apply,7}},{15,work,boom,1,error,40,boom,0}]",
  );
});

test("without payload the arguments never leave the process", async () => {
  const check = await traced(
    `#{flags => [call, send], payload => none, calls => [{{work, id, 1}, [{'_', [], [{return_trace}]}], [local]}]}`,
    `work:id(secret)`,
    [4, 13, 14],
    `[list_to_tuple([element(1, E) | tl(tl(tl(tuple_to_list(E))))]) || E <- Es, element(1, E) =/= 4] ++ [list_to_tuple(tl(tl(tl(tl(tuple_to_list(E)))))) || E <- Es, element(1, E) =:= 4]`,
  );
  expect(check).toBe("[{13,work,id,1,0,0,0,0},{14,work,id,1,0,0,0},{0,0,0}]");
});

test("running, exiting and their schedulers", async () => {
  const check = await traced(
    `#{flags => [running, exiting, set_on_spawn], scheduler => true}`,
    `C = spawn(fun() -> exit(bye) end), M = monitor(process, C), receive {'DOWN', M, _, _, _} -> ok end, erlang:yield()`,
    [17, 18, 19, 20, 21],
    `{[E || E <- Es, element(1, E) bsr 8 < 1 orelse element(1, E) bsr 8 > 64], lists:usort([element(1, E) band 255 || E <- Es]) -- [19, 20],
      lists:usort([tuple_size(E) || E <- Es]) -- [4, 6], [E || E <- Es, tuple_size(E) =:= 4, element(4, E) =/= 0]}`,
  );
  expect(check).toBe("{[],[17,18,21],[],[]}");
});

test("garbage collections with their twelve figures", async () => {
  const check = await traced(
    `#{flags => [garbage_collection]}`,
    `erlang:garbage_collect(), erlang:garbage_collect(self(), [{type, minor}])`,
    [24, 25, 26, 27, 28],
    `{lists:usort([tuple_size(E) || E <- Es]), [X || E <- Es, X <- tl(tl(tl(tuple_to_list(E)))), not is_integer(X)],
      lists:usort([element(1, E) || E <- Es, element(1, E) > 25]), element(5, hd(Es)) > 0}`,
  );
  expect(check).toBe("{[15],[],[26,27],true}");
});

test("payloads are cut and redacted on the node", async () => {
  const check = await traced(
    `#{flags => [send], payload => {bytes, 200, [password, <<"token">>]}}`,
    `P = spawn(fun() -> receive after infinity -> ok end end), P ! #{password => "hunter2", <<"token">> => <<"t">>, user => joe}, P ! binary:copy(<<"x">>, 1000000), P ! lists:seq(1, 1000000),
     P ! lists:foldl(fun(_, A) -> [A] end, x, lists:seq(1, 100000)), P ! [{password, 1}, {user, 2}], P ! [a | b], exit(P, kill)`,
    [4],
    `[Map, Bin, List, Deep, Props, Improper, _] = [binary_to_term(element(8, E)) || E <- Es],
     {Map =:= #{password => '[redacted]', <<"token">> => '[redacted]', user => joe}, byte_size(Bin) =< 200, length(List) < 200, lists:last(List), lists:max([byte_size(element(8, E)) || E <- Es]) =< 300, is_list(Deep), Props, Improper}`,
  );
  expect(check).toBe(`{true,true,true,'[trimmed]',true,true,[{password,'[redacted]'},{user,2}],[a|b]}`);
});

test("ports: open, links, data, running, closed", async () => {
  const check = await traced(
    `#{flags => [procs], ports => new, port_flags => [ports, send, 'receive', running_ports]}`,
    `P = open_port({spawn, "cat"}, [binary]), register(kitty, P), P ! {self(), {command, <<"miau">>}}, receive {P, {data, _}} -> ok end, unregister(kitty), port_close(P)`,
    [4, 6, 9, 10, 11, 12, 22, 23, 29, 30],
    `Ports = [E || E <- Es, is_port(element(3, E))], [{29, _, _, V, cat}] = [E || E <- Ports, element(1, E) =:= 29],
     [true = is_atom(element(4, E)) orelse element(4, E) =:= 0 || E <- Ports, lists:member(element(1, E), [22, 23])],
     [{11, _, _, kitty}] = [E || E <- Ports, element(1, E) =:= 11], [{30, _, _, 1, normal, 0}] = [E || E <- Ports, element(1, E) =:= 30],
     lists:usort([element(1, E) || E <- Ports]) -- [22, 23]`,
  );
  expect(check).toBe("[4,6,9,11,12,29,30]");
});

test("match specs for send and receive choose messages", async () => {
  const check = await traced(
    `#{flags => [send, 'receive'], send_spec => [{['_', {keep, '_'}], [], []}], receive_spec => [{['_', '_', {keep, '_'}], [], []}]}`,
    `self() ! {keep, 1}, self() ! {drop, 1}, self() ! {keep, 2}`,
    [4, 6],
    `lists:sort([{element(1, E), element(tuple_size(E) - 1, E)} || E <- Es])`,
  );
  expect(check).toBe("[{4,keep},{4,keep},{6,keep},{6,keep}]");
});

test("kinds that nobody wants are neither shipped nor lost", async () => {
  const check = await traced(
    `#{flags => [procs], kinds => agent_client:kinds([1])}`,
    `[begin P = spawn_link(fun() -> ok end), unlink(P) end || _ <- lists:seq(1, 100)]`,
    [1, 7, 8],
    `#{received := R, shipped := Sh, lost_tracer := 0, lost_link := 0, filtered := F} = Stats, {R, Sh, F >= 100, length(Es)}`,
  );
  expect(check).toBe("{100,100,true,100}");
});
