%% Links the agent's modules into one, at build time: each purge of a module costs the node a look at every process, so one module is
%% unloaded thirteen times as fast as thirteen. Functions get the name of their module without the prefix: beamtrace_tracer:init/1 becomes
%% beamtrace_agent:tracer_init/1. Works on abstract forms after record expansion; what it can't resolve it refuses.
-module(beamtrace_linker).

-export([link/2, beam/1]).

-define(TARGET, beamtrace_agent).

%% Forms of one module from these source files. Exported are the functions that are spawned or named from outside.
-spec link([file:filename()], [file:filename()]) -> [erl_parse:abstract_form()].
link(Files, Includes) ->
    Parsed = [parse(File, Includes) || File <- lists:sort(Files)],
    Modules = [M || {M, _, _} <- Parsed],
    Defined = maps:from_list([{{M, F, A}, true} || {M, _, Functions} <- Parsed, {function, _, F, A, _} <- Functions]),
    {Linked, Spawned} = lists:mapfoldl(
        fun({M, _, Functions}, Acc) ->
            Env = #{module => M, modules => Modules, defined => Defined},
            put(spawned, []),
            Renamed = [{function, L, name(M, F), A, walk(Clauses, Env)} || {function, L, F, A, Clauses} <- Functions],
            {Renamed, get(spawned) ++ Acc}
        end,
        [],
        Parsed
    ),
    Entry = [{name(?TARGET, F), A} || {?TARGET, Exports, _} <- Parsed, {F, A} <- Exports],
    %% Called by name from loader.eval and from code that erl_eval runs.
    %% And by the client through the holder.
    ByName = [{names_slots, 0}, {janitor_unloader, 0}, {native_loader_status, 1}, {native_loader_load, 4}, {runtime_sites, 1}],
    [
        {attribute, 1, module, ?TARGET},
        {attribute, 1, export, lists:usort(Entry ++ ByName ++ Spawned)}
        | lists:append(Linked)
    ] ++ [{eof, 1}].

%% Object code without debug info.
-spec beam([erl_parse:abstract_form()]) -> binary().
beam(Forms) ->
    {ok, ?TARGET, Beam} = compile:forms(Forms, [deterministic, return_errors, no_docs]),
    {ok, _, Chunks} = beam_lib:all_chunks(Beam),
    {ok, Stripped} = beam_lib:build_module([C || {Id, _} = C <- Chunks, not lists:member(Id, ["Docs", "Dbgi", "Abst", "ExCk"])]),
    Stripped.

parse(File, Includes) ->
    {ok, Forms} = epp:parse_file(File, [{includes, Includes}]),
    [] = [E || {error, _} = E <- Forms],
    Expanded = erl_expand_records:module(Forms, []),
    [Module] = [M || {attribute, _, module, M} <- Expanded],
    Exports = lists:append([E || {attribute, _, export, E} <- Expanded]),
    {Module, Exports, [F || {function, _, _, _, _} = F <- Expanded]}.

%% The holder's own functions keep their names.
name(?TARGET, F) -> F;
name(M, F) -> list_to_atom(string:slice(atom_to_list(M), length("beamtrace_")) ++ "_" ++ atom_to_list(F)).

walk({call, L, {remote, L1, {atom, L2, M}, {atom, L3, F}}, Args}, #{modules := Modules, defined := Defined} = Env) ->
    case lists:member(M, Modules) of
        true ->
            true = is_map_key({M, F, length(Args)}, Defined),
            {call, L, {atom, L3, name(M, F)}, walk(Args, Env)};
        false ->
            {call, L, {remote, L1, {atom, L2, M}, {atom, L3, F}}, walk(started(F, Args, Env), Env)}
    end;
walk({call, L, {atom, L1, F}, Args}, #{module := M, defined := Defined} = Env) ->
    case is_map_key({M, F, length(Args)}, Defined) of
        true -> {call, L, {atom, L1, name(M, F)}, walk(Args, Env)};
        false -> {call, L, {atom, L1, F}, walk(started(F, Args, Env), Env)}
    end;
walk({'fun', L, {function, F, A}}, #{module := M, defined := Defined}) when is_atom(F) ->
    case is_map_key({M, F, A}, Defined) of
        true -> {'fun', L, {function, name(M, F), A}};
        false -> {'fun', L, {function, F, A}}
    end;
walk({'fun', L, {function, {atom, _, M}, {atom, _, F}, {integer, _, A}}} = Fun, #{modules := Modules, defined := Defined}) ->
    case lists:member(M, Modules) of
        true ->
            true = is_map_key({M, F, A}, Defined),
            {'fun', L, {function, name(M, F), A}};
        false ->
            Fun
    end;
%% The list of the agent's modules is one module now.
walk({cons, _, {atom, _, M}, _} = List, #{modules := [First | _] = Modules} = Env) when M =:= First ->
    case literal_list(List) of
        Modules -> {cons, 1, {atom, 1, ?TARGET}, {nil, 1}};
        _ -> walk_tuple(List, Env)
    end;
walk(List, Env) when is_list(List) ->
    [walk(E, Env) || E <- List];
walk(Tuple, Env) when is_tuple(Tuple) ->
    walk_tuple(Tuple, Env);
walk(Other, _) ->
    Other.

walk_tuple(Tuple, Env) -> list_to_tuple([walk(E, Env) || E <- tuple_to_list(Tuple)]).

%% spawn(?MODULE, f, [...]): the function is found by name, so it must be exported under its new one.
started(F, [{atom, L, M}, {atom, L1, Entry}, Args | Rest], #{modules := Modules, defined := Defined}) when
    F =:= spawn; F =:= spawn_link; F =:= spawn_opt; F =:= spawn_monitor
->
    case lists:member(M, Modules) of
        true ->
            Arity = length(literal_elements(Args)),
            true = is_map_key({M, Entry, Arity}, Defined),
            put(spawned, [{name(M, Entry), Arity} | get(spawned)]),
            [{atom, L, ?TARGET}, {atom, L1, name(M, Entry)}, Args | Rest];
        false ->
            [{atom, L, M}, {atom, L1, Entry}, Args | Rest]
    end;
started(_, Args, _) ->
    Args.

literal_elements({cons, _, Head, Tail}) -> [Head | literal_elements(Tail)];
literal_elements({nil, _}) -> [].

literal_list({cons, _, {atom, _, A}, Tail}) -> [A | literal_list(Tail)];
literal_list(_) -> [].
