import { expect, test } from "vitest";
import { startNode } from "./erl-node";

test("a node answers, and reports what raises", async () => {
  const node = await startNode();
  expect(await node.eval("X = 1, {X + 1, node()}")).toBe(`{2,'${node.name}'}`);
  await expect(node.eval("error(oops)")).rejects.toThrow("oops");
  await node.stop();
});
