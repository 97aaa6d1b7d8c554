%% The native tracer without shipping: rings large enough for a block that nobody drains; or smaller ones that are drained into a
%% bounded queue of binaries in the node, which is what a flight recorder could do instead of keeping large rings.
%% Runs the library under the agent's own name, so no session of beamtrace may be attached meanwhile.
-module(beamtrace_bench_record).

-export([on/2, off/0]).

-define(KINDS, 16#FFFFFFF).
-define(CAPACITY, 1048576).
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
    {From, Lost} =
        case How of
            record -> receive {off, Pid} -> {Pid, 0} end;
            buffer -> buffer(Trace, queue:new(), 0, 0)
        end,
    beamtrace_bench_nif:off({beamtrace_nif, State}),
    {_, _, _, Last, _, _, _, _} = beamtrace_nif:drain(Trace, 1),
    ok = beamtrace_nif:shut(Trace),
    ok = barrier(),
    ok = beamtrace_nif:free(Trace),
    From ! {self(), Lost + Last}.

capacity(record) -> ?CAPACITY;
capacity(buffer) -> ?DRAINED_CAPACITY.

buffer(Trace, Queue, Bytes, Lost) when Bytes > ?KEEP_BYTES ->
    {{value, Oldest}, Rest} = queue:out(Queue),
    buffer(Trace, Rest, Bytes - byte_size(Oldest), Lost);
buffer(Trace, Queue, Bytes, Lost) ->
    receive
        {off, From} -> {From, Lost}
    after ?DRAIN_MS ->
        {_, Records, _, More, _, _, _, _} = beamtrace_nif:drain(Trace, ?DRAIN_MAX),
        buffer(Trace, queue:in(Records, Queue), Bytes + byte_size(Records), Lost + More)
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
