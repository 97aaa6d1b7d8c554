/** More events than the rings hold: what happened on the node is what came plus what was counted as lost, to the event. */
import { expect, test } from "vitest";
import { EVENT_KINDS } from "../../src/buffer/event-schema";
import { RingBuffer } from "../../src/buffer";
import { atom, Pid, Tuple, type Term } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { eventually, startNode } from "../support/erl-node";
import { attachTo } from "../support/traced";

/** `{I, Bytes}` as it was sent, as far as the limit lets it come: all bytes are the same; or the message that ends it. */
function isWhole(term: Term): boolean {
  if (term === atom("stop")) return true;
  const [number, bytes] = term instanceof Tuple ? term.elements : [];
  if (typeof number !== "number" || !(bytes instanceof Uint8Array)) return false;
  const size = number % 190;
  return (
    bytes.length === Math.min(size, 200 - 9 - (number < 256 ? 3 : 6) - 9) && bytes.every((b) => b === size)
  );
}

test.each([
  ["drop-newest", "shape"],
  ["overwrite-oldest", "shape"],
  ["drop-newest", { maxBytes: 200 }],
  ["overwrite-oldest", { maxBytes: 200 }],
] as const)(
  "produced = delivered + lost, per process in order, with rings far too small that %s, payload %j",
  { timeout: 60_000 },
  async (overflow, payload) => {
    const node = await startNode();
    try {
      const session = await attachTo(node, { tracer: "native" });
      await node.eval(`register(sink, spawn(fun L() -> receive stop -> ok; _ -> L() end end)), ok`);
      const sink = await session.call("erlang", "whereis", [atom("sink")]);
      if (!(sink instanceof Pid)) throw new Error("no sink");
      const ring = new RingBuffer({ capacity: 1 << 19 });
      const trace = await session.trace({
        processes: [sink],
        events: ["receive"],
        limits: { rate: Infinity, memory: 1 << 22 },
        overflow,
        payload,
        into: ring,
      });
      let delivered = 0;
      let lost = 0;
      let last = -Infinity;
      let backwards = 0;
      let torn = 0;
      let contents = 0;
      const seen = trace.batches$.forEach((batch) => {
        for (let i = 0; i < batch.length; i++) {
          const event = batch.kindCode(i) === EVENT_KINDS.gap ? batch.event(i) : undefined;
          if (event?.kind === "gap") {
            lost += event.count;
            continue;
          }
          delivered += 1;
          if (payload !== "shape") {
            const { payload: term } = batch.event(i) as { payload?: Term };
            contents += term === undefined ? 0 : 1;
            if (term !== undefined && !isWhole(term)) torn += 1;
          }
          const stamp = batch.timestamp(i);
          if (stamp < last) backwards += 1;
          last = stamp;
        }
      });
      const count = 40_000;
      // Nobody looks at the rings meanwhile: they are full for sure.
      await node.eval(
        `Tracers = [P || P <- processes(), {_, {beamtrace_agent, native_loop, _}} <- [process_info(P, current_function)]],
       [_] = Tracers, [true = erlang:suspend_process(P) || P <- Tracers],
       Bytes = fun(N) -> binary:copy(<<N>>, N) end,
       Ps = [spawn_monitor(fun() -> [sink ! {I, Bytes(I rem 190)} || I <- lists:seq(1, ${count / 4})] end) || _ <- [1, 2, 3, 4]],
       [receive {'DOWN', M, _, _, _} -> ok end || {_, M} <- Ps],
       sink ! stop, M2 = monitor(process, sink), receive {'DOWN', M2, _, _, _} -> ok end,
       [true = erlang:resume_process(P) || P <- Tracers], ok`,
      );
      await trace.stop();
      await seen;
      expect(lost).toBeGreaterThan(0);
      expect(delivered + lost).toBe(count + 1);
      expect(trace.stats.node.received).toBe(count + 1);
      expect(backwards).toBe(0);
      expect(torn).toBe(0);
      expect(contents).toBe(payload === "shape" ? 0 : delivered);
      await session.close();
      await expectClean(node, {});
    } finally {
      await node.stop();
    }
  },
);

test.each(["native", "portable"] as const)(
  "births and ends are told where messages are more than there is room for, %s",
  { timeout: 60_000 },
  async (tracer) => {
    // Rings of 8,192 records, 256 of them kept.
    const node = await startNode({ args: ["+S", "2"] });
    try {
      const session = await attachTo(node, { tracer });
      const trace = await session.trace({
        processes: "all",
        events: ["receive", "procs"],
        limits: { rate: Infinity, ...(tracer === "native" ? { memory: 1 << 22 } : { queue: 80_000 }) },
        into: new RingBuffer({ capacity: 1 << 19 }),
      });
      const born = new Set<object>();
      const ended = new Set<object>();
      let delivered = 0;
      const seen = trace.events$.forEach((event) => {
        if (event.kind !== "gap" && event.kind !== "marker") delivered += 1;
        if (event.kind === "spawned" && event.mfa.module === "lists") born.add(event.process);
        else if (event.kind === "exit") ended.add(event.process);
      });
      const count = 40;
      // Whichever scheduler runs what is started in between: messages have filled its ring, or stand before and behind it in the queue.
      await node.eval(
        `Tracers = [P || P <- processes(), {_, {beamtrace_agent, F, _}} <- process_info(P, [initial_call, current_function]),
                         F =:= tracer_init orelse F =:= native_loop],
         [_] = Tracers, [true = erlang:suspend_process(P) || P <- Tracers],
         Flood = fun(F, N) when N > 0 -> self() ! N, receive N -> F(F, N - 1) end; (_, 0) -> ok end,
         Wait = fun(Ps) -> [receive {'DOWN', M, _, _, _} -> ok end || {_, M} <- Ps] end,
         Floods = fun() -> Wait([spawn_opt(fun() -> Flood(Flood, 15000) end, [monitor, {scheduler, S}])
                                 || S <- lists:seq(1, erlang:system_info(schedulers))]) end,
         Floods(),
         Wait([spawn_monitor(lists, reverse, [[a]]) || _ <- lists:seq(1, ${count})]),
         Floods(),
         [true = erlang:resume_process(P) || P <- Tracers], ok`,
      );
      await eventually(
        () => trace.stats.lost,
        (lost) => lost > 0,
      );
      await trace.stop();
      await seen;
      expect(born.size).toBe(count);
      expect([...born].filter((process) => !ended.has(process))).toEqual([]);
      expect(trace.stats.node.received).toBe(delivered + trace.stats.lost);
      await session.close();
      await expectClean(node, {});
    } finally {
      await node.stop();
    }
  },
);
