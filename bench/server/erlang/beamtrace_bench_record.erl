%% The native tracer without shipping: rings that overwrite, looked at as a flight recorder does; or smaller ones that are drained into a
%% bounded queue of binaries in the node, which is what a flight recorder could do instead of keeping large rings.
%% Runs the library under the agent's own name, so no session of beamtrace may be attached meanwhile.
-module(beamtrace_bench_record).

-export([on/2, recorded/0, off/0]).

-define(KINDS, 16#FFFFFFF).
%% A flight recorder's on two schedulers, and how often it looks: the events' clock lives by that. The first looks, which learn its rate, are before the block.
-define(CAPACITY, 262144).
-define(LOOK_MS, 100).
-define(FIRST_LOOKS, 10).
-define(FIRST_LOOK_MS, 5).
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
    _ = How =:= record andalso beamtrace_nif:overwrite(Trace),
    ok = touch(Trace, 0),
    Count = beamtrace_bench_nif:on({beamtrace_nif, State}),
    Caller ! {self(), Count},
    case How of
        record -> recording(Trace, State, {0, 0}, ?FIRST_LOOKS);
        buffer -> buffering(Trace, State, queue:new(), {0, 0, 0})
    end.

%% The rings' memory is made before the first event, as a trace and a flight recorder have it.
touch(_, done) -> ok;
touch(Trace, From) -> touch(Trace, beamtrace_nif:touch(Trace, From)).

capacity(record) -> ?CAPACITY;
capacity(buffer) -> ?DRAINED_CAPACITY.

recording(Trace, State, Counts, FirstLooks) ->
    receive
        {recorded, From} ->
            {Written, _} = New = look(Trace, Counts),
            From ! {self(), Written},
            recording(Trace, State, New, FirstLooks);
        {off, From} ->
            ended(Trace, State, From, fun() -> look(Trace, Counts) end)
    after pause(FirstLooks) -> recording(Trace, State, look(Trace, Counts), max(0, FirstLooks - 1))
    end.

pause(0) -> ?LOOK_MS;
pause(_) -> ?FIRST_LOOK_MS.

look(Trace, {_, LostBefore}) ->
    {none, Written, Lost, _, _, _, _} = beamtrace_nif:look(Trace),
    {Written, LostBefore + Lost}.

%% The oldest binaries go when there are too many bytes.
buffering(Trace, State, Queue, {Bytes, Drained, Lost}) when Bytes > ?KEEP_BYTES ->
    {{value, Oldest}, Rest} = queue:out(Queue),
    buffering(Trace, State, Rest, {Bytes - byte_size(Oldest), Drained, Lost});
buffering(Trace, State, Queue, {Bytes, Drained, Lost}) ->
    receive
        {off, From} -> ended(Trace, State, From, fun() -> rest(Trace, Drained, Lost) end)
    after ?DRAIN_MS ->
        {Taken, Records, _, More, _, _, _, _} = beamtrace_nif:drain(Trace, ?DRAIN_MAX),
        buffering(Trace, State, queue:in(Records, Queue), {Bytes + byte_size(Records), Drained + Taken, Lost + More})
    end.

rest(Trace, Drained, LostBefore) ->
    {Taken, _, _, Lost, _, Waiting, _, _} = beamtrace_nif:drain(Trace, 1),
    {Drained + Taken + Waiting, LostBefore + Lost}.

ended(Trace, State, From, Counts) ->
    beamtrace_bench_nif:off({beamtrace_nif, State}),
    Answer = Counts(),
    ok = beamtrace_nif:shut(Trace),
    ok = barrier(),
    ok = beamtrace_nif:free(Trace),
    From ! {self(), Answer}.

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
