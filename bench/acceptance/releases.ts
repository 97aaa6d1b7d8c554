/** The tests that talk to nodes, on this machine's Erlang and on each other release: they must be the same and all pass. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Row } from "../row";

const root = fileURLToPath(new URL("../..", import.meta.url));

interface Report {
  readonly success: boolean;
  readonly numPassedTests: number;
  readonly numFailedTests: number;
}

async function testsOn(release: string, folder: string): Promise<Row> {
  const report = join(folder, `${release}.json`);
  const vitest = [join(root, "node_modules/.bin/vitest"), "run"];
  const [program = "", ...args] =
    release === "host" ? vitest : [join(root, "scripts/with-otp.sh"), release, ...vitest];
  // BEAMTRACE_OTP_ROOT set and empty: the tests with nodes, on this machine's own release.
  const environment = { ...process.env, BEAMTRACE_TEST_REPORT: report, BEAMTRACE_OTP_ROOT: "" };
  const child = spawn(program, args, { cwd: root, stdio: ["ignore", 2, 2], env: environment });
  await new Promise((resolve) => child.once("error", resolve).once("exit", resolve));
  const result = await readFile(report, "utf8").then(
    (text) => JSON.parse(text) as Report,
    () => undefined,
  );
  const name = release === "host" ? "this machine's OTP" : `OTP ${release}`;
  return {
    what: `tests with nodes, ${name}`,
    target: "all pass",
    measured:
      result === undefined
        ? "did not run"
        : `${result.numPassedTests} passed, ${result.numFailedTests} failed`,
    value: result?.numPassedTests ?? 0,
    ok: result !== undefined && result.success && result.numPassedTests > 0,
  };
}

export async function run(): Promise<Row[]> {
  const folder = await mkdtemp(join(tmpdir(), "beamtrace-releases-"));
  try {
    const rows: Row[] = [];
    for (const release of ["host", "27", "29"]) rows.push(await testsOn(release, folder));
    const counts = new Set(rows.map((row) => row.value));
    rows.push({
      what: "the same tests on every release",
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
