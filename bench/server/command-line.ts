/** Options and output that the benchmarks share when they are run by themselves. */
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import type { Row } from "../row";

/** `--name number` for every name of `defaults`, and `--quick`. Options that were not given are not in the result. */
export function numberOptions<T extends Record<string, number>>(
  defaults: T,
): Partial<T> & { readonly quick: boolean } {
  return optionsAndWords(defaults, []).options;
}

/** The same, and words out of a list. */
export function optionsAndWords<T extends Record<string, number>, W extends string>(
  defaults: T,
  words: readonly W[],
): { readonly options: Partial<T> & { readonly quick: boolean }; readonly words: readonly W[] } {
  const { values, positionals } = parseArgs({
    allowPositionals: words.length > 0,
    options: {
      quick: { type: "boolean", default: false },
      ...Object.fromEntries(Object.keys(defaults).map((name) => [name, { type: "string" as const }])),
    },
  });
  const unknown = positionals.filter((word) => !(words as readonly string[]).includes(word));
  if (unknown.length > 0) throw new Error(`no ${unknown.join(", ")} here; there are: ${words.join(", ")}`);
  const given = values as Record<string, string | boolean | undefined>;
  const numbers: Record<string, number> = {};
  for (const name of Object.keys(defaults)) {
    const text = given[name];
    if (text === undefined) continue;
    const value = Number(text);
    if (!Number.isFinite(value) || value < 0)
      throw new Error(`--${name} wants a number, not ${String(text)}`);
    numbers[name] = value;
  }
  const options = { ...(numbers as Partial<T>), quick: given["quick"] === true };
  return { options, words: positionals as W[] };
}

/** Columns padded to the same width; the first row is the head. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  const [head = [], ...body] = rows;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n");
}

/** Runs a benchmark as a program. A signal ends the process by `exit`, so that nodes, epmd and directories go with it. */
export async function runAsProgram(benchmark: () => Promise<Row[]>): Promise<void> {
  process.once("SIGINT", () => process.exit(130));
  process.once("SIGTERM", () => process.exit(143));
  printRows(await benchmark());
}

/** Whether a module (its `import.meta.url`) is the program that was started. */
export const isProgram = (url: string): boolean => url === pathToFileURL(process.argv[1] ?? "").href;

/** Prints rows as a table; the process fails when a target is missed. */
function printRows(rows: readonly Row[]): void {
  console.log(
    formatTable([
      ["what", "target", "measured", "ok"],
      ...rows.map(({ what, target, measured, ok }) => [what, target, measured, ok ? "yes" : "NO"]),
    ]),
  );
  if (rows.some(({ ok }) => !ok)) process.exitCode = 1;
}
