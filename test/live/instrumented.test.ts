/** What instrumented code tells, through a session: both tracers give the same, sites are known, and nothing stays on the node. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { TraceEvent } from "../../src/buffer";
import type { Session, TraceOptions } from "../../src/capture";
import { type CompileServer, instrumentBeam } from "../../src/transform";
import { expectClean } from "../support/clean";
import { startNode, type ErlNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";
import { compileText, load, startCompiler } from "../support/transform";

const SOURCE = `-module(told).
-export([add/2, loop/1, pick/1, risky/1, many/7, none/0]).
add(A, _B) ->
    A + 1.
loop(0) -> done;
loop(N) ->
    loop(N - 1).
pick({ok, X}) ->
    add(X, X);
pick(L) when is_list(L) ->
    [E * 2 || E <- L];
pick(X) ->
    case X of
        a -> {a};
        b -> add(hd([1]), add(1, 2))
    end.
risky(X) -> Y = add(X, 1), Y + 1.
many(A, B, C, D, E, F, G) -> {A, B, C, D, E, F, G}.
none() -> #{}.
`;

let node: ErlNode;
let compiler: CompileServer;
let beam: Uint8Array;

beforeAll(async () => {
  node = await startNode();
  compiler = await startCompiler();
  beam = (await instrumentBeam(await compileText(node, "told", SOURCE), compiler)).bytes;
  await load(node, "told", beam);
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
});

const WORK =
  "told:add({x, 1}, b) =:= x orelse true, told:loop(3), told:pick({ok, 3}), told:pick(a), told:pick(b), told:pick([1]), (catch told:risky(a)), told:many(1, b, 3, 4, 5, 6, 7), told:none()";

/** The events of the work, as text. */
async function told(
  tracer: "native" | "portable",
  options: TraceOptions = {},
  work = WORK.replace("told:add({x, 1}, b) =:= x orelse true", "(catch told:add({x, 1}, b))"),
): Promise<TraceEvent[]> {
  const session: Session = await attachTo(node, { tracer });
  try {
    const trace = await session.trace({ instrumented: true, ...options });
    expect(trace.tracer.kind).toBe(tracer);
    const collected = collect(trace);
    await node.eval(`${work}, ok`);
    await trace.stop();
    await collected.done;
    return collected.events;
  } finally {
    await session.close();
  }
}

function lines(events: readonly TraceEvent[]): string[] {
  const ids = new Map<number, number>();
  return events.flatMap((event) => {
    if (!("callId" in event)) return [];
    if (!ids.has(event.callId)) ids.set(event.callId, ids.size + 1);
    const shape =
      "shape" in event ? ` ${event.shape.type}/${event.shape.size}[${event.shape.tags.join()}]` : "";
    return [`${ids.get(event.callId)} ${event.kind} ${event.module}#${event.siteNumber}${shape}`];
  });
}

describe("both tracers", () => {
  test("tell the same of the same work", async () => {
    const portable = lines(await told("portable"));
    const native = lines(await told("native"));
    expect(portable.length).toBeGreaterThan(20);
    expect(native).toEqual(portable);
    await expectClean(node);
  });
});
