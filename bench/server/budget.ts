/**
 * What a trace with `limits.overhead` really costs a server: VM CPU per unit of work with the trace against without, at several loads and
 * across jumps between them. Everything of all processes is asked for; the budget decides how much of it there is.
 * `npx tsx bench/server/budget.ts [rabbitmq] [ejabberd] [http] [--quick] [--overhead 0.02] [--rounds 20] [--block-ms 2000] [--portable 1] [--only 1]`:
 * all three servers unless some are named.
 */
import type { Session } from "../../src/capture";
import type { Row } from "../row";
import { attachTo } from "./beamtrace";
import { formatTable, isProgram, optionsAndWords, runAsProgram } from "./command-line";
import { addedShare, compare, cpuPerUnit, figure, type Comparison } from "./compare";
import { CountedTrace } from "./counted-trace";
import { untraced } from "./peers";
import { formatEstimate, median, pooled, type Estimate } from "./statistics";
import type { Variant, Workload } from "./variant";
import { type PacedWorkload, type Server, SERVERS } from "./workloads";

const DEFAULTS = {
  overhead: 0.02,
  rounds: 20,
  "block-ms": 2000,
  /** 1: the portable tracer. */
  portable: 0,
  /** 1: only the jumps; 2: only the constant loads. */
  only: 0,
};
type Settings = typeof DEFAULTS;

const SERVER_NAMES = ["rabbitmq", "ejabberd", "http"] as const;

/** The budget holds from one second after the start on; that is when a block begins. */
const SETTLE_MS = 1000;
/** Length of each of the two loads between which the load jumps. A block holds whole pairs of them. */
const JUMP_MS = 1000;

/** What the budget made of a block. */
interface Decision {
  readonly share: number;
  readonly estimate: number;
  readonly eventNs: number;
  readonly changes: number;
}

/** A trace of everything under an overhead budget. */
function budgeted(overhead: number, tracer: "native" | "portable", decisions: Decision[]): Variant {
  let session: Session | undefined;
  let counted: CountedTrace | undefined;
  let changes = 0;
  return {
    name: "budget",
    async start(node) {
      session = await attachTo(node, { tracer });
      changes = 0;
      counted = await CountedTrace.start(session, {
        processes: "all",
        events: ["send", "receive", "procs"],
        limits: { rate: Infinity, seconds: 600, overhead },
      });
      let before = 1;
      counted.trace.stats$.subscribe(({ node: { share } }) => {
        if (share !== before) changes += 1;
        before = share;
      });
    },
    count: () => Promise.resolve({ delivered: counted?.delivered ?? 0, lost: counted?.lost ?? 0 }),
    async stop() {
      const node = counted?.trace.stats.node;
      if (node !== undefined)
        decisions.push({ share: node.share, estimate: node.overhead, eventNs: node.eventNs, changes });
      try {
        await counted?.stop();
      } finally {
        await session?.close();
        counted = undefined;
        session = undefined;
      }
    },
  };
}

/** A load that jumps between two rates all the time. */
function jumping(workload: PacedWorkload, low: number, high: number): Workload & { end(): Promise<void> } {
  let isHigh = false;
  const timer = setInterval(() => {
    isHigh = !isHigh;
    void workload.setRate(isHigh ? high : low);
  }, JUMP_MS);
  return {
    ...workload,
    rate: (low + high) / 2,
    async end() {
      clearInterval(timer);
      await workload.setRate(low);
    },
  };
}

interface Result {
  readonly load: string;
  readonly comparison: Comparison;
  readonly added: Estimate;
  readonly decisions: readonly Decision[];
}

/** Measures a server at three loads and across jumps. */
async function measureServer(server: Server, settings: Settings): Promise<Row[]> {
  const [low] = server.rates;
  const workload = await server.start(low);
  try {
    await workload.start();
    return await measureBudget(workload, server.rates, settings);
  } finally {
    await workload.stop();
  }
}

