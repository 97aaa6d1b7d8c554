%% The part of a transformation that only the BEAM can do: debug info of any backend into Erlang's abstract forms, and forms into
%% object code with the module's own compile options. Serves one client over a port with 4-byte length prefixes, many requests
%% at a time; on a live node `forms/3` and `compile/1` are called by themselves. Nothing is printed and no file is written.
-module(beamtrace_compiler).

-export([serve/2, answer/2, forms/3, compile/1]).

-export_type([request/0, job/0]).

-type job() :: #{
    module := module(),
    backend := atom(),
    forms := [term()],
    options := [term()],
    source => string(),
    %% Who keeps what the forms have only outlines of.
    kept => pid()
}.
-type request() :: {forms | outline, module(), atom(), binary()} | {compile, job()} | {forget, pid()} | versions.

%% Requests are `{Id, Request}`, answers `{Id, {ok, Result} | {error, Text}}`. Ends when the client closes its side.
-spec serve(non_neg_integer(), non_neg_integer()) -> no_return().
serve(In, Out) ->
    process_flag(trap_exit, true),
    Port = open_port({fd, In, Out}, [{packet, 4}, binary, eof]),
    loop(Port).

loop(Port) ->
    receive
        {Port, {data, Data}} ->
            Self = self(),
            _ = spawn_opt(
                fun() ->
                    %% What parse transforms and the compiler print must not go where answers go.
                    group_leader(silence(), self()),
                    {Id, Request} = binary_to_term(Data),
                    Self ! {answer, term_to_binary({Id, answer(Request, Self)}, [{minor_version, 2}])}
                end,
                [link, {min_heap_size, 100000}]
            ),
            loop(Port);
        {answer, Answer} ->
            true = port_command(Port, Answer),
            loop(Port);
        {Port, eof} ->
            erlang:halt(0, [{flush, false}]);
        {'EXIT', Port, _} ->
            erlang:halt(1, [{flush, false}]);
        {'EXIT', _, _} ->
            loop(Port)
    end.

%% A group leader that takes all output and gives none; it ends with the process that it is for.
silence() ->
    Owner = self(),
    spawn(fun() -> silence(monitor(process, Owner)) end).

silence(Ref) ->
    receive
        {'DOWN', Ref, process, _, _} ->
            ok;
        {io_request, From, As, Request} ->
            From ! {io_reply, As, reply(Request)},
            silence(Ref);
        _ ->
            silence(Ref)
    end.

reply(Request) when element(1, Request) =:= put_chars -> ok;
reply(_) -> {error, enotsup}.

%% Never raises. What is kept for a later request is kept as long as `Owner` lives.
-spec answer(request(), Owner :: pid()) -> {ok, term()} | {error, binary()}.
answer(Request, Owner) ->
    try
        case Request of
            {forms, Module, Backend, Dbgi} -> forms(Module, Backend, Dbgi);
            {outline, Module, Backend, Dbgi} -> outline(forms(Module, Backend, Dbgi), Owner);
            {compile, Job} -> compile(filled(Job));
            {forget, Keeper} -> Keeper ! forget, {ok, forgotten};
            versions -> {ok, versions()}
        end
    catch
        Class:Reason:Stack ->
            {error, text("~0tp: ~0tP at ~0tP", [Class, Reason, 20, Stack, 12])}
    end.

versions() ->
    Elixir =
        case code:ensure_loaded('Elixir.System') of
            {module, Module} -> Module:version();
            _ -> <<>>
        end,
    #{otp => list_to_binary(erlang:system_info(otp_release)), elixir => Elixir}.

