%% The overhead budget as a calculation: from what was measured in the last ticks to what the sampling process is to do next. No process, no
%% clock, no side effect. Decision 040 (docs/decisions/040-overhead-budget.md) has the figures behind the constants.
%%
%% The overhead is what tracing costs by our account, divided by what the VM uses without it. It is lowered at once when the last fifth of a
%% second is over the budget, and raised when the worst fifth of the last second, times the raise, would still fit.
-module(beamtrace_budget).

-export([new/2, tick_ms/1, tick_ns/0, step/3, estimate/1]).
-export_type([budget/0, sample/0, situation/0, action/0]).

-type ppm() :: non_neg_integer().
%% Totals since the start, in ns: CPU of the VM; what events have cost, which goes with the share; what processes that were born outside of the sample
%% have cost, which goes unless new ones are left out; what does not go; and what setting flags has cost.
-type sample() :: #{
    at := integer(),
    runtime := non_neg_integer(),
    events := non_neg_integer(),
    births := non_neg_integer(),
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
    %% Whether new processes are looked at; where they are left out, what they would cost, in ns a second.
    new := boolean(),
    left_new := none | non_neg_integer(),
    %% What could be left out, and what the kind that was left out last cost then.
    sheddable := boolean(),
    restorable := none | non_neg_integer()
}.
-type action() :: keep | {share, float()} | leave_new | begin_new | shed | restore | {stop, ppm()}.

-define(TICK_MS, 100).
-define(IDLE_TICK_MS, 400).
-define(UNSETTLED_TICK_MS, 200).
-define(SECOND_NS, 1000000000).
%% What a tick costs the VM at most, and the part of the budget that ticks at each tenth of a second may take: of a smaller budget there are half as many.
-define(TICK_NS, 70000).
-define(TICKS_SHARE, 0.2).
%% Ticks over which the VM's own CPU is taken: statistics(runtime) moves in steps of 10 ms.
-define(BASE_TICKS, 10).
%% Ticks over which the cost is taken: short enough to see a jump at once, long enough for a rate.
-define(COST_TICKS, 2).
%% A VM that uses less than this share of a core has time for few ticks.
-define(IDLE, 0.15).
%% 2 % of nothing would be no trace at all: a VM counts as one that uses this share of a core; with a smaller budget as one of whose CPU the budget is
%% a millisecond a second, but not as more than the last.
-define(BASE_LEAST, 0.05).
-define(BUDGET_LEAST, 0.001).
-define(BASE_LEAST_MOST, 0.2).
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
%% In tenths of a second, as all times below: before the next raise, and before the end.
-define(RAISE, 12).
-define(STOP, 10).
%% A lowering this soon after a raise says that the raise was wrong: the next one waits, twice as long each time.
-define(REGRET, 100).
-define(WAIT_MOST, 640).
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

-record(tick, {ns :: pos_integer(), events :: integer(), births :: integer(), fixed :: integer(), flags :: integer(), runtime :: integer()}).

%% Of a second, in ns.
-record(costs, {events :: float(), births :: float(), fixed :: float(), flags :: float(), base :: float()}).

