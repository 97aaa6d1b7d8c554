/** `limits.overhead` as a budget: the node adapts who is traced to what tracing costs, and everything that is traced is whole. */
import { distinctUntilChanged, firstValueFrom, map, skip, take, toArray, type Observable } from "rxjs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { MarkerEvent, TraceEvent } from "../../src/buffer";
import type { NodeStats, Session, Trace, TraceOptions, TraceStats } from "../../src/capture";
import { Pid } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { eventually, startNode, type ErlNode } from "../support/erl-node";
import { setLoad, startLoad, stopLoad } from "../support/load";
import { attachTo, collect } from "../support/traced";

/** Room enough for the calm load on a machine that has other things to do, too little for the other. */
const OVERHEAD = 0.2;
/** A share that a calm load comes to, also with the portable tracer on a machine that has other things to do. */
const CALM = 0.1;
const PATIENCE_MS = 60_000;

const key = (pid: unknown): string => (pid instanceof Pid ? `${pid.id}.${pid.serial}` : "");

const steps = (events: readonly TraceEvent[]): MarkerEvent[] =>
  events.filter((event): event is MarkerEvent => event.kind === "marker" && event.name === "sampling");

/** How often a series that rises and falls turns. */
function turns(values: readonly number[]): number {
  const signs = values.slice(1).flatMap((value, i) => Math.sign(value - values[i]!) || []);
  return signs.filter((sign, i) => i > 0 && sign !== signs[i - 1]).length;
}

/**
 * Messages of a worker of the load carry their number as their size. Between its begin and its end, as the markers tell, none may be missing.
 * Returns how many processes were seen, and how many stretches.
 */
function expectWhole(events: readonly TraceEvent[]): {
  processes: number;
  stretches: number;
  messages: number;
} {
  const next = new Map<string, number | undefined>();
  let stretches = 0;
  let messages = 0;
  const ended = new Set<string>();
  const processes = new Set<string>();
  for (const event of events) {
    const pid = key(event.process);
    if (event.kind === "marker" && event.name === "process_traced") {
      if (!next.has(pid)) stretches += 1;
      if (!next.has(pid)) next.set(pid, undefined);
      ended.delete(pid);
    } else if (event.kind === "marker" && event.name === "process_untraced") {
      next.delete(pid);
      ended.add(pid);
    } else if (event.kind === "receive" && event.shape.type === "binary") {
      expect(ended.has(pid)).toBe(false);
      const expected = next.get(pid);
      if (expected !== undefined) expect(event.shape.size).toBe(expected);
      next.set(pid, (event.shape.size + 1) % 50_000);
      processes.add(pid);
      messages += 1;
    }
  }
  return { processes: processes.size, stretches, messages };
}

