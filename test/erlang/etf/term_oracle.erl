%% Makes and judges terms for the tests of the external term format. Speaks packets of four length bytes on stdin and stdout;
%% started by oracle.ts, which sends this source. Independent of beamtrace: all it knows are the VM's own functions.
-module(term_oracle).
-export([main/1]).

main(Port) ->
    receive
        {Port, {data, Request}} ->
            Reply = try handle(Request) catch C:R:S -> ["!", io_lib:format("~0tp", [{C, R, S}])] end,
            port_command(Port, unicode_or_bytes(Reply)),
            main(Port)
    end.

unicode_or_bytes(["!" | Text]) -> [<<"!">>, unicode:characters_to_binary(Text)];
unicode_or_bytes(Reply) -> [<<".">>, Reply].

%% Terms of a seed: bytes and, when asked for, text.
handle(<<"generate", Seed:32, Count:32, Options:8>>) ->
    rand:seed(exsss, {Seed, 4711, 17}),
    Printed = Options band 1 =:= 1,
    put(printed, Printed),
    put(atoms, list_to_tuple(atom_names())),
    Elixir = Options band 4 =:= 4,
    Minor = case Options band 2 of 2 -> 1; 0 -> 2 end,
    [begin
         Term = term(),
         [sized(term_to_binary(Term, [{minor_version, Minor}])), sized(text(Term, Printed, Elixir))]
     end || _ <- lists:seq(1, Count)];
%% What the VM makes of given bytes: bytes and text of the term, or nothing when it refuses them.
handle(<<"judge", Items/binary>>) ->
    [begin
         try binary_to_term(Bytes) of
             Term -> [sized(term_to_binary(Term, [{minor_version, 2}])), sized(text(Term, true, false))]
         catch error:badarg -> [sized(<<>>), sized(<<>>)]
         end
     end || <<Size:32, Bytes:Size/binary>> <= Items];
%% Evaluates an expression and returns the binary it gives.
handle(<<"eval", Source/binary>>) ->
    {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Source)),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, Value, _} = erl_eval:exprs(Expressions, []),
    Value;
handle(<<"release">>) ->
    erlang:system_info(otp_release);
handle(<<"elixir", Path/binary>>) ->
    true = code:add_pathz(binary_to_list(Path)),
    {ok, _} = application:ensure_all_started(elixir),
    'Elixir.System':version().

sized(Bytes) ->
    Binary = iolist_to_binary(Bytes),
    [<<(byte_size(Binary)):32>>, Binary].

text(_, false, _) -> <<>>;
text(Term, true, false) -> unicode:characters_to_binary(io_lib:format("~0tp", [Term]));
text(Term, true, true) ->
    'Elixir.Kernel':inspect(Term, [{limit, infinity}, {printable_limit, infinity}, {charlists, as_lists}]).

%% A quarter of all terms are large in some way.
term() ->
    case rand:uniform(4) of
        1 -> term(5);
        _ -> term(2)
    end.

term(0) -> leaf();
term(Depth) ->
    case rand:uniform(13) of
        13 -> native_record(Depth);
        1 -> list_to_tuple(terms(Depth));
        2 -> list_to_tuple([pick(atoms()) | terms(Depth)]);
        3 -> terms(Depth);
        4 -> improper(Depth);
        5 -> maps:from_list([{term(Depth - 1), term(Depth - 1)} || _ <- lists:seq(1, size())]);
        6 -> maps:from_list([{pick(atoms()), term(Depth - 1)} || _ <- lists:seq(1, size())]);
        7 -> [{pick(atoms()), term(Depth - 1)} || _ <- lists:seq(1, size())];
        8 -> large(Depth);
        9 -> printed_or(fun() -> a_fun(Depth) end);
        _ -> leaf()
    end.

terms(Depth) -> [term(Depth - 1) || _ <- lists:seq(1, size())].

size() -> element(rand:uniform(8), {0, 1, 1, 2, 2, 3, 4, 7}).

