%% The window of a flight recorder: what is remembered of the time that it may reach back to, what is read out of the rings for it, what is missing
%% of it, and the stream of messages that it is shipped as. Times in ns since the trace's base.
-module(beamtrace_window).

-export([history/4, losses/2, lost/3, read/2, events/1, contents_bytes/1, missing/5, gaps/4, messages/4]).
-export_type([history/0, loss/0, batch/0, messages/0]).

-include("beamtrace_schema.hrl").

%% Newest first: how much had been written when.
-type history() :: [{At :: integer(), Written :: non_neg_integer()}].
-type loss() :: {Count :: pos_integer(), From :: integer(), To :: integer()}.
-type gap() :: {Count :: non_neg_integer(), From :: integer(), To :: integer()}.
%% Read at one time: all that had been written up to `Cut`.
-type batch() :: {Cut :: integer(), Events :: non_neg_integer(), Dictionary :: list(), beamtrace_contents:contents(), Records :: binary()}.
-type messages() :: queue:queue({tuple(), Events :: non_neg_integer()}).

%% Records of a message; reading them takes half a millisecond.
-define(PEEK_MAX, 4096).
%% Losses and points of the past that are remembered; neighbours are joined beyond that.
-define(LOSSES_MAX, 64).
-define(HISTORY_MAX, 64).

%% With what has been written by now, back to before the window.
-spec history(integer(), non_neg_integer(), pos_integer() | infinity, history()) -> history().
history(Now, Written, Keep, [{At, _} | _] = History) when is_integer(Keep), Now - At > Keep div (?HISTORY_MAX div 2) ->
    lists:sublist([{Now, Written} | History], ?HISTORY_MAX);
history(_, _, _, History) ->
    History.

%% With one loss more; newest first.
-spec losses(loss(), [loss()]) -> [loss()].
losses(Loss, Losses) when length(Losses) < ?LOSSES_MAX ->
    [Loss | Losses];
losses(Loss, Losses) ->
    {Kept, Oldest} = lists:split(?LOSSES_MAX - 1, [Loss | Losses]),
    {Counts, Froms, Tos} = lists:unzip3(Oldest),
    Kept ++ [{lists:sum(Counts), lists:min(Froms), lists:max(Tos)}].

%% How many events found no room within the window.
-spec lost(integer(), integer(), [loss()]) -> non_neg_integer().
lost(Start, To, Losses) -> lists:sum([Count || {Count, _, _} <- within(Start, To, Losses)]).

within(Start, To, Losses) -> [Loss || {_, From, Until} = Loss <- Losses, Until >= Start, From =< To].

%% All that the rings hold of the window, oldest first, and how many events were overwritten before they could be read.
-spec read(beamtrace_nif:trace(), Contents :: boolean()) -> {[batch()], Gone :: non_neg_integer()}.
read(Trace, Contents) -> read(Trace, Contents, [], 0).

read(Trace, Contents, Batches, Gone0) ->
    {Done, Count, Read, Named, Gone, Cut} = beamtrace_nif:peek(Trace, ?PEEK_MAX),
    Batches1 =
        case finished(Trace, Contents, Read, Named) of
            {<<>>, _, _} -> Batches;
            {Records, Kept, Dictionary} -> [{Cut, Count, Dictionary, Kept, Records} | Batches]
        end,
    case Done of
        true -> {lists:reverse(Batches1), Gone0 + Gone};
        false -> read(Trace, Contents, Batches1, Gone0 + Gone)
    end.

finished(_, false, Records, Dictionary) -> {Records, none, Dictionary};
finished(Trace, true, Records, _) -> beamtrace_contents:finish(Trace, Records).

-spec events([batch()]) -> non_neg_integer().
events(Batches) -> lists:sum([Count || {_, Count, _, _, _} <- Batches]).

-spec contents_bytes([batch()]) -> non_neg_integer().
contents_bytes(Batches) -> lists:sum([beamtrace_contents:bytes(Contents) || {_, _, _, Contents, _} <- Batches]).

%% The window that was asked for is longer than what is left: how much had been written since its beginning, or a little before it.
-spec missing(pos_integer() | infinity, integer(), integer(), non_neg_integer(), history()) -> [gap()].
missing(Keep, Wanted, Start, Before, History) when is_integer(Keep), Start > Wanted ->
    {At, Written} = past(Wanted, History),
    [{max(0, Before - Written), At, Start}];
missing(_, _, _, _, _) ->
    [].

past(_, [Oldest]) -> Oldest;
past(Wanted, [{At, _} = Point | _]) when At =< Wanted -> Point;
past(Wanted, [_ | History]) -> past(Wanted, History).

%% What was overwritten before it could be read, and what found no room.
-spec gaps(integer(), integer(), non_neg_integer(), [loss()]) -> [gap()].
gaps(Start, To, Gone, Losses) ->
    [{Gone, Start, To} || Gone > 0] ++ lists:reverse(within(Start, To, Losses)).

%% The stream of a recording, as that of a trace: batches and gaps in order, each with the counts so far.
-spec messages([gap()], [batch()], Id :: integer(), Base :: integer()) -> messages().
messages(Gaps, Batches, Id, Base) -> messages(Gaps, Batches, 0, 0, 0, queue:new(), {Id, Base}).

messages([{Count, From, Until} | Gaps], Batches, Seq, Received, Lost, Queue, {Id, Base} = Of) when
    Batches =:= []; Until =< element(1, hd(Batches))
->
    Event = {?KIND_GAP, Until, 0, tracer, Count, From, Until},
    Message = {1, Id, Seq, Base, Received + Count, Lost + Count, [Event]},
    messages(Gaps, Batches, Seq + 1, Received + Count, Lost + Count, queue:in({Message, 0}, Queue), Of);
messages(Gaps, [{_, Count, Dictionary, Contents, Records} | Batches], Seq, Received, Lost, Queue, {Id, Base} = Of) ->
    Message = beamtrace_contents:batch({Id, Seq, Base, Received + Count, Lost}, Dictionary, Contents, Records),
    messages(Gaps, Batches, Seq + 1, Received + Count, Lost, queue:in({Message, Count}, Queue), Of);
messages([], [], Seq, Received, Lost, Queue, {Id, _}) ->
    queue:in({{2, Id, Seq, #{received => Received, lost_tracer => Lost}}, 0}, Queue).
