/** Match specifications in a trace of beamtrace: built, from Erlang and from Elixir, through `session.call`. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Session } from "../../../src/capture";
import {
  any,
  type Evaluate,
  matchSpec,
  matchSpecFromElixir,
  matchSpecFromErlang,
  v,
} from "../../../src/capture/match-spec";
import { atom, tuple } from "../../../src/erlang";
import { expectClean } from "../../support/clean";
import { type ErlNode, startNode } from "../../support/erl-node";
import { attachTo, collect } from "../../support/traced";
import { elixirEbin } from "./node";

let node: ErlNode;
let session: Session;
let evaluate: Evaluate;
beforeAll(async () => {
  node = await startNode({ args: ["-pa", elixirEbin()] });
  session = await attachTo(node);
  evaluate = (module, fn, args) => session.call(module, fn, args);
});
afterAll(async () => {
  await session.close();
  await expectClean(node, { modules: ["string"] });
  await node.stop();
});

test("a specification in three ways lets the same calls through a trace", async () => {
  const specs = [
    matchSpec
      .call([v("text")])
      .when(({ text }, g) => g.isBinary(text))
      .do((_variables, act) => [act.message(act.caller()), act.returnTrace()]),
    await matchSpecFromErlang(
      "fun([T]) when is_binary(T) -> message(caller()), return_trace() end",
      evaluate,
    ),
    await matchSpecFromElixir("fn [t] when is_binary(t) -> message(caller()); return_trace() end", evaluate),
  ];
  for (const spec of specs) {
    const trace = await session.trace({
      events: ["call"],
      calls: [{ module: "string", function: "uppercase", arity: 1, matchSpec: spec }],
      processes: "all",
    });
    const collected = collect(trace);
    await node.eval('string:uppercase("no"), string:uppercase(<<"yes">>), string:uppercase("no")');
    await collected.until((events) => events.some((e) => e.kind === "return_from"));
    await trace.stop();
    await collected.done;
    expect(collected.events.map((e) => e.kind)).toEqual(["call", "return_from"]);
  }
});

test("sends and receives are filtered on the node", async () => {
  const trace = await session.trace({
    events: ["send", "receive"],
    sendSpec: matchSpec
      .send([any, tuple(atom("wanted"), 1)])
      .do((_variables, act) => act.message(act.self())),
    receiveSpec: matchSpec
      .receive([any, any, tuple(atom("wanted"), 2)])
      .do((_variables, act) => act.message(act.node())),
    processes: "all",
  });
  const collected = collect(trace);
  await node.eval("[self() ! {wanted, N} || N <- [0, 1, 2, 3]], receive {wanted, 3} -> ok end");
  await collected.until((events) => events.some((e) => e.kind === "receive"));
  await trace.stop();
  await collected.done;
  expect(collected.events.map((e) => e.kind)).toEqual(["send", "receive"]);
});
