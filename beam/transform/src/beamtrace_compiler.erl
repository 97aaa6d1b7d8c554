%% The part of a transformation that only the BEAM can do: debug info of any backend into Erlang's abstract forms, and forms into
%% object code with the module's own compile options. Serves one client over a port with 4-byte length prefixes, many requests
%% at a time; on a live node `forms/3` and `compile/1` are called by themselves. Nothing is printed and no file is written.
-module(beamtrace_compiler).

-export([serve/2, forms/3, compile/1, versions/0]).

-export_type([request/0, job/0]).

-type job() :: #{
    module := module(),
    backend := atom(),
    forms := [term()],
    options := [term()],
    source => string()
}.
-type request() :: {forms, module(), atom(), binary()} | {compile, job()} | versions.

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
                    Self ! {answer, term_to_binary({Id, answer(Request)}, [{minor_version, 2}])}
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

answer(Request) ->
    try
        case Request of
            {forms, Module, Backend, Dbgi} -> forms(Module, Backend, Dbgi);
            {compile, Job} -> compile(Job);
            versions -> {ok, versions()}
        end
    catch
        Class:Reason:Stack ->
            {error, text("~0tp: ~0tP at ~0tP", [Class, Reason, 20, Stack, 12])}
    end.

-spec versions() -> #{atom() => binary()}.
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
