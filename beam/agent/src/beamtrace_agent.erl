%% The holder: one process a session. Owns the traces of the session and the lease, answers the client
%% (docs/agent-protocol.md, "Requests and replies"). It never waits for the connection: what the connection
%% does not take at once waits in an outbox. What it leaves behind when it dies, its janitor undoes.
-module(beamtrace_agent).

-export([start/2]).

-include("beamtrace_schema.hrl").

-define(LEASE_MS, 15000).
-define(STATS_MS, 1000).
-define(WATCH_MS, 200).
-define(OUTBOX_MS, 5).
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
    delivered = #{} :: #{reference() => [pid() | port()]}
}).

-record(state, {
    client :: pid(),
    lease_ms :: pos_integer(),
    lease :: reference(),
    janitor_name :: atom(),
    janitor :: pid(),
    janitor_monitor :: reference(),
    traces = #{} :: #{integer() => #trace{}},
    ended = [] :: [{integer(), beamtrace_tracer:stats()}],
    %% Calls under way: pid of beamtrace_exec to request, monitor and time-out.
    calls = #{} :: #{pid() => {integer(), reference()}},
    timed_out = #{} :: #{pid() => true},
    outbox = queue:new() :: queue:queue(term()),
    detaching = [] :: [integer()]
}).

%% Entry point of spawn_request, with a link to the client.
-spec start(pid(), map()) -> no_return().
start(Client, Options) ->
    process_flag(sensitive, true),
    process_flag(trap_exit, true),
    process_flag(message_queue_data, off_heap),
    {Name, JanitorName} = claim(beamtrace_names:slots()),
    loaded(),
    watch_node(node(Client)),
    {Janitor, Monitor} = start_janitor(JanitorName, #{}, []),
    end_guard(),
    LeaseMs = lease_ms(Options),
    S = #state{
        client = Client,
        lease_ms = LeaseMs,
        lease = erlang:start_timer(LeaseMs, self(), lease),
        janitor_name = JanitorName,
        janitor = Janitor,
        janitor_monitor = Monitor
    },
    Info = #{version => ?SCHEMA_VERSION, md5 => beamtrace_names:md5(), name => Name},
    loop(post({beamtrace_ready, self(), Info}, S)).

