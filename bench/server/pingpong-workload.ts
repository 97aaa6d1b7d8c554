/** gen_server calls between pairs of processes on a plain node, at a fixed rate or in a closed loop. */
import { startNode } from "../../test/support/erl-node";
import { loadErlangModule } from "./erlang-module";
import type { Workload } from "./variant";

const MODULE = "beamtrace_bench_pingpong";

export interface PingPongOptions {
  /** Calls a second of all pairs together; 0: a closed loop. */
  readonly rate: number;
  readonly pairs: number;
  /** Bytes of a request's payload. */
  readonly bytes: number;
}

/** Starts the node; the calls begin with `start()`. Schedulers don't spin while they wait: what a VM does while idle is not what tracing costs. */
export async function pingPongWorkload({ rate, pairs, bytes }: PingPongOptions): Promise<Workload> {
  const node = await startNode({
    args: ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none", "+zdbbl", "128000"],
  });
  let started = 0;
  return {
    name: "GenServer ping-pong",
    unit: "call",
    node,
    rate,
    async start() {
      await loadErlangModule(node, MODULE);
      await node.eval(`${MODULE}:start(${pairs}, ${rate}, ${bytes})`);
      started = performance.now();
    },
    async units() {
      const done = Number(await node.eval(`${MODULE}:count()`));
      return rate === 0 ? { done } : { done, due: ((performance.now() - started) * rate) / 1000 };
    },
    stop: () => node.stop(),
  };
}
