%% Call patterns: sets them, says what they match, suggests names where they match nothing, and sets them again when a
%% module has been reloaded (the VM drops breakpoints with the old code).
%% Throws `{beamtrace, Reason}` with a reason of docs/agent-protocol.md, "Errors".
-module(beamtrace_patterns).

-export([set/2, messages/2, undo_list/1, watch/3]).
-export_type([call/0, watched/0, watch/0]).

-type call() :: {mfa() | {module() | '_', atom(), arity() | '_'}, true | list(), [local | global]}.
%% A traced module: what it was when its patterns were last applied, and a function that carries a pattern.
-type watched() :: #{module := module(), md5 := binary() | none, probe := mfa() | none, calls := [call()]}.
-type watch() :: [watched()].

-define(CANDIDATES_MAX, 10).
-define(NAME_MAX, 64).

%% Applies the patterns; returns functions matched in all and for each pattern, in the order of the spec.
-spec set(beamtrace_session:handle(), [call()]) -> {non_neg_integer(), [{term(), non_neg_integer()}], watch()}.
set(Handle, Calls) ->
    %% All of them first: a function may be in several.
    ok = lists:foreach(fun(Call) -> check(Handle, Call) end, Calls),
    Counts = [{MFA, set_one(Handle, Call)} || {MFA, _, _} = Call <- Calls],
    Modules = lists:usort([M || {{M, _, _}, _, _} <- Calls, M =/= '_']),
    Watch = [watched(M, [Call || {{M1, _, _}, _, _} = Call <- Calls, M1 =:= M]) || M <- Modules],
    {lists:sum([Count || {_, Count} <- Counts]), Counts, Watch}.

check(Handle, {{'_', '_', '_'} = MFA, MatchSpec, Options}) ->
    check_match_spec(MFA, MatchSpec, call),
    check_free(Handle, [{M, F, A} || {M, _} <- code:all_loaded(), {F, A} <- functions(M, Options)]);
check(Handle, {{M, _, _} = MFA, MatchSpec, Options}) ->
    case beamtrace_names:is_agent_module(M) of
        true -> throw({beamtrace, {trace_self, M}});
        false -> ok
    end,
    case code:ensure_loaded(M) of
        {module, M} -> ok;
        {error, _} -> throw({beamtrace, {no_match, MFA, near_modules(M)}})
    end,
    check_match_spec(MFA, MatchSpec, call),
    check_free(Handle, matching(MFA, Options)).

set_one(Handle, {{'_', '_', '_'} = MFA, MatchSpec, Options}) ->
    Count = beamtrace_session:function(Handle, MFA, MatchSpec, Options),
    _ = beamtrace_session:function(Handle, on_load, MatchSpec, Options),
    Count -
        lists:sum([
            beamtrace_session:function(Handle, {M, '_', '_'}, false, Options)
         || M <- [beamtrace_rt | beamtrace_names:modules()]
        ]);
set_one(Handle, {MFA, MatchSpec, Options}) ->
    case beamtrace_session:function(Handle, MFA, MatchSpec, Options) of
        0 -> throw({beamtrace, {no_match, MFA, near_functions(MFA, Options)}});
        Count -> Count
    end.