%% Debug info (the bytes of chunk `Dbgi`) as abstract forms, with the options that compile them.
-spec forms(module(), atom(), binary()) -> {ok, #{forms := [term()], options := [term()]}} | {error, binary()}.
forms(Module, Backend, Dbgi) ->
    {debug_info_v1, Backend, Data} = binary_to_term(Dbgi),
    case code:ensure_loaded(Backend) of
        {module, Backend} ->
            case Backend:debug_info(erlang_v1, Module, Data, []) of
                {ok, Forms} -> {ok, #{forms => Forms, options => options(Backend, Data)}};
                {error, Reason} -> {error, text("~ts: ~0tp", [Backend, Reason])}
            end;
        _ ->
            {error, text("~ts is not in the code path of the compiler's node", [Backend])}
    end.

options(elixir_erl, {elixir_v1, #{compile_opts := Options}, _}) when is_list(Options) -> Options;
options(erl_abstract_code, {_, Options}) when is_list(Options) -> Options;
options(_, _) -> [].

%% Outlines. Instrumenting looks at heads and at what is in tail position; most of a module is neither, and only travels. Such a part is kept here,
%% and in its place stands a call of an operator that Erlang has not, with the part's number, and with a piece of the same nature where the
%% part has something that instrumenting asks for wherever it is: a `catch` for `try` and `catch`, a fun for what becomes a function. In the place of
%% a value stands a value, a tuple that begins with the name of that operator, and in that of a type or a spec an attribute of that name.

-define(ELIDED, '-elided-').
%% Tuples of a part: a smaller one takes less itself.
-define(LEAST, 4).

outline({ok, #{forms := Forms} = Result}, Owner) ->
    Bytes = term_to_binary(Forms),
    %% Names like ours have to be seen, and an agent is told by its calls.
    case binary:match(Bytes, [<<"Beamtrace">>, <<"Elixir.Agent">>, atom_to_binary(?ELIDED)]) of
        nomatch ->
            {Outline, {_, Parts}} = lists:mapfoldl(fun outline_form/2, {0, []}, Forms),
            {ok, Result#{forms := Outline, kept => keep(list_to_tuple(lists:reverse(Parts)), Owner)}};
        _ ->
            {ok, Result}
    end;
outline(Error, _) ->
    Error.

%% A process of its own: whoever made the parts ends with its answer.
keep(Parts, Owner) ->
    spawn(fun() ->
        Ref = monitor(process, Owner),
        receive
            {take, From, Tag} -> From ! {Tag, Parts};
            forget -> ok;
            {'DOWN', Ref, process, _, _} -> ok
        end
    end).

filled(#{kept := Keeper, forms := Forms} = Job) ->
    Ref = monitor(process, Keeper),
    Keeper ! {take, self(), Ref},
    receive
        {Ref, Parts} ->
            demonitor(Ref, [flush]),
            Job#{forms := [fill(Form, Parts) || Form <- Forms]};
        {'DOWN', Ref, process, _, Reason} ->
            error({parts_gone, Reason})
    end;
filled(Job) ->
    Job.

fill({op, _, ?ELIDED, {integer, _, Number}}, Parts) -> element(Number, Parts);
fill({op, _, ?ELIDED, {block, _, [{integer, _, Number} | _]}}, Parts) -> element(Number, Parts);
fill({tuple, _, [{atom, _, ?ELIDED}, {integer, _, Number}]}, Parts) -> element(Number, Parts);
fill({attribute, _, ?ELIDED, Number}, Parts) -> element(Number, Parts);
fill({_, _, Leaf} = Node, _) when not is_tuple(Leaf), not is_list(Leaf) -> Node;
fill({_, _, [Character | _]} = Literal, _) when is_integer(Character) -> Literal;
fill({Tag, A, Part}, Parts) -> {Tag, A, fill(Part, Parts)};
fill({Tag, A, Part1, Part2}, Parts) -> {Tag, A, fill(Part1, Parts), fill(Part2, Parts)};
fill({Tag, A, Part1, Part2, Part3}, Parts) -> {Tag, A, fill(Part1, Parts), fill(Part2, Parts), fill(Part3, Parts)};
fill(Tuple, Parts) when is_tuple(Tuple) -> list_to_tuple([fill(Part, Parts) || Part <- tuple_to_list(Tuple)]);
fill([First | Rest], Parts) -> [fill(First, Parts) | fill(Rest, Parts)];
fill(Term, _) -> Term.

%% Functions that are looked at whole: by them behaviours and their modes are told.
outline_form({function, A, Name, Arity, Clauses}, S0) when Name =/= child_spec, Name =/= callback_mode ->
    {Outline, S} = lists:mapfoldl(
        fun({clause, B, Patterns, Guards, Body}, S1) ->
            {Heads, S2} = lists:mapfoldl(fun head/2, S1, Patterns),
            clause(B, Heads, Guards, fun(S3) -> whole_body(Body, S3) end, S2)
        end,
        S0,
        Clauses
    ),
    {{function, A, Name, Arity, Outline}, S};
outline_form({attribute, A, Name, _} = Form, {N, Parts}) when Name =:= spec; Name =:= callback; Name =:= type; Name =:= opaque ->
    {{attribute, A, ?ELIDED, N + 1}, {N + 1, [Form | Parts]}};
outline_form(Form, S) ->
    {Form, S}.

%% An argument's pattern: whether it is a binary is asked, and what variable the whole is.
head({match, A, Pattern0, Value0}, S0) ->
    {Pattern, S1} = head(Pattern0, S0),
    {Value, S} = head(Value0, S1),
    {{match, A, Pattern, Value}, S};
head({bin, _, _} = Pattern, S) ->
    {Pattern, S};
head(Pattern, S) ->
    part(Pattern, S).

clause(A, Heads, Guards0, Body0, S0) ->
    {Guards, S1} = lists:mapfoldl(fun parts/2, S0, Guards0),
    {Body, S} = Body0(S1),
    {{clause, A, Heads, Guards, Body}, S}.

clauses(Clauses, Body, S) ->
    lists:mapfoldl(
        fun({clause, A, Patterns0, Guards, Expressions}, S0) ->
            {Patterns, S1} = parts(Patterns0, S0),
            clause(A, Patterns, Guards, fun(S2) -> Body(Expressions, S2) end, S1)
        end,
        S,
        Clauses
    ).

tail_clauses(Clauses, S) ->
    clauses(Clauses, fun body/2, S).

parts(Expressions, S) ->
    lists:mapfoldl(fun part/2, S, Expressions).

%% Of a clause that is a value and nothing else that is asked.
whole_body([Only] = Body, S) ->
    case is_plain(Only) of
        true -> within(plain(Only, facts(Only), S), fun(New) -> [New] end);
        false -> body(Body, S)
    end;
whole_body(Body, S) ->
    body(Body, S).

%% The last expression is in tail position; the value of others goes nowhere, but for `X = E, X`, which gives E.
body(Expressions, S0) ->
    [Last0 | Before0] = lists:reverse(Expressions),
    {Last, S1} = tail(Last0, S0),
    {Before, S} = statements(Before0, Last0, S1),
    {lists:reverse([Last | Before]), S}.

statements([{match, _, {var, _, _}, Value} = Match | Before0], {var, _, _}, S0) ->
    {Before, S} = statements(Before0, Value, S0),
    {[Match | Before], S};
statements(Before, _, S) ->
    parts(Before, S).

tail({call, A, Callee, Arguments0}, S0) ->
    {Arguments, S} = arguments(Callee, Arguments0, S0),
    {{call, A, Callee, Arguments}, S};
%% Nothing but its value: `case E of X -> X end`.
tail({'case', _, _, [{clause, _, [{var, _, X}], [], [{var, _, X}]}]} = PassedOn, S) ->
    {PassedOn, S};
tail({'case', A, Value0, Clauses}, S0) ->
    {Value, S} = part(Value0, S0),
    within(tail_clauses(Clauses, S), fun(New) -> {'case', A, Value, New} end);
tail({'if', A, Clauses}, S) ->
    within(tail_clauses(Clauses, S), fun(New) -> {'if', A, New} end);
tail({'receive', A, Clauses}, S) ->
    within(tail_clauses(Clauses, S), fun(New) -> {'receive', A, New} end);
tail({'try', A, Body0, Clauses0, Handlers0, After0}, S0) ->
    {Body, S1} = parts(Body0, S0),
    {Clauses, S2} = tail_clauses(Clauses0, S1),
    {Handlers, S3} = tail_clauses(Handlers0, S2),
    {After, S} = parts(After0, S3),
    {{'try', A, Body, Clauses, Handlers, After}, S};
tail({block, A, Body}, S) ->
    within(body(Body, S), fun(New) -> {block, A, New} end);
tail({match, A, {var, _, _} = Variable, Value}, S) ->
    within(tail(Value, S), fun(New) -> {match, A, Variable, New} end);
tail({op, _, Operator, _, _} = Lazy, S) when Operator =:= 'andalso'; Operator =:= 'orelse' ->
    {Lazy, S};
tail(Expression, S) ->
    case lists:member(element(1, Expression), ['receive', 'maybe', maybe_match, lc, bc]) of
        true -> {Expression, S};
        false -> part(Expression, S)
    end.

%% Of an argument is asked whether it is a value already, whether functions are made of it, and what it binds where another one binds as well.
arguments(Callee, Arguments, S) ->
    Facts = [facts(Argument) || Argument <- Arguments],
    Binding = length([binds || {_, _, _, true} <- [facts(Callee) | Facts]]),
    lists:mapfoldl(
        fun
            ({{'fun', A, {clauses, Clauses}}, _}, S1) ->
                within(clauses(Clauses, fun parts/2, S1), fun(New) -> {'fun', A, {clauses, New}} end);
            ({Argument, {_, _, _, Binds} = Known}, S1) ->
                case is_plain(Argument) of
                    true -> plain(Argument, Known, S1);
                    false when Binds, Binding > 1 -> {Argument, S1};
                    false -> elided(Argument, Known, S1)
                end
        end,
        S,
        lists:zip(Arguments, Facts)
    ).

%% Whether it is a value, as the transformer sees it.
is_plain({cons, _, Head, Tail}) -> is_plain(Head) andalso is_plain(Tail);
is_plain({tuple, _, Elements}) -> lists:all(fun is_plain/1, Elements);
is_plain({map, _, Fields}) -> lists:all(fun({_, _, Key, Value}) -> is_plain(Key) andalso is_plain(Value) end, Fields);
is_plain({bin, _, Elements}) ->
    lists:all(
        fun({bin_element, _, Value, Size, Specifiers}) ->
            lists:member(element(1, Value), [string, integer]) andalso is_atom(Size) andalso is_atom(Specifiers)
        end,
        Elements
    );
is_plain({'fun', _, What}) -> tuple_size(What) < 4;
is_plain(Leaf) -> lists:member(element(1, Leaf), [var, atom, integer, float, char, string, nil, value]).

within({New, S}, Wrap) ->
    {Wrap(New), S}.

part(Expression, S) ->
    elided(Expression, facts(Expression), S).

plain(Value, {Size, _, Functions, _}, S) when Size =< ?LEAST; Functions ->
    {Value, S};
plain(Value, _, {N, Parts}) ->
    {{tuple, element(2, Value), [{atom, 0, ?ELIDED}, {integer, 0, N + 1}]}, {N + 1, [Value | Parts]}}.

elided(Expression, {Size, _, _, _}, S) when Size < ?LEAST ->
    {Expression, S};
elided(Expression, {_, Catches, Functions, _}, {N, Parts}) ->
    Like = [{'catch', 0, {nil, 0}} || Catches] ++ [{'fun', 0, {clauses, []}} || Functions],
    Number = {integer, 0, N + 1},
    Operand = case Like of [] -> Number; _ -> {block, 0, [Number | Like]} end,
    {{op, element(2, Expression), ?ELIDED, Operand}, {N + 1, [Expression | Parts]}}.

%% How many tuples it is, whether it has a `try` or a `catch`, whether functions are made of a part of it, whether it binds variables for what is
%% outside of it. A term that only looks like one of these costs a part that is not elided.
facts(Expression) ->
    facts(Expression, {0, false, false, false}).

facts({_, _, Leaf}, {Size, C, F, B}) when not is_tuple(Leaf), not is_list(Leaf) -> {Size + 1, C, F, B};
facts({_, _, [Character | _]}, {Size, C, F, B}) when is_integer(Character) -> {Size + 1, C, F, B};
facts(Tuple, {Size, C, F, B} = Facts) when is_tuple(Tuple) ->
    case Tuple of
        {'try', _, _, _, _, _} -> parts_of(Tuple, {Size, true, true, B});
        {'catch', _, _} -> closed(Tuple, {Size, true, F, B});
        {Comprehension, _, _, _} when Comprehension =:= lc; Comprehension =:= bc; Comprehension =:= mc -> closed(Tuple, {Size, C, true, B});
        {'fun', _, {clauses, _}} -> closed(Tuple, {Size, C, true, B});
        {named_fun, _, _, _} -> closed(Tuple, {Size, C, true, B});
        {Match, _, _, _} when Match =:= match; Match =:= maybe_match -> parts_of(Tuple, {Size, C, F, true});
        {clause, _, _, _, _} -> parts_of(Tuple, {Size, C, F, true});
        {Waits, _, _} when Waits =:= 'receive'; Waits =:= 'maybe' -> parts_of(Tuple, {Size, C, true, B});
        {'receive', _, _, _, _} -> parts_of(Tuple, {Size, C, true, B});
        {'maybe', _, _, _} -> parts_of(Tuple, {Size, C, true, B});
        _ -> parts_of(Tuple, Facts)
    end;
facts([First | Rest], Facts) ->
    facts(Rest, facts(First, Facts));
facts(_, Facts) ->
    Facts.

%% The first two are the tag and the annotation.
parts_of({_, _, Part}, {Size, C, F, B}) ->
    facts(Part, {Size + 1, C, F, B});
parts_of({_, _, Part1, Part2}, {Size, C, F, B}) ->
    facts(Part2, facts(Part1, {Size + 1, C, F, B}));
parts_of(Tuple, {Size, C, F, B}) ->
    lists:foldl(fun facts/2, {Size + 1, C, F, B}, tuple_to_list(Tuple)).

%% Variables of these don't get out.
closed(Tuple, {_, _, _, B} = Facts) ->
    setelement(4, parts_of(Tuple, Facts), B).

%% Forms to object code. The same passes that made the module: Erlang's forms are linted and expanded, Elixir's go straight to Core
%% Erlang, as elixir_erl_compiler does it. Warnings are handed back, never printed, and never an error.
-spec compile(job()) -> {ok, #{beam := binary(), warnings := [term()]}} | {error, binary()}.
compile(#{backend := Backend, forms := Forms, options := Given} = Job) ->
    Source = [{source, S} || #{source := S} <- [Job]],
    Options = Source ++ [O || O <- Given, keep(O)],
    Result =
        case Backend of
            elixir_erl -> from_core(v3_core:module(Forms, Options), Options);
            _ -> compile:noenv_forms(Forms, [return, binary, no_spawn_compiler_process | Options])
        end,
    case Result of
        {ok, _, Beam, Warnings} when is_binary(Beam) -> {ok, #{beam => Beam, warnings => warnings(Warnings)}};
        {error, Errors, _} -> {error, unicode:characters_to_binary(lists:join("; ", [describe(E) || E <- Errors]))};
        Other -> {error, text("~0tP", [Other, 20])}
    end.

from_core({ok, Core, Early}, Options) ->
    Passes = [no_spawn_compiler_process, from_core, no_core_prepare, no_auto_import, return, binary],
    case compile:noenv_forms(Core, Passes ++ Options) of
        {ok, Module, Beam, Warnings} -> {ok, Module, Beam, Early ++ Warnings};
        Other -> Other
    end.

%% Options that concern files, output or passes that were already run.
keep({parse_transform, _}) -> false;
keep({Key, _}) -> not lists:member(Key, [outdir, i, cwd, debug_info, debug_info_key, source, error_location, extra_chunks]);
keep(Key) ->
    not lists:member(Key, [
        report, report_errors, report_warnings, return, return_errors, return_warnings, warnings_as_errors,
        verbose, debug_info, encrypt_debug_info, compressed, binary, strong_validation, makedep, brief,
        'S', 'E', 'P', to_pp, to_exp, to_core, to_core0, to_kernel, to_asm, basic_validation
    ]).

warnings(Warnings) ->
    [{location(L), Module, unicode:characters_to_binary(message(Module, D))} || {_, Ws} <- Warnings, {L, Module, D} <- Ws].

location({Line, _}) -> Line;
location(Line) when is_integer(Line) -> Line;
location(_) -> 0.

message(Module, Description) ->
    try Module:format_error(Description)
    catch _:_ -> io_lib:format("~0tp", [Description])
    end.

describe({File, Errors}) ->
    lists:join("; ", [io_lib:format("~ts:~w: ~ts", [File, location(L), message(M, D)]) || {L, M, D} <- Errors] ++
        [io_lib:format("~ts: ~ts", [File, message(M, D)]) || {M, D} <- Errors]).

text(Format, Arguments) ->
    unicode:characters_to_binary(io_lib:format(Format, Arguments)).
