%% The life of a session's traces: started (beamtrace_trace_start), watched while they run, stopped, drained, undone. A part of the holder, which
%% hands it the messages that concern traces and posts to the client what comes back; it owns no process of its own.
%% A trace ends in this order: flags off, everything delivered to the tracer, everything shipped, everything undone.
-module(beamtrace_traces).

-export([new/2, set_janitor/2, undos/1, is_empty/1]).
-export([start/4, stop/3, stop_all/1, stats/3, forward/4, handle/2, tracer_exit/3, give_up/1]).
-export_type([traces/0, out/0]).

-define(STATS_MS, 1000).
-define(WATCH_MS, 200).
%% Events that are under way when flags are switched off arrive within this time, or a scheduler is stuck.
-define(DELIVERED_MS, 5000).
%% Statistics of traces that have ended, for a late `stop`.
-define(ENDED_MAX, 64).

-record(trace, {
    id :: integer(),
    handle :: beamtrace_session:handle(),
    tracer :: pid(),
    undo :: [{beamtrace_session:mfargs(), [atom()]}],
    %% Of the runtime of instrumented code, where this trace has switched it.
    builds :: beamtrace_runtime:builds() | none,
    watch :: beamtrace_patterns:watch(),
    traced :: non_neg_integer(),
    %% delivering: flags are off; draining: the tracer ships what it has.
    phase = running :: running | {delivering, reference()} | draining,
    %% Why it ends, when nobody asked for it.
    reason = none :: none | term(),
    %% Requests that wait for its end.
    waiting = [] :: [integer()],
    stats = #{} :: beamtrace_tracer:stats(),
    timers = [] :: [reference()],
    delivered = #{} :: #{reference() => [pid() | port()]},
    %% Who decides which processes carry flags, where not all of them do; and what it has said last.
    sampler = none :: none | pid(),
    sampled = #{} :: #{atom() => non_neg_integer()}
}).

-record(traces, {
    client :: pid(),
    janitor :: pid(),
    running = #{} :: #{integer() => #trace{}},
    ended = [] :: [{integer(), beamtrace_tracer:stats()}],
    %% What an event costs on this node, by tracer and contents: measured once each.
    costs = #{} :: beamtrace_trace_start:costs()
}).
-opaque traces() :: #traces{}.

%% What the client is told, in this order: answers of requests, reports, and what is not worth keeping while the connection is full.
-type out() :: [{reply, Request :: integer(), Result :: term()} | {post, term()} | {hint, term()}].

-spec new(Client :: pid(), Janitor :: pid()) -> traces().
new(Client, Janitor) -> #traces{client = Client, janitor = Janitor}.

%% A janitor took the place of another, which has died.
-spec set_janitor(pid(), traces()) -> traces().
set_janitor(Janitor, S) -> S#traces{janitor = Janitor}.

