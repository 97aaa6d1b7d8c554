%% The overhead budget as a calculation: from what was measured in the last ticks to what the sampling process is to do next. No process, no
%% clock, no side effect. Decision 040 (docs/decisions/040-overhead-budget.md) has the figures behind the constants.
%%
%% The overhead is what tracing costs by our account, divided by what the VM uses without it. It is lowered at once when the last fifth of a
%% second is over the budget, and raised when the worst fifth of the last second, times the raise, would still fit.
-module(beamtrace_budget).

-export([new/2, tick_ms/1, step/3, estimate/1]).
-export_type([budget/0, sample/0, situation/0, action/0]).

-type ppm() :: non_neg_integer().
%% Totals since the start, in ns: CPU of the VM; what events have cost, which goes with the share; what does not; and what setting flags has cost.
-type sample() :: #{
    at := integer(),
    runtime := non_neg_integer(),
    events := non_neg_integer(),
    fixed := non_neg_integer(),
    flags := non_neg_integer()
}.
-type situation() :: #{
    share := float(),
    %% Highest and lowest share that may be set.
    most := float(),
    least := float(),
    %% Processes that the share is of.
    processes := non_neg_integer(),
    %% What could be left out, and what the kind that was left out last cost then, in ns a second.
    sheddable := boolean(),
    restorable := none | non_neg_integer()
}.
-type action() :: keep | {share, float()} | shed | restore | {stop, ppm()}.

-define(TICK_MS, 100).
-define(SECOND_NS, 1000000000).
%% Ticks over which the VM's own CPU is taken: statistics(runtime) moves in steps of 10 ms.
-define(BASE_TICKS, 10).
%% Ticks over which the cost is taken: short enough to see a jump at once, long enough for a rate.
-define(COST_TICKS, 2).
%% A VM that does nothing counts as one that uses this share of a core: 2 % of nothing would be no trace at all.
-define(BASE_LEAST, 0.15).
%% Of the budget: above the first the share is lowered, to the second; raises aim at the second, too.
-define(HIGH, 0.9).
-define(AIM, 0.6).
%% A raise by less is not worth its flags.
-define(RAISE_LEAST, 1.25).
-define(RAISE_MOST, 2.0).
%% While nothing is known yet.
-define(START_MOST, 4.0).
%% Ticks that a change is given to show.
-define(SETTLE_TICKS, 2).
-define(RAISE_TICKS, 10).
-define(STOP_TICKS, 10).
%% A lowering this soon after a raise says that the raise was wrong: the next one waits, twice as long each time.
-define(REGRET_TICKS, 100).
-define(BACKOFF_MOST, 640).
%% Ticks over which the worst is remembered, at most.
-define(PEAK_TICKS, 50).
%% Until the VM's CPU has changed by this factor: then the load is another one.
-define(LOAD_CHANGED, 1.5).
%% Setting a flag, with its marker; and looking at a process.
-define(SET_NS, 800).
-define(LOOK_NS, 150).
%% Share of the budget that raises may take for their flags however much events take, and how many must be set at least.
-define(SET_SHARE, 0.3).
-define(SET_LEAST, 16).

-record(budget, {
    limit :: float(),
    %% Last sample, and what came since the one before, newest first: {Ns, Events, Fixed, Flags, Runtime}.
    last :: sample(),
    ticks = [] :: [{pos_integer(), integer(), integer(), integer(), integer()}],
    %% What events cost per second of COST_TICKS at each tick since the last change had shown, newest first; and ticks since the change.
    costs = [] :: [float()],
    age = 0 :: non_neg_integer(),
    starting = true :: boolean(),
    %% Ticks since the last raise; ticks that the next one waits; VM's CPU when the last raise turned out wrong.
    raised = ?REGRET_TICKS :: non_neg_integer(),
    backoff = ?RAISE_TICKS :: pos_integer(),
    regret = none :: none | {Share :: float(), Base :: float()},
    overhead = 0 :: ppm(),
    %% Whether the VM uses less than what counts.
    idle = false :: boolean()
}).
-opaque budget() :: #budget{}.

