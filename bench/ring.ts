/**
 * The ring against ringbuf.js, in one run: short blocks of both by turns, medians, and the median of the ratios of neighbouring blocks.
 * `npx tsx bench/ring.ts [--quick] [--json]`
 *
 * Both are bundled first, as a program that uses them would be, and run in a process of their own: V8 compiles accesses to typed arrays worse in a process
 * in which an ArrayBuffer was ever transferred, as loaders of TypeScript do. Blocks last about a millisecond; those in which one of our threads was
 * taken off its processor (an involuntary context switch) are left out on both sides, so that a machine with other things to do gives the same figures.
 */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { bundleWorker } from "../stress/ring-bundle";
import type { Row } from "./row";

const here = (file: string) => fileURLToPath(new URL(file, import.meta.url));

/** Runs the comparison. `quick`: fewer blocks. */
export async function run(quick: boolean): Promise<Row[]> {
  await using comparison = await bundleWorker(here("ring-comparison.ts"));
  await using worker = await bundleWorker(here("ring-worker.ts"));
  const blocks = quick ? 101 : 501;
  const { stdout } = await promisify(execFile)(process.execPath, [
    comparison.path,
    worker.path,
    String(blocks),
  ]);
  return JSON.parse(stdout) as Row[];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const rows = await run(process.argv.includes("--quick"));
  if (process.argv.includes("--json")) {
    process.stdout.write(`${JSON.stringify(rows, undefined, 2)}\n`);
  } else {
    for (const { what, target, measured, ok } of rows)
      process.stdout.write(`${ok ? "ok  " : "MISS"} ${what.padEnd(58)} ${target.padEnd(12)} ${measured}\n`);
  }
}
