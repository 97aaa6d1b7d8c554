%% A rebar3 plugin that puts beamtrace's events into what `rebar3 compile` has made, as a plan says:
%%
%%     {plugins, [rebar3_beamtrace]}.
%%     {provider_hooks, [{post, [{compile, beamtrace}]}]}.
%%     {beamtrace, [{plan, "beamtrace.json"}]}.
%%
%% Options: plan (default "beamtrace.json", which need not exist), environment (default: the last profile, `dev` for the default one),
%% dependencies (applications, or `all`), node, required (whether a build without Node.js or with a plan that makes no sense fails), cli.
-module(rebar3_beamtrace).

-export([init/1, do/1, format_error/1]).

-define(PROVIDER, beamtrace).
-define(OPTIONS, [plan, environment, dependencies, node, required, cli]).

%% States are rebar3's own, opaque to plugins.
-spec init(term()) -> {ok, term()}.
init(State) ->
    Provider = providers:create([
        {name, ?PROVIDER},
        {module, ?MODULE},
        {bare, true},
        {deps, [{default, app_discovery}]},
        {example, "rebar3 beamtrace"},
        {opts, []},
        {short_desc, "Instruments the compiled modules, as a plan says"},
        {desc, "Puts beamtrace's events into compiled modules, as a plan says. Runs after compile by a provider hook."}
    ]),
    {ok, rebar_state:add_provider(State, Provider)}.

-spec do(term()) -> {ok, term()}.
do(State) ->
    Options = rebar_state:get(State, beamtrace, []),
    case mistake(Options) of
        none -> build(State, Options);
        Mistake -> failed(Mistake)
    end.

-type mistake() :: {no_options, term()} | {unknown_option, term()} | {bad_option, atom(), term()}.

-spec format_error(mistake() | {unknown_dependency, binary()} | {problem, [string()], binary()}) -> iolist().
format_error({no_options, Given}) ->
    io_lib:format("beamtrace must be a list of options {Name, Value}, not ~tp", [Given]);
format_error({unknown_option, Key}) ->
    io_lib:format("beamtrace has no option ~tp; there are: ~ts", [Key, lists:join(", ", [atom_to_list(O) || O <- ?OPTIONS])]);
format_error({bad_option, Key, Value}) ->
    io_lib:format("beamtrace: ~ts must be ~ts, not ~tp", [Key, meant(Key), Value]);
format_error({unknown_dependency, Name}) ->
    io_lib:format("beamtrace: there is no dependency ~ts", [Name]);
format_error({problem, [], Message}) ->
    io_lib:format("nothing is instrumented: ~ts", [Message]);
format_error({problem, Modules, Message}) ->
    Keep =
        case Modules of
            [_] -> "One module that has not changed keeps the events that it had";
            _ -> io_lib:format("~b modules that have not changed keep the events that they had", [length(Modules)])
        end,
    io_lib:format("nothing is instrumented anew: ~ts~n~ts; all others have none.", [Message, Keep]).

%% What a hook returns as an error rebar3 takes for the name of a provider.
failed(Reason) ->
    rebar_api:abort("~ts", [format_error(Reason)]).

-spec mistake(term()) -> none | mistake().
mistake([]) ->
    none;
mistake([{Key, Value} | More]) ->
    case lists:member(Key, ?OPTIONS) of
        false -> {unknown_option, Key};
        true ->
            case is_valid(Key, Value) of
                true -> mistake(More);
                false -> {bad_option, Key, Value}
            end
    end;
mistake([Other | _]) ->
    {no_options, Other};
mistake(Other) ->
    {no_options, Other}.

