%% Tracers that beamtrace is compared with, each on all processes: a process that discards, dbg's file port, dbg's ip port.
%% A holder process owns the tracer. The tracer never traces itself (the VM sees to that) and the holder carries no flags.
-module(beamtrace_bench_peer).

-export([open/2, on/1, info/0, close/0, discard/0]).

-define(FLAGS, [send, 'receive', procs, monotonic_timestamp]).

%% Opens the tracer, without any flag set. Returns the number of the TCP port of an ip tracer, else 0.
-spec open(discard | file | ip, string() | pos_integer()) -> {ok, non_neg_integer()}.
open(Kind, Option) ->
    Caller = self(),
    {Holder, Monitor} = spawn_monitor(fun() -> holder(Caller, Kind, Option) end),
    receive
        {Holder, opened, TcpPort} ->
            demonitor(Monitor, [flush]),
            {ok, TcpPort};
        {'DOWN', Monitor, process, Holder, Reason} ->
            error(Reason)
    end.

%% Sets the flags; returns how many processes carry them.
-spec on(all | [pid()]) -> non_neg_integer().
on(Processes) -> call({on, Processes}).

%% Messages that wait for the tracer (0 for a port).
-spec info() -> non_neg_integer().
info() -> call(info).

%% Takes the flags off, waits until everything has been delivered, and closes the tracer.
-spec close() -> ok.
close() -> call(close).

-spec discard() -> no_return().
discard() ->
    receive
        _ -> discard()
    end.

call(Request) ->
    Monitor = monitor(process, ?MODULE),
    ?MODULE ! {self(), Monitor, Request},
    receive
        {Monitor, Reply} ->
            demonitor(Monitor, [flush]),
            Reply;
        {'DOWN', Monitor, process, _, Reason} ->
            error(Reason)
    end.

holder(Caller, Kind, Option) ->
    register(?MODULE, self()),
    Tracer = tracer(Kind, Option),
    Caller ! {self(), opened, tcp_port(Kind, Tracer)},
    loop(Tracer).

tracer(discard, _) ->
    spawn_opt(?MODULE, discard, [], [link, {message_queue_data, off_heap}]);
tracer(file, Name) ->
    (dbg:trace_port(file, Name))();
tracer(ip, QueueSize) ->
    (dbg:trace_port(ip, {0, QueueSize}))().

tcp_port(ip, Port) ->
    <<0, TcpPort:16>> = iolist_to_binary(erlang:port_control(Port, $p, "")),
    TcpPort;
tcp_port(_, _) ->
    0.

loop(Tracer) ->
    receive
        {From, Ref, {on, all}} ->
            Count = erlang:trace(processes, true, [{tracer, Tracer} | ?FLAGS]),
            erlang:trace(self(), false, ?FLAGS),
            From ! {Ref, Count},
            loop(Tracer);
        {From, Ref, {on, Pids}} ->
            From ! {Ref, lists:sum([erlang:trace(P, true, [{tracer, Tracer} | ?FLAGS]) || P <- Pids])},
            loop(Tracer);
        {From, Ref, info} ->
            From ! {Ref, waiting(Tracer)},
            loop(Tracer);
        {From, Ref, close} ->
            erlang:trace(processes, false, ?FLAGS),
            Delivered = erlang:trace_delivered(all),
            receive
                {trace_delivered, all, Delivered} -> ok
            end,
            shut(Tracer),
            From ! {Ref, ok}
    end.

waiting(Tracer) when is_pid(Tracer) ->
    {message_queue_len, Length} = process_info(Tracer, message_queue_len),
    Length;
waiting(_) ->
    0.

shut(Tracer) when is_pid(Tracer) ->
    unlink(Tracer),
    exit(Tracer, kill);
shut(Tracer) ->
    port_close(Tracer).
