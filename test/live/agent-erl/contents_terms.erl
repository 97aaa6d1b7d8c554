%% Random terms, and what the native tracer's library makes of each beside what the portable tracer does: for native-contents.test.ts.
-module(contents_terms).

-export([compare/2]).

-define(REDACT, #{key => true, <<"key">> => true}).

%% `ok` for so many terms, or the first one that is shown in two ways.
-spec compare(pos_integer(), integer()) -> ok | {differ, term(), pos_integer(), Native :: term(), Portable :: term()}.
compare(Count, Seed) ->
    _ = rand:seed(exsss, Seed),
    compare(Count).

compare(0) ->
    ok;
compare(Count) ->
    Term = term(rand:uniform(6)),
    Max = 15 + rand:uniform(pick([40, 300, 3000])),
    Portable = beamtrace_trim:trim(Term, Max, ?REDACT),
    case shown(Term, beamtrace_contents:wanted({bytes, Max, ?REDACT}), []) of
        Portable -> compare(Count - 1);
        Native -> {differ, Term, Max, Native, Portable}
    end.

shown(Term, Wanted, Names) ->
    case beamtrace_nif:show(Term, Wanted, Names) of
        {funs, Funs} -> shown(Term, Wanted, [{Fun, beamtrace_contents:fun_name(Fun)} || Fun <- Funs] ++ Names);
        Shown -> binary_to_term(Shown)
    end.

pick(List) -> lists:nth(rand:uniform(length(List)), List).

some(Max, Make) -> [Make() || _ <- lists:seq(1, rand:uniform(Max + 1) - 1)].

term(0) -> leaf();
term(Depth) ->
    Part = fun() -> term(Depth - 1) end,
    case rand:uniform(12) of
        1 -> [Part() | some(5, Part)];
        2 -> list_to_tuple(some(5, Part));
        3 -> {pick([key, <<"key">>, a, Part()]), Part()};
        4 -> maps:from_list(some(4, fun() -> {term(Depth div 2), Part()} end));
        5 -> maps:from_list([{leaf(), leaf()} || _ <- lists:seq(1, 20 + rand:uniform(40))]);
        6 -> [Part(), Part() | Part()];
        7 -> some(4, fun() -> {pick([key, b, <<"key">>, <<"keys">>]), Part()} end);
        8 -> local_fun(Part());
        9 -> nested(rand:uniform(70), Part());
        10 -> maps:from_list([{I, I} || I <- lists:seq(1, rand:uniform(600))]);
        _ -> leaf()
    end.

local_fun(X) -> pick([fun() -> X end, fun(Y) -> {X, Y} end, fun(Y, Z) -> {X, Y, Z} end]).

nested(0, T) -> T;
nested(N, T) ->
    case rand:uniform(4) of
        1 -> [nested(N - 1, T)];
        2 -> {nested(N - 1, T)};
        3 -> #{a => nested(N - 1, T)};
        4 -> [a | nested(N - 1, T)]
    end.

leaf() ->
    case rand:uniform(19) of
        1 -> pick([a, true, '', key, list_to_atom([233]), list_to_atom([1234, 955])]);
        2 -> list_to_atom(lists:duplicate(pick([200, 255]), pick([$x, 233, 1234])));
        3 -> rand:uniform(300) - 20;
        4 -> rand:uniform(1 bsl 60) - (1 bsl 59);
        5 -> pick([1, -1]) * binary:decode_unsigned(rand:bytes(8 + rand:uniform(12)));
        6 -> pick([1, -1]) * binary:decode_unsigned(<<1, (rand:bytes(200 + rand:uniform(200)))/binary>>);
        7 -> pick([rand:uniform(), 0.0, -0.0]);
        8 -> pick([[], {}, #{}, "hello", <<"key">>, <<5:3>>, 1 bsl 31, -(1 bsl 31)]);
        9 -> pick(processes());
        10 -> pick(erlang:ports());
        11 -> pick([make_ref(), alias(), atomics:new(1, [])]);
        12 -> rand:bytes(rand:uniform(30) - 1);
        13 -> rand:bytes(rand:uniform(300));
        14 -> part(rand:uniform(100), rand:uniform(2000), rand:bytes(300));
        15 -> lists:foldl(fun(I, Acc) -> <<Acc/binary, I>> end, <<>>, lists:seq(1, rand:uniform(200)));
        16 -> fun lists:map/2;
        17 -> external(88, <<(rand:uniform(1 bsl 32) - 1):32, 7:32, 9:32>>);
        18 -> external(120, <<(rand:uniform(1 bsl 40)):64, 9:32>>);
        19 -> binary_to_term(<<131, 90, 0, 3, 119, 3, "a@b", 9:32, 1:32, 2:32, 3:32>>)
    end.

part(Skip, Bits, Bytes) ->
    <<_:Skip, Part:Bits/bitstring, _/bitstring>> = Bytes,
    Part.

external(Tag, Rest) -> binary_to_term(<<131, Tag, 119, 3, "a@b", Rest/binary>>).
