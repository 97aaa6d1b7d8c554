/**
 * What tracing everything costs a GenServer ping-pong: two messages and four events a call, hardly any work besides.
 * `npx tsx bench/server/pingpong.ts [--quick] [--rate 20000] [--pairs 16] [--bytes 32] [--rounds 300] [--block-ms 250] [--seconds 840] [--max-foreign 0.3]`
 */
import type { Row } from "../row";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { beamtrace } from "./beamtrace";
import { compare } from "./compare";
import { costRows, costTable } from "./cost-report";
import { loadPeers, peers } from "./peers";
import { pingPongWorkload } from "./pingpong-workload";

const DEFAULTS = {
  rate: 20_000,
  pairs: 16,
  bytes: 32,
  rounds: 300,
  "block-ms": 250,
  seconds: 840,
  "max-foreign": 0,
};

/** Runs the experiment and prints its table. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { seconds: 210 } : {}), ...options };
  const workload = await pingPongWorkload(settings);
  try {
    await loadPeers(workload.node);
    await workload.start();
    const comparison = await compare(workload, [...peers(), beamtrace()], {
      rounds: settings.rounds,
      blockMs: settings["block-ms"],
      maximumMs: settings.seconds * 1000,
      ...(settings["max-foreign"] > 0 && { maximumForeign: settings["max-foreign"] }),
      log: (line) => process.stderr.write(`${line}\n`),
    });
    const title = `GenServer ping-pong, ${settings.rate} calls/s, ${settings.pairs} pairs`;
    console.log(costTable(title, workload, comparison));
    return costRows(title, workload, comparison);
  } finally {
    await workload.stop();
  }
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
