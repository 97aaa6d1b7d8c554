/** The agent's object code is that of the oldest release; every supported one must take it as it is. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectClean } from "../support/clean";
import { startNode, type ErlNode } from "../support/erl-node";
import { attachTo } from "../support/traced";

let node: ErlNode;
beforeAll(async () => void (node = await startNode()));
afterAll(() => node.stop());

// Compiling takes a node seconds, and a release without `compiler` can't.
test("no compiler is needed on the node", async () => {
  const loaded = () => node.eval("code:is_loaded(compile)");
  expect(await loaded()).toBe("false");
  const session = await attachTo(node);
  await session.trace({ events: ["spawn"] });
  expect(await loaded()).toBe("false");
  await session.close();
  await expectClean(node);
});
