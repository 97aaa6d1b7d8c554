%% The holder: one process a session. Owns the traces of the session (beamtrace_traces) and the lease, answers the client
%% (docs/agent-protocol.md, "Requests and replies"). It never waits for the connection: what the connection
%% does not take at once waits in an outbox. What it leaves behind when it dies, its janitor undoes.
-module(beamtrace_agent).

-export([start/2]).

-include("beamtrace_schema.hrl").

-define(LEASE_MS, 15000).
-define(OUTBOX_MS, 5).

-record(state, {
    client :: pid(),
    lease_ms :: pos_integer(),
    lease :: reference(),
    janitor_name :: atom(),
    janitor :: pid(),
    janitor_monitor :: reference(),
    traces :: beamtrace_traces:traces(),
    %% Calls under way: pid of beamtrace_exec to request, monitor and time-out.
    calls = #{} :: #{pid() => {integer(), reference()}},
    timed_out = #{} :: #{pid() => true},
    outbox = queue:new() :: queue:queue(term()),
    detaching = [] :: [integer()]
}).

%% Entry point of spawn_request, with a link to the client.
-spec start(pid(), map()) -> no_return().
start(Client, Options) ->
    process_flag(sensitive, true),
    process_flag(trap_exit, true),
    process_flag(message_queue_data, off_heap),
    {Name, JanitorName} = claim(beamtrace_names:slots()),
    loaded(),
    watch_node(node(Client)),
    {Janitor, Monitor} = start_janitor(JanitorName, #{}, []),
    end_guard(),
    LeaseMs = lease_ms(Options),
    S = #state{
        client = Client,
        lease_ms = LeaseMs,
        lease = erlang:start_timer(LeaseMs, self(), lease),
        janitor_name = JanitorName,
        janitor = Janitor,
        janitor_monitor = Monitor,
        traces = beamtrace_traces:new(Client, Janitor)
    },
    Info = #{version => ?SCHEMA_VERSION, md5 => beamtrace_names:md5(), name => Name},
    loop(post({beamtrace_ready, self(), Info}, S)).

