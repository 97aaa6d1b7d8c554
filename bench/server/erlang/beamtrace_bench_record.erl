%% The native tracer without draining: opens rings large enough for a block, and only records.
%% Runs the library under the agent's own name, so no session of beamtrace may be attached meanwhile.
-module(beamtrace_bench_record).

-export([on/1, recorded/0, off/0]).

-define(KINDS, 16#FFFFFFF).
%% A few seconds of a busy server; the pages of the rings are touched for the first time, which is a few nanoseconds a record in our disfavour.
-define(CAPACITY, 262144).

%% Loads what is needed, opens a trace and sets the flags. A process holds the trace.
-spec on([{module(), binary()}]) -> non_neg_integer().
on(Modules) ->
    Caller = self(),
    Holder = spawn(fun() -> hold(Caller, Modules) end),
    receive
        {Holder, Count} -> Count
    end.

hold(Caller, Modules) ->
    register(?MODULE, self()),
    [Agent, Nif, Library] = [proplists:get_value(Name, Modules) || Name <- [beamtrace_agent, beamtrace_nif, library]],
    {module, beamtrace_agent} = code:load_binary(beamtrace_agent, "beamtrace:bench", Agent),
    ok = beamtrace_agent:native_loader_load("beamtrace:bench", Nif, Library, erlang:md5(Library)),
    {Trace, State, _} = beamtrace_nif:open(
        erlang:system_info(schedulers), ?CAPACITY, {true, false, ?KINDS}, {self(), undefined, []}
    ),
    Count = beamtrace_bench_nif:on({beamtrace_nif, State}),
    Caller ! {self(), Count},
    recording(Trace, State, 0).

recording(Trace, State, Drained) ->
    receive
        {recorded, From} ->
            %% A few have to be taken out to see how many there are.
            {Taken, _, _, Lost, _, Waiting, _, _} = beamtrace_nif:drain(Trace, 1),
            0 = Lost,
            From ! {self(), Drained + Taken + Waiting},
            recording(Trace, State, Drained + Taken);
        {off, From} ->
            beamtrace_bench_nif:off({beamtrace_nif, State}),
            {Taken, _, _, Lost, _, Waiting, _, _} = beamtrace_nif:drain(Trace, 1),
            ok = beamtrace_nif:shut(Trace),
            ok = barrier(),
            ok = beamtrace_nif:free(Trace),
            From ! {self(), {Drained + Taken + Waiting, Lost}}
    end.

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