improper(Depth) ->
    case {terms(Depth), term(0)} of
        {[], Tail} -> Tail;
        {List, Tail} -> lists:foldr(fun(E, Acc) -> [E | Acc] end, Tail, List)
    end.

large(Depth) ->
    case rand:uniform(60) of
        1 -> list_to_tuple([leaf() || _ <- lists:seq(1, 250 + rand:uniform(10))]);
        2 -> printed_or(fun() -> maps:from_list([{leaf(), leaf()} || _ <- lists:seq(1, 20 + rand:uniform(60))]) end);
        3 -> printed_or(fun() -> binary_to_list(rand_bytes(65_530 + rand:uniform(10))) end);
        4 -> rand_bytes(rand:uniform(5_000));
        5 -> nested(rand:uniform(300));
        6 -> [leaf() || _ <- lists:seq(1, rand:uniform(400))];
        _ -> term(Depth - 1)
    end.

nested(0) -> [];
nested(N) ->
    case rand:uniform(3) of
        1 -> [nested(N - 1)];
        2 -> {N, nested(N - 1)};
        3 -> #{N => nested(N - 1)}
    end.

%% What has no text that another node could know is left out where text is asked for.
printed_or(Make) ->
    case get(printed) of
        true -> leaf();
        false -> Make()
    end.

