%% Lets a tracer rest. A process that waits is woken by every message that finds its queue empty, and a woken scheduler costs more than the
%% event that woke it; a suspended one is not. So while events keep coming the tracer asks for a rest whenever its queue is empty: its pacer suspends
%% it, resumes it after a moment, and the tracer takes at once what has gathered. Nothing waits longer than a rest: that is what `plan/4` bounds.
%%
%% A pacer ends with its tracer, and the tracer with a pacer that is killed: they are linked.
-module(beamtrace_pacer).

-export([start/2, init/1, plan/4]).
-export_type([pace/0]).

%% So many events come in during a rest: enough that waking costs nothing beside them, few enough that they are still in the cache.
-define(EVENTS, 768).
%% Fewer since the last look: not worth a rest.
-define(EVENTS_MIN, 16).
%% A burst that begins with a rest must not fill the queue: at a million events a second this is 20,000 messages.
-define(REST_MAX_MS, 20).
-define(REST_MIN_MS, 2).

-record(pace, {
    pacer :: pid(),
    rest_max :: pos_integer(),
    %% Messages that may gather; with a small queue limit there are no rests.
    room :: non_neg_integer(),
    %% The last look: when, and how many trace messages had come by then.
    at :: integer(),
    seen = 0 :: non_neg_integer()
}).
-opaque pace() :: #pace{}.

%% Of the calling process, which must wait in a plain receive when it has asked for a rest. `QueueSoft`: backlog that must not be reached.
-spec start(DelayMs :: pos_integer(), QueueSoft :: pos_integer()) -> pace().
start(DelayMs, QueueSoft) ->
    #pace{
        pacer = spawn_opt(?MODULE, init, [self()], [link, {priority, high}]),
        rest_max = min(?REST_MAX_MS, DelayMs),
        room = QueueSoft div 4,
        at = erlang:monotonic_time(nanosecond)
    }.

%% Asks for a rest, if one pays: `{rest, Ms, _}`, after which a message `beamtrace_flush` comes, behind all that has gathered.
-spec plan(Now :: integer(), Seen :: non_neg_integer(), Queue :: non_neg_integer(), pace()) ->
    {rest, pos_integer(), pace()} | {no_rest, pace()}.
plan(Now, Seen, Queue, #pace{at = At, seen = Before, room = Room, rest_max = Max, pacer = Pacer} = P0) ->
    P = P0#pace{at = Now, seen = Seen},
    Count = Seen - Before,
    case Count >= ?EVENTS_MIN andalso Queue < Count andalso Room >= ?EVENTS of
        true ->
            Ms = max(?REST_MIN_MS, min(Max, ?EVENTS * (Now - At) div (Count * 1000000))),
            Pacer ! {rest, self(), Ms},
            {rest, Ms, P};
        false ->
            {no_rest, P}
    end.

-spec init(pid()) -> ok.
init(Tracer) ->
    process_flag(sensitive, true),
    loop(Tracer, erlang:monitor(process, Tracer)).

loop(Tracer, Monitor) ->
    receive
        {rest, Tracer, Ms} -> rest(Tracer, Monitor, Ms);
        {'DOWN', Monitor, process, _, _} -> ok
    end.

%% Not waiting for the tracer to be suspended: it may have begun to work again, and is suspended between two messages then.
rest(Tracer, Monitor, Ms) ->
    try erlang:suspend_process(Tracer, [asynchronous]) of
        true ->
            receive
                {'DOWN', Monitor, process, _, _} -> ok
            after Ms ->
                Tracer ! beamtrace_flush,
                resume(Tracer, Monitor)
            end
    catch
        %% It has ended.
        error:badarg -> ok
    end.

resume(Tracer, Monitor) ->
    try erlang:resume_process(Tracer) of
        true -> loop(Tracer, Monitor)
    catch
        error:badarg -> ok
    end.
