%% A client of the agent in plain Erlang, for tests: runs on a hidden node of its own and speaks docs/agent-protocol.md.
%% A session is a process that holds the link; the mailbox of a trace is another one that checks every batch.
-module(agent_client).

-export([agent/2, load/1, open/1, open/2, request/2, close/1, crash/1, reset/0, pid/1, said/1, quick/1, cycle/3]).
-export([trace/3, trace/4, stop/2, collect/1, events/2, count/2, spec/1, kinds/1]).

-define(TIMEOUT, 30000).

%% Keeps the agent's code here: loader expressions and [{Module, File, Beam}].
agent(Loader, Modules) -> persistent_term:put(?MODULE, {Loader, Modules}).

load(Node) ->
    {Loader, Modules} = persistent_term:get(?MODULE),
    {value, Result, _} = erpc:call(Node, erl_eval, exprs, [Loader, [{'Modules', Modules}]], ?TIMEOUT),
    Result.

open(Node) -> open(Node, #{lease_ms => 60000}).

%% Session, or the reason why there is none.
open(Node, Options) ->
    Parent = self(),
    Ref = make_ref(),
    Pid = spawn(fun() -> process_flag(trap_exit, true), put(agent_session, true), Parent ! {Ref, connect(Node, Options, 20)}, session_loop_entry() end),
    receive
        {Ref, {ok, _}} -> Pid;
        {Ref, Error} -> Error
    after ?TIMEOUT -> timeout
    end.

connect(Node, Options, Tries) ->
    case load(Node) of
        ok ->
            Id = spawn_request(Node, beamtrace_agent, start, [self(), Options], [link, monitor]),
            Holder = receive {spawn_reply, Id, ok, P} -> P end,
            receive
                {beamtrace_ready, Holder, Info} ->
                    put(state, {Holder, Info, Node}),
                    {ok, Info};
                {'DOWN', Id, process, _, Reason} ->
                    receive {'EXIT', Holder, _} -> ok end,
                    Again = Reason =:= beamtrace_reload orelse (is_tuple(Reason) andalso element(1, Reason) =:= undef),
                    case Again of
                        true when Tries > 0 -> connect(Node, Options, Tries - 1);
                        _ -> {failed, Reason}
                    end
            end;
        Error ->
            Error
    end.

session_loop_entry() ->
    case get(state) of
        undefined -> ok;
        {Holder, Info, Node} -> session(Holder, Info, Node, 1, #{}, [])
    end.

session(Holder, Info, Node, Next, Waiting, Said) ->
    receive
        {request, From, Ref, Request} ->
            Holder ! {beamtrace, Next, Request},
            session(Holder, Info, Node, Next + 1, Waiting#{Next => {From, Ref}}, Said);
        {beamtrace_reply, Id, Result} ->
            case Waiting of
                #{Id := {From, Ref}} -> From ! {Ref, Result};
                _ -> ok
            end,
            session(Holder, Info, Node, Next, maps:remove(Id, Waiting), Said);
        {holder, From, Ref} ->
            From ! {Ref, {Holder, Info}},
            session(Holder, Info, Node, Next, Waiting, Said);
        {said, From, Ref} ->
            From ! {Ref, lists:reverse(Said)},
            session(Holder, Info, Node, Next, Waiting, Said);
        {beamtrace_stats, _, _} ->
            session(Holder, Info, Node, Next, Waiting, Said);
        {'EXIT', Holder, Reason} ->
            _ = [From ! {Ref, {down, Reason}} || {From, Ref} <- maps:values(Waiting)],
            session(Holder, Info, Node, Next, #{}, [{down, Reason} | Said]);
        {'DOWN', _, process, Holder, _} ->
            session(Holder, Info, Node, Next, Waiting, Said);
        crash ->
            exit(crash);
        Other ->
            session(Holder, Info, Node, Next, Waiting, [Other | Said])
    end.

ask(Session, Message) ->
    Ref = erlang:monitor(process, Session),
    Session ! erlang:append_element(Message, Ref),
    receive
        {Ref, Answer} -> erlang:demonitor(Ref, [flush]), Answer;
        {'DOWN', Ref, _, _, Reason} -> {session, Reason}
    after ?TIMEOUT -> timeout
    end.

request(Session, Request) ->
    Ref = erlang:monitor(process, Session),
    Session ! {request, self(), Ref, Request},
    receive
        {Ref, Answer} -> erlang:demonitor(Ref, [flush]), Answer;
        {'DOWN', Ref, _, _, Reason} -> {session, Reason}
    after ?TIMEOUT -> timeout
    end.

pid(Session) -> element(1, ask(Session, {holder, self()})).
%% What the holder said unasked, statistics excepted.
said(Session) -> ask(Session, {said, self()}).
%% Answer to detach, once the holder has gone.
close(Session) ->
    Answer = request(Session, detach),
    gone(Session),
    Answer.

gone(Session) ->
    case lists:keymember(down, 1, said(Session)) of
        true -> ok;
        false -> timer:sleep(1), gone(Session)
    end.
%% Ends every session of this node, for tests that have failed.
reset() ->
    _ = [exit(P, kill) || P <- processes(), {dictionary, D} <- [process_info(P, dictionary)], lists:keymember(agent_session, 1, D)],
    ok.
crash(Session) -> Session ! crash.

%% One whole session; `ok` or what went wrong.
quick(Node) ->
    case open(Node) of
        Session when is_pid(Session) ->
            Result = close(Session),
            exit(Session, kill),
            Result;
        Error -> Error
    end.

%% N traces one after another in a session.
cycle(_, _, 0) -> ok;
cycle(Session, Spec, N) ->
    Box = trace(Session, N, Spec),
    {ok, _} = stop(Session, N),
    {final, _} = collect(Box),
    cycle(Session, Spec, N - 1).

%% Mailbox of a started trace, or the error.
trace(Session, Id, Spec) ->
    case trace(Session, Id, Spec, full) of
        {Box, #{}} -> Box;
        Error -> Error
    end.
trace(Session, Id, Spec, _) ->
    Box = spawn(fun() -> put(agent_session, true), box(#{seq => 0, shipped => 0, lost => 0, events => [], final => none, bad => []}) end),
    case request(Session, {trace, Id, Box, Spec}) of
        {ok, Value} -> {Box, Value};
        Error -> exit(Box, kill), Error
    end.

stop(Session, Id) -> request(Session, {stop, Id}).

box(#{seq := Seq, shipped := Shipped, events := Events, bad := Bad} = S) ->
    receive
        {1, _, N, Base, Received, Lost, Batch} ->
            Real = [E || E <- Batch, element(1, E) band 255 < 31],
            Now = Shipped + length(Real),
            Gaps = lists:sum([element(5, E) || E <- Batch, element(1, E) =:= 31]),
            Wrong = [{seq, Seq, N} || Seq =/= N] ++ [{count, Received, Now, Lost} || Received =/= Now + Lost] ++
                [{gap, Lost, Gaps} || Lost =/= maps:get(lost, S) + Gaps],
            box(S#{seq := Seq + 1, shipped := Now, lost := Lost, bad := Bad ++ Wrong,
                events := [[setelement(2, E, element(2, E) + Base) || E <- Batch] | Events]});
        {2, _, N, Stats} ->
            #{received := R, shipped := Sh, lost_tracer := LT, lost_link := LL} = Stats,
            Wrong = [{final_seq, Seq, N} || Seq =/= N] ++ [{final, R, Sh, LT, LL} || R =/= Sh + LT + LL] ++
                [{shipped, Sh, Shipped} || Sh =/= Shipped],
            box(S#{final := Stats, bad := Bad ++ Wrong});
        {get, From, Ref} ->
            From ! {Ref, lists:append(lists:reverse(Events)), maps:remove(events, S)},
            box(S)
    end.

%% Waits for the last message; `{final, Stats}` when every batch kept its promises.
collect(Box) -> collect(Box, 3000).
collect(_, 0) -> no_final;
collect(Box, N) ->
    case get_box(Box) of
        {_, #{final := none}} -> timer:sleep(10), collect(Box, N - 1);
        {_, #{bad := [], final := Stats}} -> {final, Stats};
        {_, #{bad := Bad}} -> {bad, Bad}
    end.

get_box(Box) ->
    Ref = make_ref(),
    Box ! {get, self(), Ref},
    receive {Ref, Events, State} -> {Events, State} after ?TIMEOUT -> timeout end.

%% Events of one kind so far, stamps made absolute.
events(Box, all) -> element(1, get_box(Box));
events(Box, Kind) -> [E || E <- element(1, get_box(Box)), element(1, E) band 255 =:= Kind].
count(Box, Kind) -> length(events(Box, Kind)).

kinds(List) -> lists:foldl(fun(K, Acc) -> Acc bor (1 bsl K) end, 0, List).

%% A spec with defaults for what a test does not say.
spec(Given) ->
    Limits = maps:merge(#{events => infinity, rate => infinity, seconds => 120, memory => infinity, queue => infinity,
        overhead => infinity}, maps:get(limits, Given, #{})),
    maps:merge(#{processes => none, ports => none, flags => [], port_flags => [], kinds => (1 bsl 33) - 1, calls => [],
        send_spec => true, receive_spec => true, scheduler => false, payload => shape,
        batch => #{events => 512, ms => 10}, take_over => false}, Given#{limits => Limits}).