leaf() ->
    case rand:uniform(18) of
        1 -> rand:uniform(256) - 1;
        2 -> rand:uniform(2000) - 1000;
        3 -> border();
        4 -> border();
        5 -> a_float();
        6 -> pick(atoms());
        7 -> pick(atoms());
        8 -> rand_bytes(rand:uniform(20) - 1);
        9 -> pick(texts());
        10 -> unicode:characters_to_binary(pick(texts()));
        11 -> bits();
        12 -> binary_to_list(rand_bytes(rand:uniform(10)));
        13 -> pid();
        14 -> a_port();
        15 -> reference();
        16 -> export();
        17 -> pick([[], {}, #{}, <<>>, '', "", 0, 0.0, -0.0]);
        18 -> [rand:uniform(16#d7ff) || _ <- lists:seq(1, rand:uniform(5))]
    end.

%% Around powers of two, up to LARGE_BIG_EXT.
border() ->
    Bits = case rand:uniform(10) of
               1 -> rand:uniform(2200);
               2 -> pick([28, 31, 32, 53, 59, 60, 63, 64, 2039, 2040, 2041]);
               _ -> rand:uniform(80)
           end,
    (1 bsl Bits + rand:uniform(3) - 2) * pick([1, -1]).

a_float() ->
    case rand:uniform(3) of
        1 -> any_float();
        2 -> (rand:uniform(2_000_000) - 1_000_000) / pick([1, 2, 10, 1000, 3, 1_000_000]);
        3 -> list_to_float(float_to_list(any_float(), [{scientific, rand:uniform(5)}]))
    end.

any_float() ->
    case <<(rand:uniform(1 bsl 64) - 1):64>> of
        <<F/float>> -> F;
        _ -> any_float()
    end.

bits() ->
    Size = rand:uniform(40),
    <<(rand:uniform(1 bsl Size) - 1):Size>>.

rand_bytes(N) -> << <<(rand:uniform(256) - 1)>> || _ <- lists:seq(1, N) >>.

pid() ->
    case not get(printed) andalso rand:uniform(2) of
        1 -> binary_to_term(<<131, 88, (node_name())/binary, (u32()):32, (u32()):32, (creation()):32>>);
        _ -> list_to_pid("<0." ++ integer_to_list(rand:uniform(30000)) ++ "." ++ integer_to_list(rand:uniform(100)) ++ ">")
    end.

a_port() ->
    case not get(printed) andalso rand:uniform(3) of
        1 -> binary_to_term(<<131, 120, (node_name())/binary, (u32()):32, (u32()):32, (creation()):32>>);
        2 -> binary_to_term(<<131, 89, (node_name())/binary, (rand:uniform(16#fffffff)):32, (creation()):32>>);
        _ -> list_to_port("#Port<0." ++ integer_to_list(rand:uniform(16#fffffff)) ++ ">")
    end.

reference() ->
    case not get(printed) andalso rand:uniform(2) of
        1 ->
            N = rand:uniform(5),
            Numbers = << <<(u32()):32>> || _ <- lists:seq(2, N) >>,
            %% The VM keeps 18 bits of the first number.
            First = rand:uniform(1 bsl 18) - 1,
            binary_to_term(<<131, 90, N:16, (node_name())/binary, (creation()):32, First:32, Numbers/binary>>);
        _ -> make_ref()
    end.

export() ->
    %% The VM prints other than ASCII in these as bytes.
    Names = case get(printed) of true -> {lists, 'Elixir.Enum', map, 'two words', foo_bar, 'X'}; false -> atoms() end,
    erlang:make_fun(pick(Names), pick(Names), rand:uniform(256) - 1).

a_fun(Depth) ->
    A = term(Depth - 1),
    case rand:uniform(4) of
        1 -> fun() -> A end;
        2 -> fun(X) -> {A, X} end;
        3 -> B = term(Depth - 1), fun(X, Y) -> [A, B, X, Y] end;
        4 -> fun term_to_binary/1
    end.

%% OTP 29 and later; made from bytes, so that older compilers accept this file.
native_record(Depth) ->
    case erlang:system_info(otp_release) >= "29" of
        true ->
            Fields = lists:sublist([a, 'B', 'two words', 'é', x_1], size()),
            Parts = [pick([m, 'Elixir.Foo', 'a b']), pick([r, 'R'])] ++ Fields ++ [term(Depth - 1) || _ <- Fields],
            Bytes = [begin <<131, B/binary>> = term_to_binary(P, [{minor_version, 2}]), B end || P <- Parts],
            binary_to_term(iolist_to_binary([131, 67, <<(length(Fields)):32, (rand:uniform(2) - 1)>>, Bytes]));
        false -> leaf()
    end.

node_name() ->
    <<131, Atom/binary>> = term_to_binary(pick(['a@b', 'n1@127.0.0.1', 'x@host.example', 'ü@h']), [{minor_version, 2}]),
    Atom.

u32() -> rand:uniform(1 bsl pick([1, 8, 15, 27, 28, 31, 32])) - 1.

creation() -> pick([1, 3, 4, 65_536, 16#ffffffff, u32()]).

pick(Tuple) when is_tuple(Tuple) -> element(rand:uniform(tuple_size(Tuple)), Tuple);
pick(List) when is_list(List) -> lists:nth(rand:uniform(length(List)), List).

texts() ->
    ["", "a", "hello", "two words", "line\nbreak", "tab\t\"quoted\" \\ 'single'", "esc\e\b\v\f\r", "del\d", [0, 1], "é", "naïve",
     [8364, 32, 26085, 26412], [128512], [16#fffd], [16#200b], [160], [127], "#{x} #", "\a", [16#a0, 16#ff], [955], "a'b"].

atoms() -> get(atoms).

atom_names() ->
    [ok, error, undefined, nil, true, false, '', 'EXIT', '$gen_call', '__struct', 'two words', 'Elixir.Enum', 'Elixir.Foo.Bar',
     'Elixir.foo', 'Elixir', 'Elixir.', 'Elixir.Elixir.A', 'A', a1, a_b, 'a@b', 'a-b', '1a', '_x', 'é', 'ÿa', 'Éa', 'ß÷', 'aé', '×',
     'a\'b', 'a"b', 'a\\b', 'a\nb', 'a\d', 'a\0', 'foo?', 'foo!', 'foo?!', '+', '++', '..', '::', '%{}', '<<>>', '->', '&&&', 'when', 'fun',
     'end', 'and', list_to_atom([26085, 26412]), list_to_atom([8364]), list_to_atom([955, 1]), list_to_atom([128512]),
     list_to_atom(lists:duplicate(255, $x)), list_to_atom(lists:duplicate(255, 233)), list_to_atom(lists:duplicate(255, 8364)),
     list_to_atom(lists:duplicate(128, 233)), list_to_atom("x" ++ [127, 128, 159, 160])].
