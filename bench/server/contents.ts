/**
 * What contents (`payload.maxBytes`) cost the VM beside shapes, by the native tracer and by the portable one: GenServer ping-pong, four events a
 * call, with small requests and with large ones.
 * `npx tsx bench/server/contents.ts [--quick] [--rate 10000] [--pairs 16] [--bytes 512] [--rounds 60] [--block-ms 250] [--max-foreign 0.3]`
 */
import type { Row } from "../row";
import { beamtrace } from "./beamtrace";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { compare } from "./compare";
import { addedCpu, figure } from "./comparison";
import { costTable } from "./cost-report";
import { loadPeers, untraced } from "./peers";
import { pingPongWorkload } from "./pingpong-workload";
import { formatEstimate } from "./statistics";

const DEFAULTS = { rate: 10_000, pairs: 16, bytes: 512, rounds: 60, "block-ms": 250, "max-foreign": 0 };
const SIZES = [32, 4000] as const;

export async function run(quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> {
  const settings = { ...DEFAULTS, ...(quick ? { rounds: 12 } : {}), ...options };
  const rows: Row[] = [];
  for (const size of SIZES) {
    const workload = await pingPongWorkload({ rate: settings.rate, pairs: settings.pairs, bytes: size });
    try {
      await loadPeers(workload.node);
      await workload.start();
      const maxBytes = settings.bytes;
      const variants = [
        untraced(),
        beamtrace("native"),
        beamtrace("native", { maxBytes }),
        beamtrace("portable"),
        beamtrace("portable", { maxBytes }),
      ];
      const comparison = await compare(workload, variants, {
        rounds: settings.rounds,
        blockMs: settings["block-ms"],
        ...(settings["max-foreign"] > 0 && { maximumForeign: settings["max-foreign"] }),
        log: (line) => process.stderr.write(`${line}\n`),
      });
      const title = `GenServer ping-pong, ${settings.rate} calls/s, requests of ${size} bytes`;
      console.log(costTable(title, workload, comparison, "native"));
      for (const name of [
        "native",
        `native, ${maxBytes} bytes`,
        "beamtrace",
        `beamtrace, ${maxBytes} bytes`,
      ]) {
        const added = addedCpu(comparison, name, "untraced");
        const events = figure(comparison, name, "eventsPerUnit") ?? NaN;
        rows.push({
          what: `${title}: ${name}`,
          target: "",
          measured: `${formatEstimate(added, 2)} µs a call, ${((added.value / events) * 1000).toFixed(0)} ns an event, client apart`,
          value: (added.value / events) * 1000,
          ok: true,
        });
      }
    } finally {
      await workload.stop();
    }
  }
  return rows;
}

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