-record(budget, {
    limit :: float(),
    %% Last sample, and what came since the one before, newest first.
    last :: sample(),
    ticks = [] :: [#tick{}],
    %% What events cost per second of COST_TICKS at each tick since the last change had shown, newest first; and ticks since the change.
    costs = [] :: [float()],
    age = 0 :: non_neg_integer(),
    starting = true :: boolean(),
    %% Time since the last change, and since the last raise; how long the next one waits; the VM's CPU when the last raise turned out wrong.
    changed = 0 :: non_neg_integer(),
    raised = ?REGRET :: non_neg_integer(),
    wait = ?RAISE :: pos_integer(),
    regret = none :: none | {Share :: float(), Base :: float()},
    overhead = 0 :: ppm(),
    %% Whether the VM has little to do, and whether the budget is a small one.
    idle = false :: boolean(),
    small = false :: boolean()
}).
-opaque budget() :: #budget{}.

%% How long the next tick is. A tick costs a VM with little to do a waking of its own, and there a quarter of them will do; a small budget is mostly for
%% events, not for ticks.
-spec tick_ms(budget()) -> pos_integer().
tick_ms(#budget{idle = true, changed = Changed}) when Changed < ?RAISE -> ?UNSETTLED_TICK_MS;
tick_ms(#budget{idle = true}) -> ?IDLE_TICK_MS;
tick_ms(#budget{small = true}) -> ?UNSETTLED_TICK_MS;
tick_ms(#budget{}) -> ?TICK_MS.

%% What a tick costs the VM: the price that the account reckons with.
-spec tick_ns() -> pos_integer().
tick_ns() -> ?TICK_NS.

-spec new(LimitPpm :: pos_integer(), sample()) -> budget().
new(LimitPpm, Sample) -> #budget{limit = LimitPpm / 1000000, last = Sample}.

%% Overhead of the last second, in parts per million of what the VM uses without tracing.
-spec estimate(budget()) -> ppm().
estimate(#budget{overhead = Overhead}) -> Overhead.

-spec step(sample(), situation(), budget()) -> {action(), budget()}.
step(#{at := At} = Sample, Situation, #budget{ticks = Ticks0, last = Last, limit = Limit} = B0) ->
    Since = fun(Key) -> maps:get(Key, Sample) - maps:get(Key, Last) end,
    Tick = #tick{
        ns = max(1, At - maps:get(at, Last)),
        events = Since(events),
        births = Since(births),
        fixed = Since(fixed),
        flags = Since(flags),
        runtime = Since(runtime)
    },
    Ticks = lists:sublist([Tick | Ticks0], ?BASE_TICKS),
    Costs = #costs{
        events = per_second(#tick.events, lists:sublist(Ticks, ?COST_TICKS)),
        births = births(Situation, lists:sublist(Ticks, ?COST_TICKS)),
        fixed = per_second(#tick.fixed, Ticks),
        %% Flags are set now and then; that is no jump of the load.
        flags = per_second(#tick.flags, Ticks),
        base = base(Ticks, Limit)
    },
    Age = B0#budget.age + 1,
    Tenths = max(1, round(Tick#tick.ns / (?TICK_MS * 1000000))),
    Overhead = lists:sum([per_second(Which, Ticks) || Which <- [#tick.events, #tick.births, #tick.fixed, #tick.flags]]),
    B = B0#budget{
        last = Sample,
        ticks = Ticks,
        age = Age,
        costs = case Age > ?SETTLE_TICKS of true -> lists:sublist([Costs#costs.events | B0#budget.costs], ?PEAK_TICKS); false -> [] end,
        changed = B0#budget.changed + Tenths,
        raised = B0#budget.raised + Tenths,
        overhead = round(1000000 * Overhead / Costs#costs.base),
        small = ?TICKS_SHARE * Limit * Costs#costs.base < ?TICK_NS * (1000 div ?TICK_MS),
        %% A VM that has been woken up is no longer idle, whatever the last seconds say.
        idle = per_second(#tick.runtime, Ticks) =< ?IDLE * ?SECOND_NS andalso per_second(#tick.runtime, [Tick]) =< 2 * ?IDLE * ?SECOND_NS
    },
    decide(Costs, Situation, B).

%% Those before new processes were left out say nothing of the time after.
births(#{left_new := none}, Ticks) -> per_second(#tick.births, Ticks);
births(_, _) -> 0.0.

%% CPU of the VM without tracing, ns a second.
base(Ticks, Limit) ->
    Used = lists:sum([per_second(Which, Ticks) * Sign || {Which, Sign} <- [
        {#tick.runtime, 1}, {#tick.events, -1}, {#tick.births, -1}, {#tick.fixed, -1}, {#tick.flags, -1}
    ]]),
    max(Used, ?SECOND_NS * max(?BASE_LEAST, min(?BASE_LEAST_MOST, ?BUDGET_LEAST / Limit))).

per_second(Which, Ticks) ->
    lists:sum([element(Which, Tick) || Tick <- Ticks]) * ?SECOND_NS / lists:sum([Ns || #tick{ns = Ns} <- Ticks]).

total(#costs{events = Events, births = Births, fixed = Fixed, flags = Flags}) -> Events + Births + Fixed + Flags.

%% For events, of six tenths of the budget.
room(#costs{births = Births, fixed = Fixed, base = Base}, #budget{limit = Limit}) -> ?AIM * Limit * Base - Births - Fixed.

decide(#costs{base = Base} = Costs, Situation, #budget{limit = Limit, age = Age} = B) ->
    case total(Costs) / Base of
        Over when Over > ?HIGH * Limit, Age > ?SETTLE_TICKS -> lower(Costs, Situation, B);
        %% Nothing that was set a tick ago makes that much: no need to wait.
        Over when Over > 4 * Limit, Age > 1 -> lower(Costs, Situation, B);
        _ -> raise(Costs, Situation, B)
    end.

%% What no share changes is too much by itself.
lower(#costs{births = Births, fixed = Fixed, base = Base}, #{share := Share, new := true}, #budget{limit = Limit} = B) when
    Births > 0, Births + Fixed > ?HIGH * Limit * Base
->
    {leave_new, lowered(Share, Base, B)};
lower(#costs{events = Now, base = Base} = Costs, #{share := Share, least := Least}, B) when Share > Least ->
    %% At least by a fifth, so that a share does not creep.
    To = max(Least, Share * min(0.8, max(0.0, room(Costs, B)) / max(1.0, Now))),
    {{share, To}, changed(lowered(Share, Base, B))};
lower(#costs{base = Base}, #{share := Share, sheddable := true}, B) ->
    {shed, changed(lowered(Share, Base, B))};
%% What is still under way from before the last step must not end the trace.
lower(_, _, #budget{changed = Changed} = B) when Changed < ?STOP ->
    {keep, B};
lower(#costs{base = Base} = Costs, _, B) ->
    {{stop, round(1000000 * total(Costs) / Base)}, B}.

lowered(Share, Base, #budget{raised = Raised, wait = Wait} = B) when Raised < ?REGRET, not B#budget.starting ->
    B#budget{regret = {Share, Base}, wait = min(?WAIT_MOST, 2 * Wait), starting = false};
lowered(_, _, B) ->
    B#budget{starting = false}.

changed(B) -> B#budget{age = 0, changed = 0, costs = []}.

%% The longer a raise is to wait, the longer ago may be what speaks against it.
peak(#budget{costs = Costs, wait = Wait}) -> lists:max([1.0 | lists:sublist(Costs, Wait)]).

raise(#costs{base = Base} = Costs, Situation, B0) ->
    case forgiven(Base, B0) of
        #budget{starting = true, age = Age, idle = Idle} = B when Age > ?SETTLE_TICKS + ?COST_TICKS; Idle, Age > ?SETTLE_TICKS ->
            grow(?START_MOST, room(Costs, B), Situation, B);
        #budget{age = Age, changed = Changed, wait = Wait} = B when Changed >= Wait, Age > ?SETTLE_TICKS ->
            grow(?RAISE_MOST, room(Costs, B), Situation, B);
        B ->
            {keep, B}
    end.

%% Another load is another start.
forgiven(_, #budget{regret = none} = B) ->
    B;
forgiven(Base, #budget{regret = {_, Then}} = B) when Base > ?LOAD_CHANGED * Then; Base * ?LOAD_CHANGED < Then ->
    B#budget{regret = none, wait = ?RAISE};
forgiven(_, #budget{raised = Raised, wait = Wait} = B) when Raised > 2 * Wait, Raised > ?REGRET ->
    B#budget{regret = none, wait = max(?RAISE, Wait div 2)};
forgiven(_, B) ->
    B.

%% `Room`: ns a second for events. What was left out comes back before the share grows.
grow(_, Room, #{restorable := Cost}, B) when is_integer(Cost) ->
    case peak(B) + Cost < Room of
        true -> {restore, raised(B)};
        false -> {keep, B}
    end;
grow(Most, Room, #{left_new := Cost} = Situation, B) when is_integer(Cost) ->
    case {peak(B) + Cost < Room, 2 * Cost < Room} of
        {true, _} -> {begin_new, raised(B)};
        %% New processes are worth half of what there is.
        {false, true} -> make_room(Room - Cost, Situation, B);
        {false, false} -> grow(Most, Room, Situation#{left_new := none}, B)
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

make_room(Room, #{share := Share, least := Least}, B) when Share > Least ->
    {{share, max(Least, 0.8 * Share * Room / peak(B))}, changed(B)};
make_room(_, _, B) ->
    {keep, B}.

not_starting(Fits, B) when Fits < ?RAISE_LEAST -> B#budget{starting = false};
not_starting(_, B) -> B.

raised(B) -> changed(B#budget{raised = 0}).

set(To, Share, B) when To > Share -> {{share, To}, raised(B)};
set(_, _, B) -> {keep, B}.

%% Flags cost as well, and so does looking for those who are to get them: by how much the share may grow after so long a wait.
settable(_, #{processes := 0}, _) ->
    1.0;
settable(Room, #{processes := Processes}, #budget{changed = Changed} = B) ->
    %% What events don't take, with room for twice as many.
    Rate = max(?SET_SHARE * Room, Room - 2 * peak(B)),
    Looks = Processes * ?LOOK_NS,
    Saved = Rate * Changed / 10,
    case (Saved - Looks) / ?SET_NS of
        Set when Set >= ?SET_LEAST, Saved >= 2 * Looks -> Set / Processes;
        _ -> 0.0
    end.
