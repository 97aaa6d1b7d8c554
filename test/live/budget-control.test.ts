/**
 * The overhead budget's calculation (beamtrace_budget) against a modelled server, tick by tick: what it costs is known there to the event, and
 * nothing depends on this machine. Processes differ in what they do by a factor of a thousand, so that a raise may let a busy one in.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fileURLToPath } from "node:url";
import { startNode, type ErlNode } from "../support/erl-node";

const SOURCE = fileURLToPath(new URL("../../beam/agent/src/beamtrace_budget.erl", import.meta.url));
const LIMIT = 0.02;
const TICKS_PER_SECOND = 10;

interface Tick {
  readonly share: number;
  /** What tracing really cost in this tick ÷ what the server used. */
  readonly overhead: number;
}

let node: ErlNode;
beforeAll(async () => {
  node = await startNode({ distributed: false });
  await node.eval(
    `{ok, beamtrace_budget, Beam} = compile:file(${JSON.stringify(SOURCE)}, [binary]),
     {module, beamtrace_budget} = code:load_binary(beamtrace_budget, "beamtrace_budget", Beam), ok`,
  );
});
afterAll(() => node.stop());

/**
 * @param base - CPU of the server without tracing at each tick, in cores
 * @param all - what tracing everything would cost at each tick, in cores
 */
async function simulate(seed: number, base: readonly number[], all: readonly number[]): Promise<Tick[]> {
  const text = await node.eval(`
    rand:seed(exsss, ${seed}),
    N = 1000,
    Ws0 = [math:pow(1000, -rand:uniform()) || _ <- lists:seq(1, N)],
    Sum = lists:sum(Ws0),
    Ps = [{rand:uniform(), W / Sum} || W <- Ws0],
    Tick = fun({B, A}, {Share, Events, Fixed, Flags, Runtime, At, Budget, Acc}) ->
      Traced = lists:sum([W || {U, W} <- Ps, U < Share]),
      %% The load flutters.
      Cost = round(A * Traced * 1.0e8 * (0.8 + 0.4 * rand:uniform())),
      Events1 = Events + Cost, Fixed1 = Fixed + 40000, At1 = At + 100000000,
      Runtime1 = Runtime + round(B * 1.0e8) + Cost + 40000,
      Sample = #{at => At1, runtime => Runtime1 div 10000000 * 10000000, events => Events1, fixed => Fixed1, flags => Flags},
      Situation = #{share => Share, most => 1.0, least => 0.001, processes => N, sheddable => false, restorable => none},
      {Action, Budget1} = beamtrace_budget:step(Sample, Situation, Budget),
      {Share1, Set} = case Action of
        {share, S} when S > Share -> {S, round((S - Share) * N * 800) + 150 * N};
        {share, S} -> {S, 0};
        keep -> {Share, 0}
      end,
      {Share1, Events1, Fixed1, Flags + Set, Runtime1 + Set, At1, Budget1, [{round(Share * 1000000), round(1000000 * (Cost + 40000 + Set) / (B * 1.0e8))} | Acc]}
    end,
    First = #{at => 0, runtime => 0, events => 0, fixed => 0, flags => 0},
    Series = lists:zip([${base.map((b) => b.toFixed(3)).join(",")}], [${all.map((a) => a.toFixed(4)).join(",")}]),
    {_, _, _, _, _, _, _, Result} = lists:foldl(Tick, {0.016, 0, 0, 0, 0, 0, beamtrace_budget:new(${LIMIT * 1e6}, First), []}, Series),
    lists:append([[S, O] || {S, O} <- lists:reverse(Result)])`);
  const numbers = [...text.matchAll(/\d+/g)].map(Number);
  return base.map((_, i) => ({ share: numbers[2 * i]! / 1e6, overhead: numbers[2 * i + 1]! / 1e6 }));
}

/** Overheads over whole seconds, a tick apart. */
function seconds(ticks: readonly Tick[]): number[] {
  return ticks
    .slice(TICKS_PER_SECOND - 1)
    .map(
      (_, i) =>
        ticks.slice(i, i + TICKS_PER_SECOND).reduce((sum, t) => sum + t.overhead, 0) / TICKS_PER_SECOND,
    );
}

function turns(ticks: readonly Tick[]): number {
  const signs = ticks.slice(1).flatMap((t, i) => Math.sign(t.share - ticks[i]!.share) || []);
  return signs.filter((sign, i) => i > 0 && sign !== signs[i - 1]).length;
}

const repeat = (value: number, times: number): number[] => Array.from({ length: times }, () => value);
const SEEDS = [1, 2, 3];

describe("a steady load", () => {
  test.each(SEEDS)("is met within the budget, and the share comes to rest (%i)", async (seed) => {
    // All events would cost a fifth of what the server uses.
    const ticks = await simulate(seed, repeat(0.8, 600), repeat(0.16, 600));
    const later = ticks.slice(300);
    expect(Math.max(...seconds(ticks.slice(TICKS_PER_SECOND)))).toBeLessThan(LIMIT * 1.5);
    expect(seconds(later).reduce((a, b) => a + b, 0) / seconds(later).length).toBeLessThan(LIMIT);
    expect(ticks.at(-1)?.share).toBeGreaterThan(0.02);
    expect(turns(later)).toBeLessThanOrEqual(4);
  });
  test("that is light enough is traced as a whole", async () => {
    const ticks = await simulate(1, repeat(0.8, 200), repeat(0.005, 200));
    expect(ticks.at(-1)?.share).toBe(1);
    expect(turns(ticks)).toBe(0);
  });
});

describe("a load that jumps", () => {
  const base = [...repeat(0.2, 200), ...repeat(1.6, 200), ...repeat(0.2, 300)];
  const all = base.map((b) => (b > 1 ? 0.8 : 0.01));
  test.each(SEEDS)("is met within a second, up and down (%i)", async (seed) => {
    const ticks = await simulate(seed, base, all);
    // From one second after the jump on.
    const after = ticks.slice(200 + TICKS_PER_SECOND, 400);
    expect(Math.max(...seconds(after))).toBeLessThan(LIMIT * 1.5);
    expect(seconds(after).filter((o) => o > LIMIT).length).toBeLessThanOrEqual(2 * TICKS_PER_SECOND);
    expect(ticks[199]!.share).toBeGreaterThan(2 * ticks[399]!.share);
    expect(ticks.at(-1)!.share).toBeGreaterThan(2 * ticks[399]!.share);
    expect(turns(ticks)).toBeLessThanOrEqual(10);
  });
});
