%% A fixed rate of gen_server calls between pairs of processes, and their count.
%% Rate 0: a closed loop, every caller calls again as soon as it has the answer.
-module(beamtrace_bench_pingpong).

-behaviour(gen_server).

-export([start/3, count/0, stop/0, init/1, handle_call/3, handle_cast/2]).

-define(TICK_MS, 5).

%% Starts Pairs callers, each with a server of its own, which together make Rate calls a second with Bytes of payload.
-spec start(pos_integer(), non_neg_integer(), non_neg_integer()) -> ok.
start(Pairs, Rate, Bytes) ->
    Counter = counters:new(1, [write_concurrency]),
    persistent_term:put({?MODULE, counter}, Counter),
    Payload = binary:copy(<<"x">>, Bytes),
    Owner = self(),
    Holder = spawn(fun() ->
        register(?MODULE, self()),
        Start = erlang:monotonic_time(microsecond),
        _ = [spawn_link(fun() -> caller(N, Pairs, Rate, Payload, Counter, Start) end) || N <- lists:seq(1, Pairs)],
        Owner ! {self(), started},
        receive
            stop -> exit(shutdown)
        end
    end),
    receive
        {Holder, started} -> ok
    end.

-spec count() -> non_neg_integer().
count() -> counters:get(persistent_term:get({?MODULE, counter}), 1).

-spec stop() -> ok.
stop() ->
    Monitor = monitor(process, ?MODULE),
    ?MODULE ! stop,
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

caller(_, _, 0, Payload, Counter, _) ->
    {ok, Server} = gen_server:start_link(?MODULE, [], []),
    closed(Server, Payload, Counter);
caller(N, Pairs, Rate, Payload, Counter, Start) ->
    {ok, Server} = gen_server:start_link(?MODULE, [], []),
    %% Callers start at different points of a tick, so that the load is even.
    timer:sleep((N - 1) * ?TICK_MS div Pairs),
    paced(Server, Payload, Counter, Start, Rate / Pairs / 1.0e6, 0).

closed(Server, Payload, Counter) ->
    pong = gen_server:call(Server, {ping, Payload}),
    counters:add(Counter, 1, 1),
    closed(Server, Payload, Counter).

paced(Server, Payload, Counter, Start, PerMicrosecond, Done) ->
    Due = trunc((erlang:monotonic_time(microsecond) - Start) * PerMicrosecond),
    calls(Due - Done, Server, Payload, Counter),
    receive
    after ?TICK_MS -> ok
    end,
    paced(Server, Payload, Counter, Start, PerMicrosecond, max(Due, Done)).

calls(N, Server, Payload, Counter) when N > 0 ->
    pong = gen_server:call(Server, {ping, Payload}),
    counters:add(Counter, 1, 1),
    calls(N - 1, Server, Payload, Counter);
calls(_, _, _, _) ->
    ok.

init([]) -> {ok, []}.

handle_call({ping, _}, _, State) -> {reply, pong, State}.

handle_cast(_, State) -> {noreply, State}.
