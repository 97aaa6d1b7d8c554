/**
 * `npm run checkpoint -- 1.1 [--quick] [--tolerant] [--only NAME,…] [--json FILE] [--pieces]`: a sub-layer's acceptance checks and
 * benchmarks as one table. Exit code 1 when a figure falls short of its target (not with --tolerant) or a check crashes.
 * The rows are also written as JSON, with the machine they were measured on (default .cache/checkpoint-1.1.json).
 * With --pieces the checks that are not run now are taken from that file, each with the commit that it ran on.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { arch, cpus, platform, release, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { CHECKS } from "../bench/checks";
import { type CheckResult, passed, resultTable, runChecks } from "./check-runner";

const root = fileURLToPath(new URL("..", import.meta.url));

function fail(message: string): never {
  console.error(message);
  process.exit(1);
}

function commit(): string {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], { cwd: root, encoding: "utf8" }).trim();
  } catch {
    return "unknown";
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: "boolean", default: false },
    tolerant: { type: "boolean", default: false },
    only: { type: "string" },
    json: { type: "string" },
    pieces: { type: "boolean", default: false },
  },
});
const [layer] = positionals;
const known = Object.keys(CHECKS).join(", ");
if (layer === undefined || positionals.length > 1)
  fail(
    `usage: npm run checkpoint -- SUBLAYER [--quick] [--tolerant] [--only NAME,…] [--json FILE]; sub-layers: ${known}`,
  );
const all = CHECKS[layer];
if (all === undefined) fail(`there is no sub-layer ${layer}; there are: ${known}`);
if (all.length === 0) fail(`sub-layer ${layer} has no checks yet`);
const only = values.only?.split(",");
const unknown = only?.filter((name) => !all.some((check) => check.name === name)) ?? [];
if (unknown.length > 0)
  fail(`sub-layer ${layer} has no check ${unknown.join(", ")}; it has: ${all.map((c) => c.name).join(", ")}`);
const chosen = all.filter(
  (check) => (only === undefined || only.includes(check.name)) && !(values.quick && check.quickMinutes === 0),
);

/** A result and when and on what it was had. */
type DatedResult = CheckResult & { readonly commit: string; readonly date: string };

const file = values.json ?? join(root, ".cache", `checkpoint-${layer}${values.quick ? "-quick" : ""}.json`);
const fresh = (await runChecks(chosen, values.quick)).map((result): DatedResult => ({
  ...result,
  commit: commit(),
  date: new Date().toISOString(),
}));
const earlier =
  values.pieces && existsSync(file)
    ? (JSON.parse(readFileSync(file, "utf8")) as { results: DatedResult[] }).results
    : [];
const results = all.flatMap(
  ({ name }) => [...fresh, ...earlier].find((result) => result.check === name) ?? [],
);
const short = results.filter((result) => !passed(result));
mkdirSync(dirname(file), { recursive: true });
const machine = {
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  memoryBytes: totalmem(),
  os: `${platform()} ${release()} ${arch()}`,
  node: process.version,
};
const header = { layer, quick: values.quick, commit: commit(), date: new Date().toISOString(), machine };
writeFileSync(file, `${JSON.stringify({ ...header, results }, null, 2)}\n`);

console.log(
  `\nCheckpoint ${layer}${values.quick ? " (quick)" : ""}, ${machine.cpu}, ${machine.cores} cores, Node ${machine.node}`,
);
console.log(resultTable(results));
for (const result of results.filter((one) => !fresh.includes(one)))
  console.log(`${result.check}: of ${result.date}, commit ${result.commit}`);
const left = all.map((check) => check.name).filter((name) => !results.some(({ check }) => check === name));
if (left.length > 0) console.log(`not run: ${left.join(", ")}`);
console.log(
  short.length === 0
    ? `checkpoint ${layer}: every target met${left.length > 0 ? " of what was run" : ""}`
    : `checkpoint ${layer}: short or failed: ${short.map((r) => r.check).join(", ")}`,
);
const failed = values.tolerant ? results.filter((result) => result.failure !== undefined) : short;
process.exit(failed.length === 0 ? 0 : 1);
