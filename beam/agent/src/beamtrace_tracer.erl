%% The portable tracer: takes trace messages from its queue, makes events of them and ships batches straight to the
%% client's mailbox (docs/agent-protocol.md, "Batches"). One process a trace, linked to the holder.
%%
%% The loop is long and repeats itself on purpose: its CPU per event is what tracing costs. Per event there is no
%% timer, no process_info and no update of the state; all of that happens once a batch (checkpoint/1).
-module(beamtrace_tracer).

-export([start/1, init/1]).
-export_type([options/0, stats/0]).

-include("beamtrace_schema.hrl").

-type options() :: #{
    id := integer(),
    mailbox := pid(),
    holder := pid(),
    client_node := node(),
    mask := non_neg_integer(),
    mode := beamtrace_event:mode(),
    scheduler := boolean(),
    %% What the native tracer's rings do when they are full.
    overflow := drop_newest | overwrite_oldest,
    batch := #{events := pos_integer(), ms := pos_integer()},
    limits := beamtrace_limits:limits(),
    filter := #{pid() | port() => true},
    %% What instrumented code tells: of which modules, in which processes.
    instrumented := none | #{modules := all | [module()], processes := all | [pid()], _ => _}
}.
-type stats() :: #{atom() => integer()}.

%% Small enough to stay in the cache: a larger one costs more than the collections it saves.
-define(HEAP_WORDS, 10000).
-define(FULLSWEEP_AFTER, 50).
-define(MEMORY_DEFAULT, 268435456).
-define(RETRY_MS, 5).
%% How long the last batches of a trace may wait for the connection.
-define(LAST_RETRIES, 400).
-define(SHED_CHUNK, 4096).
%% Events of a batch that are looked at for how often each kind comes.
-define(KINDS_SAMPLE, 32).
%% Backlog from which the tracer goes before other processes, and below which it waits its turn again: at normal
%% priority more messages come in for each time that it runs.
-define(HURRY, 16384).
-define(EASE, 1024).
%% After a quiet time events travel this soon; while they keep coming they wait for more, up to the batch's own bound.
-define(PROMPT_MS, 10).

-record(state, {
    holder :: pid(),
    client_node :: node(),
    mask :: non_neg_integer(),
    mode :: beamtrace_event:mode(),
    scheduler :: boolean(),
    %% What goes to the client.
    out :: beamtrace_outbox:outbox(),
    max :: pos_integer(),
    flush_ns :: pos_integer(),
    prompt_ms :: pos_integer(),
    pace :: beamtrace_pacer:pace(),
    %% A beamtrace_flush is under way. At most one is: a timer for each wait would cost more than the events.
    armed = false :: boolean(),
    %% Whose events are not to be seen: processes of the client's node, its connection, processes of ours.
    filter :: #{pid() | port() => true},
    meter :: beamtrace_limits:meter(),
    queue_soft :: pos_integer(),
    %% Events still allowed (limit events).
    quota :: non_neg_integer() | infinity,
    %% Who is in the sample, and who takes the flags away of those who are not.
    threshold = beamtrace_sample:everybody() :: non_neg_integer(),
    sampler = none :: none | {pid(), counters:counters_ref()},
    outside = 0 :: non_neg_integer(),
    %% How often each kind stands among the first events of the last batch.
    kinds = [] :: [non_neg_integer()],
    received = 0 :: non_neg_integer(),
    filtered = 0 :: non_neg_integer(),
    queue_max = 0 :: non_neg_integer(),
    priority = normal :: normal | high
}).

