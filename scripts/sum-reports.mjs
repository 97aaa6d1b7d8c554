/**
 * `node scripts/sum-reports.mjs FOLDER RUN...`: sums vitest's JSON reports FOLDER/RUN.json, prints one line a run and last
 * `N passed, N failed`. A run without a report counts as one failure, and so does a test file that did not load. Exit code 1 on failures.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [folder, ...runs] = process.argv.slice(2);
const total = { passed: 0, failed: 0, skipped: 0 };
for (const run of runs) {
  const sum = { passed: 0, failed: 0, skipped: 0 };
  let note = "";
  try {
    const report = JSON.parse(readFileSync(join(folder, `${run}.json`), "utf8"));
    sum.passed = report.numPassedTests;
    sum.failed = report.numFailedTests;
    sum.skipped = report.numPendingTests + report.numTodoTests;
    for (const file of report.testResults) {
      if (file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed")) {
        sum.failed += 1;
        note += `; ${file.name} did not load`;
      }
    }
    if (!report.success && sum.failed === 0) {
      sum.failed = 1;
      note = "; an error outside any test";
    }
    if (sum.passed + sum.failed === 0) {
      sum.failed = 1;
      note = "; no test was run";
    }
  } catch {
    sum.failed = 1;
    note = "; no report: the run did not finish";
  }
  const parts = [`${sum.passed} passed`, `${sum.failed} failed`];
  if (sum.skipped > 0) parts.push(`${sum.skipped} skipped`);
  console.log(
    `Tests  ${run.padEnd(10)} ${parts.join(" | ")} (${sum.passed + sum.failed + sum.skipped})${note}`,
  );
  for (const key of Object.keys(total)) total[key] += sum[key];
}
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : "";
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
process.exitCode = total.failed > 0 ? 1 : 0;
