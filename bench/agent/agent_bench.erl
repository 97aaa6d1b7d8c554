%% Workload and figures for bench/agent/tracer-cost.ts: pairs of processes that call each other like a gen_server,
%% under different tracers. The figure is CPU of the whole VM, so the client's part of the work counts elsewhere.
-module(agent_bench).

-export([round/4, discard/0, sink/0]).

%% One block: CPU in microseconds and events; `How` is none | {tracer, pid()}.
round(How, Pairs, Rounds, Pause) ->
    Me = self(),
    Ps = [
        begin
            S = spawn(fun server/0),
            {S, spawn(fun() -> receive go -> client(S, Rounds, Pause, Me) end end)}
        end
     || _ <- lists:seq(1, Pairs)
    ],
    All = [P || {S, C} <- Ps, P <- [S, C]],
    case How of
        none -> ok;
        {tracer, T} -> [erlang:trace(P, true, [send, 'receive', monotonic_timestamp, {tracer, T}]) || P <- All]
    end,
    erlang:garbage_collect(),
    Before = cpu(),
    [C ! go || {_, C} <- Ps],
    [receive {done, C} -> ok end || {_, C} <- Ps],
    case How of
        none ->
            ok;
        {tracer, Tracer} ->
            [erlang:trace(P, false, [all]) || P <- All, is_process_alive(P)],
            Ref = erlang:trace_delivered(all),
            receive {trace_delivered, all, Ref} -> ok end,
            empty(Tracer)
    end,
    After = cpu(),
    [S ! stop || {S, _} <- Ps],
    {After - Before, Pairs * Rounds * 4}.

empty(Tracer) ->
    case process_info(Tracer, message_queue_len) of
        {_, 0} -> ok;
        _ -> receive after 1 -> empty(Tracer) end
    end.

server() ->
    receive
        {'$gen_call', {P, Ref}, {get, Key, _}} -> P ! {Ref, {ok, Key}}, server();
        stop -> ok
    end.

client(_, 0, _, Parent) ->
    Parent ! {done, self()};
client(S, N, Pause, Parent) ->
    Ref = make_ref(),
    S ! {'$gen_call', {self(), Ref}, {get, N, <<"12345678901234567890123456789012">>}},
    receive {Ref, _} -> ok end,
    _ = lists:sum(lists:seq(1, 200)),
    case Pause of
        0 -> ok;
        _ -> receive after Pause -> ok end
    end,
    client(S, N - 1, Pause, Parent).

%% User and system time of this operating system process.
cpu() ->
    lists:sum([thread_cpu(T) || T <- element(2, file:list_dir("/proc/self/task"))]) div 1000.

%% Nanoseconds on a CPU; a thread may have ended since the listing.
thread_cpu(Thread) ->
    case file:read_file(["/proc/self/task/", Thread, "/schedstat"]) of
        {ok, Text} -> binary_to_integer(hd(binary:split(Text, <<" ">>)));
        {error, _} -> 0
    end.

%% The cheapest process tracer there is.
discard() ->
    receive
        {trace_ts, _, _, _, _} -> discard();
        {trace_ts, _, _, _, _, _} -> discard()
    end.

%% The client's mailbox.
sink() -> receive _ -> sink() end.