-spec start(options()) -> pid().
start(#{limits := #{memory := Memory}} = Options) ->
    Bytes =
        case Memory of
            infinity -> ?MEMORY_DEFAULT;
            _ -> Memory
        end,
    %% The guard is twice the limit: the limit is checked at every batch, and a collection needs room for a copy.
    Guard = max(?HEAP_WORDS * 16, 2 * Bytes div erlang:system_info(wordsize)),
    spawn_opt(?MODULE, init, [Options], [
        link,
        {message_queue_data, off_heap},
        {min_heap_size, ?HEAP_WORDS},
        {fullsweep_after, ?FULLSWEEP_AFTER},
        {max_heap_size, #{size => Guard, kill => true, error_logger => false}}
    ]).

-spec init(options()) -> ok.
init(#{
    id := Id,
    mailbox := Mailbox,
    holder := Holder,
    client_node := ClientNode,
    mask := Mask,
    mode := Mode,
    scheduler := Scheduler,
    batch := #{events := Max, ms := FlushMs},
    limits := #{events := Quota} = Limits,
    filter := Filter
}) ->
    process_flag(sensitive, true),
    first(
        #state{
            out = beamtrace_outbox:new(Id, Mailbox),
            holder = Holder,
            client_node = ClientNode,
            mask = Mask,
            mode = Mode,
            scheduler = Scheduler,
            max = Max,
            flush_ns = FlushMs * 1000000,
            prompt_ms = min(?PROMPT_MS, FlushMs),
            pace = beamtrace_pacer:start(FlushMs, beamtrace_limits:queue_soft(Limits)),
            filter = Filter,
            meter = beamtrace_limits:meter(Limits),
            queue_soft = beamtrace_limits:queue_soft(Limits),
            quota = Quota
        }
    ).

