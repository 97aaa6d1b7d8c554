%% Which processes and ports of a spec get flags, and which never do: ours, and the client's connection.
%% Throws `{beamtrace, Reason}` with a reason of docs/agent-protocol.md, "Errors".
-module(beamtrace_targets).

-export([excluded/1, enable/3, roots/2, flags/1, inherits/1, gc_candidates/1]).

-type item() :: pid() | port().

%% Processes and ports that carry the connections of beamtrace's clients: the distribution controllers, what they
%% are linked to, and their ports. Registered processes (net_kernel, supervisors) are the node's own and not meant.
-spec excluded([node()]) -> [item()].
excluded(Nodes) ->
    Controllers = [Controller || {Node, Controller} <- erlang:system_info(dist_ctrl), lists:member(Node, Nodes)],
    grow(2, Controllers, Controllers).

grow(0, _, Found) ->
    Found;
grow(Depth, Edge, Found) ->
    Next = lists:usort([Item || From <- Edge, Item <- linked(From), not lists:member(Item, Found)]),
    grow(Depth - 1, Next, Found ++ Next).

linked(Port) when is_port(Port) ->
    case erlang:port_info(Port, connected) of
        {connected, Pid} -> [Pid || unnamed(Pid)];
        undefined -> []
    end;
linked(Pid) when node(Pid) =:= node() ->
    case process_info(Pid, links) of
        {links, Links} -> [Item || Item <- Links, is_port(Item) orelse unnamed(Item)];
        undefined -> []
    end;
linked(_) ->
    [].

unnamed(Pid) when is_pid(Pid), node(Pid) =:= node() -> process_info(Pid, registered_name) =:= [];
unnamed(_) -> false.

