/**
 * The overhead budget's calculation (beamtrace_budget) against a modelled server, a tenth of a second at a time: what it costs is known there to the event, and
 * nothing depends on this machine. Processes differ in what they do by a factor of a thousand, so that a raise may let a busy one in.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fileURLToPath } from "node:url";
import { startNode, type ErlNode } from "../support/erl-node";

const MODULES = ["beamtrace_budget", "beamtrace_births"];
const LIMIT = 0.02;
const TENTHS = 10;

interface Tick {
  readonly share: number;
  /** What tracing really cost in this tick ÷ what the server used. */
  readonly overhead: number;
  /** Whether new processes were looked at. */
  readonly isNew: boolean;
}

let node: ErlNode;
beforeAll(async () => {
  node = await startNode({ distributed: false });
  for (const module of MODULES) {
    const source = fileURLToPath(new URL(`../../beam/agent/src/${module}.erl`, import.meta.url));
    await node.eval(
      `{ok, ${module}, Beam} = compile:file(${JSON.stringify(source)}, [binary]),
       {module, ${module}} = code:load_binary(${module}, "${module}", Beam), ok`,
    );
  }
});
afterAll(() => node.stop());

/**
 * @param base - CPU of the server without tracing at each tick, in cores
 * @param all - what tracing everything would cost at each tick, in cores
 * @param options.births - what new processes cost at each tick where nobody is in the sample, in cores
 * @param options.limit - the budget
 * @param options.tickNs - what a tick costs
 */
async function simulate(
  seed: number,
  base: readonly number[],
  all: readonly number[],
  {
    births = base.map(() => 0),
    limit = LIMIT,
    tickNs = 40_000,
  }: { births?: readonly number[]; limit?: number; tickNs?: number } = {},
): Promise<Tick[]> {
  const text = await node.eval(`
    rand:seed(exsss, ${seed}),
    N = 1000,
    Ws0 = [math:pow(1000, -rand:uniform()) || _ <- lists:seq(1, N)],
    Sum = lists:sum(Ws0),
    Ps = [{rand:uniform(), W / Sum} || W <- Ws0],
    Tenth = fun({B, A, N0}, {Share, New, {Events, Births, Fixed, Flags}, Runtime, {At, Next}, Budget, Acc}) ->
      Traced = lists:sum([W || {U, W} <- Ps, U < Share]),
      %% The load flutters.
      Cost = round(A * Traced * 1.0e8 * (0.8 + 0.4 * rand:uniform())),
      Outside = round(N0 * (1 - Share) * 1.0e8),
      Born = case New of true -> Outside; false -> 0 end,
      At1 = At + 100000000,
      IsDue = At1 >= Next,
      Ours = case IsDue of true -> ${tickNs}; false -> 0 end,
      Runtime1 = Runtime + round(B * 1.0e8) + Cost + Born + Ours,
      Sample = #{at => At1, runtime => Runtime1 div 10000000 * 10000000, events => Events + Cost, births => Births + Born, fixed => Fixed + Ours, flags => Flags},
      Left = case New of true -> none; false -> round(N0 * (1 + 3 * Share) * 1.0e9) end,
      Situation = #{share => Share, most => 1.0, least => 0.001, processes => N, new => New, left_new => Left, sheddable => New, restorable => none},
      {Action, Budget1} = case IsDue of true -> beamtrace_budget:step(Sample, Situation, Budget); false -> {keep, Budget} end,
      {Share1, New1, Set} = case Action of
        {share, S} when S > Share -> {S, New, round((S - Share) * N * 800) + 150 * N};
        {share, S} -> {S, New, 0};
        leave_new -> {Share, false, 0};
        begin_new -> {Share, true, round(Share * N * 800)};
        keep -> {Share, New, 0}
      end,
      Next1 = case IsDue of true -> At1 + 1000000 * beamtrace_budget:tick_ms(Budget1); false -> Next end,
      Overhead = round(1000000 * (Cost + Born + Ours + Set) / (B * 1.0e8)),
      Totals = {Events + Cost, Births + Born, Fixed + Ours, Flags + Set},
      {Share1, New1, Totals, Runtime1 + Set, {At1, Next1}, Budget1, [[round(Share * 1000000), Overhead, case New of true -> 1; false -> 0 end] | Acc]}
    end,
    First = #{at => 0, runtime => 0, events => 0, births => 0, fixed => 0, flags => 0},
    Series = lists:zip3([${list(base)}], [${list(all)}], [${list(births)}]),
    {_, _, _, _, _, _, Result} = lists:foldl(Tenth, {0.016, true, {0, 0, 0, 0}, 0, {0, 0}, beamtrace_budget:new(${limit * 1e6}, First), []}, Series),
    lists:append(lists:reverse(Result))`);
  const numbers = [...text.matchAll(/\d+/g)].map(Number);
  return base.map((_, i) => ({
    share: numbers[3 * i]! / 1e6,
    overhead: numbers[3 * i + 1]! / 1e6,
    isNew: numbers[3 * i + 2] === 1,
  }));
}

/** For Erlang. */
const list = (cores: readonly number[]): string => cores.map((each) => each.toFixed(4)).join(",");

