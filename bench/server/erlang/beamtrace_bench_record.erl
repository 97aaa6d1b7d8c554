%% The native tracer without shipping: rings large enough for a block that nobody drains; or smaller ones that are drained into a
%% bounded queue of binaries in the node, which is what a flight recorder could do instead of keeping large rings.
%% Runs the library under the agent's own name, so no session of beamtrace may be attached meanwhile.
-module(beamtrace_bench_record).

-export([on/2, recorded/0, off/0]).

-define(KINDS, 16#FFFFFFF).
%% A few seconds of a busy server; the pages of the rings are touched for the first time, which is a few nanoseconds a record in our disfavour.
-define(CAPACITY, 262144).
-define(DRAINED_CAPACITY, 65536).
-define(DRAIN_MAX, 4096).
-define(DRAIN_MS, 10).
-define(KEEP_BYTES, 16777216).

%% Loads what is needed, opens a trace and sets the flags. A process holds the trace.
-spec on([{module(), binary()}], record | buffer) -> non_neg_integer().
on(Modules, How) ->
    Caller = self(),
    %% As the agent's processes are.
    Holder = spawn_opt(fun() -> hold(Caller, Modules, How) end, [{priority, high}]),
    receive
        {Holder, Count} -> Count
    end.

hold(Caller, Modules, How) ->
    register(?MODULE, self()),
    [Agent, Nif, Library] = [proplists:get_value(Name, Modules) || Name <- [beamtrace_agent, beamtrace_nif, library]],
    {module, beamtrace_agent} = code:load_binary(beamtrace_agent, "beamtrace:bench", Agent),
    ok = beamtrace_agent:native_loader_load("beamtrace:bench", Nif, Library, erlang:md5(Library)),
    {Trace, State, _} = beamtrace_nif:open(
        erlang:system_info(schedulers), capacity(How), {true, false, ?KINDS}, {self(), undefined, []}
    ),
    Count = beamtrace_bench_nif:on({beamtrace_nif, State}),
    Caller ! {self(), Count},
    case How of
        record -> recording(Trace, State, 0);
        buffer -> buffering(Trace, State, queue:new(), {0, 0, 0})
    end.

capacity(record) -> ?CAPACITY;
capacity(buffer) -> ?DRAINED_CAPACITY.

recording(Trace, State, Drained) ->
    receive
        {recorded, From} ->
            %% A few have to be taken out to see how many there are.
            {Taken, _, _, Lost, _, Waiting, _, _} = beamtrace_nif:drain(Trace, 1),
            0 = Lost,
            From ! {self(), Drained + Taken + Waiting},
            recording(Trace, State, Drained + Taken);
        {off, From} ->
            ended(Trace, State, From, {Drained, 0})
    end.

%% The oldest binaries go when there are too many bytes.
buffering(Trace, State, Queue, {Bytes, Drained, Lost}) when Bytes > ?KEEP_BYTES ->
    {{value, Oldest}, Rest} = queue:out(Queue),
    buffering(Trace, State, Rest, {Bytes - byte_size(Oldest), Drained, Lost});
buffering(Trace, State, Queue, {Bytes, Drained, Lost}) ->
    receive
        {off, From} -> ended(Trace, State, From, {Drained, Lost})
    after ?DRAIN_MS ->
        {Taken, Records, _, More, _, _, _, _} = beamtrace_nif:drain(Trace, ?DRAIN_MAX),
        buffering(Trace, State, queue:in(Records, Queue), {Bytes + byte_size(Records), Drained + Taken, Lost + More})
    end.

ended(Trace, State, From, {Drained, LostBefore}) ->
    beamtrace_bench_nif:off({beamtrace_nif, State}),
    {Taken, _, _, Lost, _, Waiting, _, _} = beamtrace_nif:drain(Trace, 1),
    ok = beamtrace_nif:shut(Trace),
    ok = barrier(),
    ok = beamtrace_nif:free(Trace),
    From ! {self(), {Drained + Taken + Waiting, LostBefore + Lost}}.

%% Events recorded so far.
-spec recorded() -> non_neg_integer().
recorded() -> ask(recorded).

%% Takes the flags off, frees and unloads everything; returns how many events were recorded, and how many found no room.
-spec off() -> {Recorded :: non_neg_integer(), Lost :: non_neg_integer()}.
off() ->
    Answer = ask(off),
    _ = [
        begin
            _ = code:purge(M),
            _ = code:delete(M),
            code:purge(M)
        end
     || M <- [beamtrace_nif, beamtrace_agent]
    ],
    Answer.

%% Waits for the holder's end too when it is told to end.
ask(Request) ->
    Holder = whereis(?MODULE),
    Monitor = monitor(process, Holder),
    Holder ! {Request, self()},
    receive
        {Holder, Answer} when Request =:= off ->
            receive
                {'DOWN', Monitor, process, _, _} -> Answer
            end;
        {Holder, Answer} ->
            true = demonitor(Monitor, [flush]),
            Answer;
        {'DOWN', Monitor, process, _, Reason} ->
            error(Reason)
    end.

barrier() ->
    Delivered = erlang:trace_delivered(all),
    receive
        {trace_delivered, all, Delivered} -> ok
    end.
