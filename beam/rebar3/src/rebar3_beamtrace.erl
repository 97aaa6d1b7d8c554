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
    case [Key || {Key, _} <- Options, not lists:member(Key, ?OPTIONS)] of
        [] -> build(State, Options);
        [Unknown | _] -> failed({unknown_option, Unknown})
    end.

-spec format_error({unknown_option, term()} | {unknown_dependency, binary()} | {problem, binary()}) -> iolist().
format_error({unknown_option, Key}) ->
    io_lib:format("beamtrace has no option ~tp; there are: ~ts", [Key, lists:join(", ", [atom_to_list(O) || O <- ?OPTIONS])]);
format_error({unknown_dependency, Name}) ->
    io_lib:format("beamtrace: there is no dependency ~ts", [Name]);
format_error({problem, Message}) ->
    io_lib:format("nothing is instrumented: ~ts", [Message]).

%% What a hook returns as an error rebar3 takes for the name of a provider.
failed(Reason) ->
    rebar_api:abort("~ts", [format_error(Reason)]).

build(State, Options) ->
    Root = rebar_dir:root_dir(State),
    Common = #{
        plan => plan(Root, proplists:get_value(plan, Options)),
        environment => environment(State, Options),
        program => #{node => proplists:get_value(node, Options, "node"), cli => cli(Root, proplists:get_value(cli, Options))}
    },
    case dependencies(State, proplists:get_value(dependencies, Options, [])) of
        {ok, Dependencies} ->
            Apps = rebar_state:project_apps(State) ++ Dependencies,
            Results = [one(State, Common, App) || App <- Apps],
            finished(State, Results, proplists:get_value(required, Options, false));
        {error, Reason} ->
            failed(Reason)
    end.

one(State, Common, App) ->
    Name = rebar_app_info:name(App),
    Result = beamtrace_build:run(Common#{
        folder => rebar_app_info:ebin_dir(App),
        application => Name,
        manifest => filename:join([rebar_dir:base_dir(State), "beamtrace", binary_to_list(Name)])
    }),
    case Result of
        {ok, #{instrumented := [_ | _] = Modules}} ->
            Functions = lists:sum([Count || {_, Count} <- Modules]),
            rebar_api:info("Instrumented ~b modules of ~ts (~b functions)", [length(Modules), Name, Functions]);
        _ ->
            ok
    end,
    Result.

finished(State, Results, Required) ->
    [
        rebar_api:warn("~ts is not instrumented: ~ts~n  ~ts", [short(Module), Message, place(File, Line)])
     || {Status, #{failures := Failures}} <- Results,
        Status =/= error,
        #{module := Module, message := Message, file := File, line := Line} <- Failures
    ],
    case lists:usort([Message || {error, #{message := Message}} <- Results]) of
        [Problem | _] when Required ->
            failed({problem, Problem});
        Problems ->
            _ = [rebar_api:warn("~ts", [format_error({problem, Problem})]) || Problem <- Problems],
            {ok, State}
    end.

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
