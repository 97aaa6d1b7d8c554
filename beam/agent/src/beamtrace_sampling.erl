%% The sampling process: one a trace that is sampled or has an overhead budget, linked to the holder. It alone decides which processes
%% and ports of its trace carry flags: those whose erlang:phash2/1 lies below a threshold, so that a lower share is a subset of a higher one.
%% Each process is complete between its markers `process_traced` (or `spawned`) and `process_untraced` (or its exit); each change of the share
%% or of the kinds is a marker `sampling` (docs/agent-protocol.md, "Sampling").
-module(beamtrace_sampling).

-export([wanted/1, start/1, stop/1, init/2]).
-export_type([options/0]).

-include("beamtrace_schema.hrl").

-type options() :: #{
    handle := beamtrace_session:handle(),
    tracer := pid(),
    vm_tracer := beamtrace_session:tracer(),
    spec := beamtrace_spec:spec(),
    excluded := #{pid() | port() => true},
    costs := beamtrace_cost:costs() | unknown
}.
%% Flags of processes and of ports, and kinds, that are left out together.
-type group() :: {Name :: atom(), [atom()], [atom()], non_neg_integer()}.

-define(PPM, 1000000).
%% A budget begins with about this many processes.
-define(FIRST_PROCESSES, 16).
%% Messages of births that are seen to in one go.
-define(CHUNK, 256).
-define(REPORT_TICKS, 10).
-define(REPORT_MS, 2000).
%% Events of a new process in the sample, at least: `spawn`, `spawned`, links, `exit`, and a message or two.
-define(BIRTH_EVENTS, 8).
%% New processes that were left out come back by the worst of so many reports, of one or two seconds each: a quiet second among busy ones says nothing.
-define(LEFT_REPORTS, 5).
%% The tracer's answer, after which it is stuck.
-define(ANSWER_MS, 5000).
%% What this process costs the VM, besides its ticks: a look at a process; a process whose flags and marker are set. Reckoned, not measured by the
%% clock: on a crowded machine most of the time that goes by is others'.
-define(LOOK_COST_NS, 150).
-define(SET_COST_NS, 800).
-define(KINDS(List), lists:foldl(fun(Kind, Mask) -> Mask bor (1 bsl Kind) end, 0, List)).
%% Places of the counters that the tracer keeps.
-define(COUNTERS, 6).
-define(FLUSH_MS, 400).

