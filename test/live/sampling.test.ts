/** Sampling by process: who is traced is traced whole, who is not carries no flag, and what was left out can be counted back. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rate, weighted } from "../../src/buffer";
import type { TraceEvent } from "../../src/buffer";
import type { Session, Trace, TraceOptions } from "../../src/capture";
import { Pid } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { startNode, type ErlNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";

const SHARE = 1 / 8;
const COUNT = 4000;
/** Four standard deviations of a binomial distribution. */
const SPREAD = 4 * Math.sqrt(COUNT * SHARE * (1 - SHARE));
const THRESHOLD = `(1 bsl 27) * ${SHARE * 1e6} div 1000000`;

/** Who of `Ps` carries flags of any session. */
const FLAGGED = `Flagged = case erlang:function_exported(trace, session_info, 1) orelse code:ensure_loaded(trace) =:= {module, trace} of
  true -> fun(P) -> case apply(trace, session_info, [P]) of [_ | _] -> true; _ -> false end end;
  false -> fun(P) -> case erlang:trace_info(P, flags) of {flags, [_ | _]} -> true; _ -> false end end
end`;

/** A process that keeps the pids, so that later expressions find them. Each answers \`{sync, From}\`, and takes messages that are integers. */
const KEEPER = `Loop = fun L() -> receive {sync, F} -> F ! synced, L(); stop -> ok; _ -> L() end end,
Start = fun(Key) -> Ps = [spawn(Loop) || _ <- lists:seq(1, ${COUNT})], persistent_term:put(Key, Ps), length(Ps) end`;

/** Process number I gets 1 + I rem 5 messages, then a last one that it answers. */
const MESSAGES = (key: string): string => `Ps = persistent_term:get(${key}), Me = self(),
[begin [P ! N || N <- lists:seq(1, 1 + I rem 5)], P ! {sync, Me} end || {I, P} <- lists:zip(lists:seq(1, length(Ps)), Ps)],
[receive synced -> ok end || _ <- Ps], ok`;

const key = (pid: unknown): string => (pid instanceof Pid ? `<0.${pid.id}.${pid.serial}>` : "");

/** Pids of `expression`, as `<0.Number.Serial>`. */
async function pids(node: ErlNode, expression: string): Promise<string[]> {
  const text = await node.eval(`[pid_to_list(P) || P <- (fun() -> ${expression} end)()]`);
  return [...text.matchAll(/<[\d.]+>/g)].map(([pid]) => pid);
}

function counts(events: readonly TraceEvent[]): Map<string, number> {
  const result = new Map<string, number>();
  for (const event of events)
    if (event.kind === "receive") result.set(key(event.process), (result.get(key(event.process)) ?? 0) + 1);
  return result;
}

