/**
 * What a flight recorder that is always on adds to the VM's CPU: RabbitMQ under an open loop, send + receive + procs of all processes, with a
 * trigger armed that does not fire. Against recording alone, against the other way to keep seconds (draining into a queue in the node), and
 * against a trace that drains and ships.
 * `npx tsx bench/server/recorder.ts [--quick] [--rate 5000] [--bytes 32] [--queues 4] [--rounds 30] [--block-ms 700]`
 */
import type { FlightRecorder, Session } from "../../src/capture";
import type { ErlNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { attachTo, beamtrace } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { compare } from "./compare";
import { addedRatio } from "./comparison";
import { costRows, costTable } from "./cost-report";
import { buffering, loadNativePeers, recording } from "./native-peers";
import { loadPeers, untraced } from "./peers";
import { rabbitWorkload } from "./rabbitmq-workload";
import { formatEstimate } from "./statistics";
import type { Variant } from "./variant";

const DEFAULTS = { rate: 5000, bytes: 32, queues: 4, rounds: 30, "block-ms": 700 };

/** Upper bounds of what the recorder adds ÷ what another adds. */
const TARGETS = [
  ["nif-record", 1],
  ["nif-buffer", 1],
  ["native", 1],
] as const;

/** A flight recorder with its defaults. At the end of a block its window must be whole, and hold what was traced. */
function flightRecorder(): Variant {
  let session: Session | undefined;
  let recorder: FlightRecorder | undefined;
  return {
    name: "recorder",
    async start(node: ErlNode) {
      session = await attachTo(node, { tracer: "native" });
      recorder = await session.flightRecorder({
        events: ["send", "receive", "procs"],
        triggers: [{ on: "exit" }],
        limits: { rate: Infinity, seconds: 600 },
      });
    },
    async stop() {
      try {
        const recording = await recorder?.snapshot();
        if (
          recording !== undefined &&
          !(recording.complete && recording.events > 1000 && recording.lost === 0)
        )
          throw new Error(`the window is not whole: ${recording.events} events, ${recording.lost} lost`);
        await recorder?.stop();
      } finally {
        await session?.close();
        recorder = undefined;
        session = undefined;
      }
    },
  };
}

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
      recording(),
      flightRecorder(),
      buffering(),
      beamtrace("native", { detaches: true }),
    ];
    const comparison = await compare(workload, variants, {
      rounds: settings.rounds,
      blockMs: settings["block-ms"],
      log: (line) => process.stderr.write(`${line}\n`),
    });
    const title = `RabbitMQ, ${settings.rate} messages/s of ${settings.bytes} bytes`;
    console.log(costTable(title, workload, comparison, "nif-record"));
    const rows = costRows(title, workload, comparison).filter(({ what }) => !what.includes("÷"));
    for (const [peer, bound] of TARGETS) {
      const ratio = addedRatio(comparison, "recorder", peer, "untraced");
      rows.push({
        what: `${title}: added CPU, recorder ÷ ${peer}`,
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
