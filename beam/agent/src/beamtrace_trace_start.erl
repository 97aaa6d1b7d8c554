%% How a trace begins: what it needs is started and set, in an order in which nothing is missed and nothing stays set when it fails. The
%% holder runs it, for beamtrace_traces, which has the trace from then on.
-module(beamtrace_trace_start).

-export([start/4, give_up_runtime/2]).
-export_type([room/0, started/0, costs/0]).

-include("beamtrace_schema.hrl").

-define(TAKE_OVER_MS, 2000).

%% What an event costs on this node, by tracer, with and without contents.
-type costs() :: #{{native | portable, Contents :: boolean()} => beamtrace_cost:costs()}.
%% The session that the trace is one of. `alone`: it has no other.
-type room() :: #{client := pid(), janitor := pid(), alone := boolean(), costs := costs()}.
-type started() :: #{
    handle := beamtrace_session:handle(),
    tracer := pid(),
    undo := [{beamtrace_session:mfargs(), [atom()]}],
    builds := beamtrace_runtime:builds() | none,
    watch := beamtrace_patterns:watch(),
    traced := non_neg_integer(),
    sampler := none | pid(),
    %% Processes and ports that are not to be seen, whose events may still be under way.
    excluded := [pid() | port()],
    costs := costs()
}.

-spec start(integer(), pid(), map(), room()) -> {ok, map(), started()} | {error, term()}.
start(TraceId, Mailbox, Spec, Room) ->
    try
        free(Spec, Room),
        set(TraceId, Mailbox, Spec, Room)
    catch
        throw:{beamtrace, Reason} -> {error, Reason}
    end.

%% Legacy session: one tool at a time. A trace of ours is not another tool's: it would be silenced and never know.
free(#{take_over := TakeOver}, #{alone := Alone}) ->
    case beamtrace_session:kind() of
        own ->
            ok;
        legacy when TakeOver, Alone ->
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

set(TraceId, Mailbox, Spec, #{janitor := Janitor} = Room) ->
    Excluded = excluded(Room),
    {Tracer, VmTracer} = start_tracer(Spec, tracer_options(TraceId, Mailbox, Spec, Excluded, Room)),
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
            enable(Spec, #{handle => Handle, tracer => Tracer, vm_tracer => VmTracer, spec => Spec, excluded => Excluded}, Room),
        follow_names(Handle, Spec, Excluded),
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
        {ok, Value, #{
            handle => Handle,
            tracer => Tracer,
            undo => Undo,
            builds => Builds,
            watch => Watch,
            traced => Processes + Ports,
            sampler => Sampler,
            excluded => maps:keys(Excluded),
            costs => Costs
        }}
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

-spec give_up_runtime(pid(), beamtrace_runtime:builds() | none) -> ok.
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

enable(#{flags := Flags} = Spec, Options, Room) ->
    case lists:member(garbage_collection, Flags) andalso beamtrace_session:gc_unsafe() of
        true ->
            %% One at a time, so that two sessions don't both find that all is well.
            Id = {beamtrace_gc, self()},
            true = global:set_lock(Id, [node()]),
            try
                case beamtrace_session:conflicting_gc(beamtrace_targets:gc_candidates(Spec)) of
                    none -> set_flags(Spec, Options, Room);
                    {conflict, Pid} -> throw({beamtrace, {gc_conflict, Pid}})
                end
            after
                global:del_lock(Id, [node()])
            end;
        false ->
            set_flags(Spec, Options, Room)
    end.

set_flags(Spec, #{handle := Handle, excluded := Excluded} = Options, #{costs := Costs}) ->
    case beamtrace_sampling:wanted(Spec) of
        true ->
            Kind = {maps:get(tracer, Spec, portable), beamtrace_spec:has_contents(Spec)},
            case beamtrace_sampling:start(Options#{costs => maps:get(Kind, Costs, unknown)}) of
                {ok, Sampler, Counts, unknown} -> {Sampler, Counts, Costs};
                {ok, Sampler, Counts, Measured} -> {Sampler, Counts, Costs#{Kind => Measured}};
                {error, Reason} -> throw({beamtrace, Reason})
            end;
        false ->
            {none, beamtrace_targets:enable(Handle, Spec, Excluded), Costs}
    end.

%% The connections of all clients of beamtrace, not only of ours: two sessions must not trace each other's.
excluded(#{client := Client}) ->
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

tracer_options(TraceId, Mailbox, #{limits := Limits, batch := Batch} = Spec, Excluded, #{client := Client}) ->
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