%% Between batches: waits for the message that begins the next one.
first(#state{scheduler = Scheduler} = S0) ->
    receive
        Message when element(1, Message) =:= trace_ts ->
            S = arm(S0),
            Base = stamp(Message),
            case event(Message, Base, S) of
                0 ->
                    %% Nothing wanted, but the queue and the clock are still to be looked at now and then.
                    loop(Scheduler, S, [], room(S), Base, 1);
                {filter, Pid} ->
                    first(add_filter(Pid, S));
                Event ->
                    case room(S) of
                        1 -> checkpoint(S, [Event], 1, Base, Base, 0);
                        Room -> loop(Scheduler, S, [Event], Room - 1, Base, 0)
                    end
            end;
        beamtrace_flush ->
            {_, S} = paced(0, S0),
            first(retry(S));
        Message ->
            first(control(Message, S0))
    after wait(S0) ->
        first(retry(S0))
    end.

arm(#state{armed = true} = S) ->
    S;
arm(#state{prompt_ms = PromptMs} = S) ->
    _ = erlang:send_after(PromptMs, self(), beamtrace_flush),
    S#state{armed = true}.

%% A beamtrace_flush has come, after `Taken` messages of the open batch: time for a look at the pace. Returns when the next look will be.
paced(Taken, #state{received = Received, filtered = Filtered, pace = Pace} = S) ->
    Now = erlang:monotonic_time(nanosecond),
    {message_queue_len, Queue} = process_info(self(), message_queue_len),
    case beamtrace_pacer:plan(Now, Received + Filtered + Taken, Queue, Pace) of
        {rest, Ms, Pace1} -> {Now + Ms * 1000000, S#state{armed = true, pace = Pace1}};
        {no_rest, Pace1} -> {infinity, S#state{armed = false, pace = Pace1}}
    end.

loop(false, S, Acc, Room, Base, Filtered) -> plain(S, Acc, Room, Base, Filtered);
loop(true, S, Acc, Room, Base, Filtered) -> scheduled(S, Acc, Room, Base, Filtered).

%% Inside a batch, no scheduler ids.
plain(#state{filter = Filter, mask = Mask, mode = Mode} = S, Acc, Room, Base, Filtered) ->
    receive
        {trace_ts, P, Tag, D1, Ts} when not is_map_key(P, Filter) ->
            Dt = Ts - Base,
            case beamtrace_event:one(Tag, P, D1, Dt, 0, Mask, Mode) of
                0 when Dt < S#state.flush_ns -> plain(S, Acc, Room, Base, Filtered + 1);
                0 -> checkpoint(S, Acc, room(S) - Room, Base, Ts, Filtered + 1);
                Event when Room > 1, Dt < S#state.flush_ns -> plain(S, [Event | Acc], Room - 1, Base, Filtered);
                Event -> checkpoint(S, [Event | Acc], room(S) - Room + 1, Base, Ts, Filtered)
            end;
        {trace_ts, P, Tag, D1, D2, Ts} when not is_map_key(P, Filter), Tag =/= spawned ->
            Dt = Ts - Base,
            case beamtrace_event:two(Tag, P, D1, D2, Dt, 0, Mask, Mode) of
                0 when Dt < S#state.flush_ns -> plain(S, Acc, Room, Base, Filtered + 1);
                0 -> checkpoint(S, Acc, room(S) - Room, Base, Ts, Filtered + 1);
                Event when Room > 1, Dt < S#state.flush_ns -> plain(S, [Event | Acc], Room - 1, Base, Filtered);
                Event -> checkpoint(S, [Event | Acc], room(S) - Room + 1, Base, Ts, Filtered)
            end;
        Message ->
            rest(Message, S, Acc, Room, Base, Filtered)
    end.

%% The same with scheduler ids.
scheduled(#state{filter = Filter, mask = Mask, mode = Mode} = S, Acc, Room, Base, Filtered) ->
    receive
        {trace_ts, P, Tag, D1, Id, Ts} when not is_map_key(P, Filter) ->
            Dt = Ts - Base,
            case beamtrace_event:one(Tag, P, D1, Dt, Id bsl 8, Mask, Mode) of
                0 when Dt < S#state.flush_ns -> scheduled(S, Acc, Room, Base, Filtered + 1);
                0 -> checkpoint(S, Acc, room(S) - Room, Base, Ts, Filtered + 1);
                Event when Room > 1, Dt < S#state.flush_ns -> scheduled(S, [Event | Acc], Room - 1, Base, Filtered);
                Event -> checkpoint(S, [Event | Acc], room(S) - Room + 1, Base, Ts, Filtered)
            end;
        {trace_ts, P, Tag, D1, D2, Id, Ts} when not is_map_key(P, Filter), Tag =/= spawned ->
            Dt = Ts - Base,
            case beamtrace_event:two(Tag, P, D1, D2, Dt, Id bsl 8, Mask, Mode) of
                0 when Dt < S#state.flush_ns -> scheduled(S, Acc, Room, Base, Filtered + 1);
                0 -> checkpoint(S, Acc, room(S) - Room, Base, Ts, Filtered + 1);
                Event when Room > 1, Dt < S#state.flush_ns -> scheduled(S, [Event | Acc], Room - 1, Base, Filtered);
                Event -> checkpoint(S, [Event | Acc], room(S) - Room + 1, Base, Ts, Filtered)
            end;
        Message ->
            rest(Message, S, Acc, Room, Base, Filtered)
    end.

%% What the two loops don't match: rare trace messages, filtered processes, requests of the holder.
rest(Message, S, Acc, Room, Base, Filtered) when element(1, Message) =:= trace_ts ->
    Ts = stamp(Message),
    Scheduler = S#state.scheduler,
    case event(Message, Base, S) of
        0 when Ts - Base < S#state.flush_ns -> loop(Scheduler, S, Acc, Room, Base, Filtered + 1);
        0 -> checkpoint(S, Acc, room(S) - Room, Base, Ts, Filtered + 1);
        %% The batch ends here, so that the filter holds from the next message on.
        {filter, Pid} -> checkpoint(add_filter(Pid, S), Acc, room(S) - Room, Base, Ts, Filtered);
        Event when Room > 1, Ts - Base < S#state.flush_ns -> loop(Scheduler, S, [Event | Acc], Room - 1, Base, Filtered);
        Event -> checkpoint(S, [Event | Acc], room(S) - Room + 1, Base, Ts, Filtered)
    end;
rest(beamtrace_flush, S0, Acc, Room, Base, Filtered) ->
    Taken = room(S0) - Room,
    case paced(Taken + Filtered, S0) of
        %% The batch may wait for what gathers meanwhile.
        {Next, S} when is_integer(Next), Next - Base =< S#state.flush_ns -> loop(S#state.scheduler, S, Acc, Room, Base, Filtered);
        {_, S} -> checkpoint(S, Acc, Taken, Base, newest(Acc, Base), Filtered)
    end;
rest(Message, S, Acc, Room, Base, Filtered) ->
    %% Ship what came before it, so that it keeps its place.
    first(control(Message, close(S, Acc, room(S) - Room, Base, newest(Acc, Base), Filtered))).

%% Of a trace message.
stamp(Message) -> element(tuple_size(Message), Message).

newest([Event | _], Base) -> Base + element(2, Event);
newest([], Base) -> Base.

%% Any trace message, by its size: the slow way. `{filter, Pid}`: the first event of a process that is not to be seen.
event(Message, _, #state{filter = Filter}) when is_map_key(element(2, Message), Filter) ->
    0;
event(Message, Base, #state{scheduler = true} = S) when tuple_size(Message) >= 6 ->
    Size = tuple_size(Message),
    Ts = element(Size, Message),
    Id = element(Size - 1, Message),
    Short = erlang:delete_element(Size - 1, Message),
    data(Short, Ts - Base, scheduler_bits(Id), S);
event(Message, Base, S) ->
    data(Message, stamp(Message) - Base, 0, S).

data({trace_ts, P, spawned, Parent, MFA, _}, Dt, X, #state{mask = Mask, mode = Mode} = S) ->
    case outside(P, S) orelse ours(Parent, MFA, S) of
        true -> {filter, P};
        false -> beamtrace_event:two(spawned, P, Parent, MFA, Dt, X, Mask, Mode)
    end;
data({trace_ts, P, Tag, D1, _}, Dt, X, #state{mask = Mask, mode = Mode}) ->
    beamtrace_event:one(Tag, P, D1, Dt, X, Mask, Mode);
data({trace_ts, P, Tag, D1, D2, _}, Dt, X, #state{mask = Mask, mode = Mode}) ->
    beamtrace_event:two(Tag, P, D1, D2, Dt, X, Mask, Mode);
data({trace_ts, P, Tag, D1, D2, D3, _}, Dt, X, #state{mask = Mask, mode = Mode}) ->
    beamtrace_event:three(Tag, P, D1, D2, D3, Dt, X, Mask, Mode);
data(Message, Dt, X, #state{mask = Mask}) ->
    case Mask band (1 bsl ?KIND_UNKNOWN) of
        0 -> 0;
        _ -> beamtrace_event:unknown(Message, element(2, Message), Dt, X, element(3, Message))
    end.

scheduler_bits(Id) when is_integer(Id), Id >= 0 -> Id bsl 8;
scheduler_bits(_) -> 0.

%% Processes that the client's node or one of ours has started.
ours(Parent, _, #state{client_node = Node}) when is_pid(Parent), node(Parent) =:= Node -> true;
ours(Parent, _, #state{holder = Parent}) -> true;
ours(_, {erl_eval, exprs, [_, [{'BeamtraceModules', _} | _]]}, _) -> true;
ours(_, {Module, _, _}, _) -> beamtrace_names:is_agent_module(Module).

add_filter(Pid, #state{filter = Filter, holder = Holder, sampler = Sampler} = S) ->
    S1 = S#state{filter = Filter#{Pid => true}, filtered = S#state.filtered + 1},
    case {outside(Pid, S), Sampler} of
        {true, {Process, _}} ->
            Process ! {beamtrace_born, Pid},
            S1#state{outside = S#state.outside + 1};
        _ ->
            Holder ! {beamtrace_untrace, self(), Pid},
            S1
    end.

%% Born outside of the sample.
outside(_, #state{sampler = none}) -> false;
outside(Pid, #state{threshold = Threshold}) -> beamtrace_sample:outside(Pid, Threshold).

%% How many events the next batch may hold.
room(#state{max = Max, quota = infinity}) -> Max;
room(#state{max = Max, quota = 0}) -> Max;
room(#state{max = Max, quota = Quota}) -> min(Max, Quota).

wait(#state{out = Out}) ->
    case beamtrace_outbox:is_empty(Out) of
        true -> infinity;
        false -> ?RETRY_MS
    end.

%% The end of a batch, and the place for all that is not done per event.
checkpoint(S, Acc, Taken, Base, To, Filtered) ->
    S1 = close(S, Acc, Taken, Base, To, Filtered),
    {message_queue_len, Queue} = process_info(self(), message_queue_len),
    S2 = publish(Acc, Queue, prioritise(Queue, measure(To, Queue, S1))),
    case Queue > S2#state.queue_soft of
        true -> first(shed(Queue - S2#state.queue_soft div 2, S2));
        false -> first(S2)
    end.

%% What the overhead budget goes by.
publish(_, _, #state{sampler = none} = S) ->
    S;
publish(Acc, Queue, #state{sampler = {_, Counters}} = S) ->
    ok = counters:put(Counters, 1, S#state.received + S#state.filtered),
    ok = counters:put(Counters, 2, Queue),
    ok = counters:put(Counters, 4, S#state.outside),
    ok = counters:put(Counters, 5, beamtrace_outbox:batches(S#state.out)),
    ok = counters:add(Counters, 6, contents_bytes(Acc, S)),
    S#state{kinds = [element(1, Event) band 16#ff || Event <- lists:sublist(Acc, ?KINDS_SAMPLE)]}.

contents_bytes(Events, #state{mode = {bytes, _, _}}) -> lists:sum([beamtrace_event:contents_bytes(Event) || Event <- Events]);
contents_bytes(_, _) -> 0.

prioritise(Queue, #state{priority = normal, queue_soft = Soft} = S) when Queue > ?HURRY; Queue > Soft div 2 ->
    _ = process_flag(priority, high),
    S#state{priority = high};
prioritise(Queue, #state{priority = high} = S) when Queue < ?EASE ->
    _ = process_flag(priority, normal),
    S#state{priority = normal};
prioritise(_, S) ->
    S.

measure(To, Queue, #state{received = Received, filtered = Filtered, meter = Meter} = S) ->
    case beamtrace_limits:measure(To, Received, Filtered, Queue, Meter) of
        {ok, Meter1} ->
            S#state{meter = Meter1, queue_max = max(Queue, S#state.queue_max)};
        {tripped, Reason, Meter1} ->
            S#state.holder ! {beamtrace_limit, self(), Reason},
            S#state{meter = Meter1, queue_max = max(Queue, S#state.queue_max)}
    end.

%% Closes a batch: counts it, and sends it or lets it wait.
close(#state{out = Out} = S, [], 0, Base, To, Filtered) ->
    case beamtrace_outbox:is_silent(Out) of
        true -> retry(S#state{filtered = S#state.filtered + Filtered});
        false -> hand_over(S, [], 0, Base, To, Filtered)
    end;
close(S, Acc, Taken, Base, To, Filtered) ->
    hand_over(S, Acc, Taken, Base, To, Filtered).

hand_over(S0, Acc, Taken, Base, To, Filtered) ->
    S = retry(count(Taken, Filtered, S0)),
    S#state{out = beamtrace_outbox:put(Acc, Taken, Base, To, S#state.received, S#state.out)}.

retry(#state{out = Out} = S) -> S#state{out = beamtrace_outbox:retry(Out)}.

count(Taken, Filtered, #state{received = Received} = S) ->
    spend(Taken, S#state{received = Received + Taken, filtered = S#state.filtered + Filtered}).

%% After the last event allowed nothing is wanted any more; the holder stops the trace.
spend(_, #state{quota = infinity} = S) ->
    S;
spend(Taken, #state{quota = Quota, holder = Holder, received = Received} = S) when Quota > 0, Taken >= Quota ->
    Holder ! {beamtrace_limit, self(), {limit, events, Received, Received}},
    S#state{quota = 0, mask = 0};
spend(Taken, #state{quota = Quota} = S) ->
    S#state{quota = max(0, Quota - Taken)}.

%% The backlog is over its bound: counts messages without making events of them, but of those that are needed (births, ends, names).
shed(Left, S) ->
    shed(min(Left, allowed(S)), 0, 0, {none, 0, []}, S).

allowed(#state{quota = infinity}) -> infinity;
allowed(#state{quota = 0}) -> infinity;
allowed(#state{quota = Quota}) -> Quota - 1.

%% `Seen`: the time that what was given up spans, and what was kept, newest first.
shed(Left, Count, Filtered, {Gap, Keeping, Kept} = Seen, S) when Count < Left, Count + Filtered < Left + ?SHED_CHUNK ->
    receive
        Message when element(1, Message) =:= trace_ts ->
            case shed_kind(Message, S) of
                needed when Keeping < S#state.max -> shed(Left, Count + 1, Filtered, {Gap, Keeping + 1, [Message | Kept]}, S);
                unwanted -> shed(Left, Count, Filtered + 1, Seen, S);
                {filter, Pid} -> shed(Left, Count, Filtered, Seen, add_filter(Pid, S));
                _ -> shed(Left, Count + 1, Filtered, {shed_gap(Gap, stamp(Message)), Keeping, Kept}, S)
            end;
        beamtrace_flush ->
            shed(Left, Count, Filtered, Seen, S#state{armed = false});
        Message ->
            shed(Left, 0, 0, {none, 0, []}, control(Message, shed_done(Count, Filtered, Seen, S)))
    after 0 ->
        shed_done(Count, Filtered, Seen, S)
    end;
shed(_, Count, Filtered, Seen, S) ->
    shed_done(Count, Filtered, Seen, S).

shed_gap(none, Ts) -> {Ts, Ts};
shed_gap({From, To}, Ts) -> {min(From, Ts), max(To, Ts)}.

shed_done(Count, Filtered, {Gap, Keeping, Kept}, S) ->
    shed_lost(Count - Keeping, Gap, shed_kept(Keeping, Kept, count(0, Filtered, S))).

shed_kept(0, [], S) ->
    S;
shed_kept(Keeping, [Newest | _] = Kept, S) ->
    Base = stamp(lists:last(Kept)),
    hand_over(S, [event(Message, Base, S) || Message <- Kept], Keeping, Base, stamp(Newest), 0).

shed_lost(0, none, S) ->
    S;
shed_lost(Count, {From, To}, S) ->
    #state{out = Out} = S1 = count(Count, 0, S),
    S1#state{out = beamtrace_outbox:lost(Count, From, To, Out)}.

shed_kind(Message, #state{filter = Filter}) when is_map_key(element(2, Message), Filter) -> unwanted;
shed_kind(Message, S) when element(3, Message) =:= spawned, tuple_size(Message) >= 6 ->
    case outside(element(2, Message), S) orelse ours(element(4, Message), element(5, Message), S) of
        true -> {filter, element(2, Message)};
        false -> shed_wanted(?KIND_SPAWNED, S)
    end;
shed_kind(Message, S) when element(3, Message) =:= call ->
    shed_wanted(beamtrace_event:call_kind(element(4, Message)), S);
shed_kind(Message, S) ->
    shed_wanted(beamtrace_event:kind(element(3, Message), element(2, Message)), S).

shed_wanted(Kind, #state{mask = Mask}) when Mask band (1 bsl Kind) =:= 0 -> unwanted;
shed_wanted(Kind, _) when
    Kind =:= ?KIND_SPAWN; Kind =:= ?KIND_SPAWNED; Kind =:= ?KIND_EXIT; Kind =:= ?KIND_REGISTER; Kind =:= ?KIND_UNREGISTER
->
    needed;
shed_wanted(_, _) ->
    wanted.

%% Requests of the holder.
control({beamtrace_marker, Name, A, B}, S) ->
    mark(fun(Now) -> [{Now, 0, Name, A, B}] end, S);
control({beamtrace_markers, Markers, {From, Ref}}, S) ->
    S1 = mark(fun(_) -> Markers end, S),
    From ! {beamtrace_marked, Ref},
    S1;
control({beamtrace_sampler, Process, Counters, LeastMs}, #state{prompt_ms = PromptMs} = S) ->
    S#state{sampler = {Process, Counters}, prompt_ms = max(LeastMs, PromptMs)};
control({beamtrace_threshold, Threshold}, S) ->
    S#state{threshold = Threshold};
control({beamtrace_mask, Mask}, #state{quota = Quota} = S) when Quota =/= 0 ->
    S#state{mask = Mask};
control({beamtrace_kinds, {From, Ref}}, #state{kinds = Kinds} = S) ->
    From ! {beamtrace_kinds, Ref, [length([K || K <- Kinds, K =:= Kind]) || Kind <- lists:seq(0, ?KIND_COUNT - 1)]},
    S;
control({beamtrace_filter, Pids}, #state{filter = Filter} = S) ->
    S#state{filter = maps:merge(Filter, maps:from_keys(Pids, true))};
control({beamtrace_unfilter, Pids}, #state{filter = Filter} = S) ->
    S#state{filter = maps:without(Pids, Filter)};
control({beamtrace_stats, Tag}, #state{holder = Holder} = S) ->
    Holder ! {beamtrace_stats, self(), Tag, stats(S)},
    S;
control(beamtrace_stop, S) ->
    finish(S, ?LAST_RETRIES);
control(_, S) ->
    S.

mark(Markers, #state{out = Out} = S) ->
    Now = erlang:monotonic_time(nanosecond),
    close(S#state{out = beamtrace_outbox:mark(Markers(Now), Out)}, [], 0, Now, Now, 0).

%% The last batches, then the last message of the trace.
-spec finish(#state{}, non_neg_integer()) -> no_return().
finish(S0, Retries) ->
    Now = erlang:monotonic_time(nanosecond),
    S = close(S0, [], 0, Now, Now, 0),
    Out = S#state.out,
    case Retries > 0 andalso not (beamtrace_outbox:is_empty(Out) andalso beamtrace_outbox:last(stats(S), Out)) of
        true ->
            receive
            after ?RETRY_MS -> finish(S, Retries - 1)
            end;
        false ->
            S#state.holder ! {beamtrace_final, self(), stats(S#state{out = beamtrace_outbox:drop(Out)})},
            exit(normal)
    end.

-spec stats(#state{}) -> stats().
stats(#state{meter = Meter, received = Received, filtered = Filtered} = S) ->
    [{message_queue_len, Queue}, {memory, Memory}, {reductions, Reductions}] =
        process_info(self(), [message_queue_len, memory, reductions]),
    {Rate, Overhead} = beamtrace_limits:rate(erlang:monotonic_time(nanosecond), Received, Filtered, Meter),
    maps:merge(beamtrace_outbox:stats(S#state.out), #{
        received => Received,
        filtered => Filtered,
        queue => Queue,
        queue_max => max(Queue, S#state.queue_max),
        memory => Memory,
        reductions => Reductions,
        rate => Rate,
        overhead_ppm => Overhead
    }).
