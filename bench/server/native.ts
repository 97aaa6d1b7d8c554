/**
 * What the native tracer adds to the VM's CPU, against the VM's own floor: RabbitMQ under an open loop, send + receive + procs of all processes.
 * `npx tsx bench/server/native.ts [--quick] [--rate 5000] [--bytes 32] [--queues 4] [--rounds 30] [--block-ms 700]`
 */
import type { Row } from "../row";
import { beamtrace } from "./beamtrace";
import { addedRatio, compare } from "./compare";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { costRows, costTable } from "./cost-report";
import { discardingLibrary, idleLibrary, loadNativePeers, recording } from "./native-peers";
import { discarding, loadPeers, untraced } from "./peers";
import { rabbitWorkload } from "./rabbitmq-workload";
import { formatEstimate } from "./statistics";

const DEFAULTS = { rate: 5000, bytes: 32, queues: 4, rounds: 30, "block-ms": 700 };

/** Upper bounds of what one variant adds ÷ what another adds. */
const TARGETS = [
  ["nif-record", "nif-nothing", 1.1],
  ["native", "nif-nothing", 1.3],
  ["native", "discard", 1 / 3],
] as const;

/** Runs the experiment and prints its table. */
export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { rounds: 8 } : {}), ...options };
  const workload = await rabbitWorkload(settings);
  try {
    await loadPeers(workload.node);
    await loadNativePeers(workload.node);
    await workload.start();
    const variants = [
      untraced(),
      discardingLibrary(),
      idleLibrary(),
      recording(),
      beamtrace("native"),
      discarding(),
      beamtrace("portable"),
    ];
    const comparison = await compare(workload, variants, {
      rounds: settings.rounds,
      blockMs: settings["block-ms"],
      log: (line) => process.stderr.write(`${line}\n`),
    });
    const title = `RabbitMQ, ${settings.rate} messages/s of ${settings.bytes} bytes`;
    console.log(costTable(title, workload, comparison));
    const rows = costRows(title, workload, comparison).filter(({ what }) => !what.includes("÷"));
    for (const [ours, peer, bound] of TARGETS) {
      const ratio = addedRatio(comparison, ours, peer, "untraced");
      rows.push({
        what: `${title}: added CPU, ${ours} ÷ ${peer}`,
        target: `≤ ${bound.toFixed(2)}`,
        measured: formatEstimate(ratio),
        value: ratio.value,
        ok: ratio.value <= bound,
      });
    }
    return rows;
  } finally {
    await workload.stop();
  }
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
