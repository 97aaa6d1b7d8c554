/** The memory of a native trace's rings: made before the first event, so that no traced process waits until the system has made a page; under a budget as it is needed. */
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Session } from "../../src/capture";
import { expectClean } from "../support/clean";
import { startNode, type ErlNode } from "../support/erl-node";
import { residentBytes } from "../support/resident";
import { attachTo } from "../support/traced";

/** Rings for about a million events: so much that a test node's own memory does not matter. */
const LIMITS = { queue: 1 << 20, memory: 1 << 28 };
const RING_BYTES = 64 << 20;

let node: ErlNode;
let session: Session;

// A VM may keep the memory that a trace gives back, for the next.
beforeEach(async () => {
  node = await startNode({ args: ["+S", "1"] });
  session = await attachTo(node, { tracer: "native" });
  // What the first trace needs besides.
  await (await session.trace({ processes: "new", events: ["exit"], limits: { queue: 1000 } })).stop();
});
afterEach(async () => {
  await session.close();
  await expectClean(node, {});
  await node.stop();
});

const grown = async (begin: () => Promise<{ stop(): Promise<unknown> }>): Promise<number> => {
  const before = residentBytes(node.osPid);
  const running = await begin();
  const bytes = residentBytes(node.osPid) - before;
  await running.stop();
  return bytes;
};

test("comes as it is needed under a budget", async () => {
  const bytes = await grown(() =>
    session.trace({ processes: "new", events: ["exit"], limits: { ...LIMITS, overhead: 0.02 } }),
  );
  expect(bytes).toBeLessThan(RING_BYTES / 8);
});

test("is there when a trace has started", async () => {
  const bytes = await grown(() =>
    session.trace({ processes: "new", events: ["exit"], limits: { ...LIMITS } }),
  );
  expect(bytes).toBeGreaterThan(RING_BYTES / 2);
});

test("is there when a flight recorder has started", async () => {
  const bytes = await grown(() =>
    session.flightRecorder({ events: ["exit"], keep: { bytes: RING_BYTES }, triggers: [] }),
  );
  expect(bytes).toBeGreaterThan(RING_BYTES / 2);
});
