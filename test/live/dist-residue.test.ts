import { afterAll, beforeAll, expect, test } from "vitest";
import { atom, tuple, type Reference, type Tuple } from "../../src/erlang/term";
import { eventually, PROCESSES, processesAdded, startNode, type ErlNode } from "../support/erl-node";
import { connectTo, evalOn, RecordingMailbox } from "./dist-eval";

let node: ErlNode;

beforeAll(async () => {
  node = await startNode();
});
afterAll(() => node.stop());

/** How many sockets and timers this process has. */
function handles(): number {
  return process.getActiveResourcesInfo().filter((kind) => /TCP|TLS|Timeout/.test(kind)).length;
}

async function expectNoneAdded(before: string): Promise<void> {
  await eventually(
    async () => processesAdded(await node.eval(PROCESSES), before),
    (added) => added.length === 0,
  );
}

test("a hundred connections leave nothing behind on either side", async () => {
  const cycle = async (): Promise<void> => {
    const link = await connectTo(node);
    await link.call("erlang", "abs", [-1], { timeoutMs: 60_000 });
    await link.close();
  };
  const figures = () => node.eval("{length(erlang:ports()), length(nodes(hidden))}");
  const atoms = async () => Number(await node.eval("erlang:system_info(atom_count)"));
  for (let i = 0; i < 5; i += 1) await cycle();
  await eventually(
    () => node.eval("nodes(hidden)"),
    (v) => v === "[]",
  );
  await atoms();
  const before = {
    figures: await figures(),
    processes: await node.eval(PROCESSES),
    atoms: await atoms(),
    handles: handles(),
  };
  for (let i = 0; i < 100; i += 1) await cycle();
  await eventually(figures, (now) => now === before.figures);
  await expectNoneAdded(before.processes);
  // The node uses the names that it chooses for us again.
  expect((await atoms()) - before.atoms).toBeLessThan(10);
  // The test runner has a timer of its own now and then; ours would be a hundred.
  expect(handles()).toBeLessThan(before.handles + 5);
});

test("ten thousand calls leave no mailbox, monitor or process", async () => {
  const link = await connectTo(node);
  await link.call("erlang", "abs", [-1]);
  const before = await node.eval(PROCESSES);
  for (let round = 0; round < 100; round += 1) {
    await Promise.all(Array.from({ length: 100 }, () => link.call("erlang", "abs", [-1])));
  }
  await expectNoneAdded(before);
  await link.close();
});

test("priority messages and exits arrive, where the node has them", async () => {
  if (Number(JSON.parse(await node.eval("erlang:system_info(otp_release)"))) < 28) return;
  const link = await connectTo(node);
  const box = new RecordingMailbox(link);
  await evalOn(link, "exit(Box, urgent, [priority]), ok", { Box: box.pid });
  expect(await box.next()).toMatchObject({ kind: "exit", reason: atom("urgent") });
  await evalOn(
    link,
    "spawn(fun() -> A = alias([priority]), Box ! {alias, A}, receive M -> Box ! {got, M} end end), ok",
    {
      Box: box.pid,
    },
  );
  const first = await box.next();
  const alias = (first.kind === "message" && (first.message as Tuple).elements[1]) as Reference;
  link.send(alias, atom("hello"));
  expect(await box.next()).toMatchObject({ message: tuple(atom("got"), atom("hello")) });
  await link.close();
});