%% What a new janitor has to know.
-spec undos(traces()) -> #{integer() => beamtrace_janitor:undo()}.
undos(#traces{running = Running}) ->
    maps:map(fun(_, #trace{handle = H, undo = U, tracer = T, builds = B}) -> {H, U, T, B} end, Running).

-spec is_empty(traces()) -> boolean().
is_empty(#traces{running = Running}) -> map_size(Running) =:= 0.

%% Starting a trace.

%% When it fails, nothing stays set.
-spec start(integer(), pid(), term(), traces()) -> {ok, map(), traces()} | {error, term()}.
start(TraceId, _, _, #traces{running = Running}) when is_map_key(TraceId, Running) ->
    {error, {bad_spec, trace_id, TraceId}};
start(TraceId, Mailbox, Spec, S) ->
    case beamtrace_spec:check(Spec) of
        ok ->
            case beamtrace_trace_start:start(TraceId, Mailbox, Spec, room(S)) of
                {ok, Value, Started} -> {ok, Value, started(TraceId, Spec, Started, S)};
                {error, Reason} -> {error, Reason}
            end;
        {error, Reason} ->
            {error, Reason}
    end.

room(#traces{client = Client, janitor = Janitor, costs = Costs} = S) ->
    #{client => Client, janitor => Janitor, alone => is_empty(S), costs => Costs}.

started(TraceId, Spec, #{handle := Handle, watch := Watch, excluded := Excluded, costs := Costs} = Started, S) ->
    Trace = #trace{
        id = TraceId,
        handle = Handle,
        tracer = maps:get(tracer, Started),
        undo = maps:get(undo, Started),
        builds = maps:get(builds, Started),
        watch = Watch,
        traced = maps:get(traced, Started),
        sampler = maps:get(sampler, Started),
        sampled = #{share_ppm => 1000000, kinds => maps:get(kinds, Spec), new_left => 0},
        timers = timers(TraceId, Spec, Watch)
    },
    %% Events of what was switched off again may still be under way.
    store(unfilter_later(Excluded, Trace), S#traces{costs = Costs}).

timers(TraceId, #{limits := #{seconds := Seconds}}, Watch) ->
    [timer(TraceId, stats, ?STATS_MS)] ++
        [timer(TraceId, {seconds, Seconds}, Seconds * 1000) || is_integer(Seconds)] ++
        [timer(TraceId, watch, ?WATCH_MS) || Watch =/= []].

timer(TraceId, What, Ms) -> erlang:start_timer(Ms, self(), {trace, TraceId, What}).

%% What happens while a trace runs.

%% Messages to the holder that concern a trace; any other says nothing.
-spec handle(term(), traces()) -> {out(), traces()}.
handle({timeout, Timer, {trace, TraceId, What}}, S) ->
    tick(TraceId, What, Timer, S);
handle({trace_delivered, all, Ref}, S) ->
    {[], delivered(Ref, S)};
handle({beamtrace_limit, Tracer, Reason}, S) ->
    with_tracer(Tracer, fun(Trace) -> {[], store(stopping(Trace, Reason, []), S)} end, S);
handle({beamtrace_untrace, Tracer, Pid}, S) ->
    with_tracer(Tracer, fun(Trace) -> {[], store(untrace(Trace, [Pid]), S)} end, S);
handle({beamtrace_follow, Tracer, Pid}, S) ->
    with_tracer(Tracer, fun(Trace) -> follow(Trace, Pid, S) end, S);
handle({beamtrace_recording, Tracer, Number, Header}, S) ->
    with_tracer(Tracer, fun(#trace{id = Id}) -> {[{post, {beamtrace_recording, Id, Number, Header}}], S} end, S);
handle({beamtrace_answer, _, Request, Result}, S) ->
    {[{reply, Request, Result}], S};
handle({beamtrace_stats, Tracer, Tag, Stats}, S) ->
    with_tracer(Tracer, fun(Trace) -> told(Trace, Tag, Stats, S) end, S);
handle({beamtrace_sampled, Tracer, Sampled}, S) ->
    with_tracer(Tracer, fun(Trace) -> {[], store(sampled(Trace, Sampled), S)} end, S);
handle({beamtrace_final, Tracer, Stats}, S) ->
    with_tracer(Tracer, fun(Trace) -> ended(Trace, Stats, S) end, S);
handle(_, S) ->
    {[], S}.

%% A name that a flight recorder watches has come to another process.
follow(#trace{handle = Handle, phase = running}, Pid, S) ->
    ok = beamtrace_recorder:flag(Handle, Pid),
    {[], S};
follow(_, _, S) ->
    {[], S}.

%% A request to the process of a flight recorder, which answers it.
-spec forward(integer(), integer(), tuple(), traces()) -> {out(), traces()}.
forward(TraceId, Request, Message, #traces{running = Running} = S) ->
    case Running of
        #{TraceId := #trace{tracer = Tracer}} ->
            Tracer ! Message,
            {[], S};
        _ ->
            {[{reply, Request, {error, {no_trace, TraceId}}}], S}
    end.

with_tracer(Tracer, Fun, S) ->
    case of_tracer(Tracer, S) of
        {ok, Trace} -> Fun(Trace);
        none -> {[], S}
    end.

of_tracer(Tracer, #traces{running = Running}) ->
    case [Trace || #trace{tracer = T} = Trace <- maps:values(Running), T =:= Tracer] of
        [Trace] -> {ok, Trace};
        [] -> none
    end.

store(#trace{id = Id} = Trace, #traces{running = Running} = S) -> S#traces{running = Running#{Id => Trace}}.

tick(TraceId, What, Timer, #traces{running = Running} = S) ->
    case Running of
        #{TraceId := #trace{timers = Timers} = Trace} ->
            case lists:member(Timer, Timers) of
                true -> {[], store(tick(What, Trace#trace{timers = lists:delete(Timer, Timers)}), S)};
                false -> {[], S}
            end;
        _ ->
            {[], S}
    end.

tick(stats, #trace{tracer = Tracer} = Trace) ->
    Tracer ! {beamtrace_stats, report},
    again(stats, ?STATS_MS, Trace);
tick({seconds, Seconds}, Trace) ->
    stopping(Trace, {limit, seconds, Seconds, Seconds}, []);
tick(watch, #trace{handle = Handle, watch = Watch, tracer = Tracer, phase = running} = Trace) ->
    Watch1 = beamtrace_patterns:watch(Handle, Watch, fun(Module, Count) ->
        Tracer ! {beamtrace_marker, module_reloaded, Module, Count}
    end),
    again(watch, ?WATCH_MS, Trace#trace{watch = Watch1});
tick(delivered, #trace{phase = {delivering, _}} = Trace) ->
    drain(Trace);
tick(_, Trace) ->
    Trace.

again(What, Ms, #trace{id = TraceId, timers = Timers} = Trace) ->
    Trace#trace{timers = [timer(TraceId, What, Ms) | Timers]}.

%% Statistics for a request: the tracer answers, or what it last said does.
-spec stats(integer(), Request :: integer(), traces()) -> {out(), traces()}.
stats(TraceId, Request, #traces{running = Running} = S) ->
    case Running of
        #{TraceId := #trace{tracer = Tracer}} ->
            Tracer ! {beamtrace_stats, {reply, Request}},
            {[], S};
        _ ->
            {[{reply, Request, of_ended(TraceId, S)}], S}
    end.

of_ended(TraceId, #traces{ended = Ended}) ->
    case lists:keyfind(TraceId, 1, Ended) of
        {_, Stats} -> {ok, Stats};
        false -> {error, {no_trace, TraceId}}
    end.

told(#trace{id = Id} = Trace, Tag, Stats0, S) ->
    Stats = complete(Stats0, Trace),
    Out =
        case Tag of
            report -> {hint, {beamtrace_stats, Id, Stats}};
            {reply, Request} -> {reply, Request, {ok, Stats}}
        end,
    {[Out], store(Trace#trace{stats = Stats}, S)}.

complete(Stats, #trace{traced = Traced, sampled = Sampled}) -> maps:merge(Stats#{traced => Traced}, Sampled).

%% The client hears at once of a change.
sampled(#trace{sampled = Before, tracer = Tracer} = Trace, Sampled) ->
    Said = [share_ppm, kinds, new_left],
    _ = maps:with(Said, Before) =/= maps:with(Said, Sampled) andalso (Tracer ! {beamtrace_stats, report}),
    Trace#trace{sampled = Sampled}.

%% A process that is not to be traced: flags off, and when nothing of it is under way any more the tracer forgets it.
untrace(#trace{handle = Handle} = Trace, Pids) ->
    _ = [off(Handle, Pid) || Pid <- Pids],
    unfilter_later(Pids, Trace).

off(Handle, Pid) ->
    try
        beamtrace_session:process(Handle, Pid, false, [all])
    catch
        %% It has ended already.
        error:badarg -> 0
    end.

unfilter_later([], Trace) ->
    Trace;
unfilter_later(Items, #trace{handle = Handle, delivered = Delivered} = Trace) ->
    Trace#trace{delivered = Delivered#{beamtrace_session:delivered(Handle) => Items}}.

delivered(Ref, #traces{running = Running} = S) ->
    maps:fold(
        fun
            (_, #trace{phase = {delivering, R}} = Trace, Acc) when R =:= Ref ->
                store(drain(Trace), Acc);
            (_, #trace{delivered = #{Ref := Items} = Delivered, tracer = Tracer} = Trace, Acc) ->
                Tracer ! {beamtrace_unfilter, Items},
                store(Trace#trace{delivered = maps:remove(Ref, Delivered)}, Acc);
            (_, _, Acc) ->
                Acc
        end,
        S,
        Running
    ).

%% How a trace ends.

%% Answers the request when the trace has ended, or at once if it had.
-spec stop(integer(), Request :: integer(), traces()) -> {out(), traces()}.
stop(TraceId, Request, #traces{running = Running} = S) ->
    case Running of
        #{TraceId := Trace} -> {[], store(stopping(Trace, none, [Request]), S)};
        _ -> {[{reply, Request, of_ended(TraceId, S)}], S}
    end.

-spec stop_all(traces()) -> traces().
stop_all(#traces{running = Running} = S) ->
    S#traces{running = maps:map(fun(_, Trace) -> stopping(Trace, none, []) end, Running)}.

stopping(#trace{phase = running, handle = Handle, timers = Timers, waiting = Waiting} = Trace, Reason, Requests) ->
    _ = [erlang:cancel_timer(Timer) || Timer <- Timers],
    stop_sampler(Trace),
    beamtrace_session:close(Handle),
    Ref = beamtrace_session:delivered(Handle),
    Stopping = Trace#trace{
        phase = {delivering, Ref}, reason = Reason, timers = [], waiting = Requests ++ Waiting, sampler = none
    },
    again(delivered, ?DELIVERED_MS, Stopping);
stopping(#trace{waiting = Waiting} = Trace, _, Requests) ->
    Trace#trace{waiting = Requests ++ Waiting}.

stop_sampler(#trace{sampler = none}) -> ok;
stop_sampler(#trace{sampler = Sampler}) -> beamtrace_sampling:stop(Sampler).

drain(#trace{tracer = Tracer} = Trace) ->
    Tracer ! beamtrace_stop,
    Trace#trace{phase = draining}.

ended(#trace{id = Id, handle = Handle, undo = Undo, tracer = Tracer, timers = Timers} = Trace, Stats0, S) ->
    Stats = complete(Stats0, Trace),
    _ = [erlang:cancel_timer(Timer) || Timer <- Timers],
    stop_sampler(Trace),
    true = unlink(Tracer),
    %% It has said its last word; its name must be free for the next trace.
    Monitor = erlang:monitor(process, Tracer),
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end,
    beamtrace_session:undo(Handle, Undo),
    beamtrace_trace_start:give_up_runtime(Tracer, Trace#trace.builds),
    beamtrace_janitor:remove(S#traces.janitor, Id),
    S1 = S#traces{
        running = maps:remove(Id, S#traces.running),
        ended = lists:sublist([{Id, Stats} | S#traces.ended], ?ENDED_MAX)
    },
    Replies = [{reply, Request, {ok, Stats}} || Request <- Trace#trace.waiting],
    {Replies ++ [{post, {beamtrace_stopped, Id, Reason, Stats}} || Reason <- [Trace#trace.reason], Reason =/= none], S1}.

%% The trace of a tracer that has died is over; what the tracer had not sent is lost with it. `none`: no tracer of ours.
-spec tracer_exit(pid(), term(), traces()) -> {out(), traces()} | none.
tracer_exit(Pid, Reason, S) ->
    case of_tracer(Pid, S) of
        {ok, Trace} ->
            ended(Trace#trace{reason = died(Trace, {tracer_died, Reason})}, maps:remove(traced, last_stats(Trace)), S);
        none ->
            sampler_exit(Pid, Reason, S)
    end.

%% Without its sampling process a trace would stay as it is, whatever it costs.
sampler_exit(Pid, Reason, #traces{running = Running} = S) ->
    case [Trace || #trace{sampler = Sampler} = Trace <- maps:values(Running), Sampler =:= Pid] of
        [Trace] -> {[], store(stopping(Trace#trace{sampler = none}, {tracer_died, {sampling, Reason}}, []), S)};
        [] -> none
    end.

died(#trace{reason = none}, Why) -> Why;
died(#trace{reason = Why}, _) -> Why.

last_stats(#trace{stats = Stats}) when map_size(Stats) > 0 -> Stats;
last_stats(_) ->
    maps:from_keys(
        [
            received, shipped, lost_tracer, lost_link, filtered, batches, queue, queue_max, memory, reductions, rate,
            overhead_ppm
        ],
        0
    ).

%% Another session takes the legacy session over: all traces end at once.
-spec give_up(traces()) -> {out(), traces()}.
give_up(#traces{running = Running} = S) ->
    maps:fold(
        fun(_, #trace{tracer = Tracer} = Trace, {Out, Acc}) ->
            true = unlink(Tracer),
            exit(Tracer, kill),
            {More, Acc1} = ended(Trace#trace{reason = died(Trace, {tracer_died, taken_over})}, last_stats(Trace), Acc),
            {Out ++ More, Acc1}
        end,
        {[], S},
        Running
    ).