is_valid(plan, false) -> true;
is_valid(environment, Value) when is_atom(Value) -> true;
is_valid(dependencies, Value) -> Value =:= all orelse is_list_of(fun is_atom/1, Value);
is_valid(required, Value) -> is_boolean(Value);
is_valid(_, Value) when is_binary(Value) -> is_valid(text, unicode:characters_to_list(Value));
is_valid(_, Value) -> Value =/= [] andalso is_list_of(fun(C) -> is_integer(C) andalso C > 0 andalso C =< 16#10FFFF end, Value).

is_list_of(Fun, List) when is_list(List) -> length_or_none(List) =/= none andalso lists:all(Fun, List);
is_list_of(_, _) -> false.

%% An improper list has none.
length_or_none(List) ->
    try length(List) catch error:badarg -> none end.

meant(plan) -> "the name of a file, or false";
meant(environment) -> "an atom or a string";
meant(dependencies) -> "all or a list of applications (atoms)";
meant(node) -> "the name of a program, or its path";
meant(required) -> "true or false";
meant(cli) -> "the name of a file".

build(State, Options) ->
    Root = rebar_dir:root_dir(State),
    Common = #{
        plan => plan(Root, text(plan, Options, undefined)),
        environment => environment(State, Options),
        program => #{node => text(node, Options, "node"), cli => cli(Root, text(cli, Options, undefined))}
    },
    case dependencies(State, proplists:get_value(dependencies, Options, [])) of
        {ok, Dependencies} ->
            Wanted = [job(State, App) || App <- rebar_state:project_apps(State) ++ Dependencies],
            Results = [one(Common, Job) || Job <- Wanted] ++ [one(Common#{plan := undefined}, Job) || Job <- dropped(State, Wanted)],
            finished(State, Results, proplists:get_value(required, Options, false));
        {error, Reason} ->
            failed(Reason)
    end.

%% A string, however it was written.
text(Key, Options, Default) ->
    case proplists:get_value(Key, Options, Default) of
        Text when is_binary(Text) -> unicode:characters_to_list(Text);
        Other -> Other
    end.

job(State, App) ->
    Name = rebar_app_info:name(App),
    #{application => Name, folder => rebar_app_info:ebin_dir(App), manifest => manifest(State, binary_to_list(Name))}.

manifest(State, Name) ->
    filename:join([rebar_dir:base_dir(State), "beamtrace", Name]).

%% Applications that were instrumented before and are not to be any more: their manifests are still there. They come back plain.
dropped(State, Wanted) ->
    Folder = filename:dirname(manifest(State, "any")),
    Known = [{rebar_app_info:name(App), App} || App <- rebar_state:all_deps(State)],
    Files = case file:list_dir(Folder) of {ok, All} -> All; {error, _} -> [] end,
    Names = lists:usort([unicode:characters_to_binary(filename:basename(File, ".kept")) || File <- Files]),
    [
        case lists:keyfind(Name, 1, Known) of
            {_, App} ->
                job(State, App);
            false ->
                Ebin = filename:join([rebar_dir:base_dir(State), "lib", binary_to_list(Name), "ebin"]),
                #{application => Name, folder => Ebin, manifest => manifest(State, binary_to_list(Name))}
        end
     || Name <- Names, not lists:any(fun(#{application := A}) -> A =:= Name end, Wanted)
    ].

one(Common, #{application := Name, folder := Folder} = Job) ->
    {Status, Outcome} = beamtrace_build:run(maps:merge(Common, Job)),
    case Outcome of
        #{instrumented := [_ | _] = Modules} when Status =/= error ->
            Functions = lists:sum([Count || {_, Count} <- Modules]),
            rebar_api:info("Instrumented ~b modules of ~ts (~b functions)", [length(Modules), Name, Functions]);
        _ ->
            ok
    end,
    {Status, Outcome#{application => Name, folder => Folder}}.

finished(State, Results, Required) ->
    Reports = [Report || {Status, Report} <- Results, Status =/= error],
    [
        rebar_api:warn("~ts ~ts: ~ts~n  ~ts", [short(Module), became(Code), Message, place(File, Line)])
     || #{failures := Failures} <- Reports,
        #{module := Module, code := Code, message := Message, file := File, line := Line} <- Failures
    ],
    [rebar_api:warn("~ts", [orphaned(Report)]) || #{orphans := [_ | _]} = Report <- Reports],
    Problems = [Problem || {error, Problem} <- Results],
    Instrumented = lists:append([Modules || #{instrumented := Modules} <- Problems]),
    case lists:usort([Message || #{message := Message} <- Problems]) of
        [Message | _] when Required ->
            failed({problem, Instrumented, Message});
        Messages ->
            _ = [rebar_api:warn("~ts", [format_error({problem, Instrumented, Message})]) || Message <- Messages],
            {ok, State}
    end.

became(<<"BT_NOT_WRITTEN">>) -> "stays as it was";
became(_) -> "is not instrumented".

%% Only the compiler can write them anew.
orphaned(#{orphans := Files, application := Name, folder := Folder}) ->
    Modules = [short(unicode:characters_to_binary(filename:basename(File, ".beam"))) || File <- Files],
    Shown = lists:join(", ", lists:sublist(Modules, 3)),
    More = case length(Modules) - 3 of N when N > 0 -> io_lib:format(" and ~b more", [N]); _ -> "" end,
    io_lib:format(
        "of ~ts these modules should be plain and stay instrumented: ~ts~ts. What the compiler wrote is not kept any more. To compile them anew: delete ~ts, then rebar3 compile",
        [Name, Shown, More, Folder]
    ).

short(<<"Elixir.", Name/binary>>) -> Name;
short(Name) -> Name.

place(File, 0) -> File;
place(File, Line) -> io_lib:format("~ts:~b", [File, Line]).

plan(Root, undefined) ->
    Default = filename:join(Root, "beamtrace.json"),
    case filelib:is_regular(Default) of
        true -> Default;
        false -> undefined
    end;
plan(_, false) ->
    undefined;
plan(Root, Path) ->
    filename:absname(Path, Root).

environment(State, Options) ->
    Profiles = [P || P <- rebar_state:current_profiles(State), P =/= default, P =/= global],
    Default =
        case Profiles of
            [] -> dev;
            _ -> lists:last(Profiles)
        end,
    iolist_to_binary(io_lib:format("~ts", [proplists:get_value(environment, Options, Default)])).

dependencies(State, all) ->
    {ok, rebar_state:all_deps(State)};
dependencies(State, Wanted) ->
    All = [{rebar_app_info:name(App), App} || App <- rebar_state:all_deps(State)],
    Names = [atom_to_binary(Name, utf8) || Name <- Wanted],
    case [Name || Name <- Names, not lists:keymember(Name, 1, All)] of
        [] -> {ok, [App || {Name, App} <- All, lists:member(Name, Names)]};
        [Missing | _] -> {error, {unknown_dependency, Missing}}
    end.

%% The script of the npm package: where the option says, beside this plugin, or in node_modules of the project or of a folder above it.
cli(_, Path) when Path =/= undefined ->
    Path;
cli(Root, undefined) ->
    Script = filename:join(["dist", "cli", "main.js"]),
    Beside = filename:join([filename:dirname(real(plugin_folder())), "..", Script]),
    Candidates = [Beside | [filename:join([Folder, "node_modules", "beamtrace", Script]) || Folder <- above(Root)]],
    case lists:filter(fun filelib:is_regular/1, Candidates) of
        [Found | _] -> Found;
        [] -> lists:last(Candidates)
    end.

%% The folder of the plugin's sources, as it was compiled.
plugin_folder() ->
    filename:dirname(filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile), ""))).

%% The folder itself where it is a link to it.
real(Folder) ->
    case file:read_link_all(Folder) of
        {ok, Target} -> filename:absname(Target, filename:dirname(Folder));
        {error, _} -> Folder
    end.

above(Folder) ->
    case filename:dirname(Folder) of
        Folder -> [Folder];
        Parent -> [Folder | above(Parent)]
    end.
