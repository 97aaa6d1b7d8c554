%% The flight recorder's process (docs/flight-recorder.md): the rings stay full and nothing is shipped; when a trigger has fired, the last
%% seconds are read out of them, without taking them, and offered to the client, which fetches them as a stream of their own
%% (docs/agent-protocol.md, "Flight recorder"). One process a recorder, linked to the holder; to the holder it is what beamtrace_tracer is.
-module(beamtrace_recorder).

-export([start/2, init/2, follow/3, flag/2]).
-export_type([options/0]).

-include("beamtrace_schema.hrl").

-type trigger() :: {pos_integer(), exit | call | {message, atom()} | {alarm, beamtrace_alarms:alarm()}}.
-type options() :: #{
    bytes := pos_integer(),
    keep_ns := pos_integer() | infinity,
    after_ns := non_neg_integer(),
    interval_ns := non_neg_integer(),
    triggers := [trigger()]
}.

-define(RECORD_BYTES, 64).
-define(CAPACITY_MAX, 1048576).
-define(CAPACITY_MIN, 64).
%% Records that an event with contents is allowed for.
-define(CONTENTS_FACTOR, 8).
%% How often the rings are looked at; oftener when they would turn over within four looks, less often under an overhead budget.
-define(LOOK_MS, 100).
-define(RETRY_MS, 5).
-define(LAST_RETRIES, 400).
%% A recording that the client does not fetch within this time is dropped.
-define(FETCH_NS, 60000000000).
%% CPU that an event costs the VM while nothing is shipped: bench/server, on the slow side of what was measured.
-define(COST_NS, 600).
%% Number of the trigger that is the client itself.
-define(CLIENT, 0).

-record(recording, {
    number :: pos_integer(),
    taken :: integer(),
    %% Where to ship it: known when the client has asked for it.
    mailbox = none :: none | pid(),
    messages :: beamtrace_window:messages()
}).

-record(state, {
    id :: integer(),
    holder :: pid(),
    trace :: beamtrace_nif:trace(),
    base :: integer(),
    contents :: boolean(),
    capacity :: pos_integer(),
    ring_bytes :: pos_integer(),
    options :: options(),
    alarms = none :: beamtrace_alarms:alarms(),
    meter :: beamtrace_limits:meter(),
    %% Slots of names, their triggers, and the processes that had the names at the last look.
    names :: [{0..7, pos_integer(), atom(), pid() | none}],
    armed = false :: boolean(),
    %% Not before this, in ns since the base.
    arm_at = 0 :: integer(),
    suppressed = 0 :: non_neg_integer(),
    %% Of all that was suppressed, what was told with a recording.
    told = 0 :: non_neg_integer(),
    %% What the callbacks had suppressed at the last look.
    refused = 0 :: non_neg_integer(),
    %% A trigger whose time after it is not over.
    due = none :: none | {Until :: integer(), fired()},
    snapshots = [] :: [integer()],
    recording = none :: none | #recording{},
    recordings = 0 :: non_neg_integer(),
    written = 0 :: non_neg_integer(),
    lost = 0 :: non_neg_integer(),
    filtered = 0 :: non_neg_integer(),
    shipped = 0 :: non_neg_integer(),
    looked = 0 :: integer(),
    pace = 0 :: non_neg_integer(),
    look_ms = ?LOOK_MS :: pos_integer(),
    %% Where looks are counted, for the overhead budget.
    counters = none :: none | counters:counters_ref(),
    %% Newest first.
    losses = [] :: [beamtrace_window:loss()],
    history = [{0, 0}] :: beamtrace_window:history()
}).

%% Number of the trigger, when, where, and what the system monitor says.
-type fired() :: {non_neg_integer(), integer(), pid() | port() | none, term()}.

