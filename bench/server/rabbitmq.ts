/**
 * What tracing everything costs a real server: RabbitMQ under an open loop of publishes and consumes.
 * `npx tsx bench/server/rabbitmq.ts [--quick] [--rate 5000] [--bytes 32] [--queues 4] [--rounds 300] [--block-ms 250] [--seconds 840] [--max-foreign 0.3]`
 */
import type { Row } from "../row";
import { beamtrace } from "./beamtrace";
import { compare } from "./compare";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { costRows, costTable } from "./cost-report";
import { loadPeers, peers } from "./peers";
import { rabbitWorkload } from "./rabbitmq-workload";

const DEFAULTS = {
  rate: 5000,
  bytes: 32,
  queues: 4,
  rounds: 300,
  "block-ms": 250,
  seconds: 840,
  "max-foreign": 0,
};

/** Runs the experiment and prints its table. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { seconds: 210 } : {}), ...options };
  const workload = await rabbitWorkload(settings);
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
    const title = `RabbitMQ, ${settings.rate} messages/s of ${settings.bytes} bytes`;
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
