/**
 * What beamtrace is compared with: no trace, a process that discards (what any tracer process must pay at the least),
 * dbg's file port into /dev/null, and dbg's ip port with a local reader in a Node process of its own.
 * All with the same flags on all processes.
 */
import type { ErlNode } from "../../test/support/erl-node";
import { startChild, type Child } from "./child";
import { loadErlangModule } from "./erlang-module";
import type { TraceCount, Variant } from "./variant";

const PEER = "beamtrace_bench_peer";

/** Messages that the ip port may queue. The default of 200 loses events under any load; a small one crashes the VM. */
const IP_QUEUE = 20_000;

/** Loads what the peers need on the node. */
export const loadPeers = (node: ErlNode): Promise<void> => loadErlangModule(node, PEER);

async function open(node: ErlNode, kind: "discard" | "file" | "ip", option: string): Promise<number> {
  const opened = await node.eval(`${PEER}:open(${kind}, ${option})`);
  return Number(/^\{ok,(\d+)\}$/.exec(opened)?.[1]);
}

async function on(node: ErlNode): Promise<void> {
  const traced = Number(await node.eval(`${PEER}:on(all)`));
  if (!(traced > 10)) throw new Error(`only ${traced} processes are traced`);
}

/** No trace at all. */
export const untraced = (): Variant => ({
  name: "untraced",
  start: () => Promise.resolve(),
  stop: () => Promise.resolve(),
});

/** A tracer process with an off-heap queue that takes every message and forgets it. */
export const discarding = (): Variant => ({
  name: "discard",
  async start(node) {
    await open(node, "discard", "0");
    await on(node);
  },
  backlog: async (node) => Number(await node.eval(`${PEER}:info()`)),
  stop: async (node) => void (await node.eval(`${PEER}:close()`)),
});

/** `dbg:trace_port(file, "/dev/null")`. */
export const filePort = (): Variant => ({
  name: "file",
  async start(node) {
    await open(node, "file", '"/dev/null"');
    await on(node);
  },
  stop: async (node) => void (await node.eval(`${PEER}:close()`)),
});

/** `dbg:trace_port(ip, {0, 20000})` and its reader. */
export function ipPort(): Variant {
  let reader: Child | undefined;
  return {
    name: "ip",
    async start(node) {
      const port = await open(node, "ip", String(IP_QUEUE));
      reader ??= startChild("ip-reader.ts", []);
      await reader.ask<"connected">(String(port));
      await on(node);
    },
    count() {
      if (!reader) throw new Error("the ip port has no reader");
      return reader.ask<TraceCount>("count");
    },
    stop: async (node) => void (await node.eval(`${PEER}:close()`)),
    async dispose() {
      await reader?.end();
      reader = undefined;
    },
  };
}

/** All peers, the untraced base first. */
export const peers = (): Variant[] => [untraced(), discarding(), filePort(), ipPort()];
