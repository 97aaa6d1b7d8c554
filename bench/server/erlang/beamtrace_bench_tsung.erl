%% A plug-in of tsung: tsung's own XMPP sessions (ts_jabber), with two things added. Sessions take their think times from one common schedule,
%% so that all of them together send at a set rate, whatever the server does (tsung's own think times start when the last message was sent, and can't
%% change while it runs). And messages that arrive are counted.
-module(beamtrace_bench_tsung).

-export([prepare/0, rate/1, counts/0, online/0, pace/1]).
%% Called by tsung.
-export([session_defaults/0, decode_buffer/2, userid/1, new_session/0, get_message/2, dump/2, parse/2, parse_bidi/2]).
-export([parse_config/2, add_dynparams/4, subst/2]).

-define(SENT, 1).
-define(RECEIVED, 2).
-define(CLAIMED, 3).
-define(ONLINE, 4).
%% A session that has longer to wait than this looks at the schedule again meanwhile.
-define(GLANCE_MS, 50).
-define(END_OF_MESSAGE, <<"</message>">>).

%% Before tsung starts.
-spec prepare() -> ok.
prepare() ->
    persistent_term:put({?MODULE, counts}, atomics:new(4, [])),
    persistent_term:put({?MODULE, schedule}, {0, erlang:monotonic_time(microsecond), 0}).

%% So many messages a second from now on; what has fallen due before stays due.
-spec rate(non_neg_integer()) -> ok.
rate(PerSecond) ->
    Now = erlang:monotonic_time(microsecond),
    persistent_term:put({?MODULE, schedule}, {due(Now), Now, PerSecond}).

%% Messages that have fallen due, that were sent, that arrived.
-spec counts() -> {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
counts() ->
    {trunc(due(erlang:monotonic_time(microsecond))), count(?SENT), count(?RECEIVED)}.

%% Sessions that have told the server that they are there.
-spec online() -> non_neg_integer().
online() -> count(?ONLINE).

%% Called by a session in its own process, in turn with thinking: how many seconds to think now, and whether a message is due then.
-spec pace(term()) -> [string()].
pace(_) ->
    {Base, Since, Rate} = persistent_term:get({?MODULE, schedule}),
    Slot = slot(),
    if
        Slot =< Base ->
            %% It fell due before the rate was set: also when nothing new does.
            send(0.0);
        Rate =:= 0 ->
            wait();
        true ->
            Wait = (Since - erlang:monotonic_time(microsecond) + (Slot - Base) / Rate * 1.0e6) / 1000,
            case Wait > ?GLANCE_MS of
                true -> wait();
                false -> send(max(0.0, Wait / 1000))
            end
    end.

send(Seconds) ->
    erase({?MODULE, slot}),
    [float_to_list(Seconds, [{decimals, 3}]), "yes"].

wait() -> [float_to_list(?GLANCE_MS / 1000, [{decimals, 3}]), "no"].

slot() ->
    case get({?MODULE, slot}) of
        undefined ->
            Slot = atomics:add_get(persistent_term:get({?MODULE, counts}), ?CLAIMED, 1),
            put({?MODULE, slot}, Slot),
            Slot;
        Slot ->
            Slot
    end.

due(Now) ->
    {Base, Since, Rate} = persistent_term:get({?MODULE, schedule}),
    Base + (Now - Since) * Rate / 1.0e6.

count(Index) -> atomics:get(persistent_term:get({?MODULE, counts}), Index).

add(Index, N) -> atomics:add(persistent_term:get({?MODULE, counts}), Index, N).

get_message(Request, State) ->
    Result = {Message, _} = ts_jabber:get_message(Request, State),
    case Message of
        <<"<message", _/binary>> -> add(?SENT, 1);
        <<"<presence", _/binary>> -> add(?ONLINE, 1);
        _ -> put({?MODULE, awaited}, {awaited(Message), <<>>})
    end,
    Result.

%% What ends the answer to a request of a login. With tsung's `ack="local"` whatever arrives first is the answer: where an answer comes in two pieces
%% it goes on to the next request too early, and ejabberd loses what comes behind an `<auth>` in one piece with it. With `ack="parse"` it asks here.
awaited(Request) ->
    Awaited = [{<<"<stream:stream">>, <<"</stream:features>">>}, {<<"<auth">>, <<"<success">>}, {<<"<iq">>, <<"result">>}],
    hd([Answer || {Asked, Answer} <- Awaited, binary:match(Request, Asked) =/= nomatch] ++ [<<>>]).

parse(Data, State) ->
    case get({?MODULE, awaited}) of
        {Awaited, Before} when is_binary(Data) ->
            All = <<Before/binary, Data/binary>>,
            case Awaited =:= <<>> orelse binary:match(All, Awaited) =/= nomatch of
                true ->
                    erase({?MODULE, awaited}),
                    ts_jabber:parse(All, State);
                false ->
                    put({?MODULE, awaited}, {Awaited, All}),
                    {State, [], false}
            end;
        _ ->
            ts_jabber:parse(Data, State)
    end.

%% What arrives while a session thinks. The end of a message may be torn by the end of the data.
parse_bidi(Data, State) ->
    Held = byte_size(?END_OF_MESSAGE) - 1,
    Rest =
        case get({?MODULE, rest}) of
            undefined -> <<>>;
            Kept -> Kept
        end,
    All = <<Rest/binary, Data/binary>>,
    add(?RECEIVED, length(binary:matches(All, ?END_OF_MESSAGE))),
    Size = min(Held, byte_size(All)),
    put({?MODULE, rest}, binary:copy(binary:part(All, byte_size(All), -Size))),
    {nodata, State, think}.

session_defaults() -> ts_jabber:session_defaults().
decode_buffer(Buffer, Session) -> ts_jabber:decode_buffer(Buffer, Session).
userid(Who) -> ts_jabber:userid(Who).
new_session() -> ts_jabber:new_session().
dump(Type, What) -> ts_jabber:dump(Type, What).
parse_config(Element, Config) -> ts_jabber:parse_config(Element, Config).
add_dynparams(Subst, Dynamic, Parameters, Host) -> ts_jabber:add_dynparams(Subst, Dynamic, Parameters, Host).
subst(Request, Dynamic) -> ts_jabber:subst(Request, Dynamic).
