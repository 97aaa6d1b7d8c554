%% Cleans up after a holder, whatever the holder dies of: undoes every trace that is left, ends processes of ours, and
%% unloads the agent when this was the last holder. The holder announces a trace before it sets the first flag.
%% The unloading itself runs in erl_eval: no process can wait for the end of its own code.
-module(beamtrace_janitor).

-export([start/3, init/3, add/3, remove/2, watch/2, unwatch/2]).
-export([unload/0, unloader/0]).
-export_type([undo/0]).

-type patterns() :: [{beamtrace_session:mfargs(), [atom()]}].
%% What to undo, the tracer, and what the runtime of instrumented code is to be again where the trace has switched it.
-type undo() :: {beamtrace_session:handle(), patterns(), pid(), beamtrace_runtime:builds() | none}.
-type undos() :: #{term() => undo()}.

%% How long the end of a killed process is waited for.
-define(END_MS, 5000).

%% `Undos`, `Pids`: what a janitor before this one knew.
-spec start(atom(), undos(), [pid()]) -> {pid(), reference()}.
start(Name, Undos, Pids) ->
    Holder = self(),
    spawn_opt(?MODULE, init, [Holder, Name, {Undos, Pids}], [monitor, {priority, high}]).

-spec init(pid(), atom(), {undos(), [pid()]}) -> ok.
init(Holder, Name, {Undos, Pids}) ->
    process_flag(sensitive, true),
    process_flag(trap_exit, true),
    Monitor = erlang:monitor(process, Holder),
    true = register(Name, self()),
    Holder ! {beamtrace_janitor, self()},
    loop(Monitor, Undos, maps:from_keys(Pids, true)).

%% A trace.
-spec add(pid(), term(), undo()) -> ok.
add(Janitor, Key, Undo) ->
    Janitor ! {beamtrace_add, Key, Undo},
    ok.

-spec remove(pid(), term()) -> ok.
remove(Janitor, Key) ->
    Janitor ! {beamtrace_remove, Key},
    ok.

%% A process that has to end with the holder.
-spec watch(pid(), pid()) -> ok.
watch(Janitor, Pid) ->
    Janitor ! {beamtrace_watch, Pid},
    ok.

-spec unwatch(pid(), pid()) -> ok.
unwatch(Janitor, Pid) ->
    Janitor ! {beamtrace_unwatch, Pid},
    ok.

loop(Monitor, Undos, Pids) ->
    receive
        {beamtrace_add, Key, Undo} -> loop(Monitor, Undos#{Key => Undo}, Pids);
        {beamtrace_remove, Key} -> loop(Monitor, maps:remove(Key, Undos), Pids);
        {beamtrace_watch, Pid} -> loop(Monitor, Undos, Pids#{Pid => true});
        {beamtrace_unwatch, Pid} -> loop(Monitor, Undos, maps:remove(Pid, Pids));
        {'DOWN', Monitor, process, _, _} -> clean_up(Undos, Pids);
        _ -> loop(Monitor, Undos, Pids)
    end.

clean_up(Undos, Pids) ->
    _ = maps:map(fun(_, {Handle, Patterns, _, _}) -> beamtrace_session:undo(Handle, Patterns) end, Undos),
    Tracers = [Tracer || {_, _, Tracer, _} <- maps:values(Undos)],
    Monitors = [{Pid, erlang:monitor(process, Pid)} || Pid <- Tracers ++ maps:keys(Pids)],
    _ = [exit(Pid, kill) || {Pid, _} <- Monitors],
    _ = [ended(Monitor) || {_, Monitor} <- Monitors],
    _ = [beamtrace_runtime:settle(Tracer, Builds) || {_, _, Tracer, Builds} <- maps:values(Undos), Builds =/= none],
    unload().

ended(Monitor) ->
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    after ?END_MS -> ok
    end.

%% Unloads the agent when nobody needs it any more and this process has ended.
-spec unload() -> ok.
unload() ->
    {Expressions, Bindings} = unloader(),
    _ = spawn(erl_eval, exprs, [Expressions, Bindings]),
    ok.

%% What unloads the agent when no holder and no janitor is left; abstains otherwise, because they will do it.
%% Loading and unloading exclude each other by the name beamtrace_lock (see docs/agent-protocol.md, "Start").
-spec unloader() -> {[erl_parse:abstract_expr()], [{atom(), term()}]}.
unloader() ->
    {ok, Tokens, _} = erl_scan:string(unloader_text()),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    Janitors = [Janitor || {_, Janitor} <- beamtrace_names:slots()],
    Holders = [Holder || {Holder, _} <- beamtrace_names:slots()],
    %% In the order of names, as erl_eval wants them; the first one tells tracers whose process this is.
    Bindings = [
        {'BeamtraceModules', beamtrace_names:modules() ++ [beamtrace_nif]},
        {'Janitor', self()},
        {'Names', [beamtrace_names:runtime() | Holders ++ Janitors]}
    ],
    {Expressions, Bindings}.

unloader_text() ->
    " process_flag(sensitive, true),"
    " Gone = erlang:monitor(process, Janitor),"
    " receive {'DOWN', Gone, process, _, _} -> ok after 5000 -> ok end,"
    " Lock = fun Lock(0) -> false;"
    "   Lock(N) ->"
    "     try register(beamtrace_lock, self())"
    "     catch error:badarg -> receive after 5 -> Lock(N - 1) end"
    "     end"
    "   end,"
    " Purge = fun Purge(M, 0) -> code:purge(M);"
    "   Purge(M, N) ->"
    "     case code:soft_purge(M) of"
    "       true -> true;"
    "       false -> receive after 10 -> Purge(M, N - 1) end"
    "     end"
    "   end,"
    " case Lock(2000) of"
    "   false -> gave_up;"
    "   true ->"
    "     case [Name || Name <- Names, is_pid(whereis(Name))] of"
    "       [_ | _] -> in_use;"
    "       [] ->"
    "         Barrier = erlang:trace_delivered(all),"
    "         receive {trace_delivered, all, Barrier} -> ok after 5000 -> exit(no_barrier) end,"
    %% The barrier does not reach dirty schedulers. One that was in the library when the flags went off leaves it within nanoseconds, or,
    %% when the system has put it off just there, when it has its next turn.
    "        case code:is_loaded(beamtrace_nif) of false -> ok; _ -> receive after 50 -> ok end end,"
    "        Ours = [M || M <- BeamtraceModules, case code:is_loaded(M) of"
    "          {file, \"beamtrace:\" ++ _} -> true;"
    "          false -> erlang:check_old_code(M);"
    "          {file, _} -> false"
    "        end],"
    "        [begin Purge(M, 100), code:delete(M) end || M <- Ours],"
    "        [Purge(M, 100) || M <- Ours],"
    "         case whereis(beamtrace_guard) of"
    "           undefined -> ok;"
    "           Guard -> exit(Guard, kill)"
    "         end"
    "     end"
    " end.".
