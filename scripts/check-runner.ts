/**
 * Runs checks of bench/ one after another, each in its own process (one's garbage and compiled code don't disturb another),
 * and prints their rows: what, target, measured, verdict. A check that crashes, hangs or returns nothing counts as failed.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Check } from "../bench/checks";
import type { Row } from "../bench/row";

const root = fileURLToPath(new URL("..", import.meta.url));

export interface CheckResult {
  readonly check: string;
  readonly seconds: number;
  readonly rows: readonly Row[];
  /** Why there are no rows. */
  readonly failure?: string;
}

/** Runs one check; its own output goes to stderr. */
export async function runCheck(check: Check, quick: boolean): Promise<CheckResult> {
  const folder = mkdtempSync(join(tmpdir(), "beamtrace-check-"));
  const result = join(folder, "rows.json");
  const minutes = (quick ? check.quickMinutes : check.minutes) ?? (quick ? 5 : 30);
  const start = Date.now();
  try {
    const child = spawn(
      process.execPath,
      [
        ...["--expose-gc", "--import", "tsx", join(root, "scripts/run-check.ts")],
        ...[join(root, `${check.module}.ts`), result],
        ...(quick ? ["--quick"] : []),
      ],
      { cwd: root, stdio: ["ignore", 2, 2] },
    );
    const onSignal = (signal: NodeJS.Signals): void => {
      child.once("exit", () => process.exit(signal === "SIGINT" ? 130 : 143));
      child.kill("SIGTERM");
    };
    process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
    let late = false;
    const timers = [
      setTimeout(() => ((late = true), child.kill("SIGTERM")), minutes * 60_000),
      setTimeout(() => child.kill("SIGKILL"), minutes * 60_000 + 10_000),
    ];
    const ended = await new Promise<string>((resolve) => {
      child.once("error", (error) => resolve(error.message));
      child.once("exit", (code, signal) =>
        resolve(code === 0 ? "" : `ended with ${signal ?? `exit code ${code}`}`),
      );
    });
    timers.forEach(clearTimeout);
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
    const seconds = (Date.now() - start) / 1000;
    const failed = (failure: string): CheckResult => ({ check: check.name, seconds, rows: [], failure });
    if (late) return failed(`not finished after ${minutes} minutes`);
    if (ended !== "") return failed(ended);
    const rows = JSON.parse(readFileSync(result, "utf8")) as Row[];
    return rows.length === 0 ? failed("returned no rows") : { check: check.name, seconds, rows };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Whether everything that a check measured met its target. */
export const passed = (result: CheckResult): boolean =>
  result.failure === undefined && result.rows.every((row) => row.ok);

/** The rows of all checks as a Markdown table, which a terminal shows aligned. */
export function resultTable(results: readonly CheckResult[]): string {
  const head = ["what", "target", "measured", "verdict"];
  const body = results.flatMap(({ check, rows, failure }) => [
    ...rows.map((r) => [r.what, r.target, r.measured, r.target === "" ? "–" : r.ok ? "ok" : "SHORT"]),
    ...(failure === undefined ? [] : [[check, "finishes", failure, "FAILED"]]),
  ]);
  const widths = head.map((_, i) => Math.max(...[head, ...body].map((row) => (row[i] ?? "").length)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((c, i) => c.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n");
}

/** Runs checks in sequence, saying on stderr which one is at work. */
export async function runChecks(checks: readonly Check[], quick: boolean): Promise<CheckResult[]> {
  const results: CheckResult[] = [];
  for (const [i, check] of checks.entries()) {
    console.error(`[${i + 1}/${checks.length}] ${check.name}`);
    const result = await runCheck(check, quick);
    console.error(
      `[${i + 1}/${checks.length}] ${check.name}: ${result.failure ?? (passed(result) ? "ok" : "short of a target")}, ${result.seconds.toFixed(1)} s`,
    );
    results.push(result);
  }
  return results;
}
