/** Test files that talk to nodes, run on a release of Erlang/OTP: as a row that says how many passed. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Row } from "../row";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** This machine's own release, and those that scripts/with-otp.sh can give. */
export const RELEASES = ["host", "27", "29"] as const;

interface Report {
  readonly success: boolean;
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTotalTests: number;
}

/** A row, and how many tests there were, those among them that lack a program on that release. */
interface Outcome {
  readonly row: Row;
  readonly tests: number;
}

/** What is run: all tests with nodes, or some files of them. */
export interface TestRun {
  readonly what: string;
  readonly files?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

async function testsOn(
  release: string,
  { what, files = [], env }: TestRun,
  folder: string,
): Promise<Outcome> {
  const report = join(folder, `${release}.json`);
  const vitest = [join(root, "node_modules/.bin/vitest"), "run", ...files];
  const [program = "", ...args] =
    release === "host" ? vitest : [join(root, "scripts/with-otp.sh"), release, ...vitest];
  // BEAMTRACE_OTP_ROOT set and empty: the tests with nodes, on this machine's own release.
  const environment = { ...process.env, ...env, BEAMTRACE_TEST_REPORT: report, BEAMTRACE_OTP_ROOT: "" };
  const child = spawn(program, args, { cwd: root, stdio: ["ignore", 2, 2], env: environment });
  await new Promise((resolve) => child.once("error", resolve).once("exit", resolve));
  const result = await readFile(report, "utf8").then(
    (text) => JSON.parse(text) as Report,
    () => undefined,
  );
  const name = release === "host" ? "this machine's OTP" : `OTP ${release}`;
  const skipped = result !== undefined && result.numPendingTests > 0;
  const row = {
    what: `${what}, ${name}`,
    target: "all pass",
    measured:
      result === undefined
        ? "did not run"
        : `${result.numPassedTests} passed, ${result.numFailedTests} failed${skipped ? `, ${result.numPendingTests} skipped` : ""}`,
    value: result?.numPassedTests ?? 0,
    ok: result !== undefined && result.success && result.numPassedTests > 0,
  };
  return { row, tests: result?.numTotalTests ?? 0 };
}

/** The same tests on each release, one row each, and one that says whether there were as many everywhere. */
export async function onEveryRelease(run: TestRun): Promise<Row[]> {
  const folder = await mkdtemp(join(tmpdir(), "beamtrace-releases-"));
  try {
    const outcomes: Outcome[] = [];
    for (const release of RELEASES) outcomes.push(await testsOn(release, run, folder));
    const counts = new Set(outcomes.map(({ tests }) => tests));
    const rows = outcomes.map(({ row }) => row);
    rows.push({
      what: `${run.what}: the same on every release`,
      target: "same count",
      measured: [...counts].join(", "),
      value: counts.size,
      ok: counts.size === 1,
    });
    return rows;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
