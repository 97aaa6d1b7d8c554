/** `npm run bench -- NAME… [--quick]` runs benchmarks by name and prints their rows; without a name it lists them. */
import { parseArgs } from "node:util";
import { CHECKS } from "../bench/checks";
import { passed, resultTable, runChecks } from "./check-runner";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: "boolean", default: false } },
});
const all = Object.values(CHECKS).flat();
if (positionals.length === 0) {
  console.log("npm run bench -- NAME… [--quick]");
  for (const [layer, checks] of Object.entries(CHECKS))
    for (const check of checks) console.log(`  ${check.name.padEnd(16)} ${layer}  ${check.what}`);
} else {
  const unknown = positionals.filter((name) => !all.some((check) => check.name === name));
  if (unknown.length > 0) {
    console.error(
      `no benchmark ${unknown.join(", ")}; there are: ${all.map((check) => check.name).join(", ")}`,
    );
    process.exit(1);
  }
  const chosen = positionals.flatMap((name) => all.filter((check) => check.name === name));
  const results = await runChecks(chosen, values.quick);
  console.log(resultTable(results));
  process.exit(results.every(passed) ? 0 : 1);
}
