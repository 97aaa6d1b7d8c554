%% System-monitor alarms for the calling process: on OTP 28 and later in a trace session of its own, before that by the one
%% system monitor of the node, which is refused where somebody has it and given back at the end. The VM gives both back
%% when the process dies.
-module(beamtrace_alarms).

-export([start/1, stop/1]).
-export_type([alarm/0, alarms/0]).

-type alarm() :: {long_gc | long_schedule | large_heap, pos_integer()}.
-type alarms() :: none | global | {session, term()}.

%% Not called by name: neither is there in every release.
-define(TRACE, (trace_module())).

trace_module() -> trace.

%% From now on `{monitor, Pid, Event, Info}` comes to the caller.
-spec start([alarm()]) -> {ok, alarms()} | {error, {system_monitor_busy, term()}}.
start([]) ->
    {ok, none};
start(Alarms) ->
    _ = code:ensure_loaded(?TRACE),
    case erlang:function_exported(?TRACE, system, 3) of
        true ->
            Session = ?TRACE:session_create(beamtrace, self(), []),
            _ = [ok = ?TRACE:system(Session, Event, Value) || {Event, Value} <- Alarms],
            {ok, {session, Session}};
        false ->
            global(Alarms)
    end.

global(Alarms) ->
    case erlang:system_monitor() of
        undefined ->
            case erlang:system_monitor(self(), Alarms) of
                undefined ->
                    {ok, global};
                {Pid, Options} ->
                    %% Somebody was as quick as we were.
                    _ = erlang:system_monitor(Pid, Options),
                    {error, {system_monitor_busy, Pid}}
            end;
        {Pid, _} ->
            {error, {system_monitor_busy, Pid}}
    end.

%% Whoever has taken the system monitor over meanwhile keeps it.
-spec stop(alarms()) -> ok.
stop(none) ->
    ok;
stop({session, Session}) ->
    _ = ?TRACE:session_destroy(Session),
    ok;
stop(global) ->
    Self = self(),
    _ =
        case erlang:system_monitor() of
            {Self, _} -> erlang:system_monitor(undefined);
            _ -> undefined
        end,
    ok.