lease_ms(#{lease_ms := Ms}) when is_integer(Ms), Ms > 0 -> Ms;
lease_ms(_) -> ?LEASE_MS.

claim([{Holder, Janitor} | Slots]) ->
    case whereis(Janitor) of
        undefined ->
            try register(Holder, self()) of
                true -> {Holder, Janitor}
            catch
                error:badarg -> claim(Slots)
            end;
        _ ->
            claim(Slots)
    end;
claim([]) ->
    exit(beamtrace_full).

%% The name is taken: from here on nobody begins to unload. If somebody had begun before, the code is about to go.
loaded() ->
    Current =
        lists:all(fun erlang:module_loaded/1, beamtrace_names:modules()) andalso
            not erlang:check_process_code(self(), ?MODULE),
    case {Current, whereis(beamtrace_lock)} of
        {false, _} ->
            exit(beamtrace_reload);
        {true, undefined} ->
            ok;
        {true, _} ->
            receive
            after 2 -> loaded()
            end
    end.

%% The loader's watchdog, which unloads when no holder comes, has done its duty.
end_guard() ->
    case whereis(beamtrace_guard) of
        undefined -> ok;
        Guard -> exit(Guard, kill)
    end.

watch_node(Node) when Node =:= node() -> ok;
watch_node(Node) -> erlang:monitor_node(Node, true).

start_janitor(Name, Undos, Pids) ->
    {Janitor, Monitor} = beamtrace_janitor:start(Name, Undos, Pids),
    receive
        {beamtrace_janitor, Janitor} -> {Janitor, Monitor};
        {'DOWN', Monitor, process, Janitor, Reason} -> exit({beamtrace_janitor, Reason})
    end.

loop(#state{client = Client, lease = Lease, janitor_monitor = JanitorMonitor} = S) ->
    receive
        {beamtrace, Id, Request} ->
            loop(request(Id, Request, renew(S)));
        {timeout, Lease, lease} ->
            expire(S);
        {timeout, Timer, {trace, TraceId, What}} ->
            loop(tick(TraceId, What, Timer, S));
        {timeout, _, {call, Pid}} ->
            exit(Pid, kill),
            loop(S#state{timed_out = (S#state.timed_out)#{Pid => true}});
        {timeout, _, _} ->
            loop(S);
        {trace_delivered, all, Ref} ->
            loop(delivered(Ref, S));
        {beamtrace_limit, Tracer, Reason} ->
            loop(with_tracer(Tracer, fun(T, S1) -> stop(T, Reason, [], S1) end, S));
        {beamtrace_untrace, Tracer, Pid} ->
            loop(with_tracer(Tracer, fun(T, S1) -> store(untrace(T, [Pid]), S1) end, S));
        {beamtrace_follow, Tracer, Pid} ->
            loop(with_tracer(Tracer, fun(T, S1) -> follow(T, Pid, S1) end, S));
        {beamtrace_recording, Tracer, Number, Header} ->
            loop(with_tracer(Tracer, fun(#trace{id = Id}, S1) -> post({beamtrace_recording, Id, Number, Header}, S1) end, S));
        {beamtrace_snapshot, _, Id, Result} ->
            loop(reply(Id, Result, S));
        {beamtrace_stats, Tracer, Tag, Stats} ->
            loop(with_tracer(Tracer, fun(T, S1) -> stats(T, Tag, Stats, S1) end, S));
        {beamtrace_final, Tracer, Stats} ->
            loop(with_tracer(Tracer, fun(T, S1) -> ended(T, Stats, S1) end, S));
        {beamtrace_take_over, From, Ref} ->
            loop(give_up(From, Ref, S));
        {'EXIT', Client, Reason} ->
            exit(Reason);
        {'EXIT', Pid, Reason} ->
            loop(linked_exit(Pid, Reason, S));
        {nodedown, _} ->
            exit(noconnection);
        {'DOWN', JanitorMonitor, process, _, _} ->
            loop(restart_janitor(S));
        {'DOWN', _, process, Pid, Reason} ->
            loop(call_ended(Pid, Reason, S));
        beamtrace_outbox ->
            loop(flush(S));
        _ ->
            loop(S)
    end.

%% A long request may have kept the lease waiting: what the client has sent by now counts.
expire(S) ->
    receive
        {beamtrace, Id, Request} -> loop(request(Id, Request, renew(S)))
    after 0 -> exit(lease_expired)
    end.

renew(#state{lease = Lease, lease_ms = LeaseMs} = S) ->
    _ = erlang:cancel_timer(Lease),
    S#state{lease = erlang:start_timer(LeaseMs, self(), lease)}.

request(Id, renew, S) ->
    reply(Id, ok, S);
request(Id, {call, M, F, Args, Timeout}, S) when is_atom(M), is_atom(F), is_list(Args) ->
    call(Id, M, F, Args, Timeout, S);
request(Id, {trace, TraceId, Mailbox, Spec}, S) when is_integer(TraceId), is_pid(Mailbox) ->
    case start_trace(TraceId, Mailbox, Spec, S) of
        {ok, Value, S1} -> reply(Id, {ok, Value}, S1);
        {error, Reason, S1} -> reply(Id, {error, Reason}, S1)
    end;
request(Id, {stop, TraceId}, #state{traces = Traces, ended = Ended} = S) ->
    case {Traces, lists:keyfind(TraceId, 1, Ended)} of
        {#{TraceId := Trace}, _} -> stop(Trace, none, [Id], S);
        {_, {_, Stats}} -> reply(Id, {ok, Stats}, S);
        {_, false} -> reply(Id, {error, {no_trace, TraceId}}, S)
    end;
request(Id, {stats, TraceId}, #state{traces = Traces, ended = Ended} = S) ->
    case {Traces, lists:keyfind(TraceId, 1, Ended)} of
        {#{TraceId := #trace{tracer = Tracer}}, _} ->
            Tracer ! {beamtrace_stats, {reply, Id}},
            S;
        {_, {_, Stats}} ->
            reply(Id, {ok, Stats}, S);
        {_, false} ->
            reply(Id, {error, {no_trace, TraceId}}, S)
    end;
request(Id, {snapshot, TraceId}, S) ->
    to_recorder(Id, TraceId, {beamtrace_snapshot, Id}, S);
request(Id, {fetch, TraceId, Number, Mailbox}, S) when is_pid(Mailbox) ->
    reply(Id, ok, to_recorder(Id, TraceId, {beamtrace_fetch, Number, Mailbox}, S));
request(Id, detach, #state{traces = Traces} = S) ->
    S1 = S#state{detaching = [Id | S#state.detaching]},
    detach(maps:fold(fun(_, Trace, Acc) -> stop(Trace, none, [], Acc) end, S1, Traces));
request(Id, Other, S) ->
    reply(Id, {error, {bad_request, beamtrace_trim:trim(Other, 256, #{})}}, S).

%% The process of a flight recorder; a tracer of another kind ignores what it does not know.
to_recorder(Id, TraceId, Message, #state{traces = Traces} = S) ->
    case Traces of
        #{TraceId := #trace{tracer = Tracer}} ->
            Tracer ! Message,
            S;
        _ ->
            reply(Id, {error, {no_trace, TraceId}}, S)
    end.

detach(#state{detaching = [_ | _] = Ids, traces = Traces} = S) when map_size(Traces) =:= 0 ->
    S1 = lists:foldl(fun(Id, Acc) -> reply(Id, ok, Acc) end, S, Ids),
    _ = last_words(S1, 200),
    exit(normal);
detach(S) ->
    S.

last_words(S, Tries) ->
    S1 = flush(S),
    case queue:is_empty(S1#state.outbox) of
        false when Tries > 0 ->
            receive
            after ?OUTBOX_MS -> last_words(S1, Tries - 1)
            end;
        _ ->
            ok
    end.

%% Calls.

call(Id, M, F, Args, Timeout, #state{client = Client, janitor = Janitor, calls = Calls} = S) ->
    {Pid, Monitor} = beamtrace_exec:start(self(), Client, Id, M, F, Args),
    beamtrace_janitor:watch(Janitor, Pid),
    _ = is_integer(Timeout) andalso Timeout >= 0 andalso erlang:start_timer(Timeout, self(), {call, Pid}),
    S#state{calls = Calls#{Pid => {Id, Monitor}}}.

call_ended(Pid, Reason, #state{calls = Calls, timed_out = TimedOut, janitor = Janitor} = S) ->
    case Calls of
        #{Pid := {Id, _}} ->
            beamtrace_janitor:unwatch(Janitor, Pid),
            S1 = S#state{calls = maps:remove(Pid, Calls), timed_out = maps:remove(Pid, TimedOut)},
            case Reason of
                normal -> S1;
                killed when is_map_key(Pid, TimedOut) -> reply(Id, {error, timeout}, S1);
                _ -> reply(Id, {ok, {exit, Reason}}, S1)
            end;
        _ ->
            S
    end.

%% Starting a trace.

start_trace(TraceId, _, _, #state{traces = Traces} = S) when is_map_key(TraceId, Traces) ->
    {error, {bad_spec, trace_id, TraceId}, S};
start_trace(TraceId, Mailbox, Spec, S) ->
    case beamtrace_spec:check(Spec) of
        ok ->
            try
                free(Spec),
                set(TraceId, Mailbox, Spec, S)
            catch
                throw:{beamtrace, Reason} -> {error, Reason, S}
            end;
        {error, Reason} ->
            {error, Reason, S}
    end.

%% Legacy session: one tool at a time.
free(#{take_over := TakeOver}) ->
    case beamtrace_session:kind() of
        own ->
            ok;
        legacy when TakeOver ->
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

set(TraceId, Mailbox, Spec, #state{janitor = Janitor} = S) ->
    Excluded = excluded(S),
    {Tracer, VmTracer} = start_tracer(Spec, tracer_options(TraceId, Mailbox, Spec, Excluded, S)),
    case owns_legacy(Tracer) of
        true -> ok;
        false -> abandon(Tracer, {tracer_busy, whereis(beamtrace_legacy)})
    end,
    Handle = beamtrace_session:open(VmTracer),
    Calls = maps:get(calls, Spec),
    Undo = beamtrace_patterns:undo_list(Calls),
    beamtrace_janitor:add(Janitor, TraceId, Handle, {Undo, Tracer}),
    try
        {Matched, Counts, Watch} = beamtrace_patterns:set(Handle, Calls),
        beamtrace_patterns:messages(Handle, Spec),
        Base = erlang:monotonic_time(nanosecond),
        {Processes, Ports} = enable(Handle, Spec, Excluded),
        follow_names(Handle, Spec, Excluded),
        Trace0 = #trace{
            id = TraceId,
            handle = Handle,
            tracer = Tracer,
            undo = Undo,
            watch = Watch,
            traced = Processes + Ports,
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
        mark(Spec, Tracer),
        {ok, Value, store(Trace, S)}
    catch
        throw:{beamtrace, Reason} ->
            beamtrace_session:undo(Handle, Undo),
            beamtrace_janitor:remove(Janitor, TraceId),
            abandon(Tracer, Reason)
    end.

follow_names(Handle, #{recorder := Recorder}, Excluded) -> beamtrace_recorder:follow(Handle, Recorder, Excluded);
follow_names(_, _, _) -> ok.

%% A name that a flight recorder watches has come to another process.
follow(#trace{handle = Handle, phase = running}, Pid, S) ->
    ok = beamtrace_recorder:flag(Handle, Pid),
    S;
follow(_, _, S) ->
    S.

mark(#{marker := {Name, A, B}}, Tracer) -> Tracer ! {beamtrace_marker, Name, A, B};
mark(_, _) -> ok.

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

enable(Handle, #{flags := Flags} = Spec, Excluded) ->
    case lists:member(garbage_collection, Flags) andalso beamtrace_session:gc_unsafe() of
        true ->
            %% One at a time, so that two sessions don't both find that all is well.
            Id = {beamtrace_gc, self()},
            true = global:set_lock(Id, [node()]),
            try
                case beamtrace_session:conflicting_gc(beamtrace_targets:gc_candidates(Spec)) of
                    none -> beamtrace_targets:enable(Handle, Spec, Excluded);
                    {conflict, Pid} -> throw({beamtrace, {gc_conflict, Pid}})
                end
            after
                global:del_lock(Id, [node()])
            end;
        false ->
            beamtrace_targets:enable(Handle, Spec, Excluded)
    end.

%% The connections of all clients of beamtrace, not only of ours: two sessions must not trace each other's.
excluded(#state{client = Client}) ->
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

tracer_options(TraceId, Mailbox, #{limits := Limits, batch := Batch} = Spec, Excluded, #state{client = Client}) ->
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
        mask => maps:get(kinds, Spec) band ((1 bsl (?KIND_MARKER + 1)) - 1),
        mode =>
            case maps:get(payload, Spec) of
                {bytes, Max, Redact} -> {bytes, Max, maps:from_keys(Redact, true)};
                Mode -> Mode
            end,
        scheduler => maps:get(scheduler, Spec),
        overflow => maps:get(overflow, Spec, drop_newest),
        batch => Batch,
        limits => Limits,
        filter => Excluded
    }.

timers(TraceId, #{limits := #{seconds := Seconds}}, Watch) ->
    [timer(TraceId, stats, ?STATS_MS)] ++
        [timer(TraceId, {seconds, Seconds}, Seconds * 1000) || is_integer(Seconds)] ++
        [timer(TraceId, watch, ?WATCH_MS) || Watch =/= []].

timer(TraceId, What, Ms) -> erlang:start_timer(Ms, self(), {trace, TraceId, What}).

%% What happens while a trace runs.

tick(TraceId, What, Timer, #state{traces = Traces} = S) ->
    case Traces of
        #{TraceId := #trace{timers = Timers} = Trace} ->
            case lists:member(Timer, Timers) of
                true -> tick(What, Trace#trace{timers = lists:delete(Timer, Timers)}, S);
                false -> S
            end;
        _ ->
            S
    end.

tick(stats, #trace{tracer = Tracer} = Trace, S) ->
    Tracer ! {beamtrace_stats, report},
    store(again(stats, ?STATS_MS, Trace), S);
tick({seconds, Seconds}, Trace, S) ->
    stop(Trace, {limit, seconds, Seconds, Seconds}, [], S);
tick(watch, #trace{handle = Handle, watch = Watch, tracer = Tracer, phase = running} = Trace, S) ->
    Watch1 = beamtrace_patterns:watch(Handle, Watch, fun(Module, Count) ->
        Tracer ! {beamtrace_marker, module_reloaded, Module, Count}
    end),
    store(again(watch, ?WATCH_MS, Trace#trace{watch = Watch1}), S);
tick(watch, Trace, S) ->
    store(Trace, S);
tick(delivered, #trace{phase = {delivering, _}} = Trace, S) ->
    store(drain(Trace), S);
tick(delivered, Trace, S) ->
    store(Trace, S).

again(What, Ms, #trace{id = TraceId, timers = Timers} = Trace) ->
    Trace#trace{timers = [timer(TraceId, What, Ms) | Timers]}.

stats(#trace{id = Id} = Trace, Tag, Stats0, S) ->
    Stats = complete(Stats0, Trace),
    S1 = store(Trace#trace{stats = Stats}, S),
    case Tag of
        report -> hint({beamtrace_stats, Id, Stats}, S1);
        {reply, Request} -> reply(Request, {ok, Stats}, S1)
    end.

complete(Stats, #trace{traced = Traced}) -> Stats#{traced => Traced}.

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

delivered(Ref, #state{traces = Traces} = S) ->
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
        Traces
    ).

%% Stopping: flags off, everything delivered, everything shipped, everything undone.

stop(#trace{phase = running, handle = Handle, timers = Timers, waiting = Waiting} = Trace, Reason, Ids, S) ->
    _ = [erlang:cancel_timer(Timer) || Timer <- Timers],
    beamtrace_session:close(Handle),
    Ref = beamtrace_session:delivered(Handle),
    Stopping = Trace#trace{phase = {delivering, Ref}, reason = Reason, timers = [], waiting = Ids ++ Waiting},
    store(again(delivered, ?DELIVERED_MS, Stopping), S);
stop(#trace{waiting = Waiting} = Trace, _, Ids, S) ->
    store(Trace#trace{waiting = Ids ++ Waiting}, S).

drain(#trace{tracer = Tracer} = Trace) ->
    Tracer ! beamtrace_stop,
    Trace#trace{phase = draining}.

ended(#trace{id = Id, handle = Handle, undo = Undo, tracer = Tracer, timers = Timers} = Trace, Stats0, S) ->
    Stats = complete(Stats0, Trace),
    _ = [erlang:cancel_timer(Timer) || Timer <- Timers],
    true = unlink(Tracer),
    %% It has said its last word; its name must be free for the next trace.
    Monitor = erlang:monitor(process, Tracer),
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end,
    beamtrace_session:undo(Handle, Undo),
    beamtrace_janitor:remove(S#state.janitor, Id),
    S1 = S#state{
        traces = maps:remove(Id, S#state.traces),
        ended = lists:sublist([{Id, Stats} | S#state.ended], ?ENDED_MAX)
    },
    S2 = lists:foldl(fun(Request, Acc) -> reply(Request, {ok, Stats}, Acc) end, S1, Trace#trace.waiting),
    case Trace#trace.reason of
        none -> detach(S2);
        Reason -> detach(post({beamtrace_stopped, Id, Reason, Stats}, S2))
    end.

linked_exit(Pid, Reason, #state{client = Client} = S) ->
    case [Trace || #trace{tracer = Tracer} = Trace <- maps:values(S#state.traces), Tracer =:= Pid] of
        [Trace] ->
            %% The trace is over; what the tracer had not sent is lost with it.
            ended(Trace#trace{reason = died(Trace, Reason)}, maps:remove(traced, last_stats(Trace)), S);
        [] when Reason =/= normal, node(Pid) =:= node(Client), node(Pid) =/= node() ->
            exit(Reason);
        [] when Reason =:= normal; Reason =:= killed ->
            %% A tracer that was given up while it was set up.
            S;
        [] ->
            exit(Reason)
    end.

died(#trace{reason = none}, Reason) -> {tracer_died, Reason};
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

%% Another session takes the legacy session over.
give_up(From, Ref, #state{traces = Traces} = S) ->
    S1 = maps:fold(
        fun(_, #trace{tracer = Tracer} = Trace, Acc) ->
            true = unlink(Tracer),
            exit(Tracer, kill),
            ended(Trace#trace{reason = died(Trace, taken_over)}, last_stats(Trace), Acc)
        end,
        S,
        Traces
    ),
    From ! {beamtrace_taken, Ref},
    S1.

restart_janitor(#state{janitor_name = Name, traces = Traces, calls = Calls} = S) ->
    Undos = maps:map(fun(_, #trace{handle = H, undo = U, tracer = T}) -> {H, U, T} end, Traces),
    {Janitor, Monitor} = start_janitor(Name, Undos, maps:keys(Calls)),
    S#state{janitor = Janitor, janitor_monitor = Monitor}.

with_tracer(Tracer, Fun, #state{traces = Traces} = S) ->
    case [Trace || #trace{tracer = T} = Trace <- maps:values(Traces), T =:= Tracer] of
        [Trace] -> Fun(Trace, S);
        [] -> S
    end.

store(#trace{id = Id} = Trace, #state{traces = Traces} = S) -> S#state{traces = Traces#{Id => Trace}}.

%% To the client, never waiting.

reply(Id, Result, S) -> post({beamtrace_reply, Id, Result}, S).

%% Not worth keeping while the connection is full.
hint(Message, #state{outbox = Outbox, client = Client} = S) ->
    _ = queue:is_empty(Outbox) andalso erlang:send(Client, Message, [nosuspend, noconnect]),
    S.

post(Message, #state{outbox = Outbox} = S) ->
    case queue:is_empty(Outbox) of
        true -> flush(S#state{outbox = queue:in(Message, Outbox)});
        false -> S#state{outbox = queue:in(Message, Outbox)}
    end.

flush(#state{outbox = Outbox, client = Client} = S) ->
    case queue:out(Outbox) of
        {empty, _} ->
            S;
        {{value, Message}, Rest} ->
            case erlang:send(Client, Message, [nosuspend, noconnect]) of
                nosuspend ->
                    _ = erlang:send_after(?OUTBOX_MS, self(), beamtrace_outbox),
                    S;
                _ ->
                    flush(S#state{outbox = Rest})
            end
    end.
