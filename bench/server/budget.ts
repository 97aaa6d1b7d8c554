/**
 * What a trace with `limits.overhead`, or a flight recorder, really costs a server: VM CPU per unit of work with it against without, at several loads
 * and across jumps between them. Everything of all processes is asked for; the budget decides how much of it there is. Two servers of a kind run side by
 * side, so that each block has the other server's at the same time beside it.
 * `npx tsx bench/server/budget.ts [rabbitmq] [ejabberd] [http] [--quick] [--overhead 0.02] [--rounds 20] [--block-ms 2000] [--settle-ms 1000] [--rate N] [--portable 1] [--recorder 1]
 * [--only 1] [--twins 0]`: all three servers unless some are named.
 */
import type { Row } from "../row";
import { budgetedRecorder, budgetedTrace, type Decision } from "./budgeted";
import { formatTable, isProgram, optionsAndWords, runAsProgram } from "./command-line";
import { compare, isTwins, oneOrTwins } from "./compare";
import { addedShare, cpuPerUnit, figure, type Comparison } from "./comparison";
import { untraced } from "./peers";
import { formatEstimate, median, pooled, type Estimate } from "./statistics";
import type { Workload } from "./variant";
import { type PacedWorkload, type Server, SERVERS, startAlike, stopAll } from "./workloads";

const DEFAULTS = {
  overhead: 0.02,
  rounds: 20,
  "block-ms": 2000,
  /** The budget holds from one second after the start on; that is when a block begins. */
  "settle-ms": 1000,
  /** One load only, at this rate. */
  rate: 0,
  /** 1: the portable tracer. */
  portable: 0,
  /** 1: a flight recorder instead of a trace. */
  recorder: 0,
  /** 1: only the jumps; 2: only the constant loads. */
  only: 0,
  /** 0: one server, whose blocks with and without a trace are at different times. */
  twins: 1,
};
type Settings = typeof DEFAULTS;

const SERVER_NAMES = ["rabbitmq", "ejabberd", "http"] as const;

/** Length of each of the two loads between which the load jumps. A block holds whole pairs of them. */
const JUMP_MS = 1000;

/** Loads that jump between two rates all the time. */
function jump(workloads: readonly PacedWorkload[], low: number, high: number): () => Promise<void> {
  let isHigh = false;
  const timer = setInterval(() => {
    isHigh = !isHigh;
    void setRates(workloads, isHigh ? high : low);
  }, JUMP_MS);
  return async () => {
    clearInterval(timer);
    await setRates(workloads, low);
  };
}

async function setRates(workloads: readonly PacedWorkload[], rate: number): Promise<void> {
  await Promise.all(workloads.map((workload) => workload.setRate(rate)));
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
  const workloads = await startAlike(settings.twins > 0 ? 2 : 1, () => server.start(low));
  try {
    for (const workload of workloads) await workload.start();
    return await measureBudget(workloads, server.rates, settings);
  } finally {
    await stopAll(workloads);
  }
}

async function measureBudget(
  workloads: readonly PacedWorkload[],
  rates: Server["rates"],
  settings: Settings,
): Promise<Row[]> {
  const [low, , high] = rates;
  const on = oneOrTwins(workloads);
  const results: Result[] = [];
  const measure = async (load: string, blockMs: number): Promise<void> => {
    const decisions: Decision[] = [];
    const variant =
      settings.recorder > 0
        ? budgetedRecorder(settings.overhead, decisions)
        : budgetedTrace(settings.overhead, settings.portable > 0 ? "portable" : "native", decisions);
    const comparison = await compare(on, [untraced(), variant], {
      rounds: settings.rounds,
      blockMs,
      settleMs: settings["settle-ms"],
      // A crowded machine may keep the load from its rate; what is compared is CPU a unit.
      minimumRate: 0.9,
      log: (line) => process.stderr.write(`${load}: ${line}\n`),
    });
    results.push({ load, comparison, added: addedShare(comparison, "budget", "untraced"), decisions });
  };
  if (settings.only !== 1)
    for (const rate of settings.rate > 0 ? [settings.rate] : rates) {
      await setRates(workloads, rate);
      await measure(`${rate}/s`, settings["block-ms"]);
    }
  if (settings.only !== 2) {
    const end = jump(workloads, low, high);
    const pairs = Math.max(2, Math.round(settings["block-ms"] / (2 * JUMP_MS)));
    try {
      await measure(`${low} ↔ ${high}/s`, pairs * 2 * JUMP_MS);
    } finally {
      await end();
    }
  }
  return report(isTwins(on) ? on[0] : on, settings, results);
}

const percent = ({ value, low, high }: Estimate): string =>
  `${(value * 100).toFixed(2)} % (${(low * 100).toFixed(2)} … ${(high * 100).toFixed(2)})`;

function report({ name, unit }: Workload, settings: Settings, results: readonly Result[]): Row[] {
  const tracer =
    settings.recorder > 0 ? "flight recorder" : settings.portable > 0 ? "portable tracer" : "native tracer";
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
    what: `${name}, ${load}, ${tracer}, limits.overhead ${settings.overhead}: added VM CPU a ${unit}`,
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