describe.each(["native", "portable"] as const)("overhead budget, %s tracer", (tracer) => {
  let node: ErlNode;
  let session: Session;
  let collected: ReturnType<typeof collect>;
  let all: TraceStats[];

  beforeEach(async () => {
    node = await startNode({ args: ["+S", "2"] });
    session = await attachTo(node, { tracer });
  });
  afterEach(async () => {
    await session.close();
    await expectClean(node, {});
    await node.stop();
  });

  const start = async (options: Partial<TraceOptions>): Promise<Trace> => {
    const trace = await session.trace({
      events: ["receive"],
      limits: { overhead: OVERHEAD, rate: Infinity, seconds: 600 },
      ...options,
    });
    all = [];
    collected = collect(trace);
    trace.stats$.subscribe((stats) => all.push(stats));
    return trace;
  };
  /** What the node reckons with, second by second, while it gets messages of so many bytes: the median. */
  const estimate = async (stats$: Observable<NodeStats>, bytes: number): Promise<number> => {
    await startLoad(node, 2, 50, bytes);
    await setLoad(node, 2);
    // The first say something of the time before.
    const seen = await firstValueFrom(
      stats$.pipe(
        map(({ overhead }) => overhead),
        distinctUntilChanged(),
        skip(2),
        take(3),
        toArray(),
      ),
    );
    await stopLoad(node);
    return seen.sort((a, b) => a - b)[1] ?? NaN;
  };
  /**
   * Large messages cost more than twice what small ones do by its account, twice of three times: what else the machine does is in both. Each time
   * another trace, as large ones may take the share down, and with it who is in the sample. A process that computes all the time makes that rare,
   * and the CPU by which the account divides the same for both.
   */
  const expectDearer = async (
    begin: () => Promise<{ stats$: Observable<NodeStats>; stop(): Promise<unknown> }>,
    bytes: number,
  ): Promise<void> => {
    const ratios: number[] = [];
    const dearer = (): number => ratios.filter((ratio) => ratio > 2).length;
    await node.eval(
      `persistent_term:put(bt_busy, spawn_opt(fun Busy() -> Busy() end, [{priority, low}])), ok`,
    );
    while (ratios.length < 3 && dearer() < 2) {
      const { stats$, stop } = await begin();
      const small = await estimate(stats$, 8);
      ratios.push((await estimate(stats$, bytes)) / small);
      await stop();
    }
    await node.eval(`exit(persistent_term:get(bt_busy), kill), ok`);
    expect(dearer(), `ratios ${ratios.join(", ")}`).toBe(2);
  };
  const until = (holds: (stats: TraceStats) => boolean, trace: Trace): Promise<TraceStats> =>
    // Before its first report the node has said nothing of kinds, or of a share.
    eventually(
      () => trace.stats,
      (stats) => stats.node.kinds.length > 0 && holds(stats),
      PATIENCE_MS,
    );

  test(
    "the share follows the load down and up, and what is traced is whole",
    { timeout: 240_000 },
    async () => {
      // So little work for a message that, however quick the machine is, far fewer can be traced of many messages than of few.
      await startLoad(node, 1000, 100);
      await setLoad(node, 2);
      const trace = await start({});
      await until(({ node }) => node.share > (tracer === "native" ? 4 : 1) * CALM, trace);
      const calm = trace.stats.node.share;
      await setLoad(node, 60);
      await until(({ node }) => node.share < calm / 2, trace);
      // The budget has been met again: a whole second of the new load is within it.
      const met = await until(
        ({ node: { overhead, share } }) => share < calm / 2 && overhead <= OVERHEAD,
        trace,
      );
      await setLoad(node, 2);
      await until(
        ({ node }) => node.share > Math.max((tracer === "native" ? 2 : 1) * CALM, 2 * met.node.share),
        trace,
      );
      await trace.stop();
      await collected.done;
      await stopLoad(node);
      expect(await trace.ended).toEqual({ kind: "stopped" });
      const changes = steps(collected.events);
      const seconds = ((changes.at(-1)?.timestamp ?? 0) - (changes[0]?.timestamp ?? 0)) / 1e9;
      // There and back, and what a busy machine adds for as long as it takes: the modelled server counts more strictly.
      expect(turns(changes.map(({ a }) => Number(a)))).toBeLessThanOrEqual(Math.max(12, seconds));
      const { processes, stretches } = expectWhole(collected.events);
      expect(processes).toBeGreaterThan(30);
      expect(stretches).toBeGreaterThanOrEqual(processes);
      expect(trace.stats.lost).toBe(0);
      // Nobody's events stop without a word: the kinds stayed all the time.
      expect(new Set(steps(collected.events).map(({ b }) => b)).size).toBe(1);
    },
  );

  test("begins with a few processes and grows", { timeout: 120_000 }, async () => {
    await startLoad(node, 600, 50);
    const trace = await start({});
    await until(({ node }) => node.share > CALM, trace);
    await trace.stop();
    await collected.done;
    await stopLoad(node);
    const shares = steps(collected.events).map(({ a }) => Number(a));
    expect(shares[0]).toBeLessThan(1e6 / 20);
    expect(Math.max(...shares)).toBeGreaterThan(4 * shares[0]!);
    const begun = new Set(
      collected.events.flatMap((e) =>
        e.kind === "marker" && e.name === "process_traced" ? [key(e.process)] : [],
      ),
    );
    expect(begun.size).toBeGreaterThan(30);
  });

  test(
    "kinds are left out, the frequent ones first, when one process alone is too much",
    { timeout: 120_000 },
    async () => {
      await node.eval(`spawn(fun() -> register(hot, self()),
  (fun L(N) -> _ = [self() ! x || _ <- lists:seq(1, 20)], [receive x -> ok end || _ <- lists:seq(1, 20)],
     receive stop -> ok after 0 -> L(N + 1) end end)(0) end), ok`);
      await node.eval(
        `(fun W() -> case whereis(hot) of undefined -> timer:sleep(1), W(); _ -> ok end end)()`,
      );
      const trace = await start({
        processes: { registered: ["hot"] },
        events: ["send", "receive", "spawn", "exit"],
      });
      await until(({ node: { kinds } }) => !kinds.includes("send") && !kinds.includes("receive"), trace);
      // What came before must have left the rings: a ring that is full of messages has no room for the exit, and counts it as lost.
      const reports = all.length;
      const hot = await until(({ node: { queue } }) => all.length > reports && queue < 1000, trace);
      expect(hot.node.share).toBe(1);
      expect(hot.node.kinds).toEqual(["spawn", "exit"]);
      await node.eval(
        `M = monitor(process, whereis(hot)), hot ! stop, receive {'DOWN', M, _, _, _} -> ok end`,
      );
      await trace.stop();
      await collected.done;
      expect(await trace.ended).toEqual({ kind: "stopped" });
      // What was not left out is still whole.
      expect(trace.stats.lost).toBe(hot.lost);
      expect(collected.events.filter((e) => e.kind === "exit")).toHaveLength(1);
      // One kind after the other. Once the process has gone they may come back.
      const masks = [...new Set(steps(collected.events).map(({ b }) => Number(b)))].slice(0, 3);
      expect(masks).toHaveLength(3);
      expect(masks[0]! & masks[1]!).toBe(masks[1]);
      expect(masks[1]! & masks[2]!).toBe(masks[2]);
    },
  );

  test(
    "new processes are left out where they cost too much, and come back when there are few",
    { timeout: 120_000 },
    async () => {
      // Rounds of 20 processes that end at once, so many milliseconds apart.
      await node.eval(`Pause = atomics:new(1, []), persistent_term:put(bt_pause, Pause), atomics:put(Pause, 1, 1000),
  spawn(fun() -> register(mother, self()), (fun L() -> _ = [spawn(fun() -> ok end) || _ <- lists:seq(1, 20)],
    receive stop -> ok after atomics:get(Pause, 1) -> L() end end)() end), ok`);
      const pause = (ms: number): Promise<string> =>
        node.eval(`atomics:put(persistent_term:get(bt_pause), 1, ${ms})`);
      const trace = await start({
        events: ["spawned", "receive"],
        // Ten times dearer a process with the portable tracer: so it is left room for the rest on a busy machine.
        limits: { overhead: tracer === "portable" ? OVERHEAD : 0.05, rate: Infinity, seconds: 600 },
      });
      await pause(1);
      await until(({ node: { newLeftOut } }) => newLeftOut, trace);
      // Who starts now and stays is found afterwards.
      await node.eval(
        `persistent_term:put(bt_late, [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, 200)]), ok`,
      );
      const late = new Set(
        (await node.eval(`[pid_to_list(P) || P <- persistent_term:get(bt_late)]`)).match(/<[\d.]+>/g),
      );
      // They stay out as long as there are as many, though nobody tells of them: the node knows by itself.
      const reports = all.length;
      await until(() => all.length > reports + 6, trace);
      expect(trace.stats.node.newLeftOut).toBe(true);
      await pause(5000);
      await until(({ node: { newLeftOut } }) => !newLeftOut, trace);
      // As many of them as the share says: not many yet on a busy machine.
      const told = (): Set<string> =>
        new Set(
          collected.events.flatMap((e) =>
            e.kind === "marker" && e.name === "process_traced" && e.process instanceof Pid
              ? [`<0.${e.process.id}.${e.process.serial}>`]
              : [],
          ),
        );
      await eventually(told, (pids) => [...late].filter((pid) => pids.has(pid)).length > 10, PATIENCE_MS);
      await node.eval(`[P ! stop || P <- persistent_term:get(bt_late)], mother ! stop, ok`);
      await trace.stop();
      await collected.done;
      const news = collected.events.filter((e) => e.kind === "marker" && e.name === "sampling_new");
      expect(news.map((e) => e.kind === "marker" && e.a)).toEqual([0, 1]);
      const [left, again] = news.map(({ timestamp }) => timestamp);
      // A process that was born when the VM was told may be on its way.
      const between = collected.events.filter(
        ({ kind, timestamp }) => kind === "spawned" && timestamp > left! + 1e8 && timestamp < again!,
      );
      expect(between).toEqual([]);
    },
  );

  test("what contents cost is in the account", { timeout: 240_000 }, async () => {
    // So many that they show, and so few that nobody has to be left out for them.
    const maxBytes = tracer === "native" ? 4096 : 8192;
    const limits = { overhead: 1, rate: Infinity, seconds: 600 };
    const begin = async () => {
      const trace = await start({ payload: { maxBytes }, limits });
      const stop = async (): Promise<void> => {
        await trace.stop();
        await collected.done;
      };
      return { stats$: trace.stats$.pipe(map((stats) => stats.node)), stop };
    };
    // With the portable tracer an event by itself costs more; a byte costs 2 ns at least.
    await expectDearer(begin, maxBytes);
  });

  if (tracer === "native")
    test("what a flight recorder keeps of contents is in the account", { timeout: 240_000 }, async () => {
      const maxBytes = 4096;
      const begin = async () => {
        const recorder = await session.flightRecorder({
          processes: "all",
          events: ["receive"],
          payload: { maxBytes },
          triggers: [],
          limits: { overhead: 1, rate: Infinity },
        });
        return { stats$: recorder.stats$, stop: () => recorder.stop() };
      };
      await expectDearer(begin, maxBytes);
    });

  if (tracer === "native")
    test("a flight recorder's looks at its rings are in the account", { timeout: 120_000 }, async () => {
      // Of a process that does nothing: what is left are looks and the budget's own ticks, so many a second whatever the machine does.
      const recorder = await session.flightRecorder({
        processes: { registered: ["application_controller"] },
        events: ["receive"],
        triggers: [],
        limits: { overhead: 0.005, rate: Infinity },
      });
      // Once a second; the first ones hold what the start has cost.
      const { overhead } = await firstValueFrom(recorder.stats$.pipe(skip(10)));
      await recorder.stop();
      // Ticks alone would be 0.09 % of a fifth of a core, which is what such a node counts as.
      expect(overhead).toBeGreaterThan(0.0011);
    });

  test("the trace stops when nothing helps", { timeout: 120_000 }, async () => {
    await node.eval(
      `spawn(fun() -> register(hot, self()), (fun L() -> self() ! x, receive stop -> ok; x -> L() end end)() end), ok`,
    );
    await node.eval(`(fun W() -> case whereis(hot) of undefined -> timer:sleep(1), W(); _ -> ok end end)()`);
    const trace = await start({ processes: { registered: ["hot"] } });
    const ended = await trace.ended;
    expect(ended).toMatchObject({ kind: "limit", limit: "overhead", allowed: OVERHEAD });
    expect(ended.kind === "limit" && ended.measured).toBeGreaterThan(OVERHEAD);
    await node.eval(`M = monitor(process, whereis(hot)), hot ! stop, receive {'DOWN', M, _, _, _} -> ok end`);
  });
});
