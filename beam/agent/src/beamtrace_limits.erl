%% Limits of a trace, measured by the tracer once a batch. Tumbling windows of one second; what a second may hold at most
%% trips at once, without waiting for the second to end. A limit is reported once (docs/agent-protocol.md, "Limits").
-module(beamtrace_limits).

-export([meter/1, meter/2, measure/5, rate/4, queue_soft/1]).
-export_type([limits/0, meter/0]).

-type limit() :: pos_integer() | infinity.
-type limits() :: #{
    events := limit(), rate := limit(), seconds := limit(), memory := limit(), queue := limit(), overhead := limit()
}.
-type reason() :: {limit, rate | memory | queue, non_neg_integer(), pos_integer()}.

-define(WINDOW_NS, 1000000000).
%% Memory is looked at this often: adding up a long queue is not free.
-define(MEMORY_NS, 100000000).
%% CPU that an event costs the VM, tracer, encoding and sending included: bench/agent, on the slow side of what was measured.
-define(COST_NS, 1800).
-define(QUEUE_DEFAULT, 200000).

-record(meter, {
    rate :: limit(),
    memory :: limit(),
    queue :: limit(),
    %% CPU that an event costs the VM.
    cost_ns :: pos_integer(),
    tripped = false :: boolean(),
    window = undefined :: undefined | integer(),
    %% CPU of the VM when the window began, ms.
    runtime = 0 :: non_neg_integer(),
    memory_at = undefined :: undefined | integer(),
    %% Counters when the window began.
    wanted = 0 :: non_neg_integer(),
    all = 0 :: non_neg_integer(),
    %% The last whole window.
    last_rate = 0 :: non_neg_integer(),
    last_ppm = 0 :: non_neg_integer()
}).
-opaque meter() :: #meter{}.

-spec meter(limits()) -> meter().
meter(Limits) -> meter(Limits, ?COST_NS).

-spec meter(limits(), CostNs :: pos_integer()) -> meter().
meter(#{rate := Rate, memory := Memory, queue := Queue}, CostNs) ->
    #meter{
        rate = Rate,
        memory = Memory,
        queue = Queue,
        cost_ns = CostNs
    }.

%% From this backlog on the tracer sheds.
-spec queue_soft(limits()) -> pos_integer().
queue_soft(#{queue := infinity}) -> ?QUEUE_DEFAULT div 4;
queue_soft(#{queue := Queue}) -> max(1, Queue div 4).

%% `Now`: the stamp up to which was counted. Counts are since the start of the trace.
-spec measure(integer(), non_neg_integer(), non_neg_integer(), non_neg_integer(), meter()) ->
    {ok, meter()} | {tripped, reason(), meter()}.
measure(Now, _, _, _, #meter{window = undefined} = M) ->
    {ok, M#meter{window = Now, memory_at = Now, runtime = runtime()}};
measure(Now, Wanted, Filtered, Queue, M) ->
    Count = Wanted - M#meter.wanted,
    All = Wanted + Filtered - M#meter.all,
    Elapsed = Now - M#meter.window,
    Rate = per_second(Count, Elapsed),
    M1 =
        case Elapsed >= ?WINDOW_NS of
            true ->
                Runtime = runtime(),
                M#meter{
                    window = Now,
                    runtime = Runtime,
                    wanted = Wanted,
                    all = Wanted + Filtered,
                    last_rate = Rate,
                    last_ppm = ppm(All, Runtime, M)
                };
            false ->
                M
        end,
    check(Now, Rate, Queue, M1).

check(_, _, _, #meter{tripped = true} = M) ->
    {ok, M};
check(_, Rate, _, #meter{rate = Limit} = M) when Rate > Limit ->
    tripped(rate, Rate, Limit, M);
check(_, _, Queue, #meter{queue = Limit} = M) when Queue > Limit ->
    tripped(queue, Queue, Limit, M);
check(Now, _, _, #meter{memory = Limit, memory_at = At} = M) when is_integer(Limit), Now - At >= ?MEMORY_NS ->
    {memory, Memory} = process_info(self(), memory),
    case Memory > Limit of
        true -> tripped(memory, Memory, Limit, M);
        false -> {ok, M#meter{memory_at = Now}}
    end;
check(_, _, _, M) ->
    {ok, M}.

tripped(What, Measured, Limit, M) -> {tripped, {limit, What, Measured, Limit}, M#meter{tripped = true}}.

%% Events per second, and parts per million of the CPU that the VM uses without tracing, of the last whole second or of the one under way.
-spec rate(integer(), non_neg_integer(), non_neg_integer(), meter()) -> {non_neg_integer(), non_neg_integer()}.
rate(_, _, _, #meter{window = undefined}) ->
    {0, 0};
rate(Now, Wanted, Filtered, #meter{window = Window} = M) when Now - Window >= ?WINDOW_NS ->
    {
        per_second(Wanted - M#meter.wanted, Now - Window),
        ppm(Wanted + Filtered - M#meter.all, runtime(), M)
    };
rate(_, _, _, #meter{last_rate = Rate, last_ppm = Ppm}) ->
    {Rate, Ppm}.

%% Within the first second the count itself is the rate: a second can't hold less.
per_second(Count, Elapsed) when Elapsed > ?WINDOW_NS -> Count * ?WINDOW_NS div Elapsed;
per_second(Count, _) -> Count.

%% The VM's CPU comes in steps of 10 ms.
ppm(Events, Runtime, #meter{runtime = Before, cost_ns = CostNs}) ->
    Cost = Events * CostNs,
    Cost * 1000000 div max(10000000, (Runtime - Before) * 1000000 - Cost).

runtime() ->
    {Runtime, _} = erlang:statistics(runtime),
    Runtime.
