%% Which build of beamtrace_rt a node has (docs/transform.md, "The runtime"): one process a node, there while a trace of any session wants
%% what instrumented code tells. It is linked to the tracers of these traces and sees when they end, however; after the last one the build
%% that does nothing comes back, or nothing, if there was nothing before and no instrumented code is there to miss it. Should it be killed the
%% traces end with it. It goes around the code server, as instrumented code does where it misses the module: the code server may run such code.
-module(beamtrace_runtime).

-export([need/3, settle/2, sites/1, hide/1, unhide/1]).
-export([init/1, found/1]).
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
    users = #{} :: #{pid() => kind()},
    %% Somebody has asked for something.
    asked = false :: boolean(),
    %% How often to try yet to get rid of the old code, when there is nothing else to do.
    tries = ?PURGE_TRIES :: non_neg_integer()
}).

%% The node has the runtime that this trace needs; call it before the first breakpoint is set. `{native, …}`: the portable one would do.
-spec need(pid(), kind(), builds()) -> ok | {error, term()}.
need(Tracer, Kind, Builds) -> ask({need, Tracer, Kind}, Builds, ?PURGE_TRIES).

%% The trace of this tracer does not need it any more. Returns when that is seen to; where the process here has been killed by another one.
-spec settle(pid(), builds()) -> ok.
settle(Tracer, Builds) ->
    case is_on(found(?RT)) of
        true ->
            _ = ask({done, Tracer}, Builds, ?PURGE_TRIES),
            ok;
        false ->
            _ = [call(Pid, {done, Tracer}) || Pid <- [whereis(?NAME)], is_pid(Pid)],
            ok
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
                case found(?RT) of
                    absent -> absent;
                    _ -> off
                end,
            loop(#state{builds = Builds, before = Before})
    catch
        error:badarg -> ok
    end.

%% What may need the module finds no old code in the way: it goes as soon as nobody is in it any more. Somebody who is suspended in the middle
%% of a call can also keep the last trace's build in its place; then this process stays, and the agent with it, until that one goes on.
loop(#state{users = Users, asked = Asked, tries = Tries} = S) ->
    Idle = map_size(Users) =:= 0,
    Owing = Asked andalso Idle andalso is_on(found(?RT)),
    Old = Owing orelse (Tries > 0 andalso erlang:check_old_code(?RT)),
    case Asked andalso Idle andalso not Old of
        true ->
            %% Whoever asks now finds another one, or hears that this one has gone. The agent may go with it.
            true = unregister(?NAME),
            beamtrace_janitor:unload();
        false ->
            receive
                {{need, Tracer, Kind}, From, Ref} ->
                    {Answer, S1} = needed(Tracer, Kind, S),
                    From ! {beamtrace_runtime, Ref, Answer},
                    loop(S1#state{asked = true, tries = ?PURGE_TRIES});
                {{done, Tracer}, From, Ref} ->
                    S1 = forget(Tracer, S),
                    From ! {beamtrace_runtime, Ref, ok},
                    loop(S1#state{asked = true, tries = ?PURGE_TRIES});
                {'EXIT', Tracer, _} ->
                    loop((forget(Tracer, S))#state{asked = true, tries = ?PURGE_TRIES});
                _ ->
                    loop(S)
            after timeout(Asked, Old) ->
                _ = Old andalso soft_purge(),
                _ = Owing andalso put_back(S),
                loop(S#state{asked = true, tries = max(0, Tries - 1)})
            end
    end.

timeout(_, true) -> ?PURGE_MS;
timeout(true, false) -> infinity;
%% Whoever started this has died before it could ask.
timeout(false, false) -> ?ANSWER_MS.

needed(Tracer, Kind, #state{users = Users} = S) ->
    S1 = S#state{users = Users#{Tracer => Kind}},
    case found(?RT) of
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

forget(Tracer, #state{users = Users} = S) ->
    true = unlink(Tracer),
    S1 = S#state{users = maps:remove(Tracer, Users)},
    _ = put_back(S1),
    S1.

%% What those need who are left; after the last one, what was there before.
put_back(#state{users = Users, before = Before} = S) ->
    Found = found(?RT),
    case is_on(Found) orelse (Found =:= off andalso Before =:= absent) of
        true when map_size(Users) =:= 0, Before =:= absent ->
            case instrumented() of
                [] -> delete();
                [_ | _] -> switch(Found, off, S)
            end;
        true ->
            switch(Found, build(S), S);
        false ->
            ok
    end.

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

%% Exported only so that nobody concludes which build it is from the one that is compiled beside this.
-spec found(module()) -> absent | foreign | {abi, term()} | build().
found(Module) ->
    case erlang:module_loaded(Module) of
        false ->
            absent;
        true ->
            try Module:info() of
                {Module, ?ABI, Build} -> Build;
                {Module, Abi, _} -> {abi, Abi};
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
                            ok;
                        {Reason, _} ->
                            {error, {runtime, Reason}}
                    end
            end;
        false ->
            {error, {runtime, not_purged}}
    end.

delete() ->
    purged(?PURGE_TRIES) andalso erlang:delete_module(?RT).

%% Never the other purge: it would kill who is put off in the middle of a call.
soft_purge() -> erts_code_purger:soft_purge(?RT).

purged(0) ->
    false;
purged(Tries) ->
    case not erlang:check_old_code(?RT) orelse soft_purge() of
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

%% Not by calling it to see: a module that answers calls of functions it has not would be asked.
sites_of(M) ->
    try
        true = erlang:function_exported(M, ?SITES, 0),
        {code, M:?SITES()}
    catch
        error:_ -> sites_in(code:which(M), M)
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
