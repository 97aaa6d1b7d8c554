/** What is there on a node and in this process: what must not grow when traces and sessions come and go. */
import { readdirSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { ErlNode } from "../../test/support/erl-node";
import { residentBytes } from "./cpu-time";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** Of a node: counts of things that have an identity, and bytes. */
export interface NodeFootprint {
  readonly atoms: number;
  readonly processes: number;
  readonly ports: number;
  readonly modules: number;
  readonly tables: number;
  /** Persistent terms. */
  readonly persistent: number;
  /** `erlang:memory(total)` after every process was collected. */
  readonly bytes: number;
  /** Resident memory of the VM. */
  readonly residentBytes: number;
}

/** Of this process, after a garbage collection. */
export interface ClientFootprint {
  /** Sockets, timers and the like that keep the process busy. */
  readonly resources: number;
  /** Open file descriptors. */
  readonly descriptors: number;
  readonly heapBytes: number;
  /** Memory outside the heap that objects hold. */
  readonly externalBytes: number;
  readonly residentBytes: number;
}

// The node evaluates it the same way every time, so that asking adds nothing after the first time.
const ASK = `[garbage_collect(P) || P <- processes()],
  {erlang:system_info(atom_count), erlang:system_info(process_count), erlang:system_info(port_count), length(code:all_loaded()),
   erlang:system_info(ets_count), maps:get(count, persistent_term:info()), erlang:memory(total)}`;

/** Asks the node, through its standard input. */
export async function nodeFootprint(node: ErlNode): Promise<NodeFootprint> {
  const numbers = [...(await node.eval(ASK)).matchAll(/\d+/g)].map(([text]) => Number(text));
  const [atoms, processes, ports, modules, tables, persistent, bytes] = numbers as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return {
    atoms,
    processes,
    ports,
    modules,
    tables,
    persistent,
    bytes,
    residentBytes: residentBytes(node.osPid),
  };
}

/** Collects garbage and looks at this process. */
export function clientFootprint(): ClientFootprint {
  collectGarbage();
  const { heapUsed, external, rss } = process.memoryUsage();
  return {
    resources: process.getActiveResourcesInfo().length,
    descriptors: readdirSync("/proc/self/fd").length,
    heapBytes: heapUsed,
    externalBytes: external,
    residentBytes: rss,
  };
}
