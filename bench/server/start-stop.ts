/**
 * Traces that start and stop in one session, and sessions that come and go, a thousand times each: neither the node nor this process may grow.
 * What has an identity (atoms, processes, ports, modules, tables; sockets, timers, descriptors) must be exactly as many at the end as after the
 * first tenth; bytes must not have a slope.
 * `npx tsx bench/server/start-stop.ts [--quick] [--times 1000]`
 */
import { startNode, type ErlNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { CountedTrace } from "./counted-trace";
import { clientFootprint, nodeFootprint, type ClientFootprint, type NodeFootprint } from "./footprint";
import { growthRow } from "./growth";

const DEFAULTS = { times: 1000 };
const SAMPLES = 50;
/** A second's worth. */
const SETTLE_ATTEMPTS = 100;

interface Sample {
  readonly at: number;
  readonly node: NodeFootprint;
  readonly client: ClientFootprint;
}

const EXACT_NODE = ["atoms", "processes", "ports", "modules", "tables", "persistent"] as const;
const EXACT_CLIENT = ["resources", "descriptors"] as const;

/** The node's footprint once what we put in has gone: clean-up goes on there after `close()` has resolved, for a moment. */
async function settled(node: ErlNode, idle: NodeFootprint): Promise<NodeFootprint> {
  for (let attempt = 0; ; attempt += 1) {
    const now = await nodeFootprint(node);
    if (attempt === SETTLE_ATTEMPTS || (now.processes <= idle.processes && now.modules <= idle.modules))
      return now;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Repeats `once`, with footprints on the way, after a first tenth that is not looked at. */
async function sampled(node: ErlNode, times: number, once: () => Promise<void>): Promise<Sample[]> {
  const samples: Sample[] = [];
  // Asking loads code and makes atoms, the first time.
  await nodeFootprint(node);
  clientFootprint();
  const idle = await nodeFootprint(node);
  const every = Math.max(1, Math.floor((times * 0.9) / SAMPLES));
  for (let i = 0; i <= times; i += 1) {
    if (i >= times / 10 && (i - Math.ceil(times / 10)) % every === 0)
      samples.push({ at: i, node: await settled(node, idle), client: clientFootprint() });
    await once();
  }
  return samples;
}

function rows(title: string, samples: readonly Sample[]): Row[] {
  const first = samples[0];
  const last = samples.at(-1);
  if (!first || !last) throw new Error("nothing was measured");
  const grown = [
    ...EXACT_NODE.map((key) => ({ name: `${key} on the node`, by: last.node[key] - first.node[key] })),
    ...EXACT_CLIENT.map((key) => ({
      name: `${key} of the client`,
      by: last.client[key] - first.client[key],
    })),
  ].filter(({ by }) => by !== 0);
  const at = samples.map((sample) => sample.at);
  const growth = (what: string, bytes: (sample: Sample) => number): Row =>
    growthRow(`${title}: ${what}`, "time", at, samples.map(bytes));
  return [
    {
      what: `${title}: ${[...EXACT_NODE, ...EXACT_CLIENT].join(", ")}`,
      target: "no growth",
      measured:
        grown.length === 0
          ? "none grew"
          : grown.map(({ name, by }) => `${name} ${by > 0 ? "+" : "−"}${Math.abs(by)}`).join(", "),
      value: grown.reduce((sum, { by }) => sum + Math.max(0, by), 0),
      ok: grown.every(({ by }) => by < 0),
    },
    growth("memory of the node", (sample) => sample.node.bytes),
    growth("resident memory of the node", (sample) => sample.node.residentBytes),
    growth("heap of the client", (sample) => sample.client.heapBytes),
    growth("external memory of the client", (sample) => sample.client.externalBytes),
    growth("resident memory of the client", (sample) => sample.client.residentBytes),
  ];
}

/** Runs both experiments, each on a node of its own. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const { times } = { ...DEFAULTS, ...(quick ? { times: 100 } : {}), ...options };
  const spec = { processes: "all", events: ["send", "receive", "procs"] } as const;
  const result: Row[] = [];
  let node = await startNode();
  try {
    await using session = await attachTo(node);
    const samples = await sampled(node, times, async () => {
      await (await CountedTrace.start(session, spec)).stop();
    });
    result.push(...rows(`trace started and stopped ${times} times`, samples));
  } finally {
    await node.stop();
  }
  node = await startNode();
  const target = node;
  try {
    const samples = await sampled(target, times, async () => {
      await using session = await attachTo(target);
      await (await CountedTrace.start(session, spec)).stop();
    });
    result.push(...rows(`attached, traced and detached ${times} times`, samples));
  } finally {
    await node.stop();
  }
  return result;
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