%% The process, and the tracer for the VM.
-spec start(beamtrace_tracer:options(), options()) -> {ok, pid(), {module(), non_neg_integer()}} | {error, term()}.
start(#{limits := Limits} = Options, Recorder) -> beamtrace_rings:start(recorder, {Options, Recorder}, Limits).

-spec init(pid(), {beamtrace_tracer:options(), options()}) -> ok.
init(Holder, {Options, Recorder}) ->
    try open(Holder, Options, Recorder) of
        {ok, State, S} ->
            beamtrace_rings:began(Holder, State),
            loop(S);
        {error, Reason} ->
            beamtrace_rings:refuse(Holder, Reason)
    catch
        error:beamtrace_nif -> beamtrace_rings:refuse(Holder, {native, not_loaded})
    end.

open(Holder, Options, #{triggers := Triggers} = Recorder) ->
    case beamtrace_alarms:start([Alarm || {_, {alarm, Alarm}} <- Triggers]) of
        {ok, Alarms} -> open(Holder, Options, Recorder, Alarms);
        {error, Reason} -> {error, Reason}
    end.

open(Holder, #{limits := Limits} = Options, #{bytes := Bytes, triggers := Triggers} = Recorder, Alarms) ->
    Rings = erlang:system_info(schedulers),
    Capacity = capacity(Bytes div ((Rings + 1) * ?RECORD_BYTES), ?CAPACITY_MIN),
    #{mask := Mask, mode := Mode, scheduler := Scheduler, client_node := Node, filter := Filter} = Options,
    Ours = {Holder, Node, [beamtrace_nif | beamtrace_names:modules()]},
    case beamtrace_nif:open(Rings, Capacity, {beamtrace_contents:wanted(Mode), Scheduler, Mask}, Ours) of
        {Trace, State, Base} ->
            ok = beamtrace_nif:overwrite(Trace),
            ok = beamtrace_rings:touch(Trace, Limits),
            _ = [beamtrace_nif:filter(Trace, Item, true) || Item <- maps:keys(Filter)],
            _ = [ok = beamtrace_nif:trigger(Trace, exit, none, Number) || {Number, exit} <- Triggers],
            Instrumented = beamtrace_native:instrumented(Trace, Options),
            S = #state{
                id = maps:get(id, Options),
                holder = Holder,
                trace = Trace,
                base = Base,
                contents = is_tuple(Mode),
                %% Of events with contents as many as fit for certain, about.
                capacity = if is_tuple(Mode) -> Capacity div ?CONTENTS_FACTOR; true -> Capacity end,
                ring_bytes = (Rings + 1) * Capacity * ?RECORD_BYTES,
                options = Recorder,
                alarms = Alarms,
                meter = beamtrace_limits:meter(Limits, ?COST_NS),
                names = names(Triggers)
            },
            case Instrumented of
                true ->
                    {ok, State, arm(named(S))};
                false ->
                    ok = beamtrace_alarms:stop(Alarms),
                    {error, {native, too_many_processes}}
            end;
        {error, Reason} ->
            ok = beamtrace_alarms:stop(Alarms),
            {error, {native, Reason}}
    end.

%% The greatest power of two that is not above the bound.
capacity(Bound, Capacity) when Capacity * 2 =< Bound, Capacity < ?CAPACITY_MAX -> capacity(Bound, Capacity * 2);
capacity(_, Capacity) -> Capacity.

names(Triggers) ->
    Named = [{Number, Name} || {Number, {message, Name}} <- Triggers],
    [{Slot, Number, Name, none} || {Slot, {Number, Name}} <- lists:zip(lists:seq(0, length(Named) - 1), Named)].

%% For the holder: the processes of the names get the flag, before the client hears that the recorder runs.
-spec follow(beamtrace_session:handle(), options(), #{pid() | port() => true}) -> ok.
follow(Handle, #{triggers := Triggers}, Excluded) ->
    _ = [
        flag(Handle, Pid)
     || {_, {message, Name}} <- Triggers, Pid <- [whereis(Name)], is_pid(Pid), not is_map_key(Pid, Excluded)
    ],
    ok.

-spec flag(beamtrace_session:handle(), pid()) -> ok.
flag(Handle, Pid) ->
    try
        _ = beamtrace_names:is_agent_process(Pid) orelse beamtrace_session:process(Handle, Pid, true, ['receive']),
        ok
    catch
        %% It has ended, or is another tool's.
        error:badarg -> ok
    end.

loop(S) ->
    receive
        Message -> loop(not_late(control(Message, S)))
    after wait(S) -> loop(tick(S))
    end.

%% However many messages come (a storm of alarms), the rings are looked at in time.
not_late(#state{looked = Looked} = S) ->
    case now_ns(S) - Looked > 2000000 * pace_ms(S) of
        true -> tick(S);
        false -> S
    end.

wait(#state{recording = #recording{mailbox = Mailbox}}) when is_pid(Mailbox) -> ?RETRY_MS;
wait(#state{due = {Until, _}} = S) -> max(0, min(pace_ms(S), (Until - now_ns(S)) div 1000000 + 1));
wait(S) -> beamtrace_rings:until(pace_ms(S)).

pace_ms(#state{pace = Pace, capacity = Capacity, look_ms = LookMs}) -> max(1, min(LookMs, Capacity * 250 div max(1, Pace))).

now_ns(#state{base = Base}) -> erlang:monotonic_time(nanosecond) - Base.

tick(S) -> next(ship(look(S))).

%% One look at the triggers and the counters.
look(#state{trace = Trace, base = Base, looked = Looked, written = Before, options = #{keep_ns := Keep}} = S) ->
    {Fired, Written, Lost, Refused, Filtered, Now, News} = beamtrace_nif:look(Trace),
    _ = S#state.counters =:= none orelse counters:add(S#state.counters, 3, 1),
    S1 = news(News, S#state{
        written = Written,
        filtered = S#state.filtered + Filtered,
        suppressed = S#state.suppressed + Refused - S#state.refused,
        refused = Refused,
        pace = (Written - Before + Lost) * 1000000000 div max(1, Now - Looked),
        looked = Now,
        history = beamtrace_window:history(Now, Written, Keep, S#state.history)
    }),
    S2 = named(lost(Lost, Looked, Now, S1)),
    seen(Fired, measure(Base + Now, S2)).

lost(0, _, _, S) ->
    S;
lost(Count, From, To, #state{losses = Losses, lost = Lost} = S) ->
    S#state{losses = beamtrace_window:losses({Count, From, To}, Losses), lost = Lost + Count}.

news([], S) ->
    S;
news([Pid | News], #state{holder = Holder} = S) ->
    Holder ! {beamtrace_untrace, self(), Pid},
    news(News, S).

%% Names may have changed hands.
named(#state{names = []} = S) -> S;
named(#state{names = Names} = S) -> S#state{names = [name(Named, S) || Named <- Names]}.

name({Slot, Number, Name, Had}, #state{trace = Trace, holder = Holder}) ->
    case whereis(Name) of
        Had ->
            {Slot, Number, Name, Had};
        Pid when is_pid(Pid) ->
            ok = beamtrace_nif:trigger(Trace, Slot, Pid, Number),
            Holder ! {beamtrace_follow, self(), Pid},
            {Slot, Number, Name, Pid};
        _ when Had =:= none ->
            {Slot, Number, Name, none};
        _ ->
            ok = beamtrace_nif:trigger(Trace, Slot, none, Number),
            {Slot, Number, Name, none}
    end.

measure(Now, #state{written = Written, lost = Lost, filtered = Filtered, meter = Meter} = S) ->
    case beamtrace_limits:measure(Now, Written + Lost, Filtered, 0, Meter) of
        {ok, Meter1} ->
            S#state{meter = Meter1};
        {tripped, Reason, Meter1} ->
            S#state.holder ! {beamtrace_limit, self(), Reason},
            S#state{meter = Meter1}
    end.

seen(none, S) -> S;
seen({Number, Stamp, Process}, S) -> fired({Number, Stamp, Process, none}, S).

%% The first one since the recorder was armed is kept; what comes meanwhile is counted.
-spec fired(fired(), #state{}) -> #state{}.
fired({_, Stamp, _, _} = Fired, #state{armed = true, options = #{after_ns := After}} = S) ->
    S#state{armed = false, due = {Stamp + After, Fired}};
fired(_, #state{suppressed = Suppressed} = S) ->
    S#state{suppressed = Suppressed + 1}.

%% What can be done now: a window whose time has come, a snapshot, arming again.
next(#state{recording = #recording{mailbox = none, taken = Taken}} = S) ->
    case now_ns(S) - Taken > ?FETCH_NS of
        true -> next(S#state{recording = none});
        false -> S
    end;
next(#state{recording = #recording{}} = S) ->
    S;
next(#state{due = {Until, Fired}, options = #{interval_ns := Interval}} = S) ->
    case now_ns(S) > Until of
        true ->
            {_, Stamp, _, _} = Fired,
            S1 = keep(Fired, Until, S#state{due = none, arm_at = Stamp + Interval}),
            S1;
        false ->
            S
    end;
next(#state{snapshots = [_ | _] = Ids} = S) ->
    Now = now_ns(S),
    #state{recordings = Number} = S1 = keep({?CLIENT, Now, none, none}, Now, S#state{snapshots = []}),
    _ = [answer(Id, {ok, Number}, S1) || Id <- Ids],
    S1;
next(#state{armed = false, arm_at = At} = S) ->
    case now_ns(S) >= At of
        true -> arm(S);
        false -> S
    end;
next(S) ->
    S.

arm(#state{trace = Trace} = S) ->
    ok = beamtrace_nif:arm(Trace),
    S#state{armed = true}.

%% Reads the window up to `To` and offers it. The barrier makes sure that what schedulers were writing at that time is there as well.
keep({Trigger, Stamp, Process, Info}, To, #state{trace = Trace, base = Base, contents = Contents, options = #{keep_ns := Keep}} = S0) ->
    Wanted = if is_integer(Keep) -> max(0, Stamp - Keep); true -> 0 end,
    {Start, Before, _} = beamtrace_nif:window(Trace, Wanted, To),
    {First, Gone0} = beamtrace_window:read(Trace, Contents),
    Barrier = beamtrace_rings:barrier(),
    {Late, Gone1} = beamtrace_window:read(Trace, Contents),
    {Batches, Gone} = {First ++ Late, Gone0 + Gone1},
    #state{losses = Losses} = S = look(S0),
    Gaps = beamtrace_window:missing(Keep, Wanted, Start, Before, S#state.history) ++ beamtrace_window:gaps(Start, To, Gone, Losses),
    Number = S#state.recordings + 1,
    Lost = beamtrace_window:lost(Start, To, Losses),
    Header = #{
        trigger => Trigger,
        at => Base + Stamp,
        process => Process,
        info => Info,
        from => Base + Start,
        to => Base + To,
        events => beamtrace_window:events(Batches),
        contents => beamtrace_window:contents_bytes(Batches),
        before => Before,
        lost => Gone + Lost,
        lost_before => S#state.lost - Lost,
        complete => Barrier andalso Gaps =:= [],
        suppressed => S#state.suppressed - S#state.told,
        recorded => S#state.written
    },
    S#state.holder ! {beamtrace_recording, self(), Number, Header},
    S#state{
        recordings = Number,
        told = S#state.suppressed,
        recording = #recording{number = Number, taken = To, messages = beamtrace_window:messages(Gaps, Batches, S#state.id, Base)}
    }.

%% Sends what the connection takes.
ship(#state{recording = #recording{mailbox = Mailbox, messages = Messages} = R, shipped = Shipped} = S) when is_pid(Mailbox) ->
    case queue:out(Messages) of
        {empty, _} ->
            %% Its binaries must not wait for the next collection.
            true = erlang:garbage_collect(),
            S#state{recording = none};
        {{value, {Message, Events}}, Rest} ->
            case erlang:send(Mailbox, Message, [nosuspend, noconnect]) of
                ok -> ship(S#state{recording = R#recording{messages = Rest}, shipped = Shipped + Events});
                nosuspend -> S;
                %% The connection has closed; the holder hears of it by itself.
                noconnect -> S#state{recording = none}
            end
    end;
ship(S) ->
    S.

control({monitor, Pid, Event, Info}, #state{options = #{triggers := Triggers}} = S) ->
    case [Number || {Number, {alarm, {E, _}}} <- Triggers, E =:= Event] of
        [Number | _] ->
            case is_pid(Pid) andalso beamtrace_names:is_agent_process(Pid) of
                true -> S;
                false -> next(fired({Number, now_ns(S), Pid, {Event, Info}}, S))
            end;
        [] ->
            S
    end;
control({beamtrace_snapshot, Id}, #state{snapshots = Ids} = S) ->
    next(look(S#state{snapshots = Ids ++ [Id]}));
control({beamtrace_fetch, _, _, _} = Fetch, S) ->
    next(fetched(Fetch, S));
control({beamtrace_filter, Items}, #state{trace = Trace} = S) ->
    _ = [beamtrace_nif:filter(Trace, Item, true) || Item <- Items],
    S;
control({beamtrace_unfilter, Items}, #state{trace = Trace} = S) ->
    _ = [beamtrace_nif:filter(Trace, Item, false) || Item <- Items],
    S;
control({beamtrace_sampler, _, Counters, LeastMs}, S) ->
    S#state{counters = Counters, look_ms = max(?LOOK_MS, LeastMs)};
control({beamtrace_mask, Mask}, #state{trace = Trace} = S) ->
    ok = beamtrace_nif:mask(Trace, Mask),
    S;
control({beamtrace_stats, Tag}, #state{holder = Holder} = S) ->
    Holder ! {beamtrace_stats, self(), Tag, stats(S)},
    S;
control(beamtrace_stop, S) ->
    finish(S);
control(_, S) ->
    S.

%% The flags are off. A trigger that was waiting for what comes after it gets its window; what the client is fetching, or about to, is shipped.
-spec finish(#state{}) -> no_return().
finish(#state{trace = Trace, alarms = Alarms, holder = Holder} = S0) ->
    ok = beamtrace_alarms:stop(Alarms),
    S1 = look(S0),
    S2 =
        case S1 of
            #state{due = {_, Fired}, recording = none} -> keep(Fired, now_ns(S1), S1#state{due = none});
            _ -> S1
        end,
    ok = beamtrace_nif:shut(Trace),
    _ = beamtrace_rings:barrier() andalso beamtrace_rings:free(Trace),
    S = last(S2, ?LAST_RETRIES),
    _ = [answer(Id, {error, stopped}, S) || Id <- S#state.snapshots],
    Holder ! {beamtrace_final, self(), stats(S)},
    exit(normal).

last(#state{recording = #recording{}} = S, Retries) when Retries > 0 ->
    receive
        {beamtrace_fetch, _, _, _} = Fetch -> last(fetched(Fetch, S), Retries)
    after ?RETRY_MS -> last(ship(S), Retries - 1)
    end;
last(S, _) ->
    S.

fetched({_, Id, Number, Mailbox}, #state{recording = #recording{number = Number} = R} = S) ->
    answer(Id, ok, S),
    ship(S#state{recording = R#recording{mailbox = Mailbox}});
fetched({_, Id, Number, _}, S) ->
    answer(Id, {error, {no_recording, Number}}, S),
    S.

answer(Id, Result, #state{holder = Holder}) ->
    Holder ! {beamtrace_answer, self(), Id, Result},
    ok.

-spec stats(#state{}) -> beamtrace_tracer:stats().
stats(#state{meter = Meter, written = Written, lost = Lost, filtered = Filtered} = S) ->
    [{memory, Memory}, {reductions, Reductions}] = process_info(self(), [memory, reductions]),
    {Rate, Overhead} = beamtrace_limits:rate(erlang:monotonic_time(nanosecond), Written + Lost, Filtered, Meter),
    Held = min(Written, S#state.ring_bytes div ?RECORD_BYTES),
    #{
        received => Written + Lost,
        shipped => S#state.shipped,
        lost_tracer => Lost,
        lost_link => 0,
        filtered => Filtered,
        batches => S#state.recordings,
        queue => Held,
        queue_max => Held,
        memory => Memory + S#state.ring_bytes + waiting_bytes(S),
        reductions => Reductions,
        rate => Rate,
        overhead_ppm => Overhead
    }.

waiting_bytes(#state{recording = none}) -> 0;
waiting_bytes(#state{recording = #recording{messages = Messages}}) ->
    ?RECORD_BYTES * lists:sum([Events || {_, Events} <- queue:to_list(Messages)]).
