%% What an event costs the VM, measured on the node itself: a process sends messages to itself, untraced and traced in turn, and the fastest of
%% a few bursts each is compared. That is the price with warm caches; servers pay more (COLD). Takes a few
%% milliseconds, with contents some tens, once a session each.
-module(beamtrace_cost).

-export([measure/2, besides/1, of_events/2, of_births/2, of_contents/2, worker/1, sink/0]).
-export_type([costs/0, counts/0]).

%% In the traced process, and in the tracer, for an event; for a process that is born outside of the sample; for a byte of contents, in both; in ns.
-type costs() :: #{event := pos_integer(), drain := non_neg_integer(), born := pos_integer(), byte := number()}.
%% Since the start: events, processes born outside of the sample, looks at the rings, messages to the client, bytes of contents.
-type counts() :: #{
    events := non_neg_integer(),
    outside := non_neg_integer(),
    looks := non_neg_integer(),
    messages := non_neg_integer(),
    contents := non_neg_integer()
}.

%% What an event costs in place on the dearest server measured ÷ in a burst, where the caches are warm and the branches foreseen, status checks
%% at each scheduling included: docs/decisions/040-overhead-budget.md.
-define(COLD, 10).
%% The same of what contents add: a walk over the message, which the server has just made or is about to read. docs/decisions/056-contents-are-kept-as-tokens.md.
-define(CONTENTS_COLD, 3).
%% What the connection adds to the tracer's own time for an event.
-define(SHIP, 2).
%% A process that is born outside of the sample, in events, as measured on a server (bench/server/births.ts). The VM asks three times and frees later what
%% it had made of the tracer; the portable tracer and the sampling process have to wake up for it.
-define(BORN_NATIVE, 2).
-define(BORN_PORTABLE, 12).
%% A look at the rings, timer and wake-up included; a message to the client. Those of an idle VM on a virtual machine, where a scheduler
%% that sleeps takes 60 µs to do anything at all (bench/server/idle.ts).
-define(LOOK_NS, 40000).
-define(MESSAGE_NS, 50000).
%% When it cannot be measured: bench/server, on the slow side.
-define(NATIVE, #{event => 1800, drain => 100, born => ?BORN_NATIVE * 1800, byte => 5}).
-define(PORTABLE, #{event => 2400, drain => 1100, born => ?BORN_PORTABLE * 2400, byte => 10}).
%% What no VM is faster than in place, and none slower there or in the tracer; a burst that was interrupted would say so.
-define(EVENT_LEAST, 120).
-define(EVENT_MOST, 5000).
-define(MESSAGES, 250).
-define(BURSTS, 12).
-define(PATIENCE_MS, 500).
%% A byte of contents is written, read, encoded and sent, whatever the bursts say.
-define(BYTE_LEAST, 2).
%% What is shown of a message when contents are measured, and the records that the events of a burst may take then.
-define(CONTENTS_BYTES, 256).
-define(CONTENTS_RECORDS, 8192).

%% What goes neither with the number of events nor with births.
-spec besides(counts()) -> non_neg_integer().
besides(#{looks := Looks, messages := Messages}) -> Looks * ?LOOK_NS + Messages * ?MESSAGE_NS.

-spec of_events(costs() | unknown, non_neg_integer()) -> non_neg_integer().
of_events(unknown, Events) -> of_events(?NATIVE, Events);
of_events(#{event := Event, drain := Drain}, Events) -> Events * (Event + Drain).

-spec of_births(costs() | unknown, non_neg_integer()) -> non_neg_integer().
of_births(unknown, Births) -> of_births(?NATIVE, Births);
of_births(#{born := Born}, Births) -> Births * Born.

-spec of_contents(costs() | unknown, Bytes :: non_neg_integer()) -> non_neg_integer().
of_contents(unknown, Bytes) -> of_contents(?NATIVE, Bytes);
of_contents(#{byte := Byte}, Bytes) -> round(Byte * Bytes).

%% `Contents`: whether they are shipped.
-spec measure(Native :: boolean(), Contents :: boolean()) -> costs().
measure(Native, Contents) ->
    {Worker, Monitor} = spawn_opt(?MODULE, worker, [self()], [link, monitor, {priority, high}]),
    Costs =
        try
            measure(Native, Contents, Worker)
        catch
            throw:unmeasured -> default(Native)
        end,
    true = unlink(Worker),
    exit(Worker, kill),
    receive
        {'DOWN', Monitor, process, Worker, _} -> Costs
    end.

default(true) -> ?NATIVE;
default(false) -> ?PORTABLE.

measure(Native, false, Worker) ->
    {Warm, Drain, _} = warm(Native, shape, [], Worker),
    Event = min(?EVENT_MOST, max(?EVENT_LEAST, round(?COLD * Warm))),
    #{event => Event, drain => Drain, born => born(Native) * Event, byte => 0};
%% What contents add is what the same messages take with them, less what they take without.
measure(Native, true, Worker) ->
    Costs = measure(Native, false, Worker),
    Filler = filler(?CONTENTS_BYTES),
    {Shape, ShapeDrain, _} = warm(Native, shape, Filler, Worker),
    {Whole, WholeDrain, Bytes} = warm(Native, {bytes, ?CONTENTS_BYTES, #{}}, Filler, Worker),
    Added = ?CONTENTS_COLD * max(0, Whole - Shape) + max(0, WholeDrain - ShapeDrain),
    Costs#{byte := max(?BYTE_LEAST, Added / max(1, Bytes))}.

born(true) -> ?BORN_NATIVE;
born(false) -> ?BORN_PORTABLE.

%% What messages are made of, 29 bytes each in external format. Of binaries alone a byte would cost far less, of small numbers alone more.
filler(Bytes) -> [{N, ok, <<"sixteen bytes ok">>} || N <- lists:seq(1, Bytes div 29)].

%% In place, in ns, and in the tracer, of an event of a burst; and its bytes of contents, as they are counted.
-spec warm(boolean(), beamtrace_contents:mode(), [term()], pid()) -> {float(), non_neg_integer(), number()}.
warm(true, Mode, Filler, Worker) ->
    Records = records(Mode),
    {Trace, State, _} = opened(beamtrace_nif:open(erlang:system_info(schedulers), Records, {beamtrace_contents:wanted(Mode), false, -1 band 16#1ffffffff}, {self(), undefined, []})),
    Handle = beamtrace_session:open({beamtrace_nif, State}),
    try
        {Warm, Drains} = event(Handle, [send, 'receive'], Filler, Worker, fun() -> drain_ns(Mode, Trace) end),
        {Events, _, Contents, _} = beamtrace_nif:produced(State),
        {Warm, drained(Drains), Contents / max(1, Events)}
    after
        beamtrace_session:forget(Handle, Worker),
        ok = beamtrace_nif:shut(Trace),
        _ = beamtrace_rings:barrier() andalso beamtrace_rings:free(Trace)
    end;
warm(false, Mode, Filler, Worker) ->
    Sink = spawn_link(?MODULE, sink, []),
    Tracer = beamtrace_tracer:start(#{
        id => 0,
        mailbox => Sink,
        holder => self(),
        client_node => undefined,
        mask => 16#1ffffffff,
        mode => Mode,
        scheduler => false,
        overflow => drop_newest,
        batch => #{events => 512, ms => 10},
        limits => #{events => infinity, rate => infinity, seconds => infinity, memory => infinity, queue => infinity, overhead => infinity},
        filter => #{},
        instrumented => none
    }),
    Handle = beamtrace_session:open(Tracer),
    try
        {Warm, _} = event(Handle, [send, 'receive', monotonic_timestamp], Filler, Worker, fun() -> 0 end),
        {Warm, drain(Handle, Filler, Worker, Tracer), ?CONTENTS_BYTES}
    after
        beamtrace_session:forget(Handle, Worker),
        true = unlink(Tracer),
        exit(Tracer, kill),
        true = unlink(Sink),
        exit(Sink, kill)
    end.

%% The burst's events, of two bursts where the drain is late, and contents behind each, of 48 bytes a record.
records(shape) -> 4 * ?MESSAGES + 24;
records(_) -> ?CONTENTS_RECORDS.

opened({error, _}) -> throw(unmeasured);
opened(Opened) -> Opened.

%% In place: a burst has two events a message.
event(Handle, Flags, Filler, Worker, Between) ->
    Measured = [
        begin
            Plain = burst(Filler, Worker),
            1 = beamtrace_session:process(Handle, Worker, true, Flags),
            Traced = burst(Filler, Worker),
            1 = beamtrace_session:process(Handle, Worker, false, Flags),
            {Plain, Traced, Between()}
        end
     || _ <- lists:seq(1, ?BURSTS)
    ],
    {Plains, Traceds, Drains} = lists:unzip3(Measured),
    {(lists:min(Traceds) - lists:min(Plains)) / (2 * ?MESSAGES), Drains}.

drain_ns(Mode, Trace) ->
    Began = erlang:monotonic_time(nanosecond),
    {_, Records, _, _, _, _, _, _} = beamtrace_nif:drain(Trace, 16384),
    _ = Mode =/= shape andalso beamtrace_contents:finish(Trace, Records),
    erlang:monotonic_time(nanosecond) - Began.

%% In the tracer: it is held, and then let go with a burst in its queue. The fastest of a few.
drain(Handle, Filler, Worker, Tracer) ->
    1 = beamtrace_session:process(Handle, Worker, true, [send, 'receive', monotonic_timestamp]),
    Times = [
        begin
            true = erlang:suspend_process(Tracer),
            _ = burst(Filler, Worker),
            Delivered = beamtrace_session:delivered(Handle),
            receive
                {trace_delivered, all, Delivered} -> ok
            after ?PATIENCE_MS -> throw(unmeasured)
            end,
            Tracer ! {beamtrace_stats, cost},
            Began = erlang:monotonic_time(nanosecond),
            true = erlang:resume_process(Tracer),
            receive
                {beamtrace_stats, Tracer, cost, _} -> erlang:monotonic_time(nanosecond) - Began
            after ?PATIENCE_MS -> throw(unmeasured)
            end
        end
     || _ <- lists:seq(1, ?BURSTS)
    ],
    drained(Times).

%% An event's part of the fastest.
drained(Times) -> min(?EVENT_MOST, round(?SHIP * lists:min(Times) / (2 * ?MESSAGES))).

burst(Filler, Worker) ->
    Worker ! {burst, Filler},
    receive
        {beamtrace_burst, Worker, Ns} -> Ns
    after ?PATIENCE_MS -> throw(unmeasured)
    end.

%% Sends messages to itself and takes them.
-spec worker(pid()) -> no_return().
worker(Parent) ->
    receive
        {burst, Filler} ->
            Began = erlang:monotonic_time(nanosecond),
            messages(?MESSAGES, Filler),
            Parent ! {beamtrace_burst, self(), erlang:monotonic_time(nanosecond) - Began},
            worker(Parent)
    end.

messages(0, _) ->
    ok;
messages(N, Filler) ->
    self() ! {beamtrace_message, N, Filler},
    receive
        {beamtrace_message, N, _} -> messages(N - 1, Filler)
    end.

-spec sink() -> no_return().
sink() ->
    receive
        _ -> sink()
    end.
