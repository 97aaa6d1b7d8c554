/**
 * What it costs a real server when everything of all its processes is traced, without a budget: untraced against both tracers on one of the servers of
 * workloads.ts, at its middle rate. A target counts as met only when the whole interval lies below it: a crowded machine must not pass by its noise.
 */
import type { Row } from "../row";
import { addedPerEvent, addedShare } from "./added-share";
import { beamtrace } from "./beamtrace";
import { compare, figure, type Comparison } from "./compare";
import { costTable } from "./cost-report";
import { discarding, loadPeers, untraced } from "./peers";
import type { Estimate } from "./statistics";
import type { Server } from "./workloads";

export const DEFAULTS = { rate: 0, rounds: 40, "block-ms": 1000, "max-foreign": 0 };

const percent = ({ value, low, high }: Estimate): string =>
  `${(100 * value).toFixed(2)} % (${(100 * low).toFixed(2)} … ${(100 * high).toFixed(2)})`;

/** Rows of one tracer: percent, microseconds a unit, nanoseconds an event, and that nothing was lost. */
function tracerRows(
  title: string,
  unit: string,
  comparison: Comparison,
  name: string,
  limit?: number,
): Row[] {
  const share = addedShare(comparison, name, "untraced");
  const perEvent = addedPerEvent(comparison, name, "untraced");
  const lost = figure(comparison, name, "lostPerUnit") ?? NaN;
  const events = figure(comparison, name, "eventsPerUnit") ?? NaN;
  return [
    {
      what: `${title}: VM CPU added by ${name}`,
      target: limit === undefined ? "" : `< ${100 * limit} %`,
      measured: percent(share),
      value: share.value,
      ok: limit === undefined || share.high < limit,
    },
    {
      what: `${title}: VM CPU an event, ${name}`,
      target: "",
      measured: perEvent
        ? `${perEvent.value.toFixed(0)} ns (${perEvent.low.toFixed(0)} … ${perEvent.high.toFixed(0)}), ${events.toFixed(1)} events a ${unit}`
        : "not counted",
      value: perEvent?.value ?? NaN,
      ok: true,
    },
    {
      what: `${title}: events lost by ${name}`,
      target: "0",
      measured: `${lost.toFixed(3)} a ${unit}`,
      value: lost,
      ok: lost === 0,
    },
  ];
}

/** Runs the experiment on a server and prints its table. `limit`: upper bound of what the native tracer may add, as a share. */
export async function everything(
  server: Server,
  options: Partial<typeof DEFAULTS>,
  limit?: number,
): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...options };
  const rate = settings.rate > 0 ? settings.rate : server.rates[1];
  const workload = await server.start(rate);
  try {
    await loadPeers(workload.node);
    await workload.start();
    const variants = [untraced(), beamtrace("native"), beamtrace("portable"), discarding()];
    const comparison = await compare(workload, variants, {
      rounds: settings.rounds,
      blockMs: settings["block-ms"],
      ...(settings["max-foreign"] > 0 && { maximumForeign: settings["max-foreign"] }),
      log: (line) => process.stderr.write(`${line}\n`),
    });
    const title = `${workload.name}, ${rate} ${workload.unit}s/s`;
    console.log(costTable(title, workload, comparison));
    return [
      ...tracerRows(title, workload.unit, comparison, "native", limit),
      ...tracerRows(title, workload.unit, comparison, "beamtrace"),
    ];
  } finally {
    await workload.stop();
  }
}
