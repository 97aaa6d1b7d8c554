/** What is there on a node and in this process: what must not grow when traces and sessions come and go. */
import { readdirSync } from "node:fs";
import { getHeapSnapshot, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { ErlNode } from "../../test/support/erl-node";
import { residentBytes } from "../../test/support/resident";

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

/** Part of a heap snapshot's format. */
interface HeapSnapshot {
  readonly snapshot: {
    readonly meta: {
      readonly node_fields: readonly string[];
      readonly node_types: readonly [readonly string[], ...unknown[]];
    };
  };
  readonly nodes: readonly number[];
}

/** What the engine keeps for itself: compiled code, its feedback, shapes, boxed numbers. It comes and goes with optimisation. */
const ENGINE_TYPES: ReadonlySet<string> = new Set(["hidden", "code", "object shape", "synthetic", "number"]);

/** How many objects, strings, closures … are alive, the engine's own not counted. Takes a heap snapshot: a second or two. */
export async function liveObjects(): Promise<number> {
  collectGarbage();
  const chunks: Buffer[] = [];
  for await (const chunk of getHeapSnapshot()) chunks.push(chunk as Buffer);
  const { snapshot, nodes } = JSON.parse(Buffer.concat(chunks).toString("utf8")) as HeapSnapshot;
  const { node_fields: fields, node_types: types } = snapshot.meta;
  const counted = types[0].map((type) => !ENGINE_TYPES.has(type));
  let count = 0;
  for (let i = fields.indexOf("type"); i < nodes.length; i += fields.length)
    if (counted[nodes[i] ?? 0]) count += 1;
  return count;
}

/** Collects garbage and looks at this process. */
export function clientFootprint(): ClientFootprint {
  collectGarbage();
  // What the first collection found dead is given back in the second.
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