async function measureBudget(
  workload: PacedWorkload,
  rates: Server["rates"],
  settings: Settings,
): Promise<Row[]> {
  const [low, , high] = rates;
  const tracer = settings.portable > 0 ? "portable" : "native";
  const results: Result[] = [];
  const measure = async (load: string, on: Workload, blockMs: number): Promise<void> => {
    const decisions: Decision[] = [];
    const comparison = await compare(on, [untraced(), budgeted(settings.overhead, tracer, decisions)], {
      rounds: settings.rounds,
      blockMs,
      settleMs: SETTLE_MS,
      // A crowded machine may keep the load from its rate; what is compared is CPU a unit.
      minimumRate: 0.9,
      log: (line) => process.stderr.write(`${load}: ${line}\n`),
    });
    results.push({ load, comparison, added: addedShare(comparison, "budget", "untraced"), decisions });
  };
  if (settings.only !== 1)
    for (const rate of rates) {
      await workload.setRate(rate);
      await measure(`${rate}/s`, { ...workload, rate }, settings["block-ms"]);
    }
  if (settings.only !== 2) {
    const jumps = jumping(workload, low, high);
    try {
      await measure(
        `${low} ↔ ${high}/s`,
        jumps,
        Math.max(2, Math.round(settings["block-ms"] / (2 * JUMP_MS))) * 2 * JUMP_MS,
      );
    } finally {
      await jumps.end();
    }
  }
  return report(workload, settings, tracer, results);
}

const percent = ({ value, low, high }: Estimate): string =>
  `${(value * 100).toFixed(2)} % (${(low * 100).toFixed(2)} … ${(high * 100).toFixed(2)})`;

function report(
  { name, unit }: Workload,
  settings: Settings,
  tracer: string,
  results: readonly Result[],
): Row[] {
  const middle = (decisions: readonly Decision[], of: (decision: Decision) => number): number =>
    median(decisions.map(of));
  const table = formatTable([
    [
      "load",
      `VM CPU µs/${unit}, untraced`,
      "added",
      "estimated",
      "share traced",
      `events/${unit}`,
      "ns an event",
      "changes a block",
      "CPUs",
    ],
    ...results.map(({ load, comparison, added, decisions }) => [
      load,
      formatEstimate(cpuPerUnit(comparison, "untraced"), 1),
      percent(added),
      `${(middle(decisions, (d) => d.estimate) * 100).toFixed(2)} %`,
      middle(decisions, (d) => d.share).toFixed(3),
      figure(comparison, "budget", "eventsPerUnit")?.toFixed(2) ?? "–",
      middle(decisions, (d) => d.eventNs).toFixed(0),
      middle(decisions, (d) => d.changes).toFixed(0),
      figure(comparison, "untraced", "cpus")?.toFixed(2) ?? "–",
    ]),
  ]);
  console.log(table);
  const row = (load: string, added: Estimate): Row => ({
    what: `${name}, ${load}, ${tracer} tracer, limits.overhead ${settings.overhead}: added VM CPU a ${unit}`,
    target: `< ${settings.overhead * 100} %, interval narrower`,
    measured: percent(added),
    value: added.value,
    ok: added.value < settings.overhead && added.high - added.low < 2 * settings.overhead,
  });
  return [
    ...results.map(({ load, added }) => row(load, added)),
    row("all of these loads together", pooled(results.map(({ added }) => added))),
  ];
}

export async function run(
  quick: boolean,
  options: Partial<Settings> = {},
  names: readonly (keyof typeof SERVERS)[] = SERVER_NAMES,
): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { rounds: 6 } : {}), ...options };
  const rows: Row[] = [];
  for (const name of names) rows.push(...(await measureServer(SERVERS[name], settings)));
  return rows;
}

if (isProgram(import.meta.url)) {
  const { options, words } = optionsAndWords(DEFAULTS, SERVER_NAMES);
  await runAsProgram(() => run(options.quick, options, words.length > 0 ? words : undefined));
}
