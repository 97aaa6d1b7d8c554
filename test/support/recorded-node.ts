/** A node whose messages are numbered, so that the shapes alone show whether one is missing; and what flight recorders say of it. */
import { firstValueFrom, toArray, type Observable } from "rxjs";
import { expect } from "vitest";
import type { TraceEvent } from "../../src/buffer";
import type { FlightRecorderOptions, FlightRecording, Session } from "../../src/capture";
import { atom, Pid, type BeamtraceError } from "../../src/erlang";
import { expectClean } from "./clean";
import { eventually, startNode, type ErlNode } from "./erl-node";
import { attachTo } from "./traced";

/** The numbers, sizes of binaries, begin again here. */
export const NUMBERS = 997;

/** A node with a process `sink`, and a session with the native tracer. */
export interface RecordedNode {
  readonly node: ErlNode;
  readonly session: Session;
}

export async function startRecorded(): Promise<RecordedNode> {
  const node = await startNode();
  const session = await attachTo(node, { tracer: "native" });
  await node.eval(
    `register(sink, spawn(fun L() -> receive {sync, From} -> From ! synced, L(); _ -> L() end end)), ok`,
  );
  return { node, session };
}

/** Ends both; nothing of ours may be left. */
export async function endRecorded({ node, session }: RecordedNode): Promise<void> {
  await session.close();
  await expectClean(node, { modules: ["lists", "maps"] });
  expect(await node.eval("erlang:system_monitor()")).toBe("undefined");
  await node.stop();
}

export const all = <T>(source: Observable<T>): Promise<T[]> => firstValueFrom(source.pipe(toArray()));
export const eventsOf = (recording: FlightRecording): Promise<TraceEvent[]> => all(recording.events$);
/** Code of the error that it is rejected with. */
export const codeOf = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "resolved",
    (e: BeamtraceError) => e.code,
  );

export async function pidOf(session: Session, name: string): Promise<Pid> {
  const pid = await session.call("erlang", "whereis", [atom(name)]);
  if (!(pid instanceof Pid)) throw new Error(`no ${name}`);
  return pid;
}

/** Sends messages numbered from `from` on, and returns when all have been queued. */
export const send = (node: ErlNode, from: number, count: number): Promise<string> =>
  node.eval(
    `[sink ! binary:copy(<<0>>, I rem ${NUMBERS}) || I <- lists:seq(${from}, ${from + count - 1})], sink ! {sync, self()}, receive synced -> ok end`,
  );

/** Waits until so many seconds have passed on the node's clock. */
export async function nodeHasLived(node: ErlNode, seconds: number): Promise<void> {
  const clock = async (): Promise<number> => Number(await node.eval("erlang:monotonic_time(nanosecond)"));
  const begun = await clock();
  await eventually(clock, (now) => now > begun + seconds * 1e9);
}

/** Numbers of the messages that came to the sink, in the order of their events. */
export function numbers(events: readonly TraceEvent[]): number[] {
  return events.flatMap((e) => (e.kind === "receive" && e.shape.type === "binary" ? [e.shape.size] : []));
}

export function expectNoHole(found: readonly number[]): void {
  expect(found.length).toBeGreaterThan(0);
  const holes = found.flatMap((n, i) => (i > 0 && n !== ((found[i - 1] ?? 0) + 1) % NUMBERS ? [i] : []));
  expect(holes).toEqual([]);
}

export const lossesOf = (events: readonly TraceEvent[]): number =>
  events.reduce((sum, e) => sum + (e.kind === "gap" ? e.count : 0), 0);

/** A recorder of what comes to the sink. */
export const sinkOnly = async (
  session: Session,
  options: Partial<FlightRecorderOptions> = {},
): Promise<FlightRecorderOptions> => ({
  processes: [await pidOf(session, "sink")],
  events: ["receive"],
  limits: { rate: Infinity },
  ...options,
});