%% Match specs of send and receive.
-spec messages(beamtrace_session:handle(), beamtrace_spec:spec()) -> ok.
messages(Handle, #{send_spec := Send, receive_spec := Receive}) ->
    message(Handle, send, Send),
    message(Handle, 'receive', Receive).

message(_, _, true) ->
    ok;
message(Handle, Which, MatchSpec) ->
    check_match_spec(Which, MatchSpec, trace),
    try
        beamtrace_session:message(Handle, Which, MatchSpec)
    catch
        %% Well-formed, but with an action that is not allowed for messages.
        error:badarg -> throw({beamtrace, {bad_match_spec, Which, []}})
    end.

check_match_spec(_, true, _) ->
    ok;
check_match_spec(_, [], _) ->
    ok;
check_match_spec(What, MatchSpec, _) ->
    try erlang:match_spec_test([], MatchSpec, trace) of
        {error, Details} -> throw({beamtrace, {bad_match_spec, What, Details}});
        _ -> ok
    catch
        error:badarg -> throw({beamtrace, {bad_match_spec, What, []}})
    end.

%% On the legacy session a pattern would replace another tool's.
check_free({own, _}, _) ->
    ok;
check_free({legacy, _} = Handle, Functions) ->
    case [MFA || MFA <- Functions, beamtrace_session:traced(Handle, MFA) =:= true] of
        [] -> ok;
        [MFA | _] -> throw({beamtrace, {tracer_busy, {breakpoint, MFA}}})
    end.

%% What has to be switched off one by one where there is no session to destroy.
-spec undo_list([call()]) -> [{beamtrace_session:mfargs(), [atom()]}].
undo_list(Calls) ->
    [{MFA, Options} || {MFA, _, Options} <- Calls] ++
        [{on_load, Options} || {{'_', _, _}, _, Options} <- Calls].

%% Applies the patterns of modules that were reloaded since the last look; `Reloaded` gets module and functions matched.
-spec watch(beamtrace_session:handle(), watch(), fun((module(), non_neg_integer()) -> term())) -> watch().
watch(Handle, Watch, Reloaded) ->
    [look(Handle, Watched, Reloaded) || Watched <- Watch].

look(Handle, #{module := M, md5 := Md5, probe := Probe, calls := Calls} = Watched, Reloaded) ->
    Gone = Probe =:= none orelse beamtrace_session:traced(Handle, Probe) =/= true,
    case Gone andalso md5(M) of
        false ->
            Watched;
        none ->
            Watched#{md5 := none, probe := none};
        Md5 when Probe =:= none ->
            %% This version has no function that the patterns match; that was said when it appeared.
            Watched;
        _ ->
            Count = lists:sum([beamtrace_session:function(Handle, MFA, MS, Options) || {MFA, MS, Options} <- Calls]),
            Reloaded(M, Count),
            watched(M, Calls)
    end.

watched(M, Calls) ->
    Probe =
        case [MFA || {Pattern, _, Options} <- Calls, MFA <- matching(Pattern, Options)] of
            [First | _] -> First;
            [] -> none
        end,
    #{module => M, md5 => md5(M), probe => Probe, calls => Calls}.

md5(M) ->
    try
        M:module_info(md5)
    catch
        error:undef -> none
    end.

functions(M, [local]) -> info(M, functions);
functions(M, [global]) -> info(M, exports).

%% The module may be unloaded at any time.
info(M, Item) ->
    try
        M:module_info(Item)
    catch
        error:undef -> []
    end.

matching({M, F, A}, Options) ->
    [
        {M, F1, A1}
     || {F1, A1} <- functions(M, Options),
        F =:= '_' orelse F =:= F1,
        A =:= '_' orelse A =:= A1
    ].

near_functions({M, F, _}, Options) ->
    Wanted = name(F),
    %% Names of funs and comprehensions begin with a dash.
    Functions = [{F1, A1} || {F1, A1} <- functions(M, Options), hd(atom_to_list(F1)) =/= $-, F1 =/= module_info],
    Ranked = lists:sort([{distance(Wanted, name(F1)), F1, A1} || {F1, A1} <- Functions]),
    [{F1, A1} || {_, F1, A1} <- lists:sublist(Ranked, ?CANDIDATES_MAX)].

near_modules(M) ->
    Wanted = name(M),
    Limit = max(2, length(Wanted) div 3),
    Names = lists:usort(
        [name(L) || {L, _} <- code:all_loaded()] ++
            [lists:sublist(Available, ?NAME_MAX) || {Available, _, _} <- code:all_available()]
    ),
    Near = [
        {Distance, Name}
     || Name <- Names,
        abs(length(Name) - length(Wanted)) =< Limit,
        Distance <- [distance(Wanted, Name)],
        Distance =< Limit
    ],
    lists:flatmap(
        fun({_, Name}) -> existing(Name) end,
        lists:sublist(lists:sort(Near), ?CANDIDATES_MAX)
    ).

%% A module that was never mentioned on this node has no atom, and gets none.
existing(Name) ->
    try
        [list_to_existing_atom(Name)]
    catch
        error:badarg -> [list_to_binary(Name)]
    end.

name(Atom) -> lists:sublist(atom_to_list(Atom), ?NAME_MAX).

%% Levenshtein distance.
distance(A, B) ->
    lists:last(lists:foldl(fun(Char, Row) -> row(Char, B, Row) end, lists:seq(0, length(B)), A)).

row(Char, B, [First | _] = Row) ->
    row(Char, B, Row, First + 1, [First + 1]).

row(Char, [C | B], [Diagonal | [Above | _] = Row], Left, Acc) ->
    Cost =
        case C of
            Char -> Diagonal;
            _ -> 1 + min(Diagonal, min(Above, Left))
        end,
    row(Char, B, Row, Cost, [Cost | Acc]);
row(_, [], _, _, Acc) ->
    lists:reverse(Acc).
