/**
 * What it costs a real server when everything of all its processes is traced, without a budget: untraced against both tracers on one of the servers of
 * workloads.ts, at its middle rate, and against what the VM takes for a native tracer that does nothing. A target counts as met only when the whole interval lies below it: a crowded machine must not pass by its noise.
 */
import type { Row } from "../row";
import { beamtrace } from "./beamtrace";
import { compare, isTwins, oneOrTwins } from "./compare";
import { addedPerEvent, addedShare, type Comparison, figure } from "./comparison";
import { costTable } from "./cost-report";
import { idleLibrary, loadNativePeers } from "./native-peers";
import { discarding, loadPeers, untraced } from "./peers";
import type { Estimate } from "./statistics";
import { startAlike, stopAll, type Server } from "./workloads";

export const DEFAULTS = {
  rate: 0,
  rounds: 40,
  "block-ms": 1000,
  /** 1: two servers side by side, each block with the other one's at the same time beside it. */
  twins: 0,
  "max-foreign": 0,
};

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
  const workloads = await startAlike(settings.twins > 0 ? 2 : 1, () => server.start(rate));
  try {
    for (const workload of workloads) {
      await loadPeers(workload.node);
      await loadNativePeers(workload.node);
      await workload.start();
    }
    const on = oneOrTwins(workloads);
    const workload = isTwins(on) ? on[0] : on;
    const detaches = true;
    const variants = [
      untraced(),
      idleLibrary(),
      beamtrace("native", { detaches }),
      beamtrace("portable", { detaches }),
      discarding(),
    ];
    const comparison = await compare(on, variants, {
      rounds: settings.rounds,
      blockMs: settings["block-ms"],
      ...(settings["max-foreign"] > 0 && { maximumForeign: settings["max-foreign"] }),
      log: (line) => process.stderr.write(`${line}\n`),
    });
    const title = `${workload.name}, ${rate} ${workload.unit}s/s`;
    console.log(costTable(title, workload, comparison));
    const floor = addedShare(comparison, "nif-nothing", "untraced");
    return [
      {
        what: `${title}: VM CPU added by a native tracer that does nothing`,
        target: "",
        measured: percent(floor),
        value: floor.value,
        ok: true,
      },
      ...tracerRows(title, workload.unit, comparison, "native", limit),
      ...tracerRows(title, workload.unit, comparison, "beamtrace"),
    ];
  } finally {
    await stopAll(workloads);
  }
}
