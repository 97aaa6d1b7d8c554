/** More events than the rings hold: what happened on the node is what came plus what was counted as lost, to the event. */
import { expect, test } from "vitest";
import { EVENT_KINDS } from "../../src/buffer/event-schema";
import { RingBuffer } from "../../src/buffer";
import { atom, Pid } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { startNode } from "../support/erl-node";
import { attachTo } from "../support/traced";

test.each(["drop-newest", "overwrite-oldest"] as const)(
  "produced = delivered + lost, per process in order, with rings far too small that %s",
  { timeout: 60_000 },
  async (overflow) => {
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
        // Looked at after ten seconds only: the rings are full by then.
        batch: { milliseconds: 10_000 },
        limits: { rate: Infinity, memory: 1 << 22 },
        overflow,
        into: ring,
      });
      let delivered = 0;
      let lost = 0;
      let last = -Infinity;
      let backwards = 0;
      const seen = trace.batches$.forEach((batch) => {
        for (let i = 0; i < batch.length; i++) {
          const event = batch.kindCode(i) === EVENT_KINDS.gap ? batch.event(i) : undefined;
          if (event?.kind === "gap") {
            lost += event.count;
            continue;
          }
          delivered += 1;
          const stamp = batch.timestamp(i);
          if (stamp < last) backwards += 1;
          last = stamp;
        }
      });
      const count = 40_000;
      await node.eval(
        `Ps = [spawn_monitor(fun() -> [sink ! I || I <- lists:seq(1, ${count / 4})] end) || _ <- [1, 2, 3, 4]],
       [receive {'DOWN', M, _, _, _} -> ok end || {_, M} <- Ps],
       sink ! stop, M2 = monitor(process, sink), receive {'DOWN', M2, _, _, _} -> ok end`,
      );
      await trace.stop();
      await seen;
      expect(lost).toBeGreaterThan(0);
      expect(delivered + lost).toBe(count + 1);
      expect(trace.stats.node.received).toBe(count + 1);
      expect(backwards).toBe(0);
      await session.close();
      await expectClean(node, {});
    } finally {
      await node.stop();
    }
  },
);
