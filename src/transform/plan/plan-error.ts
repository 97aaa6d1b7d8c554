/** What is wrong with a plan: every problem that was found, each with the rule that it is about and what to do. */
import { BeamtraceError } from "../../erlang";

/** One thing that is wrong. */
export interface PlanProblem {
  /** Where in the plan: `rules[2].include.modul`, `environments.dev`; empty for the plan as a whole. */
  readonly where: string;
  /** The rule as it is written, when it is about one. */
  readonly rule?: string;
  /** What is wrong, and what to do. */
  readonly message: string;
}

/** A plan that can't be meant. `code` is `BT_PLAN_INVALID`. */
export class PlanError extends BeamtraceError {
  static override readonly brand: string = "PlanError";
  readonly problems: readonly PlanProblem[];

  constructor(name: string, problems: readonly PlanProblem[]) {
    const count = problems.length === 1 ? "a mistake" : `${problems.length} mistakes`;
    super("BT_PLAN_INVALID", `${name} has ${count}:\n${problems.map(problemText).join("\n")}`);
    this.problems = problems;
  }
}

/** `environments.dev.rules[0]` as people count: `rule 1 of dev`; other places as they are. */
export function ruleName(where: string): string {
  const [, environment, index] = /^(?:environments\.(.*)\.)?rules\[(\d+)\]/s.exec(where) ?? [];
  if (index === undefined) return where;
  return `rule ${Number(index) + 1}${environment === undefined ? "" : ` of ${environment}`}`;
}

function problemText({ where, rule, message }: PlanProblem): string {
  const start = [ruleName(where), rule].filter((part) => part !== undefined && part !== "").join(" ");
  return `  ${start === "" ? "" : `${start}: `}${message}`;
}
