/**
 * `npm run bench -- NAME… [--quick]` runs benchmarks by name and prints their rows; without a name it lists them.
 * `npm run stress` is the same for the modules of stress/.
 */
import { parseArgs } from "node:util";
import { CHECKS, type Check } from "../bench/checks";
import { passed, resultTable, runChecks } from "./check-runner";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: "boolean", default: false }, in: { type: "string", default: "bench" } },
});
const folder = values.in;
const here = (check: Check): boolean => check.module.startsWith(`${folder}/`);
const all = Object.values(CHECKS).flat().filter(here);
if (positionals.length === 0) {
  console.log(`npm run ${folder} -- NAME… [--quick]`);
  for (const [layer, checks] of Object.entries(CHECKS))
    for (const check of checks.filter(here))
      console.log(`  ${check.name.padEnd(16)} ${layer}  ${check.what}`);
} else {
  const unknown = positionals.filter((name) => !all.some((check) => check.name === name));
  if (unknown.length > 0) {
    console.error(`no ${unknown.join(", ")} in ${folder}/; there are: ${all.map((c) => c.name).join(", ")}`);
    process.exit(1);
  }
  const chosen = positionals.flatMap((name) => all.filter((check) => check.name === name));
  const results = await runChecks(chosen, values.quick);
  console.log(resultTable(results));
  process.exit(results.every(passed) ? 0 : 1);
}
