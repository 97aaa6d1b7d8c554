%% Tracer libraries on all processes: one that does nothing (the VM's floor), one whose gate discards.
-module(beamtrace_bench_nif).

-export([load/1, on/1, on_stamped/1, off/1, count/0]).
-export([enabled/3, enabled_send/3, enabled_receive/3, enabled_procs/3]).
-export([trace/5, trace_send/5, trace_receive/5, trace_procs/5]).

-nifs([count/0, enabled/3, enabled_send/3, enabled_receive/3, enabled_procs/3]).
-nifs([trace/5, trace_send/5, trace_receive/5, trace_procs/5]).

-define(FLAGS, [send, 'receive', procs]).

%% Path without .so.
-spec load(string()) -> ok | {error, term()}.
load(Path) -> erlang:load_nif(Path, 0).

%% Sets the flags for a tracer; returns how many processes carry them.
-spec on({module(), integer()}) -> non_neg_integer().
on({Module, State}) -> erlang:trace(processes, true, [{tracer, Module, State} | ?FLAGS]).

%% The same, and the VM puts the time into each event, as it does for every tracer that has no clock of its own.
-spec on_stamped({module(), integer()}) -> non_neg_integer().
on_stamped({Module, State}) -> erlang:trace(processes, true, [{tracer, Module, State}, monotonic_timestamp | ?FLAGS]).

-spec off({module(), integer()}) -> ok.
off(_) ->
    _ = erlang:trace(processes, false, [monotonic_timestamp | ?FLAGS]),
    Delivered = erlang:trace_delivered(all),
    receive
        {trace_delivered, all, Delivered} -> ok
    end.

%% Events that reached a tracer of state 2, ever.
-spec count() -> non_neg_integer().
count() -> erlang:nif_error(not_loaded).

enabled(_, _, _) -> erlang:nif_error(not_loaded).
enabled_send(_, _, _) -> erlang:nif_error(not_loaded).
enabled_receive(_, _, _) -> erlang:nif_error(not_loaded).
enabled_procs(_, _, _) -> erlang:nif_error(not_loaded).
trace(_, _, _, _, _) -> erlang:nif_error(not_loaded).
trace_send(_, _, _, _, _) -> erlang:nif_error(not_loaded).
trace_receive(_, _, _, _, _) -> erlang:nif_error(not_loaded).
trace_procs(_, _, _, _, _) -> erlang:nif_error(not_loaded).
