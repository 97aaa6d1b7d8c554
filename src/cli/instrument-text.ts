/** What `beamtrace instrument` prints: the summary of a run, and what the rules of a plan match. */
import type { PlanExplanation, PlannedBeam, RuleExplanation } from "../transform";
import { textTable } from "./text-table";

/** What became of a module, and the bytes that it had. */
export interface ModuleOutcome {
  readonly result: PlannedBeam;
  readonly before: Uint8Array;
}

/** Functions that are listed by name for a module before it gets long. */
const NAMED_FUNCTIONS = 8;

/** Elixir's modules as people write them. */
export const shortName = (module: string): string => module.replace(/^Elixir\./, "");

/** The modules that a run touched or left out functions of, why, and how many there were in all. */
export function summaryText(outcomes: readonly ModuleOutcome[], failed: number): string {
  const told = outcomes.filter(({ result }) => result.status !== "unchanged" || result.refused.length > 0);
  const rows = told.map(({ result, before }) => [
    shortName(result.module),
    result.status === "unchanged" ? "not touched" : result.status,
    String(result.instrumented.length),
    String(result.refused.length),
    String(result.table.sites.length),
    bytesText(result, before),
  ]);
  const lines: string[] = [];
  if (rows.length > 0)
    lines.push(textTable(["module", "", "functions", "left out", "sites", "bytes"], rows), "");
  lines.push(...leftOutText(told.map(({ result }) => result)));
  const count = (status: string): number => outcomes.filter(({ result }) => result.status === status).length;
  const functions = told.reduce((sum, { result }) => sum + result.instrumented.length, 0);
  const restored = count("restored");
  lines.push(
    `${outcomes.length + failed} modules: ${count("instrumented")} instrumented (${functions} functions), ${count("unchanged")} not touched` +
      (restored === 0 ? "" : `, ${restored} plain again`) +
      (failed === 0 ? "" : `, ${failed} failed`),
  );
  return lines.join("\n");
}

function bytesText({ bytes, status }: PlannedBeam, before: Uint8Array): string {
  if (status === "unchanged") return String(before.length);
  return `${before.length} → ${bytes.length}${bytes === before ? " (as it was)" : ""}`;
}

/** Why functions that a rule includes are left out, each reason once. */
function leftOutText(results: readonly PlannedBeam[]): string[] {
  const reasons = new Map<string, number>();
  for (const { refused } of results)
    for (const { reason } of refused) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  return [...reasons].map(([reason, count]) => `left out, ${count}: ${reason}`);
}

/** What each rule matches, and what a run would do: `results` are of the modules that would not fail. */
export function explanationText(explanation: PlanExplanation, results: readonly PlannedBeam[]): string {
  const lines = explanation.rules.flatMap(ruleText);
  for (const { module, refused } of results) {
    if (refused.length > 0)
      lines.push(
        `leaves out ${shortName(module)}: ${namesText(refused.map((one) => `${one.function}/${one.arity}`))}`,
      );
  }
  lines.push(...leftOutText(results));
  const instrumented = results.reduce((sum, result) => sum + result.instrumented.length, 0);
  const { functions, modules } = explanation;
  lines.push(`${instrumented} of ${functions} functions in ${modules} modules would be instrumented`);
  return lines.join("\n");
}

function ruleText(rule: RuleExplanation): string[] {
  const lines = [`${rule.name} ${rule.text}`];
  for (const { module, functions } of rule.decides)
    lines.push(`  ${rule.verdict}s ${shortName(module)}: ${namesText(functions)}`);
  if (rule.decidedEarlier > 0)
    lines.push(`  matches ${rule.decidedEarlier} more, about which an earlier rule decides`);
  if (rule.decides.length === 0 && rule.decidedEarlier === 0) lines.push("  matches nothing");
  return [...lines, ...rule.hints.map((hint) => `  ${hint}`)];
}

function namesText(names: readonly string[]): string {
  const more = names.length > NAMED_FUNCTIONS ? ` and ${names.length - NAMED_FUNCTIONS} more` : "";
  return `${names.slice(0, NAMED_FUNCTIONS).join(" ")}${more}`;
}
