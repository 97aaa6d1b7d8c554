%% The native tracer without draining: opens rings large enough for a block, and only records.
%% Runs the library under the agent's own name, so no session of beamtrace may be attached meanwhile.
-module(beamtrace_bench_record).

-export([on/1, off/0]).

-define(KINDS, 16#FFFFFFF).
-define(CAPACITY, 1048576).

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
    receive
        {off, From} ->
            beamtrace_bench_nif:off({beamtrace_nif, State}),
            {_, _, _, Lost, _, _, _, _} = beamtrace_nif:drain(Trace, 1),
            ok = beamtrace_nif:shut(Trace),
            ok = barrier(),
            ok = beamtrace_nif:free(Trace),
            From ! {self(), Lost}
    end.

%% Takes the flags off, frees and unloads everything; returns how many records found no room.
-spec off() -> non_neg_integer().
off() ->
    Holder = whereis(?MODULE),
    Monitor = monitor(process, Holder),
    Holder ! {off, self()},
    receive
        {Holder, Lost} ->
            receive
                {'DOWN', Monitor, process, _, _} -> ok
            end,
            _ = [
                begin
                    _ = code:purge(M),
                    _ = code:delete(M),
                    code:purge(M)
                end
             || M <- [beamtrace_nif, beamtrace_agent]
            ],
            Lost;
        {'DOWN', Monitor, process, _, Reason} ->
            error(Reason)
    end.

barrier() ->
    Delivered = erlang:trace_delivered(all),
    receive
        {trace_delivered, all, Delivered} -> ok
    end.