describe.each(["native", "portable"] as const)("sampling, %s tracer", (tracer) => {
  let node: ErlNode;
  let session: Session;

  beforeAll(async () => {
    node = await startNode({ args: ["+P", "262144"] });
    session = await attachTo(node, { tracer });
  });
  afterAll(async () => {
    await session.close();
    await expectClean(node, {});
    await node.stop();
  });

  const start = (options: Partial<TraceOptions>): Promise<Trace> =>
    session.trace({
      events: ["receive"],
      sampling: { processes: SHARE },
      limits: { rate: Infinity },
      ...options,
    });

  test("a share of the processes is traced, each of them whole", { timeout: 60_000 }, async () => {
    await node.eval(`${KEEPER}, Start(existing)`);
    const trace = await start({});
    const collected = collect(trace);
    await node.eval(MESSAGES("existing"));
    await trace.stop();
    await collected.done;
    const all = await pids(node, "persistent_term:get(existing)");
    const chosen = await pids(
      node,
      `[P || P <- persistent_term:get(existing), erlang:phash2(P) < ${THRESHOLD}]`,
    );
    const began = new Set(
      collected.events.flatMap((e) =>
        e.kind === "marker" && e.name === "process_traced" ? [key(e.process)] : [],
      ),
    );
    const received = counts(collected.events);
    const seen = all.filter((pid) => received.has(pid));
    expect(seen).toEqual(chosen);
    expect(Math.abs(seen.length - COUNT * SHARE)).toBeLessThan(SPREAD);
    for (const [i, pid] of all.entries())
      if (received.has(pid)) {
        expect(received.get(pid)).toBe(2 + ((i + 1) % 5));
        expect(began.has(pid)).toBe(true);
      }
    expect(trace.stats.node.share).toBeCloseTo(SHARE, 5);
    expect(trace.stats.lost).toBe(0);
  });

  test(
    "new processes are sampled at the same share, and others carry no flags",
    { timeout: 60_000 },
    async () => {
      const trace = await start({ events: ["spawned", "receive", "exit"] });
      const collected = collect(trace);
      await node.eval(`${KEEPER}, Start(born)`);
      await node.eval(MESSAGES("born"));
      const flagged = await pids(node, `${FLAGGED}, [P || P <- persistent_term:get(born), Flagged(P)]`);
      await node.eval(
        `Ms = [begin M = monitor(process, P), P ! stop, M end || P <- persistent_term:get(born)], [receive {'DOWN', M, _, _, _} -> ok end || M <- Ms], ok`,
      );
      await trace.stop();
      await collected.done;
      const all = await pids(node, "persistent_term:get(born)");
      const chosen = await pids(
        node,
        `[P || P <- persistent_term:get(born), erlang:phash2(P) < ${THRESHOLD}]`,
      );
      expect(flagged).toEqual(chosen);
      expect(Math.abs(chosen.length - COUNT * SHARE)).toBeLessThan(SPREAD);
      const ours = new Set(all);
      const received = counts(collected.events);
      expect(all.filter((pid) => received.has(pid))).toEqual(chosen);
      for (const [i, pid] of all.entries())
        if (received.has(pid)) expect(received.get(pid)).toBe(3 + ((i + 1) % 5));
      for (const kind of ["spawned", "exit"] as const) {
        const of = collected.events.filter((e) => e.kind === kind && ours.has(key(e.process)));
        expect(of.map((e) => key(e.process)).sort()).toEqual([...chosen].sort());
      }
      // Nobody's tracing was ended by the sampling.
      const ended = collected.events.filter((e) => e.kind === "marker" && e.name === "process_untraced");
      expect(ended.filter((e) => ours.has(key(e.process)))).toEqual([]);
    },
  );

  test("weights and corrected rates count back to all processes", { timeout: 60_000 }, async () => {
    await node.eval(`${KEEPER}, Start(counted)`);
    const trace = await start({});
    let weight = 0;
    let perSecond = 0;
    const ours = new Set(await pids(node, "persistent_term:get(counted)"));
    const weights = trace.events$.pipe(weighted()).forEach(({ event, weight: w }) => {
      if (event.kind === "receive" && ours.has(key(event.process))) weight += w;
    });
    const events: TraceEvent[] = [];
    const seen = trace.events$.forEach((event) => void events.push(event));
    const rates = trace.batches$.pipe(rate(1000, { corrected: true })).forEach(({ count }) => {
      perSecond += count;
    });
    await node.eval(MESSAGES("counted"));
    await trace.stop();
    await Promise.all([weights, rates, seen]);
    // Two to six messages each: the variance of their number adds to that of who is in the sample.
    const truth = 4 * COUNT;
    const spread = 4 * Math.sqrt((COUNT * (1 - SHARE) * 18) / SHARE);
    expect(Math.abs(weight - truth)).toBeLessThan(spread);
    const total = events.filter((e) => e.kind !== "marker" && e.kind !== "gap").length;
    expect(perSecond).toBeCloseTo(total / SHARE, 0);
  });

  test("one call in N", { timeout: 60_000 }, async () => {
    await node.eval(
      `spawn(fun() -> register(caller, self()), receive go -> [lists:last([I]) || I <- lists:seq(1, 10000)] end, receive stop -> ok end end), ok`,
    );
    const trace = await session.trace({
      processes: { registered: ["caller"] },
      calls: [{ module: "lists", function: "last", arity: 1 }],
      sampling: { calls: 100 },
      limits: { rate: Infinity },
    });
    const collected = collect(trace);
    let weight = 0;
    const weights = trace.events$
      .pipe(weighted())
      .forEach(({ event, weight: w }) => void (weight += event.kind === "call" ? w : 0));
    await node.eval(
      `caller ! go, M = monitor(process, whereis(caller)), caller ! stop, receive {'DOWN', M, _, _, _} -> ok end`,
    );
    await trace.stop();
    await Promise.all([collected.done, weights]);
    const calls = collected.events.filter((e) => e.kind === "call").length;
    // Other tools' counting may shift the first one.
    expect(Math.abs(calls - 100)).toBeLessThanOrEqual(1);
    expect(weight).toBe(calls * 100);
  });

  test.each([
    ["sampling.processes", { processes: 0 }],
    ["sampling.processes", { processes: 1.5 }],
    ["sampling.calls", { calls: 10 }],
    ["sampling.share", { share: 1 }],
  ])("refuses %s %o", async (option, sampling) => {
    await expect(start({ sampling: sampling as never })).rejects.toMatchObject({
      code: "BT_TRACE_SPEC_INVALID",
      option,
    });
  });
});
