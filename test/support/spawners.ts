/**
 * Processes that spawn, and whose children live and die, for tests of exactness: each spawn of a traced spawner is three events (`spawn` of the
 * parent, `spawned` and `exit` of the child), whatever else the node does.
 */
import { EVENT_KINDS } from "../../src/buffer/event-schema";
import type { Session, Trace, TraceOptions } from "../../src/capture";
import { atom, Pid } from "../../src/erlang";
import type { ErlNode } from "./erl-node";

export const EVENTS_OF_A_SPAWN = 3;

/** Options that trace spawners and all their children. */
export const SPAWNED: Omit<TraceOptions, "processes"> = {
  events: ["procs"],
  inherit: "spawn",
  limits: { rate: Infinity, queue: Infinity, seconds: 600 },
};

/** Starts spawners; they wait. */
export async function startSpawners(node: ErlNode, session: Session, count: number): Promise<Pid[]> {
  await node.eval(
    // Compiled, not evaluated: the node is to be busy with processes.
    `Code = "-module(spawner). -export([loop/0]).
       loop() -> receive stop -> ok; {spawn, N, From} -> all(N), From ! {spawned, self()}, loop() end.
       all(0) -> ok;
       all(N) when N >= 50 -> some(50), all(N - 50);
       all(N) -> some(N).
       some(N) -> [receive {'DOWN', M, process, P, normal} -> ok end || {P, M} <- [spawn_monitor(fun() -> ok end) || _ <- lists:seq(1, N)]].",
     {ok, Tokens, _} = erl_scan:string(Code),
     Forms = (fun Split([], []) -> []; Split([{dot, _} = D | T], Acc) -> {ok, F} = erl_parse:parse_form(lists:reverse([D | Acc])), [F | Split(T, [])]; Split([H | T], Acc) -> Split(T, [H | Acc]) end)(Tokens, []),
     {ok, spawner, Beam} = compile:forms(Forms, []), {module, spawner} = code:load_binary(spawner, "spawner.erl", Beam),
     [register(list_to_atom("spawner_" ++ integer_to_list(I)), spawn(spawner, loop, [])) || I <- lists:seq(1, ${count})], ok`,
  );
  const pids: Pid[] = [];
  for (let i = 1; i <= count; i++) {
    const pid = await session.call("erlang", "whereis", [atom(`spawner_${i}`)]);
    if (!(pid instanceof Pid)) throw new Error("no spawner");
    pids.push(pid);
  }
  return pids;
}

/** Each spawner spawns so many; resolves when all of their children have ended. */
export async function spawnAll(node: ErlNode, spawners: number, each: number): Promise<void> {
  await node.eval(
    `Names = [list_to_existing_atom("spawner_" ++ integer_to_list(I)) || I <- lists:seq(1, ${spawners})],
     [N ! {spawn, ${each}, self()} || N <- Names],
     [receive {spawned, _} -> ok end || _ <- Names], ok`,
  );
}

export async function stopSpawners(node: ErlNode, count: number): Promise<void> {
  await node.eval(
    `[begin N = list_to_existing_atom("spawner_" ++ integer_to_list(I)), M = monitor(process, N), N ! stop, receive {'DOWN', M, _, _, _} -> ok end end || I <- lists:seq(1, ${count})], ok`,
  );
}

/** What a trace delivered. */
export interface Account {
  /** Events by kind. */
  readonly kinds: Record<string, number>;
  delivered: number;
  /** By gap events. */
  lost: number;
  /** Events of a process whose stamp lies before an earlier one's. */
  backwards: number;
}

/** Counts what comes; `done` when the trace has completed. */
export function account(
  trace: Trace,
  order = true,
): { readonly counts: Account; readonly done: Promise<void> } {
  const counts: Account = { kinds: {}, delivered: 0, lost: 0, backwards: 0 };
  const byKind = new Float64Array(256);
  // Last stamp of a process, by a hash of its number: of those that live at the same time few share a place.
  const keys = new Float64Array(1 << 16);
  const stamps = new Float64Array(1 << 16);
  const done = trace.batches$
    .forEach((batch) => {
      for (let i = 0; i < batch.length; i++) {
        const kind = batch.kindCode(i);
        if (kind === EVENT_KINDS.gap) {
          const gap = batch.event(i);
          if (gap.kind === "gap") counts.lost += gap.count;
          continue;
        }
        if (kind === EVENT_KINDS.marker) continue;
        byKind[kind] = (byKind[kind] ?? 0) + 1;
        counts.delivered += 1;
        if (!order) continue;
        const key = Number(batch.process(i));
        const place = (key >>> 4) & 0xffff;
        const stamp = batch.timestamp(i);
        if (keys[place] === key && stamp < (stamps[place] ?? 0)) counts.backwards += 1;
        keys[place] = key;
        stamps[place] = stamp;
      }
    })
    .then(() => {
      for (const [name, kind] of Object.entries(EVENT_KINDS))
        if ((byKind[kind] ?? 0) > 0) counts.kinds[name] = byKind[kind] ?? 0;
    });
  return { counts, done };
}
