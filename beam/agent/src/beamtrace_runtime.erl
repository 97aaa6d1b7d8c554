%% Which build of beamtrace_rt a node has (docs/transform.md, "The runtime"): one process a node, there while a trace of any session wants
%% what instrumented code tells. It is linked to the tracers of these traces and sees when they end, however; after the last one the build
%% that does nothing comes back, or nothing, if there was nothing before and no instrumented code is there to miss it. Should it be killed the
%% traces end with it. It goes around the code server, as instrumented code does where it misses the module: the code server may run such code.
-module(beamtrace_runtime).

-export([need/3, done/1, settle/2, sites/1, hide/1, unhide/1]).
-export([init/1]).
-export_type([builds/0, kind/0]).

-type kind() :: native | portable.
-type build() :: off | kind() | both.
-type builds() :: #{build() := binary()}.

-define(NAME, (beamtrace_names:runtime())).
-define(RT, beamtrace_rt).
-define(ABI, 1).
%% A helper that every instrumented module has, and the function that gives its sites where it has one.
-define(MARK, {'-beamtrace-absent-', 0}).
-define(SITES, '-beamtrace-sites-').
-define(SITE_CHUNK, "BtSt").
%% How long old code may linger in a process that is suspended in the middle of it.
-define(PURGE_TRIES, 200).
-define(PURGE_MS, 5).
-define(ANSWER_MS, 10000).

-record(state, {
    builds :: builds(),
    %% What was there before: nothing, or a runtime of ours.
    before :: absent | off,
    users = #{} :: #{pid() => kind()}
}).

%% The node has the runtime that this trace needs; call it before the first breakpoint is set. `{native, …}`: the portable one would do.
-spec need(pid(), kind(), builds()) -> ok | {error, term()}.
need(Tracer, Kind, Builds) -> ask({need, Tracer, Kind}, Builds, ?PURGE_TRIES).

%% The trace of this tracer does not need it any more. Returns when that is seen to.
-spec done(pid()) -> ok.
done(Tracer) ->
    case whereis(?NAME) of
        undefined -> ok;
        Pid -> _ = call(Pid, {done, Tracer}), ok
    end.

%% For a janitor, when the tracer has ended: that the runtime does nothing again, also where the process here was killed as well.
-spec settle(pid(), builds()) -> ok.
settle(Tracer, Builds) ->
    case is_on(found()) of
        true ->
            _ = ask({done, Tracer}, Builds, ?PURGE_TRIES),
            ok;
        false ->
            done(Tracer)
    end.

ask(_, _, 0) ->
    {error, {runtime, busy}};
ask(Request, Builds, Tries) ->
    case call(started(Builds), Request) of
        %% It was about to end.
        gone -> ask(Request, Builds, Tries - 1);
        Answer -> Answer
    end.

started(Builds) ->
    case whereis(?NAME) of
        undefined -> spawn(?MODULE, init, [Builds]);
        Pid -> Pid
    end.

call(Pid, Request) ->
    Monitor = erlang:monitor(process, Pid),
    Pid ! {Request, self(), Monitor},
    receive
        {beamtrace_runtime, Monitor, Answer} ->
            true = erlang:demonitor(Monitor, [flush]),
            Answer;
        {'DOWN', Monitor, process, Pid, _} ->
            gone
    after ?ANSWER_MS ->
        true = erlang:demonitor(Monitor, [flush]),
        {error, {runtime, busy}}
    end.

