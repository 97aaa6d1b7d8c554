%% The sampling process: one a trace that is sampled or has an overhead budget, linked to the holder. It alone decides which processes
%% and ports of its trace carry flags: those whose erlang:phash2/1 lies below a threshold, so that a lower share is a subset of a higher one.
%% Each process is complete between its markers `process_traced` (or `spawned`) and `process_untraced` (or its exit); each change of the share
%% or of the kinds is a marker `sampling` (docs/agent-protocol.md, "Sampling").
-module(beamtrace_sampling).

-export([wanted/1, start/1, stop/1, init/2]).
-export([outside/2, everybody/0]).
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
-type threshold() :: 0..16#8000000.
%% Flags of processes and of ports, and kinds, that are left out together.
-type group() :: {Name :: atom(), [atom()], [atom()], non_neg_integer()}.

%% erlang:phash2/1 is below this.
-define(EVERYBODY, 16#8000000).
-define(PPM, 1000000).
%% A budget begins with about this many processes.
-define(FIRST_PROCESSES, 16).
%% Processes that are marked, then flagged, in one go.
-define(CHUNK, 256).
-define(REPORT_TICKS, 10).
%% The tracer's answer, and the VM's barrier, after which something is stuck.
-define(ANSWER_MS, 5000).
%% A ring without room for a marker.
-define(ROOM_TRIES, 50).
%% What this process costs the VM: a tick; a look at a process; a process whose flags and marker are set. Reckoned, not measured by the
%% clock: on a crowded machine most of the time that goes by is others'.
-define(TICK_COST_NS, 20000).
-define(LOOK_COST_NS, 150).
-define(SET_COST_NS, 800).
-define(KINDS(List), lists:foldl(fun(Kind, Mask) -> Mask bor (1 bsl Kind) end, 0, List)).
%% Places of the counters that the tracer keeps.
-define(COUNTERS, 5).
-define(FLUSH_MS, 50).

-record(state, {
    holder :: pid(),
    tracer :: pid(),
    handle :: beamtrace_session:handle(),
    %% State of the native tracer's callbacks.
    native :: non_neg_integer() | none,
    %% Whom to look at: all processes, or these.
    roots :: all | [pid()],
    new :: boolean(),
    inherit :: boolean(),
    %% `new`: who was there before.
    before = #{} :: #{pid() => true},
    ports :: all | existing | new | [port()],
    flags :: [atom()],
    port_flags :: [atom()],
    excluded :: #{pid() | port() => true},
    threshold = 0 :: threshold(),
    most :: threshold(),
    groups :: [group()],
    %% Left out, the last one first, with what they cost then, ns a second.
    shed = [] :: [{group(), non_neg_integer()}],
    mask :: non_neg_integer(),
    counters :: counters:counters_ref(),
    costs :: beamtrace_cost:costs() | unknown,
    budget = none :: none | beamtrace_budget:budget(),
    limit :: pos_integer() | infinity,
    %% What setting flags has cost so far, in ns.
    control = 0 :: non_neg_integer(),
    kinds = [] :: [non_neg_integer()],
    ticks = 0 :: non_neg_integer()
}).

%% Whether a trace needs this process.
-spec wanted(beamtrace_spec:spec()) -> boolean().
wanted(#{limits := #{overhead := Overhead}}) when is_integer(Overhead) -> true;
wanted(Spec) -> share(Spec) < ?PPM.

share(#{sampling := #{processes := Ppm}}) -> Ppm;
share(_) -> ?PPM.

-spec everybody() -> threshold().
everybody() -> ?EVERYBODY.

-spec outside(pid() | port(), threshold()) -> boolean().
outside(_, ?EVERYBODY) -> false;
outside(Item, Threshold) -> erlang:phash2(Item) >= Threshold.

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
init(Holder, #{spec := Spec} = Options) ->
    process_flag(sensitive, true),
    try open(Holder, Options) of
        S0 ->
            {Counts, S} = begin_trace(Spec, S0),
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
    #{flags := Flags, port_flags := PortFlags, kinds := Mask, limits := #{overhead := Limit}, ports := Ports} = Spec,
    {Roots, New} = beamtrace_targets:roots(Spec, Excluded),
    Native =
        case VmTracer of
            {beamtrace_nif, State} -> State;
            _ -> none
        end,
    Costs =
        case maps:get(costs, Options) of
            unknown when is_integer(Limit) -> beamtrace_cost:measure(Native =/= none);
            Known -> Known
        end,
    Counters = counters:new(?COUNTERS, []),
    Tracer ! {beamtrace_sampler, self(), Counters, least_ms(Limit)},
    {ProcessFlags, AllPortFlags} = beamtrace_targets:flags(Spec),
    #state{
        holder = Holder,
        tracer = Tracer,
        handle = Handle,
        native = Native,
        roots = Roots,
        new = New,
        inherit = [] =/= [F || F <- [set_on_spawn, set_on_first_spawn, set_on_link, set_on_first_link], lists:member(F, Flags)],
        before =
            case Spec of
                #{processes := new} when Native =:= none -> maps:from_keys(erlang:processes(), true);
                _ -> #{}
            end,
        ports =
            case Ports of
                none -> [];
                {ports, List} -> List;
                Which -> Which
            end,
        flags = ProcessFlags,
        port_flags =
            case PortFlags of
                [] -> [];
                _ -> AllPortFlags
            end,
        excluded = Excluded,
        most = threshold(share(Spec) / ?PPM),
        groups = [G || {_, F, P, K} = G <- groups(), K band Mask =/= 0, (F -- Flags) =/= F orelse (P -- PortFlags) =/= P],
        mask = Mask,
        counters = Counters,
        costs = Costs,
        limit = Limit
    }.

%% With a budget the tracer looks and sends less often: what that costs does not fall with the share.
least_ms(infinity) -> 0;
least_ms(_) -> ?FLUSH_MS.

threshold(Share) -> min(?EVERYBODY, max(1, round(Share * ?EVERYBODY))).

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
        {call, [call, return_to], [], ?KINDS([?KIND_CALL, ?KIND_RETURN_FROM, ?KIND_EXCEPTION_FROM, ?KIND_RETURN_TO])},
        {procs, [procs], [],
            ?KINDS([
                ?KIND_SPAWN, ?KIND_SPAWNED, ?KIND_EXIT, ?KIND_LINK, ?KIND_UNLINK, ?KIND_GETTING_LINKED,
                ?KIND_GETTING_UNLINKED, ?KIND_REGISTER, ?KIND_UNREGISTER
            ])}
    ].

begin_trace(#{ports := Ports}, #state{limit = Limit, most = Most} = S0) ->
    First =
        case Limit of
            infinity -> Most;
            _ -> max(least(S0), min(Most, threshold(?FIRST_PROCESSES / max(1, processes(S0)))))
        end,
    S1 = let_in(First, S0),
    %% New ones first: nobody is missed in between.
    _ = S1#state.new andalso beamtrace_session:process(S1#state.handle, new, true, S1#state.flags),
    _ = (Ports =:= all orelse Ports =:= new) andalso S1#state.port_flags =/= [] andalso
        beamtrace_session:port(S1#state.handle, new, true, S1#state.port_flags),
    {Processes, S2} = enlist(0, First, S1),
    S3 = announce(S2),
    Counts = {length([P || P <- Processes, is_pid(P)]), length([P || P <- Processes, is_port(P)])},
    {Counts, with_budget(S3)}.

with_budget(#state{limit = infinity} = S) ->
    S;
with_budget(#state{limit = Limit} = S) ->
    S#state{budget = beamtrace_budget:new(Limit, sample(S))}.

again(S) ->
    _ = erlang:send_after(beamtrace_budget:tick_ms(), self(), beamtrace_tick),
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

%% Portable tracer: processes that were born outside of the sample carry flags until here.
dismiss_born(Pids, #state{tracer = Tracer} = S) ->
    _ = [off(S, Pid) || Pid <- Pids],
    delivered(S),
    Tracer ! {beamtrace_unfilter, Pids},
    %% The share may have grown meanwhile.
    case [Pid || Pid <- Pids, is_process_alive(Pid), not outside(Pid, S#state.threshold)] of
        [] -> S;
        Late -> element(2, admit(Late, S))
    end.

%% The share.

set_share(Share, #state{threshold = Before, most = Most} = S) ->
    case min(Most, threshold(Share)) of
        Before -> S;
        To when To > Before -> raise(To, S);
        To -> lower(To, S)
    end.

raise(To, #state{threshold = From} = S) ->
    {_, S1} = enlist(From, To, let_in(To, S)),
    announce(S1).

lower(To, #state{threshold = From} = S) ->
    S1 = let_in(To, S),
    announce(dismiss(To, From, S1)).

%% From here on new processes below the threshold are traced, others are not. Native: nor are processes that run from now on.
let_in(To, #state{native = none, tracer = Tracer} = S) ->
    Tracer ! {beamtrace_threshold, To},
    _ = tell([], S),
    S#state{threshold = To};
let_in(To, #state{native = Native} = S) ->
    _ = beamtrace_nif:share(Native, To),
    S#state{threshold = To}.

%% Processes and ports that come in; returns them.
enlist(From, To, S) -> admit(members(From, To, S), looked(S)).

admit(Items, S) -> admit(Items, [], S).

admit([], Admitted, S) ->
    {Admitted, changed(Admitted, S)};
admit(Items, Admitted, S) ->
    {Now, Later} = lists:split(min(?CHUNK, length(Items)), Items),
    Told = tell([{process_traced, Item} || Item <- Now], S),
    Set = [{Item, on(S, Item)} || {_, Item} <- Told],
    %% They have ended meanwhile, or are another tool's on a legacy node.
    _ = tell([{process_untraced, Item} || {Item, 0} <- Set], S),
    admit(Later, [Item || {Item, 1} <- Set] ++ Admitted, S).

%% Those that go out. The native tracer's processes go by themselves, when they run next, and say so in their ring.
dismiss(From, To, #state{native = none} = S) ->
    Items = [Item || Item <- leaving(From, To, S), is_port(Item) orelse is_process_alive(Item)],
    Off = [Item || Item <- Items, off(S, Item) > 0],
    delivered(S),
    _ = tell([{process_untraced, Item} || Item <- Off], S),
    changed(Off, looked(S));
dismiss(From, To, S) ->
    Off = [Port || Port <- port_members(From, To, S), off(S, Port) > 0],
    _ = tell([{process_untraced, Port} || Port <- Off], S),
    changed(Off, S).

looked(#state{control = Control} = S) -> S#state{control = Control + processes(S) * ?LOOK_COST_NS}.

changed(Items, #state{control = Control} = S) -> S#state{control = Control + length(Items) * ?SET_COST_NS}.

members(From, To, #state{roots = Roots} = S) ->
    Processes =
        case Roots of
            all -> erlang:processes();
            List -> List
        end,
    between(Processes, From, To, S) ++ port_members(From, To, S).

%% Who may carry flags: also what was born or has inherited them since.
leaving(From, To, #state{roots = all} = S) ->
    members(From, To, S);
leaving(From, To, #state{new = false, inherit = false} = S) ->
    members(From, To, S);
leaving(From, To, #state{roots = Roots, before = Before, inherit = Inherit} = S) ->
    Others = [Pid || Pid <- between(erlang:processes(), From, To, S), not is_map_key(Pid, Before)],
    Flagged =
        case Inherit of
            true -> [Pid || Pid <- Others, beamtrace_session:flagged(S#state.handle, Pid)];
            false -> Others
        end,
    lists:usort(Flagged ++ between(Roots, From, To, S)) ++ port_members(From, To, S).

port_members(_, _, #state{port_flags = []}) -> [];
port_members(From, To, #state{ports = Ports} = S) when is_list(Ports) -> between(Ports, From, To, S);
port_members(From, To, S) -> between(erlang:ports(), From, To, S).

between(Items, From, To, #state{excluded = Excluded}) ->
    case [Item || Item <- Items, Hash <- [erlang:phash2(Item)], Hash >= From, Hash < To, not is_map_key(Item, Excluded)] of
        [] ->
            [];
        Found ->
            Ours = beamtrace_names:processes(),
            [Item || Item <- Found, not is_map_key(Item, Ours)]
    end.

on(#state{port_flags = []}, Port) when is_port(Port) -> 0;
on(#state{handle = Handle, port_flags = Flags}, Port) when is_port(Port) -> set(fun() -> beamtrace_session:port(Handle, Port, true, Flags) end);
on(#state{handle = Handle, flags = Flags}, Pid) -> set(fun() -> beamtrace_session:process(Handle, Pid, true, Flags) end).

off(#state{handle = Handle}, Port) when is_port(Port) -> set(fun() -> beamtrace_session:port(Handle, Port, false, [all]) end);
off(#state{handle = Handle}, Pid) -> set(fun() -> beamtrace_session:process(Handle, Pid, false, [all]) end).

set(Fun) ->
    try
        Fun()
    catch
        error:badarg -> 0
    end.

%% Everything so far is in the tracer's queue.
delivered(#state{handle = Handle}) ->
    Ref = beamtrace_session:delivered(Handle),
    receive
        {trace_delivered, all, Ref} -> ok
    after ?ANSWER_MS -> exit(no_barrier)
    end.

announce(#state{threshold = Threshold, mask = Mask} = S) ->
    _ = tell([{sampling, undefined, Threshold * ?PPM div ?EVERYBODY, Mask}], S),
    report(S).

%% Markers. When this returns they are in the stream before anything that happens afterwards; what found no room is left out of the result.
tell(Markers, #state{native = none, tracer = Tracer}) ->
    Ref = make_ref(),
    At = now_ns(),
    Tracer ! {beamtrace_markers, [wire(At, Marker) || Marker <- Markers], {self(), Ref}},
    receive
        {beamtrace_marked, Ref} -> Markers
    after ?ANSWER_MS -> exit(tracer_stuck)
    end;
tell(Markers, #state{native = Native}) ->
    [Marker || Marker <- Markers, mark(Native, Marker, ?ROOM_TRIES)].

wire(At, {Name, Item}) -> {At, Item, Name, 0, 0};
wire(At, {Name, undefined, A, B}) -> {At, 0, Name, A, B}.

mark(_, _, 0) ->
    false;
mark(Native, Marker, Tries) ->
    {Name, Item, A, B} =
        case Marker of
            {N, I} -> {N, I, 0, 0};
            Whole -> Whole
        end,
    case beamtrace_nif:mark(Native, Name, Item, A, B) of
        true ->
            true;
        false ->
            receive
            after 1 -> mark(Native, Marker, Tries - 1)
            end
    end.

%% The budget.

tick(#state{budget = Budget0} = S0) ->
    {Produced, S1} = produced(S0),
    {Action, Budget} = beamtrace_budget:step(sample(S1), situation(S1), Budget0),
    S2 = S1#state{budget = Budget, ticks = S1#state.ticks + 1},
    S3 =
        case Action of
            keep -> S2;
            {share, Share} -> set_share(Share, S2);
            shed -> shed(Produced, S2);
            restore -> restore(S2);
            {stop, Ppm} -> give_up(Ppm, S2)
        end,
    S4 = new_ports(S3),
    case S4#state.ticks rem ?REPORT_TICKS of
        0 -> report(S4);
        _ -> S4
    end.

-spec give_up(non_neg_integer(), #state{}) -> no_return().
give_up(Ppm, #state{holder = Holder, tracer = Tracer, limit = Limit}) ->
    Holder ! {beamtrace_limit, Tracer, {limit, overhead, Ppm, Limit}},
    %% The holder ends this process.
    receive
    after infinity -> exit(limit)
    end.

situation(#state{threshold = Threshold, most = Most, groups = Groups, shed = Shed} = S) ->
    #{
        share => Threshold / ?EVERYBODY,
        most => Most / ?EVERYBODY,
        least => least(S) / ?EVERYBODY,
        processes => processes(S),
        sheddable => length(Groups) > 1,
        restorable =>
            case Shed of
                [{_, Cost} | _] -> Cost;
                [] -> none
            end
    }.

processes(#state{roots = all}) -> erlang:system_info(process_count);
processes(#state{roots = Roots}) -> length(Roots).

%% One process is left: of a list the one that comes first, of all of them about one. A single one is not sampled.
least(#state{roots = all} = S) -> threshold(1 / max(1, processes(S)));
least(#state{roots = []}) -> 1;
least(#state{roots = [_], most = Most}) -> Most;
least(#state{roots = Roots}) -> lists:min([erlang:phash2(Pid) || Pid <- Roots]) + 1.

sample(#state{costs = Costs} = S) ->
    {Runtime, _} = erlang:statistics(runtime),
    Counts = counts(S),
    #{
        at => now_ns(),
        runtime => Runtime * 1000000,
        events => beamtrace_cost:of_events(Costs, maps:get(events, Counts)),
        fixed => beamtrace_cost:besides(Counts) + S#state.ticks * ?TICK_COST_NS,
        flags => S#state.control
    }.

counts(#state{native = none, counters = C}) ->
    #{
        events => counters:get(C, 1) + counters:get(C, 2),
        outside => counters:get(C, 4),
        looks => 0,
        messages => counters:get(C, 5)
    };
counts(#state{native = Native, counters = C}) ->
    case beamtrace_nif:produced(Native) of
        {Events, Outside, _} ->
            #{events => Events, outside => Outside, looks => counters:get(C, 3), messages => counters:get(C, 5)};
        false ->
            exit(trace_gone)
    end.

%% Events of each kind since the last tick.
produced(#state{native = none} = S) ->
    {[], S};
produced(#state{native = Native, kinds = Before} = S) ->
    case beamtrace_nif:produced(Native) of
        {_, _, Kinds} when Before =:= [] -> {Kinds, S#state{kinds = Kinds}};
        {_, _, Kinds} -> {lists:zipwith(fun(A, B) -> A - B end, Kinds, Before), S#state{kinds = Kinds}};
        false -> {[], S}
    end.

%% The kinds that come most often, or the first in order.
shed(Produced, #state{groups = Groups, shed = Shed, mask = Mask} = S) ->
    Often = [{often(Kinds, Produced, S), -I, G} || {I, {_, _, _, Kinds} = G} <- numbered(Groups)],
    {Count, _, {_, Flags, PortFlags, Kinds} = Group} = lists:max(Often),
    PerSecond = Count * 1000 div beamtrace_budget:tick_ms(),
    Cost = beamtrace_cost:of_events(S#state.costs, PerSecond),
    S1 = S#state{
        groups = lists:delete(Group, Groups),
        shed = [{Group, Cost} | Shed],
        mask = Mask band (bnot Kinds),
        flags = S#state.flags -- Flags,
        port_flags = S#state.port_flags -- PortFlags
    },
    S1#state.tracer ! {beamtrace_mask, S1#state.mask},
    clear(Flags, PortFlags, S1),
    announce(S1).

often(Kinds, [], S) -> often(Kinds, sampled_kinds(S), S);
often(Kinds, Produced, _) -> lists:sum([Count || {I, Count} <- numbered(Produced), Kinds band (1 bsl (I - 1)) =/= 0]).

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

clear(Flags, PortFlags, #state{handle = Handle, threshold = Threshold} = S) ->
    _ = S#state.new andalso clear_new(Handle, Flags),
    _ = PortFlags =/= [] andalso is_atom(S#state.ports) andalso set(fun() -> beamtrace_session:port(Handle, new, false, PortFlags) end),
    _ = [
        case Item of
            Port when is_port(Port) -> set(fun() -> beamtrace_session:port(Handle, Port, false, PortFlags) end);
            Pid -> set(fun() -> beamtrace_session:process(Handle, Pid, false, Flags) end)
        end
     || Item <- leaving(0, Threshold, S)
    ],
    ok.

%% Without `procs` nobody would know who is born: then new processes are left out altogether.
clear_new(Handle, Flags) ->
    case lists:member(procs, Flags) of
        true -> beamtrace_session:process(Handle, new, false, [all]);
        false -> beamtrace_session:process(Handle, new, false, Flags)
    end.

restore(#state{shed = [{{_, Flags, PortFlags, Kinds} = Group, _} | Shed], handle = Handle} = S) ->
    S1 = S#state{
        groups = [Group | S#state.groups],
        shed = Shed,
        mask = S#state.mask bor Kinds,
        flags = Flags ++ S#state.flags,
        port_flags = PortFlags ++ S#state.port_flags
    },
    S1#state.tracer ! {beamtrace_mask, S1#state.mask},
    _ = S1#state.new andalso lists:member(procs, S1#state.flags) andalso beamtrace_session:process(Handle, new, true, S1#state.flags),
    _ = [on(S1, Item) || Item <- leaving(0, S1#state.threshold, S1)],
    announce(S1).

%% Ports that were opened outside of the sample since the last time.
new_ports(#state{port_flags = [], ports = _} = S) ->
    S;
new_ports(#state{ports = Ports, threshold = Threshold, ticks = Ticks} = S) when
    is_atom(Ports), Threshold < ?EVERYBODY, Ticks rem ?REPORT_TICKS =:= 0
->
    _ = [off(S, Port) || Port <- port_members(Threshold, ?EVERYBODY, S)],
    S;
new_ports(S) ->
    S.

report(#state{holder = Holder, tracer = Tracer, threshold = Threshold, mask = Mask, budget = Budget} = S) ->
    Overhead =
        case Budget of
            none -> #{};
            _ -> #{overhead_ppm => beamtrace_budget:estimate(Budget), event_ns => beamtrace_cost:of_events(S#state.costs, 1)}
        end,
    Holder ! {beamtrace_sampled, Tracer, Overhead#{share_ppm => Threshold * ?PPM div ?EVERYBODY, kinds => Mask}},
    S.

now_ns() -> erlang:monotonic_time(nanosecond).
