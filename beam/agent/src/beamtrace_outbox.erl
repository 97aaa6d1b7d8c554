%% What the portable tracer has for the client and the connection has not taken yet: batches that wait, what was lost and has not been told, and
%% the counts that prove nothing went missing on the way (docs/agent-protocol.md, "Batches"). A part of beamtrace_tracer, which owns the
%% process; called once a batch, never per event. No hop of it waits: what does not fit is counted and told by a gap.
-module(beamtrace_outbox).

-export([new/2, is_silent/1, is_empty/1, put/6, retry/1, lost/4, mark/2, batches/1, stats/1, last/2, drop/1]).
-export_type([outbox/0, marker/0]).

-include("beamtrace_schema.hrl").

%% Batches that wait for the connection; more than these are dropped.
-define(WAITING_MAX, 128).

-type gap() :: none | {Count :: pos_integer(), From :: integer(), To :: integer()}.
%% With an absolute stamp.
-type marker() :: {integer(), pid() | port() | 0, atom(), term(), term()}.

-record(outbox, {
    id :: integer(),
    mailbox :: pid(),
    seq = 0 :: non_neg_integer(),
    shipped = 0 :: non_neg_integer(),
    lost_tracer = 0 :: non_neg_integer(),
    lost_link = 0 :: non_neg_integer(),
    %% Losses and markers that the next batch begins with.
    gap_tracer = none :: gap(),
    gap_link = none :: gap(),
    markers = [] :: [marker()],
    %% Batches that the connection has not taken yet, oldest first.
    waiting = queue:new() :: queue:queue({integer(), integer(), integer(), non_neg_integer(), [tuple()]})
}).
-opaque outbox() :: #outbox{}.

-spec new(integer(), pid()) -> outbox().
new(Id, Mailbox) -> #outbox{id = Id, mailbox = Mailbox}.

%% Nothing to tell but events.
-spec is_silent(outbox()) -> boolean().
is_silent(O) -> O#outbox.gap_tracer =:= none andalso O#outbox.gap_link =:= none andalso O#outbox.markers =:= [].

%% No batch waits.
-spec is_empty(outbox()) -> boolean().
is_empty(#outbox{waiting = Waiting}) -> queue:is_empty(Waiting).

%% A batch of events, newest first, out of `Taken` messages from `Base` to `To`; `Received`: messages taken so far, these included. Where too many wait, it is lost.
-spec put([tuple()], non_neg_integer(), integer(), integer(), non_neg_integer(), outbox()) -> outbox().
put(Acc, Taken, Base, To, Received, #outbox{waiting = Waiting} = O) ->
    case queue:len(Waiting) of
        Length when Length >= ?WAITING_MAX -> drop_newest(Taken, Base, To, O);
        Length -> ship(Length, Acc, Taken, Base, Received, O)
    end.

drop_newest(0, _, _, O) ->
    O;
drop_newest(Taken, Base, To, #outbox{lost_link = Lost, gap_link = Gap} = O) ->
    O#outbox{lost_link = Lost + Taken, gap_link = widen(Gap, Taken, Base, To)}.

ship(Length, Acc, Taken, Base, Received, O) ->
    Events = notes(Base, O) ++ lists:reverse(Acc),
    Batch = {Base, Received, O#outbox.lost_tracer + O#outbox.lost_link, Taken, Events},
    O1 = O#outbox{gap_tracer = none, gap_link = none, markers = []},
    case Length of
        0 ->
            case send(Batch, O1) of
                {ok, O2} -> O2;
                busy -> O1#outbox{waiting = queue:in(Batch, O1#outbox.waiting)};
                gone -> gone(Taken, O1)
            end;
        _ ->
            O1#outbox{waiting = queue:in(Batch, O1#outbox.waiting)}
    end.

%% Gaps and markers since the last batch, oldest place first.
notes(_, #outbox{gap_tracer = none, gap_link = none, markers = []}) ->
    [];
notes(Base, #outbox{gap_tracer = Tracer, gap_link = Link, markers = Markers}) ->
    gap_event(Tracer, tracer, Base) ++ gap_event(Link, link, Base) ++
        [{?KIND_MARKER, At - Base, P, Name, A, B} || {At, P, Name, A, B} <- lists:reverse(Markers)].

gap_event(none, _, _) -> [];
gap_event({Count, From, To}, Hop, Base) -> [{?KIND_GAP, To - Base, 0, Hop, Count, From - Base, To - Base}].

widen(none, Count, From, To) -> {Count, From, To};
widen({Before, From0, To0}, Count, From, To) -> {Before + Count, min(From0, From), max(To0, To)}.

send({Base, Received, Lost, Taken, Events}, #outbox{id = Id, mailbox = Mailbox, seq = Seq} = O) ->
    case erlang:send(Mailbox, {1, Id, Seq, Base, Received, Lost, Events}, [nosuspend, noconnect]) of
        ok -> {ok, O#outbox{seq = Seq + 1, shipped = O#outbox.shipped + Taken}};
        nosuspend -> busy;
        noconnect -> gone
    end.

%% The connection has closed; the holder hears of it by itself.
gone(Taken, #outbox{lost_link = Lost} = O) -> O#outbox{lost_link = Lost + Taken}.

%% Sends what waits, as far as the connection takes it.
-spec retry(outbox()) -> outbox().
retry(#outbox{waiting = Waiting} = O) ->
    case queue:out(Waiting) of
        {empty, _} ->
            O;
        {{value, {_, _, _, Taken, _} = Batch}, Rest} ->
            case send(Batch, O) of
                {ok, O1} -> retry(O1#outbox{waiting = Rest});
                busy -> O;
                gone -> retry(gone(Taken, O#outbox{waiting = Rest}))
            end
    end.

%% So many events were given up before a batch was made of them.
-spec lost(pos_integer(), integer(), integer(), outbox()) -> outbox().
lost(Count, From, To, #outbox{lost_tracer = Lost, gap_tracer = Gap} = O) ->
    O#outbox{lost_tracer = Lost + Count, gap_tracer = widen(Gap, Count, From, To)}.

%% Markers for the next batch, oldest first.
-spec mark([marker()], outbox()) -> outbox().
mark(Markers, O) -> O#outbox{markers = lists:reverse(Markers, O#outbox.markers)}.

-spec batches(outbox()) -> non_neg_integer().
batches(#outbox{seq = Seq}) -> Seq.

-spec stats(outbox()) -> beamtrace_tracer:stats().
stats(#outbox{shipped = Shipped, lost_tracer = Tracer, lost_link = Link, seq = Seq}) ->
    #{shipped => Shipped, lost_tracer => Tracer, lost_link => Link, batches => Seq}.

%% The last message of the trace; false where the connection does not take it now.
-spec last(beamtrace_tracer:stats(), outbox()) -> boolean().
last(Stats, #outbox{id = Id, mailbox = Mailbox, seq = Seq}) ->
    erlang:send(Mailbox, {2, Id, Seq, Stats}, [nosuspend, noconnect]) =/= nosuspend.

%% What waits is lost.
-spec drop(outbox()) -> outbox().
drop(#outbox{waiting = Waiting, lost_link = Lost} = O) ->
    Dropped = lists:sum([Taken || {_, _, _, Taken, _} <- queue:to_list(Waiting)]),
    O#outbox{waiting = queue:new(), lost_link = Lost + Dropped}.
