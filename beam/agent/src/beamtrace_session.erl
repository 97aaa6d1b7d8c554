%% One face over the two ways to trace: an isolated trace session (OTP 27+, module trace of kernel) and the one
%% legacy session of the node (erlang:trace*, OTP 25 and 26).
%% The handle must stay with a process on the node: a session dies with the last reference to it.
-module(beamtrace_session).

-export([kind/0, open/1, close/1, undo/2, process/4, processes/3, port/4, function/4, message/3, delivered/1]).
-export([flagged/2, forget/2, traced/2, conflicting_gc/1, gc_unsafe/0, busy/0, clear_legacy/0]).
-export_type([handle/0, mfargs/0, target/0, tracer/0]).

-type session() :: term().
%% Who takes the events: a process, or a library and its state.
-type tracer() :: pid() | {module(), non_neg_integer()}.
-type handle() :: {own, session()} | {legacy, tracer()}.
-type target() :: all | new | existing | pid() | port().
-type mfargs() :: {module() | '_', atom(), arity() | '_'} | on_load.

%% Setting flags for all processes in one call stops every scheduler for about 0.1 microseconds a process. With more processes
%% than this they are taken one by one, which takes several times as long, and stops nobody.
-define(AT_ONCE_MAX, 50000).
%% Rounds over processes that were started while flags were cleared one by one.
-define(ROUNDS_MAX, 4).

%% Not called by name: the module is not there before OTP 27.
-define(TRACE, (trace_module())).

trace_module() -> trace.

-spec kind() -> own | legacy.
kind() ->
    case code:ensure_loaded(?TRACE) of
        {module, _} ->
            case erlang:function_exported(?TRACE, session_create, 3) of
                true -> own;
                false -> legacy
            end;
        {error, _} ->
            legacy
    end.

-spec open(tracer()) -> handle().
open(Tracer) ->
    case kind() of
        own -> {own, ?TRACE:session_create(beamtrace, Tracer, [])};
        legacy -> {legacy, Tracer}
    end.

%% Everything off, in one go. Patterns are only needed by the legacy session, whose breakpoints outlive all processes.
-spec undo(handle(), [{mfargs(), [atom()]}]) -> ok.
undo({own, Session}, _) ->
    _ = ?TRACE:session_destroy(Session),
    ok;
undo({legacy, _} = Handle, Patterns) ->
    ok = close(Handle),
    _ = [erlang:trace_pattern(MFA, false, Options) || {MFA, Options} <- Patterns],
    _ = [message_pattern(Which, true) || Which <- [send, 'receive']],
    ok.

