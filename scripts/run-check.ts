/**
 * One check of bench/ in a process of its own: `run-check.ts MODULE RESULT [--quick]` imports the module, calls its
 * `run(quick)` and writes the rows as JSON. Started by check-runner.ts.
 */
import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import type { Row } from "../bench/row";

const [module, result, ...flags] = process.argv.slice(2);
if (module === undefined || result === undefined)
  throw new Error("usage: run-check.ts MODULE RESULT [--quick]");
// A signal ends the process by `exit`, so that nodes, epmd and directories of the check go with it.
process.once("SIGINT", () => process.exit(130));
process.once("SIGTERM", () => process.exit(143));

const loaded = (await import(pathToFileURL(module).href)) as {
  run?: (quick: boolean) => Promise<readonly Row[]>;
};
if (typeof loaded.run !== "function") throw new Error(`${module} exports no run(quick)`);
const rows = await loaded.run(flags.includes("--quick"));
for (const row of rows)
  if (typeof row.what !== "string" || typeof row.value !== "number" || typeof row.ok !== "boolean")
    throw new Error(`${module} returned something that is no row: ${JSON.stringify(row)}`);
writeFileSync(result, JSON.stringify(rows));
// A check that leaves a handle open has still answered.
process.exit(0);