-type counts() :: {beamtrace_cost:counts() | #{}, Kinds :: [non_neg_integer()]}.

-record(state, {
    holder :: pid(),
    tracer :: pid(),
    %% State of the native tracer's callbacks.
    native :: non_neg_integer() | none,
    sample :: beamtrace_sample:sample(),
    threshold = 0 :: beamtrace_sample:threshold(),
    most :: beamtrace_sample:threshold(),
    groups :: [group()],
    %% Left out, the last one first, with what they cost then, ns a second.
    shed = [] :: [{group(), non_neg_integer()}],
    %% While new processes are left out: what they would cost at the last reports, ns a second, newest first; and when how many had been started.
    left_new = none :: none | {[non_neg_integer()], At :: integer(), beamtrace_births:place()},
    mask :: non_neg_integer(),
    counters :: counters:counters_ref(),
    costs :: beamtrace_cost:costs() | unknown,
    budget = none :: none | beamtrace_budget:budget(),
    limit :: pos_integer() | infinity,
    %% What setting flags has cost so far, in ns.
    control = 0 :: non_neg_integer(),
    %% At this tick and at the one before.
    counts = {#{}, []} :: counts(),
    counts_before = {#{}, []} :: counts(),
    ticks = 0 :: non_neg_integer()
}).

%% Whether a trace needs this process.
-spec wanted(beamtrace_spec:spec()) -> boolean().
wanted(#{limits := #{overhead := Overhead}}) when is_integer(Overhead) -> true;
wanted(Spec) -> share(Spec) < ?PPM.

share(#{sampling := #{processes := Ppm}}) -> Ppm;
share(_) -> ?PPM.

%% Sets the first flags; returns how many processes and ports carry them, and what an event costs here.
-spec start(options()) ->
    {ok, pid(), {non_neg_integer(), non_neg_integer()}, beamtrace_cost:costs() | unknown} | {error, term()}.
start(Options) ->
    {Pid, Monitor} = spawn_opt(?MODULE, init, [self(), Options], [link, monitor, {message_queue_data, off_heap}]),
    receive
        {beamtrace_sampling, Pid, Result} ->
            true = erlang:demonitor(Monitor, [flush]),
            case Result of
                {ok, Counts, Costs} -> {ok, Pid, Counts, Costs};
                {error, Reason} -> {error, Reason}
            end;
        {'DOWN', Monitor, process, Pid, Reason} ->
            {error, {sampling, Reason}}
    end.

%% When this returns, the process sets no flag any more.
-spec stop(pid()) -> ok.
stop(Pid) ->
    true = unlink(Pid),
    Monitor = erlang:monitor(process, Pid),
    exit(Pid, kill),
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end,
    receive
        {'EXIT', Pid, _} -> ok
    after 0 -> ok
    end.

-spec init(pid(), options()) -> ok.
init(Holder, Options) ->
    process_flag(sensitive, true),
    try open(Holder, Options) of
        S0 ->
            {Counts, S} = begin_trace(S0),
            Holder ! {beamtrace_sampling, self(), {ok, Counts, S#state.costs}},
            case S#state.budget of
                none -> loop(S);
                _ -> loop(report(again(S)))
            end
    catch
        throw:{beamtrace, Reason} ->
            true = unlink(Holder),
            Holder ! {beamtrace_sampling, self(), {error, Reason}},
            ok
    end.

open(Holder, #{handle := Handle, tracer := Tracer, vm_tracer := VmTracer, spec := Spec, excluded := Excluded} = Options) ->
    #{flags := Flags, port_flags := PortFlags, kinds := Mask, limits := #{overhead := Limit}} = Spec,
    Native =
        case VmTracer of
            {beamtrace_nif, State} -> State;
            _ -> none
        end,
    Sample = beamtrace_sample:new(Handle, Tracer, Native, Spec, Excluded),
    Costs =
        case maps:get(costs, Options) of
            unknown when is_integer(Limit) -> beamtrace_cost:measure(Native =/= none, beamtrace_spec:has_contents(Spec));
            Known -> Known
        end,
    Counters = counters:new(?COUNTERS, []),
    Tracer ! {beamtrace_sampler, self(), Counters, least_ms(Limit)},
    #state{
        holder = Holder,
        tracer = Tracer,
        native = Native,
        sample = Sample,
        most = beamtrace_sample:threshold(share(Spec) / ?PPM),
        groups = groups(Flags, PortFlags, Mask),
        mask = Mask,
        counters = Counters,
        costs = Costs,
        limit = Limit
    }.

%% With a budget the tracer looks and sends less often: what that costs does not fall with the share.
least_ms(infinity) -> 0;
least_ms(_) -> ?FLUSH_MS.

%% What of each is traced: only that is left out, and comes back.
groups(Flags, PortFlags, Mask) ->
    [
        {Name, Of, OfPorts, Kinds band Mask}
     || {Name, All, AllOfPorts, Kinds} <- groups(),
        Of <- [[Flag || Flag <- All, lists:member(Flag, Flags)]],
        OfPorts <- [[Flag || Flag <- AllOfPorts, lists:member(Flag, PortFlags)]],
        Kinds band Mask =/= 0,
        Of =/= [] orelse OfPorts =/= []
    ].

%% In the order in which kinds are left out when nothing is known of how often they come.
-spec groups() -> [group()].
groups() ->
    [
        {running, [running], [], ?KINDS([?KIND_IN, ?KIND_OUT])},
        {exiting, [exiting], [], ?KINDS([?KIND_IN_EXITING, ?KIND_OUT_EXITING, ?KIND_OUT_EXITED])},
        {ports, [], [ports, running_ports], ?KINDS([?KIND_PORT_IN, ?KIND_PORT_OUT, ?KIND_OPEN, ?KIND_CLOSED])},
        {'receive', ['receive'], ['receive'], ?KINDS([?KIND_RECEIVE])},
        {send, [send], [send], ?KINDS([?KIND_SEND, ?KIND_SEND_TO_NON_EXISTING_PROCESS])},
        {garbage_collection, [garbage_collection], [],
            ?KINDS([?KIND_GC_MINOR_START, ?KIND_GC_MINOR_END, ?KIND_GC_MAJOR_START, ?KIND_GC_MAJOR_END, ?KIND_GC_MAX_HEAP_SIZE])},
        {call, [call, return_to], [], 
            ?KINDS([
                ?KIND_CALL, ?KIND_RETURN_FROM, ?KIND_EXCEPTION_FROM, ?KIND_RETURN_TO,
                ?KIND_FUNCTION_ENTRY, ?KIND_FUNCTION_RETURN, ?KIND_FUNCTION_TAIL_CALL, ?KIND_FUNCTION_EXCEPTION
            ])},
        {procs, [procs], [],
            ?KINDS([
                ?KIND_SPAWN, ?KIND_SPAWNED, ?KIND_EXIT, ?KIND_LINK, ?KIND_UNLINK, ?KIND_GETTING_LINKED,
                ?KIND_GETTING_UNLINKED, ?KIND_REGISTER, ?KIND_UNREGISTER
            ])}
    ].

begin_trace(#state{limit = Limit, most = Most, sample = Sample} = S0) ->
    First =
        case Limit of
            infinity -> Most;
            _ -> max(least(S0), min(Most, beamtrace_sample:threshold(?FIRST_PROCESSES / max(1, processes(S0)))))
        end,
    beamtrace_sample:let_in(First, Sample),
    %% New ones first: nobody is missed in between.
    _ = beamtrace_sample:begin_new(Sample),
    Items = beamtrace_sample:enlist(0, First, Sample),
    S = announce(changed(Items, looked(S0#state{threshold = First}))),
    Counts = {length([P || P <- Items, is_pid(P)]), length([P || P <- Items, is_port(P)])},
    {Counts, with_budget(S)}.

with_budget(#state{limit = infinity} = S) ->
    S;
with_budget(#state{limit = Limit} = S0) ->
    S = counted(S0),
    S#state{budget = beamtrace_budget:new(Limit, sample(S))}.

again(#state{budget = Budget} = S) ->
    _ = erlang:send_after(beamtrace_rings:until(beamtrace_budget:tick_ms(Budget)), self(), beamtrace_tick),
    S.

loop(S) ->
    receive
        beamtrace_tick ->
            loop(again(tick(S)));
        {beamtrace_born, Pid} ->
            %% Those that come together go together.
            loop(dismiss_born(born([Pid], 1), S));
        _ ->
            loop(S)
    end.

born(Pids, ?CHUNK) ->
    Pids;
born(Pids, Count) ->
    receive
        {beamtrace_born, Pid} -> born([Pid | Pids], Count + 1)
    after 0 -> Pids
    end.

%% The share may have grown meanwhile.
dismiss_born(Pids, #state{sample = Sample, threshold = Threshold} = S) ->
    beamtrace_sample:dismiss_born(Pids, Sample),
    Late = [Pid || Pid <- Pids, is_process_alive(Pid), not beamtrace_sample:outside(Pid, Threshold)],
    changed(beamtrace_sample:admit(Late, Sample), S).

%% The share.

set_share(Share, #state{threshold = Before, most = Most, sample = Sample} = S) ->
    case min(Most, beamtrace_sample:threshold(Share)) of
        Before ->
            S;
        To ->
            beamtrace_sample:let_in(To, Sample),
            Items =
                case To > Before of
                    true -> beamtrace_sample:enlist(Before, To, Sample);
                    false -> beamtrace_sample:dismiss(To, Before, Sample)
                end,
            announce(changed(Items, looked(S#state{threshold = To})))
    end.

looked(#state{control = Control} = S) -> S#state{control = Control + processes(S) * ?LOOK_COST_NS}.

changed(Items, #state{control = Control} = S) -> S#state{control = Control + length(Items) * ?SET_COST_NS}.

announce(#state{mask = Mask, sample = Sample} = S) ->
    _ = beamtrace_sample:tell([{sampling, undefined, ppm(S), Mask}], Sample),
    report(S).

ppm(#state{threshold = Threshold}) -> Threshold * ?PPM div beamtrace_sample:everybody().

%% The budget.

tick(#state{budget = Budget0} = S0) ->
    S1 = counted(S0),
    {Action, Budget} = beamtrace_budget:step(sample(S1), situation(S1), Budget0),
    S2 = S1#state{budget = Budget, ticks = S1#state.ticks + 1},
    S3 =
        case Action of
            keep -> S2;
            {share, Share} -> set_share(Share, S2);
            leave_new -> leave_new(S2);
            begin_new -> begin_new(S2);
            shed -> shed(S2);
            restore -> restore(S2);
            {stop, Ppm} -> give_up(Ppm, S2)
        end,
    case S3#state.ticks rem report_ticks(Budget) of
        0 ->
            beamtrace_sample:dismiss_ports(S3#state.threshold, S3#state.sample),
            report(still_left(S3));
        _ ->
            S3
    end.

report_ticks(Budget) -> max(1, min(?REPORT_TICKS, ?REPORT_MS div beamtrace_budget:tick_ms(Budget))).

-spec give_up(non_neg_integer(), #state{}) -> no_return().
give_up(Ppm, #state{holder = Holder, tracer = Tracer, limit = Limit}) ->
    Holder ! {beamtrace_limit, Tracer, {limit, overhead, Ppm, Limit}},
    %% The holder ends this process.
    receive
    after infinity -> exit(limit)
    end.

situation(#state{threshold = Threshold, most = Most, groups = Groups, shed = Shed, sample = Sample, left_new = Left} = S) ->
    Everybody = beamtrace_sample:everybody(),
    New = beamtrace_sample:is_new(Sample),
    #{
        share => Threshold / Everybody,
        most => Most / Everybody,
        least => least(S) / Everybody,
        processes => processes(S),
        new => New,
        left_new =>
            case Left of
                {Costs, _, _} -> lists:max(Costs);
                none -> none
            end,
        sheddable => New orelse length(Groups) > 1,
        restorable =>
            case Shed of
                [{_, Then} | _] -> Then;
                [] -> none
            end
    }.

processes(#state{sample = Sample}) -> beamtrace_sample:processes(Sample).

least(#state{most = Most, sample = Sample}) -> beamtrace_sample:least(Most, Sample).

sample(#state{costs = Costs, counts = {Counts, _}} = S) ->
    {Runtime, _} = erlang:statistics(runtime),
    #{
        at => erlang:monotonic_time(nanosecond),
        runtime => Runtime * 1000000,
        events => beamtrace_cost:of_events(Costs, maps:get(events, Counts)) + beamtrace_cost:of_contents(Costs, maps:get(contents, Counts)),
        births => beamtrace_cost:of_births(Costs, maps:get(outside, Counts)),
        fixed => beamtrace_cost:besides(Counts) + S#state.ticks * beamtrace_budget:tick_ns(),
        flags => S#state.control
    }.

counted(#state{counts = Before} = S) -> S#state{counts = counts(S), counts_before = Before}.

%% Since the start; native: and events of each kind.
counts(#state{native = none, counters = C}) ->
    {#{
        events => counters:get(C, 1) + counters:get(C, 2),
        outside => counters:get(C, 4),
        looks => 0,
        messages => counters:get(C, 5),
        contents => counters:get(C, 6)
    }, []};
counts(#state{native = Native, counters = C}) ->
    case beamtrace_nif:produced(Native) of
        {Events, Outside, Contents, Kinds} ->
            {#{
                events => Events,
                outside => Outside,
                looks => counters:get(C, 3),
                messages => counters:get(C, 5),
                contents => Contents
            }, Kinds};
        false ->
            exit(trace_gone)
    end.

%% What is left out. New processes are a kind of cost by themselves: one that is not in the sample costs the VM as much as two events, or more.
%% Without `procs` nobody would know of them, so they go before it.

leave_new(#state{sample = Sample} = S) ->
    Left = {[births_cost(S)], erlang:monotonic_time(nanosecond), beamtrace_births:number()},
    announce_new(S#state{sample = beamtrace_sample:leave_new(Sample), left_new = Left}).

%% Those that have come meanwhile come in, too.
begin_new(#state{sample = Sample0, threshold = Threshold} = S) ->
    Sample = beamtrace_sample:begin_new(Sample0),
    Items = beamtrace_sample:enlist(0, Threshold, Sample),
    announce_new(changed(Items, looked(S#state{sample = Sample, left_new = none}))).

%% What new processes would cost by now.
still_left(#state{left_new = none} = S) ->
    S;
still_left(#state{left_new = {Former, Before, Number}, costs = Costs, threshold = Threshold} = S) ->
    {Now, Last} = {erlang:monotonic_time(nanosecond), beamtrace_births:number()},
    PerSecond = beamtrace_births:since(Number, Last) * 1000000000 div max(1, Now - Before),
    Events = PerSecond * ?BIRTH_EVENTS * Threshold div beamtrace_sample:everybody(),
    Cost = beamtrace_cost:of_births(Costs, PerSecond) + beamtrace_cost:of_events(Costs, Events),
    S#state{left_new = {lists:sublist([Cost | Former], ?LEFT_REPORTS), Now, Last}}.

%% Of the last tick, ns a second.
births_cost(#state{counts = {Now, _}, counts_before = {Before, _}, costs = Costs} = S) ->
    beamtrace_cost:of_births(Costs, per_second(maps:get(outside, Now) - maps:get(outside, Before), S)).

per_second(Count, #state{budget = Budget}) -> Count * 1000 div beamtrace_budget:tick_ms(Budget).

%% What costs most, or the first in order.
shed(#state{groups = Groups, sample = Sample} = S) ->
    Produced = produced(S),
    Often = [{often(Kinds, Produced), -I, G} || {I, {_, _, _, Kinds} = G} <- numbered(Groups)],
    {Count, _, {Name, _, _, _} = Group} = lists:max(Often),
    Cost = beamtrace_cost:of_events(S#state.costs, per_second(Count, S)),
    case beamtrace_sample:is_new(Sample) andalso (Name =:= procs orelse length(Groups) =:= 1 orelse births_cost(S) >= max(1, Cost)) of
        true -> leave_new(S);
        false -> shed(Group, Cost, S)
    end.

shed({_, Flags, PortFlags, Kinds} = Group, Cost, #state{groups = Groups, shed = Shed, mask = Mask} = S0) ->
    S = S0#state{groups = lists:delete(Group, Groups), shed = [{Group, Cost} | Shed], mask = Mask band (bnot Kinds)},
    S#state.tracer ! {beamtrace_mask, S#state.mask},
    announce(S#state{sample = beamtrace_sample:take_flags(Flags, PortFlags, S#state.threshold, S#state.sample)}).

%% Events of each kind since the last tick.
produced(#state{native = none} = S) -> sampled_kinds(S);
produced(#state{counts = {_, Kinds}, counts_before = {_, Before}}) -> lists:zipwith(fun(A, B) -> A - B end, Kinds, Before).

often(Kinds, Produced) -> lists:sum([Count || {I, Count} <- numbered(Produced), Kinds band (1 bsl (I - 1)) =/= 0]).

%% OTP 25 has no lists:enumerate/1 in all its releases.
numbered(List) -> lists:zip(lists:seq(1, length(List)), List).

%% Portable tracer: of the last batch.
sampled_kinds(#state{tracer = Tracer}) ->
    Ref = make_ref(),
    Tracer ! {beamtrace_kinds, {self(), Ref}},
    receive
        {beamtrace_kinds, Ref, Kinds} -> Kinds
    after ?ANSWER_MS -> exit(tracer_stuck)
    end.

restore(#state{shed = [{{_, Flags, PortFlags, Kinds} = Group, _} | Shed]} = S) ->
    S1 = S#state{groups = [Group | S#state.groups], shed = Shed, mask = S#state.mask bor Kinds},
    S1#state.tracer ! {beamtrace_mask, S1#state.mask},
    Sample = beamtrace_sample:give_flags(Flags, PortFlags, S#state.threshold, S#state.sample),
    announce(S1#state{sample = Sample}).

report(#state{holder = Holder, tracer = Tracer, mask = Mask, budget = Budget} = S) ->
    Overhead =
        case Budget of
            none -> #{};
            _ ->
                #{
                    overhead_ppm => beamtrace_budget:estimate(Budget),
                    event_ns => beamtrace_cost:of_events(S#state.costs, 1),
                    birth_ns => beamtrace_cost:of_births(S#state.costs, 1)
                }
        end,
    Holder ! {beamtrace_sampled, Tracer, Overhead#{share_ppm => ppm(S), kinds => Mask, new_left => new_left(S)}},
    S.

announce_new(#state{sample = Sample} = S) ->
    _ = beamtrace_sample:tell([{sampling_new, undefined, 1 - new_left(S), 0}], Sample),
    report(S).

new_left(#state{left_new = none}) -> 0;
new_left(_) -> 1.
