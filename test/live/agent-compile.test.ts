/** A node that refuses the agent's beams, as a future VM may: the agent is compiled there. The beams are damaged here; all else is real. */
import { afterEach, expect, test, vi } from "vitest";
import type * as AgentCode from "../../src/capture/agent-code.generated";
import type { BeamtraceError } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { startNode, type ErlNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";

vi.mock("../../src/capture/agent-code.generated", async (original) => {
  const code = await original<typeof AgentCode>();
  const refused = (beam: string): string => {
    const bytes = Buffer.from(beam, "base64");
    // The number of the highest instruction that the code uses, which a VM looks at first of all.
    bytes.writeUInt32BE(0xffff, bytes.indexOf("Code") + 8 + 8);
    return bytes.toString("base64");
  };
  return {
    ...code,
    AGENT_MODULES: code.AGENT_MODULES.map((module) => ({ ...module, beam: refused(module.beam) })),
  };
});

let node: ErlNode;
afterEach(() => node.stop());

test("with a compiler there, traces are as ever", async () => {
  node = await startNode();
  const session = await attachTo(node);
  const trace = await session.trace({ processes: "new", events: ["spawned", "exit"] });
  const seen = collect(trace);
  await node.eval("spawn(fun() -> ok end), ok");
  await seen.until((events) => events.some((e) => e.kind === "exit"));
  await session.close();
  await expectClean(node);
});

test("without one the error says what was refused, and nothing is left", async () => {
  node = await startNode();
  await node.eval(
    `[begin code:purge(M), code:delete(M), code:purge(M) end || M <- [compile]], code:del_path(compiler), false = code:ensure_loaded(compile) =:= {module, compile}, ok`,
  );
  const session = await attachTo(node);
  const failure = await session.trace({ processes: "new", events: ["exit"] }).then(
    () => undefined,
    (error: BeamtraceError) => error,
  );
  expect(failure?.code).toBe("BT_AGENT_FAILED");
  expect(failure?.message).toMatch(/has no compiler/);
  await session.close();
  await expectClean(node);
});
