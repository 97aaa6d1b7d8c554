/** Plans: which functions of which modules are instrumented, in which environment. */
export { instrumentByPlan, mayChangeByPlan, printByPlan } from "./apply-plan";
export type { PlannedBeam } from "./apply-plan";
export type { CompiledRule } from "./compiled-rule";
export { explainPlan } from "./explain";
export type { MatchedModule, PlanExplanation, RuleExplanation } from "./explain";
export { InstrumentationPlan, parsePlan, readPlan, RuleSet } from "./plan";
export type { ModuleOptions, PlanInput } from "./plan";
export { PlanError } from "./plan-error";
export type { PlanProblem } from "./plan-error";
export type { PlanRule, PlanSource } from "./plan-schema";
export { failureText, moduleFailure } from "./module-failure";
export type { ModuleFailure } from "./module-failure";
