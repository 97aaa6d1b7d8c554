%% What the processes that own a native trace's rings have in common: how they start, and how the rings are freed. The memory is freed only
%% behind a barrier over all schedulers, when no callback can be inside any more (docs/native-tracer.md).
-module(beamtrace_rings).

-export([start/3, init/3, began/2, refuse/2, touch/2, until/1, barrier/0, free/1]).

-define(HEAP_WORDS, 4096).
-define(MEMORY_DEFAULT, 268435456).
-define(BARRIER_MS, 5000).
-define(FREE_TRIES, 1000).
%% Bytes; a start must not take longer than some tens of milliseconds for them.
-define(TOUCHED_MAX, 67108864).

%% The process of a trace or of a flight recorder, which answers by began/2 or refuse/2; and the tracer for the VM.
-spec start(native | recorder, term(), beamtrace_limits:limits()) -> {ok, pid(), {module(), non_neg_integer()}} | {error, term()}.
start(Which, Argument, #{memory := Memory}) ->
    Bytes =
        case Memory of
            infinity -> ?MEMORY_DEFAULT;
            _ -> Memory
        end,
    Guard = max(?HEAP_WORDS * 4, 2 * Bytes div erlang:system_info(wordsize)),
    {Pid, Monitor} = spawn_opt(?MODULE, init, [Which, self(), Argument], [
        link,
        monitor,
        {message_queue_data, off_heap},
        {min_heap_size, ?HEAP_WORDS},
        %% Batches are binaries outside of the heap: they must not grow old there.
        {fullsweep_after, 4},
        {max_heap_size, #{size => Guard, kill => true, error_logger => false}},
        {priority, high}
    ]),
    receive
        {beamtrace_rings, Pid, Result} ->
            true = erlang:demonitor(Monitor, [flush]),
            case Result of
                {ok, State} -> {ok, Pid, {beamtrace_nif, State}};
                {error, Reason} -> {error, Reason}
            end;
        {'DOWN', Monitor, process, Pid, Reason} ->
            {error, Reason}
    end.

-spec init(native | recorder, pid(), term()) -> ok.
init(Which, Holder, Argument) ->
    process_flag(sensitive, true),
    case Which of
        native -> beamtrace_native:init(Holder, Argument);
        recorder -> beamtrace_recorder:init(Holder, Argument)
    end.

-spec began(pid(), State :: non_neg_integer()) -> ok.
began(Holder, State) ->
    Holder ! {beamtrace_rings, self(), {ok, State}},
    ok.

-spec refuse(pid(), term()) -> ok.
refuse(Holder, Reason) ->
    true = unlink(Holder),
    Holder ! {beamtrace_rings, self(), {error, Reason}},
    ok.

%% Has the memory of the rings made before the first event, slice by slice, and not before what is urgent. Under a budget so little is written that it is
%% made as it is needed.
-spec touch(beamtrace_nif:trace(), beamtrace_limits:limits()) -> ok.
touch(_, #{overhead := Overhead}) when Overhead =/= infinity ->
    ok;
touch(Trace, _) ->
    Priority = process_flag(priority, normal),
    touched(Trace, beamtrace_nif:touch(Trace, 0)),
    _ = process_flag(priority, Priority),
    ok.

touched(_, done) ->
    ok;
touched(_, Next) when Next >= ?TOUCHED_MAX ->
    ok;
touched(Trace, Next) ->
    true = erlang:yield(),
    touched(Trace, beamtrace_nif:touch(Trace, Next)).

%% Milliseconds to the next multiple of `Ms` by the VM's clock. Whoever wakes up at these moments costs one waking together: on an idle node that, not the work,
%% is what looking costs.
-spec until(pos_integer()) -> pos_integer().
until(Ms) ->
    case erlang:monotonic_time(millisecond) rem Ms of
        Before when Before < 0 -> -Before;
        Behind -> Ms - Behind
    end.

%% Whether every scheduler has been outside of the callbacks since.
-spec barrier() -> boolean().
barrier() ->
    Barrier = erlang:trace_delivered(all),
    receive
        {trace_delivered, all, Barrier} -> true
    after ?BARRIER_MS -> false
    end.

%% Behind the barrier. A thread that is no scheduler may still be inside for a moment.
-spec free(beamtrace_nif:trace()) -> ok.
free(Trace) -> free(Trace, ?FREE_TRIES).

free(_, 0) ->
    ok;
free(Trace, Tries) ->
    case beamtrace_nif:free(Trace) of
        ok ->
            ok;
        busy ->
            receive
            after 1 -> free(Trace, Tries - 1)
            end
    end.