%% How long the next tick is. A tick costs a VM with little to do a waking of its own, and there half as many will do.
-spec tick_ms(budget()) -> pos_integer().
tick_ms(#budget{idle = true}) -> 2 * ?TICK_MS;
tick_ms(#budget{idle = false}) -> ?TICK_MS.

-spec new(LimitPpm :: pos_integer(), sample()) -> budget().
new(LimitPpm, Sample) -> #budget{limit = LimitPpm / 1000000, last = Sample}.

%% Overhead of the last second, in parts per million of what the VM uses without tracing.
-spec estimate(budget()) -> ppm().
estimate(#budget{overhead = Overhead}) -> Overhead.

-spec step(sample(), situation(), budget()) -> {action(), budget()}.
step(#{at := At} = Sample, Situation, #budget{ticks = Ticks0, last = Last} = B0) ->
    Since = fun(Key) -> maps:get(Key, Sample) - maps:get(Key, Last) end,
    Tick = {max(1, At - maps:get(at, Last)), Since(events), Since(fixed), Since(flags), Since(runtime)},
    Ticks = lists:sublist([Tick | Ticks0], ?BASE_TICKS),
    Base = base(Ticks),
    Fixed = per_second(3, Ticks),
    %% Flags are set now and then; that is no jump of the load.
    Flags = per_second(4, Ticks),
    Now = per_second(2, lists:sublist(Ticks, ?COST_TICKS)),
    Age = B0#budget.age + 1,
    B = B0#budget{
        last = Sample,
        ticks = Ticks,
        age = Age,
        costs = case Age > ?SETTLE_TICKS of true -> lists:sublist([Now | B0#budget.costs], ?PEAK_TICKS); false -> [] end,
        raised = B0#budget.raised + 1,
        overhead = round(1000000 * (per_second(2, Ticks) + Fixed + Flags) / Base),
        idle = Base =< ?BASE_LEAST * ?SECOND_NS
    },
    decide({Now, Fixed, Flags, Base}, Situation, B).

%% CPU of the VM without tracing, ns a second.
base(Ticks) ->
    Ns = lists:sum([T || {T, _, _, _, _} <- Ticks]),
    Used = lists:sum([Runtime - Events - Fixed - Flags || {_, Events, Fixed, Flags, Runtime} <- Ticks]),
    max(?BASE_LEAST * ?SECOND_NS, Used * ?SECOND_NS / Ns).

per_second(Which, Ticks) ->
    lists:sum([element(Which, Tick) || Tick <- Ticks]) * ?SECOND_NS / lists:sum([T || {T, _, _, _, _} <- Ticks]).

decide({Now, Fixed, Flags, Base} = Costs, Situation, #budget{limit = Limit, age = Age} = B) ->
    case (Now + Fixed + Flags) / Base of
        Over when Over > ?HIGH * Limit, Age > ?SETTLE_TICKS -> lower(Costs, Situation, B);
        %% Nothing that was set a tick ago makes that much: no need to wait.
        Over when Over > 4 * Limit, Age > 1 -> lower(Costs, Situation, B);
        _ -> raise(Fixed, Base, Situation, B)
    end.

lower({Now, Fixed, _, Base}, #{share := Share, least := Least}, #budget{limit = Limit} = B) when Share > Least ->
    Room = max(0.0, ?AIM * Limit * Base - Fixed),
    %% At least by a fifth, so that a share does not creep.
    To = max(Least, Share * min(0.8, Room / max(1.0, Now))),
    {{share, To}, changed(lowered(Share, Base, B))};
lower({_, _, _, Base}, #{share := Share, sheddable := true}, B) ->
    {shed, changed(lowered(Share, Base, B))};
%% What is still under way from before the last step must not end the trace.
lower(_, _, #budget{age = Age} = B) when Age < ?STOP_TICKS ->
    {keep, B};
lower({Now, Fixed, Flags, Base}, _, B) ->
    {{stop, round(1000000 * (Now + Fixed + Flags) / Base)}, B}.

lowered(Share, Base, #budget{raised = Raised, backoff = Backoff} = B) when Raised < ?REGRET_TICKS, not B#budget.starting ->
    B#budget{regret = {Share, Base}, backoff = min(?BACKOFF_MOST, 2 * Backoff), starting = false};
lowered(_, _, B) ->
    B#budget{starting = false}.

changed(B) -> B#budget{age = 0, costs = []}.

%% The longer a raise is to wait, the longer ago may be what speaks against it.
peak(#budget{costs = Costs, backoff = Wait}) -> lists:max([1.0 | lists:sublist(Costs, Wait)]).

raise(Fixed, Base, Situation, B0) ->
    B = forgiven(Base, B0),
    case B of
        #budget{starting = true, age = Age} when Age > ?SETTLE_TICKS + ?COST_TICKS ->
            grow(?START_MOST, ?AIM * B#budget.limit * Base - Fixed, Situation, B);
        #budget{age = Age, backoff = Wait} when Age >= Wait + ?SETTLE_TICKS ->
            grow(?RAISE_MOST, ?AIM * B#budget.limit * Base - Fixed, Situation, B);
        _ -> {keep, B}
    end.

%% Another load is another start.
forgiven(_, #budget{regret = none} = B) ->
    B;
forgiven(Base, #budget{regret = {_, Then}} = B) when Base > ?LOAD_CHANGED * Then; Base * ?LOAD_CHANGED < Then ->
    B#budget{regret = none, backoff = ?RAISE_TICKS};
forgiven(_, #budget{raised = Raised, backoff = Backoff} = B) when Raised > 2 * Backoff, Raised > ?REGRET_TICKS ->
    B#budget{regret = none, backoff = max(?RAISE_TICKS, Backoff div 2)};
forgiven(_, B) ->
    B.

%% `Room`: ns a second for events. What was left out comes back before the share grows.
grow(_, Room, #{restorable := Cost}, B) when is_integer(Cost) ->
    case peak(B) + Cost < Room of
        true -> {restore, raised(B)};
        false -> {keep, B}
    end;
grow(Most, Room, #{share := Share, most := Max} = Situation, B) when Share < Max ->
    Fits = min(Most, Room / peak(B)),
    To = min(Max, Share * Fits),
    %% The last step may be a small one.
    case To >= Share * ?RAISE_LEAST orelse (Fits > 1.0 andalso To >= Max) of
        true -> set(min(To, Share + settable(Room, Situation, B)), Share, B);
        false -> {keep, not_starting(Fits, B)}
    end;
grow(_, _, _, B) ->
    {keep, not_starting(1.0, B)}.

not_starting(Fits, B) when Fits < ?RAISE_LEAST -> B#budget{starting = false};
not_starting(_, B) -> B.

raised(B) -> changed(B#budget{raised = 0}).

set(To, Share, B) when To > Share -> {{share, To}, raised(B)};
set(_, _, B) -> {keep, B}.

%% Flags cost as well, and so does looking for those who are to get them: by how much the share may grow after so long a wait.
settable(_, #{processes := 0}, _) ->
    1.0;
settable(Room, #{processes := Processes}, #budget{age = Age} = B) ->
    %% What events don't take, with room for twice as many.
    Rate = max(?SET_SHARE * Room, Room - 2 * peak(B)),
    Looks = Processes * ?LOOK_NS,
    Saved = Rate * Age * ?TICK_MS / 1000,
    case (Saved - Looks) / ?SET_NS of
        Set when Set >= ?SET_LEAST, Saved >= 2 * Looks -> Set / Processes;
        _ -> 0.0
    end.
