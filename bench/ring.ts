/**
 * The ring against ringbuf.js, in one run: short blocks of both by turns, medians, and the median of the ratios of neighbouring blocks.
 * `npx tsx bench/ring.ts [--quick] [--json]`
 *
 * Both are bundled first, as a program that uses them would be. Blocks last about a millisecond, so that most of them run undisturbed on a machine
 * that has other things to do; two threads need two processors that are free for so long.
 */
import { fileURLToPath, pathToFileURL } from "node:url";
import { bundleWorker } from "../stress/ring-bundle";
import type * as Comparison from "./ring-comparison";
import type { Row } from "./row";

const here = (file: string) => fileURLToPath(new URL(file, import.meta.url));

/** Runs the comparison. `quick`: fewer blocks. */
export async function run(quick: boolean): Promise<Row[]> {
  await using comparison = await bundleWorker(here("ring-comparison.ts"));
  await using worker = await bundleWorker(here("ring-worker.ts"));
  const { oneThread, twoThreads } = (await import(pathToFileURL(comparison.path).href)) as typeof Comparison;
  const blocks = quick ? 101 : 501;
  return [...oneThread(blocks), ...(await twoThreads(blocks, worker.path))];
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
