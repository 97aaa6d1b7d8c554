/**
 * Traces that start and stop in one session, and sessions that come and go, a thousand times each: neither the node nor this process may grow.
 * What has an identity (atoms, processes, ports, modules, tables; sockets, timers, descriptors) must be exactly as many at the end as after the
 * first quarter; bytes must not have a slope.
 * `npx tsx bench/server/start-stop.ts [--quick] [--times 1000]`
 */
import { setFlagsFromString } from "node:v8";
import type { Session } from "../../src/capture";
import { startNode, type ErlNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { CountedTrace } from "./counted-trace";
import { codeLoadingSlope } from "./code-loading";
import {
  clientFootprint,
  liveObjects,
  nodeFootprint,
  type ClientFootprint,
  type NodeFootprint,
} from "./footprint";
import { growthRow, objectsRow, type Growth } from "./growth";
import type { Estimate } from "./statistics";

const DEFAULTS = { times: 1000 };
const SAMPLES = 50;
/** What a `Sample` is made of. */
const OBJECTS_A_SAMPLE = 4;
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

interface Samples {
  readonly samples: readonly Sample[];
  /** Live objects of this process at the first and at the last sample. */
  readonly objects: readonly [first: number, last: number];
}

/** Repeats `once`, with footprints on the way, after a first quarter that is not looked at: heaps find their size. */
async function sampled(node: ErlNode, times: number, once: () => Promise<void>): Promise<Samples> {
  // Asking loads code and makes atoms, the first time.
  await nodeFootprint(node);
  await liveObjects();
  const idle = await nodeFootprint(node);
  const warmUp = Math.ceil(times / 4);
  for (let i = 0; i < warmUp; i += 1) await once();
  const samples: Sample[] = [];
  const first = await liveObjects();
  const every = Math.max(1, Math.floor((times - warmUp) / SAMPLES));
  for (let i = warmUp; i <= times; i += 1) {
    if ((i - warmUp) % every === 0)
      samples.push({ at: i, node: await settled(node, idle), client: clientFootprint() });
    if (i < times) await once();
  }
  return { samples, objects: [first, await liveObjects()] };
}

function rows(title: string, times: number, { samples, objects }: Samples, control?: Estimate): Row[] {
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
  const growth = (what: string, bytes: (sample: Sample) => number, more: Partial<Growth> = {}): Row =>
    growthRow({
      what: `${title}: ${what}`,
      unit: "time",
      at,
      bytes: samples.map(bytes),
      ...more,
    });
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
    growth("resident memory of the node", (sample) => sample.node.residentBytes, control && { control }),
    objectsRow(`${title}: objects of the client`, ...objects, samples.length * OBJECTS_A_SAMPLE + times / 2),
    growth("heap of the client", (sample) => sample.client.heapBytes, { informative: true }),
    growth("external memory of the client", (sample) => sample.client.externalBytes),
    growth("resident memory of the client", (sample) => sample.client.residentBytes),
  ];
}

/** Runs both experiments, each on a node of its own. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const { times } = { ...DEFAULTS, ...(quick ? { times: 100 } : {}), ...options };
  // V8 goes on optimizing functions that run once a session for thousands of sessions; compiled code is no leak.
  setFlagsFromString("--no-opt");
  const spec = { processes: "all", events: ["send", "receive", "procs"] } as const;
  const once = async (session: Session): Promise<void> => {
    const trace = await CountedTrace.start(session, spec);
    await trace.stop();
  };
  const onNode = async (measure: (node: ErlNode) => Promise<Samples>): Promise<Samples> => {
    const node = await startNode();
    try {
      return await measure(node);
    } finally {
      await node.stop();
    }
  };
  const traces = await onNode(async (node) => {
    await using session = await attachTo(node);
    return await sampled(node, times, () => once(session));
  });
  const sessions = await onNode((node) =>
    sampled(node, times, async () => {
      await using session = await attachTo(node);
      await once(session);
    }),
  );
  return [
    ...rows(`trace started and stopped ${times} times`, times, traces),
    ...rows(`attached, traced and detached ${times} times`, times, sessions, await codeLoadingSlope(times)),
  ];
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
