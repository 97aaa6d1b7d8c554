%% The life of a session's traces: set up, watched while they run, stopped, drained, undone. A part of the holder, which
%% hands it the messages that concern traces and posts to the client what comes back; it owns no process of its own.
%% A trace ends in this order: flags off, everything delivered to the tracer, everything shipped, everything undone.
-module(beamtrace_traces).

-export([new/2, set_janitor/2, undos/1, is_empty/1]).
-export([start/4, stop/3, stop_all/1, stats/3, forward/4, handle/2, tracer_exit/3, give_up/1]).
-export_type([traces/0, out/0]).

-include("beamtrace_schema.hrl").

-define(STATS_MS, 1000).
-define(WATCH_MS, 200).
%% Events that are under way when flags are switched off arrive within this time, or a scheduler is stuck.
-define(DELIVERED_MS, 5000).
-define(TAKE_OVER_MS, 2000).
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
    %% What an event costs on this node, by tracer: measured once.
    costs = #{} :: #{native | portable => beamtrace_cost:costs()}
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
            try
                free(Spec, S),
                set(TraceId, Mailbox, Spec, S)
            catch
                throw:{beamtrace, Reason} -> {error, Reason}
            end;
        {error, Reason} ->
            {error, Reason}
    end.

%% Legacy session: one tool at a time. A trace of ours is not another tool's: it would be silenced and never know.
free(#{take_over := TakeOver}, #traces{running = Running}) ->
    case beamtrace_session:kind() of
        own ->
            ok;
        legacy when TakeOver, map_size(Running) =:= 0 ->
            _ = [take_over(Holder) || Holder <- beamtrace_names:holders(), Holder =/= self()],
            beamtrace_session:clear_legacy();
        legacy ->
            case beamtrace_session:busy() of
                none -> ok;
                {busy, Who} -> throw({beamtrace, {tracer_busy, Who}})
            end
    end.

%% Another session of beamtrace ends its traces itself, so that its clean-up does not hit ours.
take_over(Holder) ->
    Ref = erlang:monitor(process, Holder),
    Holder ! {beamtrace_take_over, self(), Ref},
    receive
        {beamtrace_taken, Ref} -> erlang:demonitor(Ref, [flush]);
        {'DOWN', Ref, process, _, _} -> true
    after ?TAKE_OVER_MS ->
        %% Busy, or it wants ours at the same time.
        erlang:demonitor(Ref, [flush])
    end.

set(TraceId, Mailbox, Spec, #traces{janitor = Janitor} = S) ->
    Excluded = excluded(S),
    {Tracer, VmTracer} = start_tracer(Spec, tracer_options(TraceId, Mailbox, Spec, Excluded, S)),
    case owns_legacy(Tracer) of
        true -> ok;
        false -> abandon(Tracer, {tracer_busy, whereis(beamtrace_legacy)})
    end,
    Handle = beamtrace_session:open(VmTracer),
    Calls = maps:get(calls, Spec),
    Builds = builds(Spec),
    Watched = runtime_calls(Spec),
    Undo = beamtrace_patterns:undo_list(Calls ++ Watched),
    beamtrace_janitor:add(Janitor, TraceId, {Handle, Undo, Tracer, Builds}),
    try
        need_runtime(Tracer, Spec, Builds),
        {Matched, Counts, Watch} = beamtrace_patterns:set(Handle, Calls),
        _ = [1 = beamtrace_session:function(Handle, MFA, MatchSpec, How) || {MFA, MatchSpec, How} <- Watched],
        beamtrace_patterns:messages(Handle, Spec),
        Base = erlang:monotonic_time(nanosecond),
        {Sampler, {Processes, Ports}, Costs} =
            enable(Spec, #{handle => Handle, tracer => Tracer, vm_tracer => VmTracer, spec => Spec, excluded => Excluded}, S),
        follow_names(Handle, Spec, Excluded),
        Trace0 = #trace{
            id = TraceId,
            handle = Handle,
            tracer = Tracer,
            undo = Undo,
            builds = Builds,
            watch = Watch,
            traced = Processes + Ports,
            sampler = Sampler,
            sampled = #{share_ppm => 1000000, kinds => maps:get(kinds, Spec)},
            timers = timers(TraceId, Spec, Watch)
        },
        %% Events of what was switched off again may still be under way.
        Trace = unfilter_later(maps:keys(Excluded), Trace0),
        Value = #{
            base => Base,
            time_offset => erlang:time_offset(nanosecond),
            matched => Matched,
            patterns => Counts,
            processes => Processes,
            ports => Ports,
            tracer => Tracer
        },
        _ = mark(Spec, Tracer),
        _ = mark_calls(Spec, Tracer),
        {ok, Value, store(Trace, S#traces{costs = Costs})}
    catch
        throw:{beamtrace, Reason} ->
            beamtrace_session:undo(Handle, Undo),
            beamtrace_janitor:remove(Janitor, TraceId),
            give_up_runtime(Tracer, Builds),
            abandon(Tracer, Reason)
    end.

builds(#{instrumented := #{builds := Builds}}) -> Builds;
builds(_) -> none.

%% Before the first breakpoint: those of the runtime's functions go with its code.
need_runtime(_, _, none) ->
    ok;
need_runtime(Tracer, Spec, Builds) ->
    case beamtrace_runtime:need(Tracer, maps:get(tracer, Spec, portable), Builds) of
        ok -> ok;
        {error, Reason} -> throw({beamtrace, Reason})
    end.

give_up_runtime(_, none) -> ok;
give_up_runtime(Tracer, Builds) -> beamtrace_runtime:settle(Tracer, Builds).

%% Where the portable tracer sees what instrumented code tells.
runtime_calls(#{tracer := native}) ->
    [];
runtime_calls(#{instrumented := #{modules := Modules}, kinds := Kinds}) ->
    [
        {{beamtrace_rt, F, A}, of_modules(Modules, A), [local]}
     || {F, A, Kind} <- [
            {entered, 4, ?KIND_FUNCTION_ENTRY},
            {left, 4, ?KIND_FUNCTION_RETURN},
            {tail_called, 3, ?KIND_FUNCTION_TAIL_CALL},
            {raised, 6, ?KIND_FUNCTION_EXCEPTION}
        ],
        Kinds band (1 bsl Kind) =/= 0
    ];
runtime_calls(_) ->
    [].

of_modules(all, _) -> true;
of_modules(Modules, Arity) -> [{['_', M | lists:duplicate(Arity - 2, '_')], [], []} || M <- Modules].

follow_names(Handle, #{recorder := Recorder}, Excluded) -> beamtrace_recorder:follow(Handle, Recorder, Excluded);
follow_names(_, _, _) -> ok.

mark(#{marker := {Name, A, B}}, Tracer) -> Tracer ! {beamtrace_marker, Name, A, B};
mark(_, _) -> ok.

%% One call in so many: the match specifications see to it.
mark_calls(#{sampling := #{calls := Calls}}, Tracer) when Calls > 1 -> Tracer ! {beamtrace_marker, sampling_calls, Calls, 0};
mark_calls(_, _) -> ok.

%% The process that ships, and what the VM is to call.
start_tracer(#{tracer := native, recorder := Recorder}, Options) ->
    case beamtrace_recorder:start(Options, Recorder) of
        {ok, Pid, VmTracer} -> {Pid, VmTracer};
        {error, Reason} -> throw({beamtrace, Reason})
    end;
start_tracer(#{tracer := native}, Options) ->
    case beamtrace_native:start(Options) of
        {ok, Pid, VmTracer} -> {Pid, VmTracer};
        {error, Reason} -> throw({beamtrace, {native, Reason}})
    end;
start_tracer(_, Options) ->
    Pid = beamtrace_tracer:start(Options),
    {Pid, Pid}.

-spec abandon(pid(), term()) -> no_return().
abandon(Tracer, Reason) ->
    true = unlink(Tracer),
    exit(Tracer, kill),
    throw({beamtrace, Reason}).

%% Of two sessions that find the legacy session free at the same time only one gets this name.
owns_legacy(Tracer) ->
    case beamtrace_session:kind() of
        own ->
            true;
        legacy ->
            try
                register(beamtrace_legacy, Tracer)
            catch
                error:badarg -> false
            end
    end.

enable(#{flags := Flags} = Spec, Options, S) ->
    case lists:member(garbage_collection, Flags) andalso beamtrace_session:gc_unsafe() of
        true ->
            %% One at a time, so that two sessions don't both find that all is well.
            Id = {beamtrace_gc, self()},
            true = global:set_lock(Id, [node()]),
            try
                case beamtrace_session:conflicting_gc(beamtrace_targets:gc_candidates(Spec)) of
                    none -> set_flags(Spec, Options, S);
                    {conflict, Pid} -> throw({beamtrace, {gc_conflict, Pid}})
                end
            after
                global:del_lock(Id, [node()])
            end;
        false ->
            set_flags(Spec, Options, S)
    end.

set_flags(Spec, #{handle := Handle, excluded := Excluded} = Options, #traces{costs = Costs}) ->
    case beamtrace_sampling:wanted(Spec) of
        true ->
            Kind = maps:get(tracer, Spec, portable),
            case beamtrace_sampling:start(Options#{costs => maps:get(Kind, Costs, unknown)}) of
                {ok, Sampler, Counts, unknown} -> {Sampler, Counts, Costs};
                {ok, Sampler, Counts, Measured} -> {Sampler, Counts, Costs#{Kind => Measured}};
                {error, Reason} -> throw({beamtrace, Reason})
            end;
        false ->
            {none, beamtrace_targets:enable(Handle, Spec, Excluded), Costs}
    end.

%% The connections of all clients of beamtrace, not only of ours: two sessions must not trace each other's.
excluded(#traces{client = Client}) ->
    Linked = [
        Pid
     || Holder <- beamtrace_names:holders(),
        Holder =/= self(),
        {links, Links} <- [process_info(Holder, links)],
        Pid <- Links,
        is_pid(Pid)
    ],
    Nodes = lists:usort([node(Pid) || Pid <- [Client | Linked], node(Pid) =/= node()]),
    maps:from_keys(beamtrace_targets:excluded(Nodes), true).

tracer_options(TraceId, Mailbox, #{limits := Limits, batch := Batch} = Spec, Excluded, #traces{client = Client}) ->
    #{
        id => TraceId,
        mailbox => Mailbox,
        holder => self(),
        %% A client on this very node (tests) has no node of its own to hide.
        client_node =>
            case node(Client) of
                Node when Node =:= node() -> undefined;
                Node -> Node
            end,
        mask => maps:get(kinds, Spec) band ((1 bsl ?KIND_COUNT) - 1),
        mode =>
            case maps:get(payload, Spec) of
                {bytes, Max, Redact} -> {bytes, Max, maps:from_keys(Redact, true)};
                Mode -> Mode
            end,
        scheduler => maps:get(scheduler, Spec),
        overflow => maps:get(overflow, Spec, drop_newest),
        batch => Batch,
        limits => Limits,
        filter => Excluded,
        instrumented => instrumented(Spec, Excluded)
    }.

%% The library is told of the processes themselves.
instrumented(#{tracer := native, instrumented := #{processes := Processes} = Instrumented} = Spec, Excluded) ->
    {Pids, _} = beamtrace_targets:roots(Spec#{processes := Processes, flags := [call]}, Excluded),
    Instrumented#{processes := Pids};
instrumented(#{instrumented := Instrumented}, _) ->
    Instrumented;
instrumented(_, _) ->
    none.

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
    Said = [share_ppm, kinds],
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
    give_up_runtime(Tracer, Trace#trace.builds),
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
