/** The node's own traffic (erlang/beamtrace_bench_traffic.erl): workers that send to each other and know exactly what they did. */
import { Pid, Tuple, type Term } from "../../src/erlang/term";
import type { ErlNode } from "../../test/support/erl-node";
import type { Session } from "../../src/capture";
import { pidText, type ProcessCount } from "./counted-trace";
import { loadErlangModule } from "./erlang-module";

const MODULE = "beamtrace_bench_traffic";

/** What the workers say they have done. */
export interface TrafficReport {
  readonly processes: readonly ProcessCount[];
  /** Trace events of all of that: messages sent and messages received. */
  readonly events: number;
  readonly tookMs: number;
}

const list = (term: Term): readonly Term[] => {
  if (!Array.isArray(term)) throw new Error("the node did not answer with a list");
  return term as readonly Term[];
};

/** Loads the module and spawns the workers, which wait. */
export async function startTraffic(node: ErlNode, workers: number): Promise<void> {
  await loadErlangModule(node, MODULE);
  await node.eval(`${MODULE}:start(${workers})`);
}

/** The workers' pids. */
export async function trafficPids(session: Session): Promise<Pid[]> {
  return list(await session.call(MODULE, "pids", [])).map((term) => {
    if (!(term instanceof Pid)) throw new Error("the node did not answer with pids");
    return term;
  });
}

/** Lets every worker send so many messages, evenly over the time. Each is two events. */
export const beginSending = async (node: ErlNode, messagesEach: number, ms: number): Promise<void> =>
  void (await node.eval(`${MODULE}:begin_sending(${messagesEach}, ${ms})`));

/** Waits until all workers are done. */
export async function finishTraffic(session: Session, timeoutMs: number): Promise<TrafficReport> {
  const answer = await session.call(MODULE, "finish", [timeoutMs], { timeoutMs: timeoutMs + 1000 });
  if (!(answer instanceof Tuple)) throw new Error("the traffic did not finish");
  const [reports, took] = answer.elements as [Term, Term];
  const processes = list(reports).map((report): ProcessCount => {
    const [pid, sent, received] = (report as Tuple).elements as [Pid, number, number];
    return { pid: pidText(pid), sent, received };
  });
  const events = processes.reduce((sum, { sent, received }) => sum + sent + received, 0);
  return { processes, events, tookMs: Number(took) };
}

/** Processes whose events did not all arrive, in words; empty when every count is exact. */
export function differences(expected: readonly ProcessCount[], actual: Iterable<ProcessCount>): string[] {
  const found = new Map([...actual].map((count) => [count.pid, count]));
  return expected.flatMap(({ pid, sent, received }) => {
    const count = found.get(pid);
    return count?.sent === sent && count.received === received
      ? []
      : [
          `${pid}: sent ${sent}, received ${received}; traced ${count?.sent ?? 0} and ${count?.received ?? 0}`,
        ];
  });
}
