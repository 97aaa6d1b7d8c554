%% The native tracer's process: drains what the library's callbacks have recorded and ships it (docs/agent-protocol.md, "Native batches").
%% One process a trace, linked to the holder; to the holder it is what beamtrace_tracer is. It never sees a trace message:
%% it looks at the rings now and then, the oftener the faster they fill.
-module(beamtrace_native).

-export([start/1, init/2, instrumented/2, named/0]).

-include("beamtrace_schema.hrl").

%% Records of a scheduler's ring: together they hold what limits.queue lets wait (a machine with more to do than CPUs does not let the drain run for
%% tens of milliseconds), but 1 MiB each, and less where many schedulers or the limit of memory ask for it.
-define(CAPACITY_MAX, 1048576).
-define(CAPACITY_USUAL, 16384).
-define(CAPACITY_MIN, 256).
-define(RINGS_BYTES, 67108864).
-define(RECORD_BYTES, 64).
%% A message holds this many times the events that a portable batch holds.
-define(BATCH_FACTOR, 8).
-define(DRAIN_MAX, 16384).
%% Bytes that may wait for the connection; while they do, the rings are left alone, and drop when they are full.
-define(WAITING_BYTES, 4194304).
-define(RETRY_MS, 5).
%% Events per second below which a few milliseconds pass between two looks, twice as many after each look that found nothing.
-define(QUIET_PACE, 200).
-define(QUIET_MS, 10).
%% Where nothing happens at all a batch's interval may double, up to this: a VM that sleeps takes 60 to 150 µs of CPU to wake up for nothing.
-define(SILENT_MS, 100).
-define(LAST_RETRIES, 400).
%% An event with contents takes its record and what continues it; finishing these takes about as long as draining four times as many.
-define(CONTENTS_FACTOR, 4).
-define(CONTENTS_DRAIN_MAX, 4096).
-define(CONTENTS_COST_NS, 1500).
%% CPU that an event costs the VM, draining and sending included: bench/server, on the slow side of what was measured.
-define(COST_NS, 600).

-record(state, {
    id :: integer(),
    mailbox :: pid(),
    holder :: pid(),
    trace :: beamtrace_nif:trace(),
    base :: integer(),
    capacity :: pos_integer(),
    ring_bytes :: pos_integer(),
    max :: pos_integer(),
    contents :: boolean(),
    flush_ms :: pos_integer(),
    meter :: beamtrace_limits:meter(),
    %% Events still allowed (limit events).
    quota :: non_neg_integer() | infinity,
    seq = 0 :: non_neg_integer(),
    received = 0 :: non_neg_integer(),
    shipped = 0 :: non_neg_integer(),
    filtered = 0 :: non_neg_integer(),
    lost_tracer = 0 :: non_neg_integer(),
    lost_link = 0 :: non_neg_integer(),
    %% Records in the rings at the last look, and the most there ever were.
    queue = 0 :: non_neg_integer(),
    queue_max = 0 :: non_neg_integer(),
    %% The last look, in ns since the base, and events per second up to it.
    looked = 0 :: integer(),
    pace = 0 :: non_neg_integer(),
    %% Milliseconds until the next look while little happens.
    quiet_ms = ?QUIET_MS :: pos_integer(),
    %% Whether the rings were left alone because of the connection since then.
    blocked = false :: boolean(),
    %% Where looks are counted, for the overhead budget.
    counters = none :: none | counters:counters_ref(),
    %% Batches that the connection has not taken yet, oldest first.
    waiting = queue:new() :: queue:queue({Message :: tuple(), Taken :: non_neg_integer(), Bytes :: pos_integer()}),
    waiting_bytes = 0 :: non_neg_integer()
}).