%% Switches flags off, so that no new event arises; the session itself lives until undo/2.
-spec close(handle()) -> ok.
close(Handle) ->
    _ = process(Handle, new, false, [all]),
    case erlang:system_info(process_count) > ?AT_ONCE_MAX of
        true -> clear(Handle, #{}, ?ROUNDS_MAX);
        false -> process(Handle, existing, false, [all])
    end,
    _ = port(Handle, all, false, [all]),
    ok.

%% Children that inherit flags may have come while their parents were not cleared yet, hence more than one round.
clear(Handle, _, 0) ->
    process(Handle, existing, false, [all]);
clear(Handle, Seen, Rounds) ->
    case [Pid || Pid <- erlang:processes(), not is_map_key(Pid, Seen)] of
        [] ->
            0;
        Pids ->
            _ = [one(Handle, Pid, false, [all]) || Pid <- Pids],
            clear(Handle, maps:merge(Seen, maps:from_keys(Pids, true)), Rounds - 1)
    end.

%% Sets flags of all processes, or of those that exist; returns how many carry them.
-spec processes(handle(), all | existing, [atom()]) -> non_neg_integer().
processes(Handle, Which, Flags) ->
    case erlang:system_info(process_count) > ?AT_ONCE_MAX of
        true ->
            %% New ones first: nobody is missed in between.
            _ = Which =:= all andalso process(Handle, new, true, Flags),
            lists:sum([one(Handle, Pid, true, Flags) || Pid <- erlang:processes()]);
        false ->
            process(Handle, Which, true, Flags)
    end.

%% badarg: it has ended, or belongs to another tracer of the legacy session.
one(Handle, Pid, How, Flags) ->
    try
        process(Handle, Pid, How, Flags)
    catch
        error:badarg -> 0
    end.

-spec process(handle(), target(), boolean(), [atom()]) -> non_neg_integer().
process({own, Session}, Who, How, Flags) -> ?TRACE:process(Session, Who, How, Flags);
process({legacy, _}, Who, false, Flags) -> erlang:trace(legacy_processes(Who), false, Flags);
process({legacy, Tracer}, Who, true, Flags) -> erlang:trace(legacy_processes(Who), true, [legacy_tracer(Tracer) | Flags]).

-spec port(handle(), target(), boolean(), [atom()]) -> non_neg_integer().
port({own, Session}, Who, How, Flags) -> ?TRACE:port(Session, Who, How, Flags);
port({legacy, _}, Who, false, Flags) -> erlang:trace(legacy_ports(Who), false, Flags);
port({legacy, Tracer}, Who, true, Flags) -> erlang:trace(legacy_ports(Who), true, [legacy_tracer(Tracer) | Flags]).

legacy_tracer({Module, State}) -> {tracer, Module, State};
legacy_tracer(Pid) -> {tracer, Pid}.

legacy_processes(all) -> processes;
legacy_processes(new) -> new_processes;
legacy_processes(existing) -> existing_processes;
legacy_processes(Pid) -> Pid.

legacy_ports(all) -> ports;
legacy_ports(new) -> new_ports;
legacy_ports(existing) -> existing_ports;
legacy_ports(Port) -> Port.

%% Call patterns; returns how many functions match.
-spec function(handle(), mfargs(), true | false | list(), [atom()]) -> non_neg_integer().
function({own, Session}, MFA, MatchSpec, Options) -> ?TRACE:function(Session, MFA, MatchSpec, Options);
function({legacy, _}, MFA, MatchSpec, Options) -> erlang:trace_pattern(MFA, MatchSpec, Options).

%% Match specs for messages.
-spec message(handle(), send | 'receive', true | list()) -> ok.
message({own, Session}, send, MatchSpec) ->
    _ = ?TRACE:send(Session, MatchSpec, []),
    ok;
message({own, Session}, 'receive', MatchSpec) ->
    _ = ?TRACE:recv(Session, MatchSpec, []),
    ok;
message({legacy, _}, Which, MatchSpec) ->
    _ = message_pattern(Which, MatchSpec),
    ok.

%% OTP 25's own spec of trace_pattern/3 forgets these two, so Dialyzer must not see the call.
message_pattern(Which, MatchSpec) -> apply(legacy_module(), trace_pattern, [Which, MatchSpec, []]).

legacy_module() -> erlang.

%% `{trace_delivered, all, Ref}` comes when every event so far is in the tracer's queue.
-spec delivered(handle()) -> reference().
delivered({own, Session}) -> ?TRACE:delivered(Session, all);
delivered({legacy, _}) -> erlang:trace_delivered(all).

%% Whether a process carries flags of this session.
-spec flagged(handle(), pid()) -> boolean().
flagged(Handle, Pid) ->
    Info =
        case Handle of
            {own, Session} -> ?TRACE:info(Session, Pid, flags);
            {legacy, _} -> erlang:trace_info(Pid, flags)
        end,
    case Info of
        {flags, [_ | _]} -> true;
        _ -> false
    end.

%% Ends a session that has traced nothing but this one process.
-spec forget(handle(), pid()) -> ok.
forget({own, Session}, _) ->
    _ = ?TRACE:session_destroy(Session),
    ok;
forget({legacy, _}, Pid) ->
    _ = erlang:trace(Pid, false, [all]),
    ok.

%% Whether a pattern is set on a function: `undefined` when there is no such function.
-spec traced(handle(), mfa()) -> boolean() | undefined.
traced(Handle, MFA) ->
    Info =
        case Handle of
            {own, Session} -> ?TRACE:info(Session, MFA, traced);
            {legacy, _} -> erlang:trace_info(MFA, traced)
        end,
    case Info of
        {traced, undefined} -> undefined;
        {traced, false} -> false;
        {traced, _} -> true
    end.

%% VMs in which two sessions that trace garbage collections of one process crash (fixed in ERTS 17.1.1).
-spec gc_unsafe() -> boolean().
gc_unsafe() ->
    kind() =:= own andalso
        [binary_to_integer(N) || N <- binary:split(version(), <<".">>, [global])] < [17, 1, 1].

version() ->
    [Version | _] = binary:split(list_to_binary(erlang:system_info(version)), <<"-">>),
    Version.

%% The first of these processes whose garbage collections another session or the legacy session traces.
-spec conflicting_gc([pid() | new]) -> none | {conflict, pid() | new}.
conflicting_gc(Processes) ->
    Sessions = ?TRACE:session_info(all),
    case [S || S <- [legacy | lists:delete({legacy, default}, Sessions)], gc_new(S)] of
        [_ | _] ->
            case lists:member(new, Processes) of
                true -> {conflict, new};
                false -> conflicting_gc_pids(Processes)
            end;
        [] ->
            conflicting_gc_pids(Processes)
    end.

conflicting_gc_pids([Pid | Rest]) when is_pid(Pid) ->
    case ?TRACE:session_info(Pid) of
        Sessions when is_list(Sessions), Sessions =/= [] ->
            case lists:any(fun(Session) -> gc_flag(Session, Pid) end, Sessions) of
                true -> {conflict, Pid};
                false -> conflicting_gc_pids(Rest)
            end;
        Nobody when Nobody =:= []; Nobody =:= undefined ->
            conflicting_gc_pids(Rest)
    end;
conflicting_gc_pids([new | Rest]) ->
    conflicting_gc_pids(Rest);
conflicting_gc_pids([]) ->
    none.

gc_new(legacy) -> has_gc(erlang:trace_info(new_processes, flags));
gc_new(Session) -> session_has_gc(Session, new).

gc_flag({legacy, default}, Pid) -> has_gc(erlang:trace_info(Pid, flags));
gc_flag(Session, Pid) -> session_has_gc(Session, Pid).

%% A session may end between the listing and the question.
session_has_gc(Session, Whom) ->
    try ?TRACE:info(Session, Whom, flags) of
        Info -> has_gc(Info)
    catch
        error:badarg -> false
    end.

has_gc({flags, Flags}) when is_list(Flags) -> lists:member(garbage_collection, Flags);
has_gc(_) -> false.

%% Who else uses the legacy session. Exact: asks every process and port, in slices that yield like any other code.
-spec busy() -> none | {busy, term()}.
busy() ->
    first_busy([
        fun() -> tracer_of(new_processes) end,
        fun() -> tracer_of(new_ports) end,
        fun() -> on_load() end,
        fun() -> any_tracer(erlang:processes()) end,
        fun() -> any_tracer(erlang:ports()) end
    ]).

first_busy([Ask | Rest]) ->
    case Ask() of
        none -> first_busy(Rest);
        Busy -> Busy
    end;
first_busy([]) ->
    none.

any_tracer([Item | Rest]) ->
    case tracer_of(Item) of
        none -> any_tracer(Rest);
        Busy -> Busy
    end;
any_tracer([]) ->
    none.

tracer_of(Item) ->
    case erlang:trace_info(Item, tracer) of
        {tracer, []} -> none;
        {tracer, Tracer} -> {busy, Tracer};
        undefined -> none
    end.

on_load() ->
    case erlang:trace_info(on_load, all) of
        {all, false} -> none;
        {all, _} -> {busy, on_load}
    end.

%% Takes the legacy session from whoever has it.
-spec clear_legacy() -> ok.
clear_legacy() ->
    _ = erlang:trace(all, false, [all]),
    _ = [
        erlang:trace_pattern(MFA, false, Options)
     || MFA <- [{'_', '_', '_'}, on_load], Options <- [[local], [global], [meta]]
    ],
    _ = [message_pattern(Which, true) || Which <- [send, 'receive']],
    ok.