-spec init(builds()) -> ok.
init(Builds) ->
    process_flag(sensitive, true),
    process_flag(trap_exit, true),
    try register(?NAME, self()) of
        true ->
            hide(self()),
            Before =
                case found() of
                    absent -> absent;
                    _ -> off
                end,
            loop(#state{builds = Builds, before = Before})
    catch
        error:badarg -> ok
    end.

loop(S) ->
    receive
        {{need, Tracer, Kind}, From, Ref} ->
            {Answer, S1} = needed(Tracer, Kind, S),
            From ! {beamtrace_runtime, Ref, Answer},
            go_on(S1);
        {{done, Tracer}, From, Ref} ->
            S1 = forget(Tracer, S),
            From ! {beamtrace_runtime, Ref, ok},
            go_on(S1);
        {'EXIT', Tracer, _} ->
            go_on(forget(Tracer, S));
        _ ->
            loop(S)
    end.

go_on(#state{users = Users} = S) when map_size(Users) > 0 -> loop(S);
go_on(_) ->
    %% Whoever asks now finds another one, or hears that this one has gone. The agent may go with it.
    true = unregister(?NAME),
    beamtrace_janitor:unload().

needed(Tracer, Kind, #state{users = Users} = S) ->
    S1 = S#state{users = Users#{Tracer => Kind}},
    case found() of
        foreign ->
            {{error, {runtime, foreign}}, S};
        {abi, Abi} ->
            {{error, {runtime, {abi, Abi}}}, S};
        portable when Kind =:= native, map_size(Users) > 0 ->
            {{error, {native, portable_runtime}}, S};
        Found ->
            case switch(Found, build(S1), S) of
                ok ->
                    true = link_to(Tracer),
                    {ok, S1};
                Error ->
                    {Error, S}
            end
    end.

link_to(Tracer) ->
    try link(Tracer)
    catch
        %% It has died already; its exit is on its way as if it had been linked.
        error:noproc -> self() ! {'EXIT', Tracer, noproc}, true
    end.

forget(Tracer, #state{users = Users, before = Before} = S) ->
    true = unlink(Tracer),
    S1 = S#state{users = maps:remove(Tracer, Users)},
    Found = found(),
    _ =
        case is_on(Found) orelse (Found =:= off andalso Before =:= absent) of
            true when map_size(S1#state.users) =:= 0, Before =:= absent ->
                case instrumented() of
                    [] -> delete();
                    [_ | _] -> switch(Found, off, S1)
                end;
            true ->
                switch(Found, build(S1), S1);
            false ->
                ok
        end,
    S1.

is_on(Build) -> lists:member(Build, [portable, native, both]).

%% Which build these traces need. Breakpoints go when the code does, so that a portable trace begins with what a native one might come to need.
build(#state{users = Users}) ->
    Kinds = lists:usort(maps:values(Users)),
    Library = erlang:function_exported(beamtrace_nif, enter, 2),
    case Kinds of
        [] -> off;
        [native] -> native;
        [portable] when not Library -> portable;
        _ -> both
    end.

-spec found() -> absent | foreign | {abi, term()} | build().
found() ->
    case erlang:module_loaded(?RT) of
        false ->
            absent;
        true ->
            try ?RT:info() of
                {?RT, ?ABI, Build} -> Build;
                {?RT, Abi, _} -> {abi, Abi};
                _ -> foreign
            catch
                error:undef -> foreign
            end
    end.

%% `S`: as it was before whoever comes, and after whoever goes.
switch(Build, Build, _) ->
    ok;
switch(_, Build, #state{users = Users, builds = Builds}) ->
    case lists:member(portable, maps:values(Users)) of
        true -> ok;
        false -> load(maps:get(Build, Builds))
    end.

load(Beam) ->
    case purged(?PURGE_TRIES) of
        true ->
            case erlang:prepare_loading(?RT, Beam) of
                {error, Reason} ->
                    {error, {runtime, Reason}};
                Prepared ->
                    case erlang:finish_loading([Prepared]) of
                        ok ->
                            %% What needs it finds no old code in the way.
                            _ = purged(?PURGE_TRIES),
                            ok;
                        {Reason, _} ->
                            {error, {runtime, Reason}}
                    end
            end;
        false ->
            {error, {runtime, not_purged}}
    end.

delete() ->
    _ = purged(?PURGE_TRIES) andalso erlang:delete_module(?RT),
    purged(?PURGE_TRIES).

%% Never the other purge: it would kill who is put off in the middle of a call.
purged(0) ->
    false;
purged(Tries) ->
    case not erlang:check_old_code(?RT) orelse erts_code_purger:soft_purge(?RT) of
        true ->
            true;
        false ->
            receive
            after ?PURGE_MS -> purged(Tries - 1)
            end
    end.

%% Instrumented modules that are loaded.
-spec instrumented() -> [module()].
instrumented() -> [M || M <- erlang:loaded(), is_instrumented(M)].

is_instrumented(M) ->
    try lists:member(?MARK, M:module_info(functions))
    catch
        error:undef -> false
    end.

%% What the sites of these modules are, or of all that are instrumented: as the module itself says, or as its file does if that is of the code that runs.
%% For the client, which calls it through the holder.
-spec sites([module()] | all) -> [{module(), {code | file, binary()} | unknown}].
sites(all) -> sites(instrumented());
sites(Modules) -> [{M, sites_of(M)} || M <- Modules, erlang:module_loaded(M), is_instrumented(M)].

sites_of(M) ->
    try
        {code, M:?SITES()}
    catch
        error:undef -> sites_in(code:which(M), M)
    end.

sites_in(File, M) when is_list(File), File =/= [] ->
    try
        {ok, {M, Md5}} = beam_lib:md5(File),
        Md5 = M:module_info(md5),
        {ok, {M, [{?SITE_CHUNK, Chunk}]}} = beam_lib:chunks(File, [?SITE_CHUNK]),
        {file, Chunk}
    catch
        error:_ -> unknown
    end;
sites_in(_, _) ->
    unknown.

%% A process of ours: where the library is, what instrumented code it runs is not told of.
-spec hide(pid()) -> ok.
hide(Pid) -> hide(Pid, true).

-spec unhide(pid()) -> ok.
unhide(Pid) -> hide(Pid, false).

hide(Pid, Hidden) ->
    _ =
        erlang:function_exported(beamtrace_nif, hide, 2) andalso
            try
                beamtrace_nif:hide(Pid, Hidden)
            catch
                %% The library is being loaded.
                error:beamtrace_nif -> ok
            end,
    ok.
