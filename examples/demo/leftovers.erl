%% What a tracing tool could have left on this node. Asked through standard input, so that asking leaves nothing itself;
%% the node ends when its standard input is closed, however the demo has ended.
-module(leftovers).
-export([answer/0, find/0]).

answer() ->
    case io:get_line("") of
        Line when is_list(Line) -> io:format("left: ~0tp~n", [find()]), answer();
        _ -> halt(0)
    end.

find() ->
    [{traced, P} || P <- processes() ++ erlang:ports(), {flags, [_ | _]} <- [erlang:trace_info(P, flags)]] ++
        [{traced, K} || K <- [new_processes, new_ports], {flags, [_ | _]} <- [erlang:trace_info(K, flags)]] ++
        [{session, S} || S <- sessions()] ++
        [{module, M} || {M, _} <- code:all_loaded(), ours(M)] ++
        [{name, N} || N <- registered(), ours(N)] ++
        [{process, P} || P <- processes(), {initial_call, {M, _, _}} <- [erlang:process_info(P, initial_call)], ours(M)] ++
        [{connection, N} || N <- nodes(hidden)].

%% OTP 27 and later have trace sessions; the legacy one is always there.
sessions() ->
    case code:ensure_loaded(trace) of
        {module, trace} -> [S || S <- apply(trace, session_info, [all]), not is_legacy(S)];
        _ -> []
    end.

is_legacy({Legacy, _}) when is_atom(Legacy) -> true;
is_legacy({_, {Name, _}}) -> Name =:= default;
is_legacy(_) -> false.

ours(Name) -> lists:prefix("beamtrace", atom_to_list(Name)).