lease_ms(#{lease_ms := Ms}) when is_integer(Ms), Ms > 0 -> Ms;
lease_ms(_) -> ?LEASE_MS.

claim([{Holder, Janitor} | Slots]) ->
    case whereis(Janitor) of
        undefined ->
            try register(Holder, self()) of
                true -> {Holder, Janitor}
            catch
                error:badarg -> claim(Slots)
            end;
        _ ->
            claim(Slots)
    end;
claim([]) ->
    exit(beamtrace_full).

%% The name is taken: from here on nobody begins to unload. If somebody had begun before, the code is about to go.
loaded() ->
    Current =
        lists:all(fun erlang:module_loaded/1, beamtrace_names:modules()) andalso
            not erlang:check_process_code(self(), ?MODULE),
    case {Current, whereis(beamtrace_lock)} of
        {false, _} ->
            exit(beamtrace_reload);
        {true, undefined} ->
            ok;
        {true, _} ->
            receive
            after 2 -> loaded()
            end
    end.

%% The loader's watchdog, which unloads when no holder comes, has done its duty.
end_guard() ->
    case whereis(beamtrace_guard) of
        undefined -> ok;
        Guard -> exit(Guard, kill)
    end.

watch_node(Node) when Node =:= node() -> ok;
watch_node(Node) -> erlang:monitor_node(Node, true).

start_janitor(Name, Undos, Pids) ->
    {Janitor, Monitor} = beamtrace_janitor:start(Name, Undos, Pids),
    receive
        {beamtrace_janitor, Janitor} -> {Janitor, Monitor};
        {'DOWN', Monitor, process, Janitor, Reason} -> exit({beamtrace_janitor, Reason})
    end.

loop(#state{client = Client, lease = Lease, janitor_monitor = JanitorMonitor} = S) ->
    receive
        {beamtrace, Id, Request} ->
            loop(request(Id, Request, renew(S)));
        {timeout, Lease, lease} ->
            expire(S);
        {timeout, _, {call, Pid}} ->
            exit(Pid, kill),
            loop(S#state{timed_out = (S#state.timed_out)#{Pid => true}});
        {beamtrace_take_over, From, Ref} ->
            loop(give_up(From, Ref, S));
        {'EXIT', Client, Reason} ->
            exit(Reason);
        {'EXIT', Pid, Reason} ->
            loop(linked_exit(Pid, Reason, S));
        {nodedown, _} ->
            exit(noconnection);
        {'DOWN', JanitorMonitor, process, _, _} ->
            loop(restart_janitor(S));
        {'DOWN', _, process, Pid, Reason} ->
            loop(call_ended(Pid, Reason, S));
        beamtrace_outbox ->
            loop(flush(S));
        Message ->
            loop(traces(beamtrace_traces:handle(Message, S#state.traces), S))
    end.

%% A long request may have kept the lease waiting: what the client has sent by now counts.
expire(S) ->
    receive
        {beamtrace, Id, Request} -> loop(request(Id, Request, renew(S)))
    after 0 -> exit(lease_expired)
    end.

renew(#state{lease = Lease, lease_ms = LeaseMs} = S) ->
    _ = erlang:cancel_timer(Lease),
    S#state{lease = erlang:start_timer(LeaseMs, self(), lease)}.

request(Id, renew, S) ->
    reply(Id, ok, S);
request(Id, {call, M, F, Args, Timeout}, S) when is_atom(M), is_atom(F), is_list(Args) ->
    call(Id, M, F, Args, Timeout, S);
request(Id, {trace, TraceId, Mailbox, Spec}, S) when is_integer(TraceId), is_pid(Mailbox) ->
    case beamtrace_traces:start(TraceId, Mailbox, Spec, S#state.traces) of
        {ok, Value, Traces} -> reply(Id, {ok, Value}, S#state{traces = Traces});
        {error, Reason} -> reply(Id, {error, Reason}, S)
    end;
request(Id, {stop, TraceId}, S) ->
    traces(beamtrace_traces:stop(TraceId, Id, S#state.traces), S);
request(Id, {stats, TraceId}, S) ->
    traces(beamtrace_traces:stats(TraceId, Id, S#state.traces), S);
request(Id, {snapshot, TraceId}, S) ->
    traces(beamtrace_traces:forward(TraceId, Id, {beamtrace_snapshot, Id}, S#state.traces), S);
request(Id, {fetch, TraceId, Number, Mailbox}, S) when is_pid(Mailbox) ->
    traces(beamtrace_traces:forward(TraceId, Id, {beamtrace_fetch, Id, Number, Mailbox}, S#state.traces), S);
request(Id, detach, #state{traces = Traces} = S) ->
    detach(S#state{detaching = [Id | S#state.detaching], traces = beamtrace_traces:stop_all(Traces)});
request(Id, Other, S) ->
    reply(Id, {error, {bad_request, beamtrace_trim:trim(Other, 256, #{})}}, S).

detach(#state{detaching = [_ | _] = Ids, traces = Traces} = S) ->
    case beamtrace_traces:is_empty(Traces) of
        true ->
            S1 = lists:foldl(fun(Id, Acc) -> reply(Id, ok, Acc) end, S, Ids),
            _ = last_words(S1, 200),
            exit(normal);
        false ->
            S
    end;
detach(S) ->
    S.

last_words(S, Tries) ->
    S1 = flush(S),
    case queue:is_empty(S1#state.outbox) of
        false when Tries > 0 ->
            receive
            after ?OUTBOX_MS -> last_words(S1, Tries - 1)
            end;
        _ ->
            ok
    end.

%% Calls.

call(Id, M, F, Args, Timeout, #state{client = Client, janitor = Janitor, calls = Calls} = S) ->
    {Pid, Monitor} = beamtrace_exec:start(self(), Client, Id, M, F, Args),
    beamtrace_janitor:watch(Janitor, Pid),
    _ = is_integer(Timeout) andalso Timeout >= 0 andalso erlang:start_timer(Timeout, self(), {call, Pid}),
    S#state{calls = Calls#{Pid => {Id, Monitor}}}.

call_ended(Pid, Reason, #state{calls = Calls, timed_out = TimedOut, janitor = Janitor} = S) ->
    case Calls of
        #{Pid := {Id, _}} ->
            beamtrace_janitor:unwatch(Janitor, Pid),
            beamtrace_runtime:unhide(Pid),
            S1 = S#state{calls = maps:remove(Pid, Calls), timed_out = maps:remove(Pid, TimedOut)},
            case Reason of
                normal -> S1;
                killed when is_map_key(Pid, TimedOut) -> reply(Id, {error, timeout}, S1);
                _ -> reply(Id, {ok, {exit, Reason}}, S1)
            end;
        _ ->
            S
    end.

%% Traces: what they answer goes to the client; a session that detaches ends with the last of them.

traces({Out, Traces}, S) ->
    detach(lists:foldl(fun tell/2, S#state{traces = Traces}, Out)).

tell({reply, Id, Result}, S) -> reply(Id, Result, S);
tell({post, Message}, S) -> post(Message, S);
tell({hint, Message}, S) -> hint(Message, S).

linked_exit(Pid, Reason, #state{client = Client, traces = Traces} = S) ->
    case beamtrace_traces:tracer_exit(Pid, Reason, Traces) of
        {_, _} = Ended ->
            traces(Ended, S);
        none when Reason =/= normal, node(Pid) =:= node(Client), node(Pid) =/= node() ->
            exit(Reason);
        none when Reason =:= normal; Reason =:= killed ->
            %% A tracer that was given up while it was set up.
            S;
        none ->
            exit(Reason)
    end.

%% Another session takes the legacy session over.
give_up(From, Ref, #state{traces = Traces} = S) ->
    S1 = traces(beamtrace_traces:give_up(Traces), S),
    From ! {beamtrace_taken, Ref},
    S1.

restart_janitor(#state{janitor_name = Name, traces = Traces, calls = Calls} = S) ->
    {Janitor, Monitor} = start_janitor(Name, beamtrace_traces:undos(Traces), maps:keys(Calls)),
    S#state{
        janitor = Janitor,
        janitor_monitor = Monitor,
        traces = beamtrace_traces:set_janitor(Janitor, Traces)
    }.

%% To the client, never waiting.

reply(Id, Result, S) -> post({beamtrace_reply, Id, Result}, S).

%% Not worth keeping while the connection is full.
hint(Message, #state{outbox = Outbox, client = Client} = S) ->
    _ = queue:is_empty(Outbox) andalso erlang:send(Client, Message, [nosuspend, noconnect]),
    S.

post(Message, #state{outbox = Outbox} = S) ->
    case queue:is_empty(Outbox) of
        true -> flush(S#state{outbox = queue:in(Message, Outbox)});
        false -> S#state{outbox = queue:in(Message, Outbox)}
    end.

flush(#state{outbox = Outbox, client = Client} = S) ->
    case queue:out(Outbox) of
        {empty, _} ->
            S;
        {{value, Message}, Rest} ->
            case erlang:send(Client, Message, [nosuspend, noconnect]) of
                nosuspend ->
                    _ = erlang:send_after(?OUTBOX_MS, self(), beamtrace_outbox),
                    S;
                _ ->
                    flush(S#state{outbox = Rest})
            end
    end.
