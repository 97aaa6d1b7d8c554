%% A ring of processes that send to each other at a set rate, and know exactly what they did: every message that a worker sends and receives
%% is counted by the worker itself, the order to begin and the final report included. So the counts are those of its trace events.
-module(beamtrace_bench_traffic).

-export([start/1, pids/0, begin_sending/2, progress/0, finish/1, stop/0]).

-define(TICK_MS, 5).

%% Spawns the workers; they wait.
-spec start(pos_integer()) -> ok.
start(Workers) ->
    Caller = self(),
    Sent = counters:new(1, [write_concurrency]),
    persistent_term:put({?MODULE, sent}, Sent),
    _ = spawn(fun() ->
        register(?MODULE, self()),
        Pids = [spawn_link(fun() -> idle(Sent) end) || _ <- lists:seq(1, Workers)],
        Caller ! {?MODULE, started},
        holder(Pids)
    end),
    receive
        {?MODULE, started} -> ok
    end.

-spec pids() -> [pid()].
pids() -> call(pids).

%% Lets every worker send Messages messages to its neighbour, evenly over Ms milliseconds. Each is two events: send and receive.
-spec begin_sending(pos_integer(), non_neg_integer()) -> ok.
begin_sending(Messages, Ms) -> call({begin_sending, Messages, Ms}).

%% Messages sent so far by all workers.
-spec progress() -> non_neg_integer().
progress() -> counters:get(persistent_term:get({?MODULE, sent}), 1).

%% Waits until all workers are done: what each sent and received, and how many milliseconds it took from the first order to the last report.
-spec finish(timeout()) -> {[{pid(), non_neg_integer(), non_neg_integer()}], non_neg_integer()}.
finish(Timeout) -> call(finish, Timeout).

-spec stop() -> ok.
stop() ->
    Monitor = monitor(process, ?MODULE),
    exit(whereis(?MODULE), kill),
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

call(Request) -> call(Request, 10000).

call(Request, Timeout) ->
    Monitor = monitor(process, ?MODULE),
    ?MODULE ! {self(), Monitor, Request},
    receive
        {Monitor, Reply} ->
            demonitor(Monitor, [flush]),
            Reply;
        {'DOWN', Monitor, process, _, Reason} ->
            error(Reason)
    after Timeout -> error(timeout)
    end.

holder(Pids) ->
    receive
        {From, Ref, pids} ->
            From ! {Ref, Pids},
            holder(Pids);
        {From, Ref, {begin_sending, Messages, Ms}} ->
            Neighbours = tl(Pids) ++ [hd(Pids)],
            Start = erlang:monotonic_time(millisecond),
            Self = self(),
            _ = [P ! {go, Self, Next, Messages, Ms} || {P, Next} <- lists:zip(Pids, Neighbours)],
            From ! {Ref, ok},
            reporting(Pids, Start)
    end.

reporting(Pids, Start) ->
    Reports = [
        receive
            {done, P, Sent, Received} -> {P, Sent, Received}
        end
     || P <- Pids
    ],
    Took = erlang:monotonic_time(millisecond) - Start,
    receive
        {From, Ref, finish} ->
            From ! {Ref, {Reports, Took}},
            holder(Pids)
    end.

idle(Counter) ->
    receive
        {go, Owner, Next, Messages, Ms} ->
            Start = erlang:monotonic_time(microsecond),
            Ticked = tick(Start, Messages, Ms, 0, Next, Counter),
            %% The order is the first message received; the report the last one sent.
            {Sent, Received} = working(Start, Next, Messages, Ms, Counter, Ticked, 0, 1),
            Owner ! {done, self(), Sent + 1, Received},
            idle(Counter)
    end.

%% Every wait is for a message, never a timeout: a receive that times out is a trace event too.
working(_, _, Messages, _, _, Messages, Messages, Received) ->
    {Messages, Received};
working(Start, Next, Messages, Ms, Counter, Sent, Taken, Received) ->
    receive
        {event, _, _} ->
            working(Start, Next, Messages, Ms, Counter, Sent, Taken + 1, Received + 1);
        tick ->
            Sent1 = tick(Start, Messages, Ms, Sent, Next, Counter),
            working(Start, Next, Messages, Ms, Counter, Sent1, Taken, Received + 1)
    end.

%% Sends what is due, and orders the next tick unless all is sent.
tick(Start, Messages, Ms, Sent, Next, Counter) ->
    Due = max(Sent, due(erlang:monotonic_time(microsecond) - Start, Messages, Ms)),
    send(Due - Sent, Next),
    counters:add(Counter, 1, Due - Sent),
    _ = Due < Messages andalso erlang:send_after(?TICK_MS, self(), tick),
    Due.

due(_, Messages, 0) -> Messages;
due(Elapsed, Messages, Ms) -> min(Messages, Messages * Elapsed div (Ms * 1000)).

send(0, _) ->
    ok;
send(N, Next) ->
    Next ! {event, N, self()},
    send(N - 1, Next).