/** Overheads over whole seconds, a tick apart. */
function seconds(ticks: readonly Tick[]): number[] {
  return ticks
    .slice(TENTHS - 1)
    .map((_, i) => ticks.slice(i, i + TENTHS).reduce((sum, t) => sum + t.overhead, 0) / TENTHS);
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
    expect(Math.max(...seconds(ticks.slice(TENTHS)))).toBeLessThan(LIMIT * 1.5);
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
    const after = ticks.slice(200 + TENTHS, 400);
    expect(Math.max(...seconds(after))).toBeLessThan(LIMIT * 1.5);
    expect(seconds(after).filter((o) => o > LIMIT).length).toBeLessThanOrEqual(2 * TENTHS);
    expect(ticks[199]!.share).toBeGreaterThan(2 * ticks[399]!.share);
    expect(ticks.at(-1)!.share).toBeGreaterThan(2 * ticks[399]!.share);
    expect(turns(ticks)).toBeLessThanOrEqual(10);
  });
});

describe("a small budget", () => {
  const SMALL = 0.005;
  // Ticks at each tenth of a second would take a fifth of a core's three tenths' worth of it, and more.
  const base = [...repeat(0.3, 300), ...repeat(1.6, 200), ...repeat(0.3, 300)];
  const all = base.map((b) => (b > 1 ? 0.4 : 0.03));
  test.each(SEEDS)("is kept across jumps as well (%i)", async (seed) => {
    const ticks = await simulate(seed, base, all, { limit: SMALL, tickNs: 70_000 });
    for (const part of [
      ticks.slice(TENTHS, 300),
      ticks.slice(300 + TENTHS, 500),
      ticks.slice(500 + TENTHS),
    ]) {
      expect(Math.max(...seconds(part))).toBeLessThan(SMALL * 1.5);
      expect(seconds(part).filter((o) => o > SMALL).length).toBeLessThanOrEqual(2 * TENTHS);
    }
    expect(ticks[299]!.share).toBeGreaterThan(0.01);
    expect(turns(ticks)).toBeLessThanOrEqual(10);
  });
});

describe("an idle server", () => {
  // Events that would cost half of what it uses, and then work for a whole core, with events for a third of that.
  const base = [...repeat(0.03, 300), ...repeat(1, 200)];
  const all = base.map((b) => (b < 1 ? 0.015 : 0.3));
  test.each(SEEDS)("is traced, and followed when it gets work (%i)", async (seed) => {
    const ticks = await simulate(seed, base, all);
    expect(ticks[299]!.share).toBeGreaterThan(0.02);
    // Two hundredths of a twentieth of a core: it counts as one that uses so much.
    expect(Math.max(...seconds(ticks.slice(TENTHS, 300)))).toBeLessThan((0.05 / 0.03) * LIMIT * 1.5);
    const after = seconds(ticks.slice(300 + TENTHS));
    expect(Math.max(...after)).toBeLessThan(LIMIT * 1.5);
    expect(after.filter((o) => o > LIMIT).length).toBeLessThanOrEqual(2 * TENTHS);
  });
});

describe("new processes", () => {
  test.each(SEEDS)("are left out when they cost too much by themselves, and only they (%i)", async (seed) => {
    // All new processes would cost three hundredths of what the server uses, all events a hundredth.
    const ticks = await simulate(seed, repeat(0.8, 600), repeat(0.008, 600), {
      births: repeat(0.024, 600),
    });
    expect(ticks[TENTHS]?.isNew).toBe(false);
    expect(ticks.at(-1)).toMatchObject({ isNew: false, share: 1 });
    expect(Math.max(...seconds(ticks.slice(TENTHS)))).toBeLessThan(LIMIT);
    expect(ticks.filter(({ isNew }, i) => isNew !== ticks[i - 1]?.isNew)).toHaveLength(2);
  });
  test.each(SEEDS)(
    "come back when they have become few, also where others have taken the budget (%i)",
    async (seed) => {
      const few = repeat(0.8 * 0.003, 600);
      const ticks = await simulate(seed, repeat(0.8, 1200), repeat(0.16, 1200), {
        births: [...repeat(0.04, 600), ...few],
      });
      expect(ticks[599]?.isNew).toBe(false);
      expect(ticks[599]?.share).toBeGreaterThan(0.02);
      expect(ticks.at(-1)?.isNew).toBe(true);
      expect(ticks.filter(({ isNew }, i) => isNew !== ticks[i - 1]?.isNew)).toHaveLength(3);
      expect(Math.max(...seconds(ticks.slice(TENTHS)))).toBeLessThan(LIMIT * 1.5);
    },
  );
  test("that cost little are looked at all the time", async () => {
    const ticks = await simulate(1, repeat(0.8, 300), repeat(0.008, 300), { births: repeat(0.004, 300) });
    expect(ticks.every(({ isNew }) => isNew)).toBe(true);
    expect(ticks.at(-1)?.share).toBe(1);
  });
});

test("how many processes have been started is told by the number of one", async () => {
  // More than OTP 25 has numbers before its serial changes; one at a time, so that the table never fills.
  const count = 70_000;
  const told = await node.eval(`
    Before = beamtrace_births:number(),
    [begin {_, M} = spawn_monitor(fun() -> ok end), receive {'DOWN', M, _, _, _} -> ok end end || _ <- lists:seq(1, ${count})],
    beamtrace_births:since(Before, beamtrace_births:number())`);
  // Nothing else starts processes on this node, but for a few of its own now and then.
  expect(Number(told)).toBeGreaterThanOrEqual(count);
  expect(Number(told)).toBeLessThan(count + 100);
});