%% Sets the flags; returns how many processes and ports carry them now.
-spec enable(beamtrace_session:handle(), beamtrace_spec:spec(), #{item() => true}) ->
    {non_neg_integer(), non_neg_integer()}.
enable(Handle, #{processes := Processes, ports := Ports} = Spec, Excluded) ->
    Flags = process_flags(Spec),
    Count = processes(Handle, Processes, Flags, Excluded),
    PortFlags = stamped(maps:get(port_flags, Spec), Spec),
    PortCount = ports(Handle, Ports, PortFlags, maps:get(port_flags, Spec), Excluded),
    {Count, PortCount}.

%% Processes that a spec names, or `all`; and whether new ones are meant as well. For beamtrace_sampling, which sets the flags itself.
-spec roots(beamtrace_spec:spec(), #{item() => true}) -> {all | [pid()], New :: boolean()}.
roots(#{flags := []}, _) ->
    {[], false};
roots(#{processes := Processes}, Excluded) ->
    case Processes of
        all -> {all, true};
        new -> {[], true};
        existing -> {erlang:processes(), false};
        none -> {[], false};
        {pids, Pids} -> {[named(Pid, Pid, Excluded) || Pid <- lists:usort(Pids)], false};
        {registered, Names} -> {[named(whereis(Name), Name, Excluded) || Name <- lists:usort(Names)], false};
        {application, App} -> {of_application(App, Excluded), false}
    end.

named(Pid, Name, Excluded) when is_pid(Pid) ->
    refuse(Pid, Excluded),
    case is_process_alive(Pid) of
        true -> Pid;
        false -> throw({beamtrace, {bad_process, Name}})
    end;
named(_, Name, _) ->
    throw({beamtrace, {bad_process, Name}}).

%% Flags of processes and of ports, with what the tracer needs besides.
-spec flags(beamtrace_spec:spec()) -> {[atom()], [atom()]}.
flags(#{port_flags := PortFlags} = Spec) -> {process_flags(Spec), stamped(PortFlags, Spec)}.

process_flags(#{flags := []}) ->
    [];
process_flags(#{flags := Flags, payload := Payload, processes := Processes} = Spec) ->
    %% What instrumented code tells stands in the arguments of a call.
    Arity = [arity || Payload =:= none, lists:member(call, Flags), not is_map_key(instrumented, Spec)],
    %% Processes of ours that start while everything new is traced are recognised by their `spawned`, and so are those that are
    %% born outside of the sample.
    New = Processes =:= all orelse Processes =:= new,
    Procs = [
        procs
     || (New andalso (lists:member(running, Flags) orelse lists:member(exiting, Flags))) orelse
            ((New orelse inherits(Flags)) andalso beamtrace_sampling:wanted(Spec))
    ],
    lists:usort(Procs ++ Arity ++ stamped(Flags, Spec)).

%% Whether processes get flags of others.
-spec inherits([atom()]) -> boolean().
inherits(Flags) ->
    lists:any(fun(Flag) -> lists:member(Flag, Flags) end, [set_on_spawn, set_on_first_spawn, set_on_link, set_on_first_link]).

%% The native tracer stamps by itself.
stamped([], _) -> [];
stamped(Flags, #{tracer := native, scheduler := true}) -> [scheduler_id | Flags];
stamped(Flags, #{tracer := native}) -> Flags;
stamped(Flags, #{scheduler := true}) -> [monotonic_timestamp, scheduler_id | Flags];
stamped(Flags, _) -> [monotonic_timestamp | Flags].

processes(_, none, _, _) ->
    0;
processes(_, _, [], _) ->
    0;
processes(Handle, {pids, Pids}, Flags, Excluded) ->
    _ = [refuse(Pid, Excluded) || Pid <- Pids],
    lists:sum([one(Handle, Pid, Flags, {bad_process, Pid}) || Pid <- lists:usort(Pids)]);
processes(Handle, {registered, Names}, Flags, Excluded) ->
    lists:sum([registered(Handle, Name, Flags, Excluded) || Name <- lists:usort(Names)]);
processes(Handle, {application, App}, Flags, Excluded) ->
    lists:sum([one(Handle, Pid, Flags, none) || Pid <- of_application(App, Excluded)]);
processes(Handle, new, Flags, _) ->
    _ = beamtrace_session:process(Handle, new, true, Flags),
    0;
processes(Handle, Which, Flags, Excluded) ->
    Count = beamtrace_session:processes(Handle, Which, Flags),
    Count - length([Pid || Pid <- maps:keys(Excluded), is_pid(Pid), off(Handle, Pid)]).

of_application(App, Excluded) ->
    case [P || P <- erlang:processes(), not is_map_key(P, Excluded), application:get_application(P) =:= {ok, App}] of
        [] -> throw({beamtrace, {bad_process, {application, App}}});
        Pids -> Pids
    end.

registered(Handle, Name, Flags, Excluded) ->
    case whereis(Name) of
        Pid when is_pid(Pid) ->
            refuse(Pid, Excluded),
            one(Handle, Pid, Flags, {bad_process, Name});
        Port when is_port(Port) ->
            throw({beamtrace, {bad_process, Name}});
        undefined ->
            throw({beamtrace, {bad_process, Name}})
    end.

refuse(Pid, Excluded) when is_map_key(Pid, Excluded) -> throw({beamtrace, {trace_self, Pid}});
refuse(Pid, _) when node(Pid) =/= node() -> throw({beamtrace, {bad_process, Pid}});
refuse(Pid, _) ->
    case beamtrace_names:is_agent_process(Pid) of
        true -> throw({beamtrace, {trace_self, Pid}});
        false -> ok
    end.

%% badarg: the process has gone, or on a legacy node another tool has taken it since we looked.
one(Handle, Pid, Flags, Otherwise) ->
    try
        beamtrace_session:process(Handle, Pid, true, Flags)
    catch
        error:badarg when Otherwise =:= none -> 0;
        error:badarg -> throw({beamtrace, Otherwise})
    end.

off(Handle, Pid) ->
    try
        beamtrace_session:process(Handle, Pid, false, [all]) > 0
    catch
        error:badarg -> false
    end.

ports(_, _, _, [], _) ->
    0;
ports(_, none, _, _, _) ->
    0;
ports(Handle, {ports, Ports}, Flags, _, Excluded) ->
    lists:sum([port(Handle, Port, Flags, Excluded) || Port <- lists:usort(Ports)]);
ports(Handle, Which, Flags, _, Excluded) ->
    Count = beamtrace_session:port(Handle, Which, true, Flags),
    case Which of
        new -> 0;
        _ -> Count - length([Port || Port <- maps:keys(Excluded), is_port(Port), port_off(Handle, Port)])
    end.

port(_, Port, _, Excluded) when is_map_key(Port, Excluded) ->
    throw({beamtrace, {trace_self, Port}});
port(Handle, Port, Flags, _) ->
    try
        beamtrace_session:port(Handle, Port, true, Flags)
    catch
        error:badarg -> throw({beamtrace, {bad_process, Port}})
    end.

port_off(Handle, Port) ->
    try
        beamtrace_session:port(Handle, Port, false, [all]) > 0
    catch
        error:badarg -> false
    end.

%% The processes that a spec will touch, for the check of gc conflicts.
-spec gc_candidates(beamtrace_spec:spec()) -> [pid() | new].
gc_candidates(#{processes := Processes, flags := Flags}) ->
    Inherits = lists:any(fun(Flag) -> lists:member(Flag, Flags) end, [set_on_spawn, set_on_first_spawn]),
    New = [new || Inherits orelse Processes =:= all orelse Processes =:= new],
    New ++
        case Processes of
            {pids, Pids} -> Pids;
            {registered, Names} -> [Pid || Name <- Names, Pid <- [whereis(Name)], is_pid(Pid)];
            none -> [];
            new -> [];
            _ -> erlang:processes()
        end.