%% The process, and the tracer for the VM.
-spec start(beamtrace_tracer:options()) -> {ok, pid(), {module(), non_neg_integer()}} | {error, term()}.
start(#{limits := Limits} = Options) -> beamtrace_rings:start(native, Options, Limits).

-spec init(pid(), beamtrace_tracer:options()) -> ok.
init(Holder, Options) ->
    try open(Holder, Options) of
        {ok, State, S} ->
            beamtrace_rings:began(Holder, State),
            loop(S);
        {error, Reason} ->
            beamtrace_rings:refuse(Holder, Reason)
    catch
        error:beamtrace_nif -> beamtrace_rings:refuse(Holder, not_loaded);
        throw:{beamtrace, Reason} -> beamtrace_rings:refuse(Holder, Reason)
    end.

open(Holder, #{limits := Limits, batch := #{events := Events, ms := FlushMs}} = Options) ->
    reap(beamtrace_nif:reap(0)),
    Rings = erlang:system_info(schedulers),
    Capacity = capacity(Rings, factor(Options), Limits),
    #{mask := Mask, mode := Mode, scheduler := Scheduler, client_node := Node, filter := Filter} = Options,
    What = {beamtrace_contents:wanted(Mode), Scheduler, Mask},
    case beamtrace_nif:open(Rings, Capacity, What, {Holder, Node, [beamtrace_nif | beamtrace_names:modules()]}) of
        {Trace, State, Base} ->
            _ = maps:get(overflow, Options, drop_newest) =:= overwrite_oldest andalso beamtrace_nif:overwrite(Trace),
            ok = beamtrace_rings:touch(Trace, Limits),
            _ = [beamtrace_nif:filter(Trace, Item, true) || Item <- maps:keys(Filter)],
            case instrumented(Trace, Options) of
                true -> ok;
                false -> throw({beamtrace, too_many_processes})
            end,
            {ok, State, #state{
                id = maps:get(id, Options),
                mailbox = maps:get(mailbox, Options),
                holder = Holder,
                trace = Trace,
                base = Base,
                capacity = Capacity,
                ring_bytes = (Rings + 1) * Capacity * ?RECORD_BYTES,
                contents = is_tuple(Mode),
                max = most(Mode, Events),
                flush_ms = FlushMs,
                quiet_ms = min(FlushMs, ?QUIET_MS),
                meter = beamtrace_limits:meter(Limits, cost_ns(Mode)),
                quota = maps:get(events, Limits)
            }};
        {error, Reason} ->
            {error, Reason}
    end.

%% What instrumented code tells comes from every process. Ours and the client's connection are not to be seen, also when their flags are long off.
-spec instrumented(beamtrace_nif:trace(), beamtrace_tracer:options()) -> boolean().
instrumented(_, #{instrumented := none}) ->
    true;
instrumented(Trace, #{instrumented := #{modules := Modules, processes := Processes}, holder := Holder, filter := Filter, scheduler := Scheduler}) ->
    Ours = [self(), Holder | maps:keys(beamtrace_names:processes())],
    _ = [beamtrace_runtime:hide(Pid) || Pid <- Ours ++ maps:keys(Filter), is_pid(Pid), node(Pid) =:= node()],
    _ = Scheduler andalso [name_scheduler(Id) || Id <- lists:seq(1, erlang:system_info(schedulers_online))],
    beamtrace_nif:instrumented(Trace, Modules, Processes).

%% The library can't ask which scheduler it runs on; a process that is bound to one knows.
name_scheduler(Id) ->
    {_, Monitor} = spawn_opt(?MODULE, named, [], bound_to(Id)),
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

%% Not in the specifications of OTP.
-spec bound_to(pos_integer()) -> [term()].
bound_to(Id) -> [monitor, {scheduler, Id}].

-spec named() -> ok.
named() -> beamtrace_nif:scheduler(erlang:system_info(scheduler_id)).

%% Tracers that were killed have left their rings behind.
reap({_, 0}) ->
    ok;
reap({Last, _}) ->
    _ = beamtrace_rings:barrier() andalso beamtrace_nif:reap(Last),
    ok.

%% Records that an event with contents is allowed for.
factor(#{mode := {bytes, _, _}}) -> ?CONTENTS_FACTOR;
factor(_) -> 1.

most({bytes, _, _}, Events) -> min(?CONTENTS_DRAIN_MAX, Events * ?BATCH_FACTOR);
most(_, Events) -> min(?DRAIN_MAX, Events * ?BATCH_FACTOR).

cost_ns({bytes, _, _}) -> ?CONTENTS_COST_NS;
cost_ns(_) -> ?COST_NS.

%% A power of two.
capacity(Rings, Factor, #{memory := Memory, queue := Queue}) ->
    Bytes = if is_integer(Memory) -> Memory div 2; true -> ?RINGS_BYTES end,
    Wanted = if is_integer(Queue) -> Factor * max(?CAPACITY_USUAL, Queue div Rings); true -> ?CAPACITY_MAX end,
    halved(?CAPACITY_MAX, min(Wanted, Bytes div ((Rings + 1) * ?RECORD_BYTES))).

halved(Capacity, Bound) when Capacity > Bound, Capacity > ?CAPACITY_MIN -> halved(Capacity div 2, Bound);
halved(Capacity, _) -> Capacity.

loop(S) ->
    receive
        Message -> loop(control(Message, S))
    after wait(S) -> loop(look(S))
    end.

%% Milliseconds until the next look: soon enough that no ring can be more than a quarter full at the rate of the last look, and
%% none when it left something behind.
wait(#state{waiting_bytes = Bytes}) when Bytes > 0 -> ?RETRY_MS;
wait(#state{queue = Queue, max = Max}) when Queue > Max div 4 -> 0;
%% Waking up, sending and the system's work for it cost as much as recording a hundred events: only where little happens is it done for a few.
wait(#state{quiet_ms = QuietMs, pace = Pace}) when Pace < ?QUIET_PACE -> beamtrace_rings:until(QuietMs);
wait(#state{flush_ms = FlushMs, pace = Pace, capacity = Capacity}) ->
    beamtrace_rings:until(max(1, min(FlushMs, Capacity * 250 div Pace))).

%% One look at the rings.
look(#state{counters = none} = S) ->
    look_now(S);
look(#state{counters = Counters} = S0) ->
    S = look_now(S0),
    ok = counters:add(Counters, 3, 1),
    ok = counters:put(Counters, 5, S#state.seq),
    S.

look_now(S0) ->
    case retry(S0) of
        #state{waiting_bytes = Bytes} = S when Bytes > ?WAITING_BYTES -> S#state{blocked = true};
        S -> drain(S)
    end.

drain(#state{trace = Trace, max = Max, quota = Quota, base = Base} = S) ->
    {Count, Records, Dictionary, Lost, Filtered, Waiting, Now, News} = beamtrace_nif:drain(Trace, room(Max, Quota)),
    S1 = news(News, S#state{
        filtered = S#state.filtered + Filtered,
        queue = Waiting,
        queue_max = max(Waiting + Count, S#state.queue_max)
    }),
    S2 = ship(finished(Count, Records, Dictionary, S), losses(Lost, Now, S1)),
    %% Of records, which is what the rings are full of.
    Pace = (byte_size(Records) div ?RECORD_BYTES + Lost) * 1000000000 div max(1, Now - S#state.looked),
    measure(Base + Now, S2#state{looked = Now, pace = Pace, quiet_ms = quiet_ms(Pace, S), blocked = false}).

%% What comes after a quiet time comes soon; a node on which nothing happens is left alone.
quiet_ms(0, #state{quiet_ms = Last, flush_ms = FlushMs}) -> min(max(FlushMs, min(?SILENT_MS, 2 * FlushMs)), 2 * Last);
quiet_ms(_, #state{quiet_ms = Last, counters = Counters}) when Counters =/= none -> Last;
quiet_ms(_, #state{flush_ms = FlushMs}) -> min(FlushMs, ?QUIET_MS).

%% What is shipped: with contents where there are any.
finished(Count, Records, Dictionary, #state{contents = false}) ->
    {Count, Records, Dictionary, none};
finished(Count, Records, _, #state{trace = Trace}) ->
    {Finished, Contents, Dictionary} = beamtrace_contents:finish(Trace, Records),
    {Count, Finished, Dictionary, Contents}.

room(Max, Quota) when is_integer(Quota), Quota > 0, Quota < Max -> Quota;
room(Max, _) -> Max.

news([], S) ->
    S;
news([Pid | News], #state{holder = Holder} = S) ->
    Holder ! {beamtrace_untrace, self(), Pid},
    news(News, S).

%% Losses of the time since the last look: of the connection if it kept us from looking.
losses(0, _, S) ->
    S;
losses(_, _, #state{quota = 0} = S) ->
    S;
losses(Lost, Now, #state{quota = Quota} = S) when is_integer(Quota), Lost >= Quota ->
    counted_losses(Quota, Now, S);
losses(Lost, Now, S) ->
    counted_losses(Lost, Now, S).

counted_losses(Lost, Now, #state{blocked = true, lost_link = Link} = S) ->
    gap(link, Lost, Now, taken(Lost, S#state{lost_link = Link + Lost}));
counted_losses(Lost, Now, #state{lost_tracer = Tracer} = S) ->
    gap(tracer, Lost, Now, taken(Lost, S#state{lost_tracer = Tracer + Lost})).

taken(Count, #state{received = Received} = S) -> spend(Count, S#state{received = Received + Count}).

gap(Hop, Lost, Now, #state{looked = From} = S) ->
    note({?KIND_GAP, Now, 0, Hop, Lost, From, Now}, S).

%% Gaps and markers travel as portable batches do.
note(Event, #state{id = Id, base = Base} = S) ->
    put_out(fun(Seq) -> {1, Id, Seq, Base, S#state.received, lost(S), [Event]} end, 0, 256, S).

lost(#state{lost_tracer = Tracer, lost_link = Link}) -> Tracer + Link.

ship({_, <<>>, _, _}, S) ->
    S;
ship({Count, _, _, _}, #state{quota = 0, filtered = Filtered} = S) ->
    S#state{filtered = Filtered + Count};
ship({Count, Records, Dictionary, Contents}, #state{quota = Quota} = S) when is_integer(Quota), Count > Quota ->
    S1 = S#state{filtered = S#state.filtered + Count - Quota},
    {Oldest, Theirs} = oldest(Quota, Records, Contents),
    ship({Quota, Oldest, Dictionary, Theirs}, S1);
ship({Count, Records, Dictionary, Contents}, #state{id = Id, base = Base} = S0) ->
    S = taken(Count, S0),
    Message = fun(Seq) -> beamtrace_contents:batch({Id, Seq, Base, S#state.received, lost(S)}, Dictionary, Contents, Records) end,
    put_out(Message, Count, byte_size(Records) + beamtrace_contents:bytes(Contents), S).

%% Records of the same stamp may exceed what was asked for. Markers don't count.
oldest(Count, Records, Contents) ->
    Sorted = lists:sort([{stamp(Record), Record, Content} || {Record, Content} <- beamtrace_contents:pairs(Records, Contents)]),
    beamtrace_contents:joined(first(Count, [{Record, Content} || {_, Record, Content} <- Sorted]), Contents).

first(Count, [{<<?KIND_MARKER, _/bits>>, _} = Marker | Records]) -> [Marker | first(Count, Records)];
first(Count, [Record | Records]) when Count > 0 -> [Record | first(Count - 1, Records)];
first(_, _) -> [].

stamp(<<_:64, Stamp:64/float-little, _/bits>>) -> Stamp.

%% After the last event allowed nothing is wanted any more; the holder stops the trace.
spend(_, #state{quota = infinity} = S) ->
    S;
spend(Taken, #state{quota = Quota, holder = Holder, trace = Trace, received = Received} = S) when Quota > 0, Taken >= Quota ->
    ok = beamtrace_nif:mask(Trace, 0),
    Holder ! {beamtrace_limit, self(), {limit, events, Received, Received}},
    S#state{quota = 0};
spend(Taken, #state{quota = Quota} = S) ->
    S#state{quota = max(0, Quota - Taken)}.

%% Sends a batch, or lets it wait behind the others.
put_out(Message, Taken, Bytes, #state{seq = Seq, waiting = Waiting, waiting_bytes = Before} = S) ->
    S1 = S#state{
        seq = Seq + 1,
        waiting = queue:in({Message(Seq), Taken, Bytes}, Waiting),
        waiting_bytes = Before + Bytes
    },
    case Before of
        0 -> retry(S1);
        _ -> S1
    end.

retry(#state{waiting = Waiting, mailbox = Mailbox} = S) ->
    case queue:out(Waiting) of
        {empty, _} ->
            S;
        {{value, {Message, Taken, Bytes}}, Rest} ->
            S1 = S#state{waiting = Rest, waiting_bytes = S#state.waiting_bytes - Bytes},
            case erlang:send(Mailbox, Message, [nosuspend, noconnect]) of
                ok -> retry(S1#state{shipped = S#state.shipped + Taken});
                nosuspend -> S;
                %% The connection has closed; the holder hears of it by itself.
                noconnect -> retry(S1#state{lost_link = S#state.lost_link + Taken})
            end
    end.

measure(Now, #state{received = Received, filtered = Filtered, meter = Meter} = S) ->
    case beamtrace_limits:measure(Now, Received, Filtered, 0, Meter) of
        {ok, Meter1} ->
            S#state{meter = Meter1};
        {tripped, Reason, Meter1} ->
            S#state.holder ! {beamtrace_limit, self(), Reason},
            S#state{meter = Meter1}
    end.

%% Requests of the holder.
control({beamtrace_marker, Name, A, B}, S) ->
    %% What came before it keeps its place.
    S1 = look(S),
    Dt = erlang:monotonic_time(nanosecond) - S1#state.base,
    note({?KIND_MARKER, Dt, 0, Name, A, B}, S1);
control({beamtrace_sampler, _, Counters, LeastMs}, #state{flush_ms = FlushMs} = S) ->
    S#state{counters = Counters, flush_ms = max(LeastMs, FlushMs), quiet_ms = max(LeastMs, S#state.quiet_ms)};
control({beamtrace_mask, Mask}, #state{trace = Trace, quota = Quota} = S) ->
    _ = Quota =/= 0 andalso beamtrace_nif:mask(Trace, Mask),
    S;
control({beamtrace_filter, Items}, #state{trace = Trace} = S) ->
    _ = [beamtrace_nif:filter(Trace, Item, true) || Item <- Items],
    S;
control({beamtrace_unfilter, Items}, #state{trace = Trace} = S) ->
    _ = [beamtrace_nif:filter(Trace, Item, false) || Item <- Items],
    S;
control({beamtrace_stats, Tag}, #state{holder = Holder} = S) ->
    Holder ! {beamtrace_stats, self(), Tag, stats(S)},
    S;
control(beamtrace_stop, S) ->
    finish(S);
control(_, S) ->
    S.

%% The flags are off. Shut the callbacks, wait until every scheduler has left them, take the rest, free the rings. Without the barrier the
%% memory stays, unreachable for callbacks, until the library is unloaded.
-spec finish(#state{}) -> no_return().
finish(#state{trace = Trace} = S0) ->
    ok = beamtrace_nif:shut(Trace),
    Left = beamtrace_rings:barrier(),
    S = drained(S0, ?LAST_RETRIES),
    _ = Left andalso beamtrace_rings:free(Trace),
    last(S, ?LAST_RETRIES).

%% Until the rings are empty; what the connection does not take by then is lost, and counted.
drained(S0, Retries) ->
    case look(S0) of
        #state{blocked = true} = S when Retries > 0 ->
            receive
            after ?RETRY_MS -> drained(S, Retries - 1)
            end;
        #state{blocked = true} = S ->
            abandon(S);
        #state{queue = 0} = S ->
            S;
        S ->
            drained(S, Retries)
    end.

abandon(#state{trace = Trace, max = Max} = S) ->
    {Count, _, _, Lost, _, Waiting, Now, _} = beamtrace_nif:drain(Trace, Max),
    S1 = losses(Count + Lost, Now, S),
    case Waiting of
        0 -> S1;
        _ -> abandon(S1)
    end.

-spec last(#state{}, non_neg_integer()) -> no_return().
last(S0, Retries) ->
    S = retry(S0),
    case Retries > 0 andalso not (queue:is_empty(S#state.waiting) andalso last_message(S)) of
        true ->
            receive
            after ?RETRY_MS -> last(S, Retries - 1)
            end;
        false ->
            S#state.holder ! {beamtrace_final, self(), stats(drop_waiting(S))},
            exit(normal)
    end.

last_message(#state{id = Id, mailbox = Mailbox, seq = Seq} = S) ->
    erlang:send(Mailbox, {2, Id, Seq, stats(S)}, [nosuspend, noconnect]) =/= nosuspend.

drop_waiting(#state{waiting = Waiting, lost_link = Lost} = S) ->
    Dropped = lists:sum([Taken || {_, Taken, _} <- queue:to_list(Waiting)]),
    S#state{waiting = queue:new(), waiting_bytes = 0, lost_link = Lost + Dropped}.

-spec stats(#state{}) -> beamtrace_tracer:stats().
stats(#state{meter = Meter, received = Received, filtered = Filtered} = S) ->
    [{memory, Memory}, {reductions, Reductions}] = process_info(self(), [memory, reductions]),
    {Rate, Overhead} = beamtrace_limits:rate(erlang:monotonic_time(nanosecond), Received, Filtered, Meter),
    #{
        received => Received,
        shipped => S#state.shipped,
        lost_tracer => S#state.lost_tracer,
        lost_link => S#state.lost_link,
        filtered => Filtered,
        batches => S#state.seq,
        queue => S#state.queue,
        queue_max => S#state.queue_max,
        memory => Memory + S#state.ring_bytes + S#state.waiting_bytes,
        reductions => Reductions,
        rate => Rate,
        overhead_ppm => Overhead
    }.
