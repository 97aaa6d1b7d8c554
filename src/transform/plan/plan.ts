/**
 * Instrumentation plans: rules that say which functions get events, for each environment. The first rule that matches a function decides;
 * what no rule includes stays as it is. Pure: text or an object in, a checked plan out.
 */
import { readFile } from "node:fs/promises";
import { BeamtraceError } from "../../erlang";
import type { InjectOptions } from "../inject/instrument-function";
import type { InstrumentBeamOptions } from "../instrument";
import { checkRules } from "./check-rules";
import { type CompiledRule, ruleMatchesFunction, ruleMatchesModule } from "./compiled-rule";
import type { FunctionFacts, ModuleFacts } from "./module-facts";
import { PlanError, type PlanProblem } from "./plan-error";
import { checkForm, type PlanSource } from "./plan-schema";

/** The environment whose builds somebody waits for: unless the plan says otherwise, code is made quickly rather than to be quick. */
const QUICK_BUILD = "dev";

/** Options of a plan that are none of a function's. */
export type ModuleOptions = Pick<InstrumentBeamOptions, "runtime" | "embedSites" | "optimize">;

/** The rules that hold in one environment. */
export class RuleSet {
  /** Undefined: the plan makes no difference between environments. */
  readonly environment: string | undefined;
  readonly rules: readonly CompiledRule[];
  /** What holds for modules as a whole. */
  readonly options: ModuleOptions;

  /** @internal Use `InstrumentationPlan.rulesFor`. */
  constructor(environment: string | undefined, rules: readonly CompiledRule[], options: ModuleOptions) {
    this.environment = environment;
    this.rules = rules;
    this.options = options;
  }

  /** Whether nothing can be instrumented, whatever the module. */
  get isEmpty(): boolean {
    return !this.rules.some(({ verdict }) => verdict === "include");
  }

  /** Whether some function of the module may be included. */
  mayInclude(module: ModuleFacts): boolean {
    return this.rules.some((rule) => rule.verdict === "include" && ruleMatchesModule(rule, module));
  }

  /** The rule that decides about the function: the first that matches. */
  decidingRule(fun: FunctionFacts, module: ModuleFacts): CompiledRule | undefined {
    return this.rules.find(
      (rule) => ruleMatchesModule(rule, module) && ruleMatchesFunction(rule, fun, module),
    );
  }

  /** How the function is instrumented; false when it isn't. */
  decide(fun: FunctionFacts, module: ModuleFacts): false | InjectOptions {
    const rule = this.decidingRule(fun, module);
    return rule?.verdict === "include" ? rule.options : false;
  }
}

/** What a plan says of one environment. */
interface Environment {
  readonly rules: readonly CompiledRule[];
  readonly optimize: boolean | undefined;
}

/** A plan that was checked. */
export class InstrumentationPlan {
  /** What errors call it. */
  readonly name: string;
  private readonly shared: readonly CompiledRule[];
  private readonly byEnvironment: ReadonlyMap<string, Environment> | undefined;
  private readonly options: ModuleOptions;

  /** @internal Use `parsePlan`. */
  constructor(
    name: string,
    shared: readonly CompiledRule[],
    byEnvironment: ReadonlyMap<string, Environment> | undefined,
    options: ModuleOptions,
  ) {
    this.name = name;
    this.shared = shared;
    this.byEnvironment = byEnvironment;
    this.options = options;
  }

  /** Environments that the plan names; undefined when its rules hold in all. */
  get environments(): readonly string[] | undefined {
    return this.byEnvironment === undefined ? undefined : [...this.byEnvironment.keys()];
  }

  /**
   * The rules that hold in an environment, and the options: `optimize` is false in `dev` unless the plan says otherwise. Where the plan names
   * environments, nothing is instrumented in any other.
   * @throws PlanError `BT_PLAN_INVALID` when the plan names environments and none is given.
   */
  rulesFor(environment?: string): RuleSet {
    const own = environment === undefined ? undefined : this.byEnvironment?.get(environment);
    const optimize = own?.optimize ?? this.options.optimize ?? environment !== QUICK_BUILD;
    const options = { ...this.options, optimize };
    if (this.byEnvironment === undefined) return new RuleSet(undefined, this.shared, options);
    if (environment === undefined) {
      const message = `its rules depend on the environment, so say which: ${[...this.byEnvironment.keys()].join(", ")}`;
      throw new PlanError(this.name, [{ where: "environments", message }]);
    }
    return new RuleSet(environment, own?.rules ?? [], options);
  }
}

/** An object as JSON.parse gives it, or a text. */
export type PlanInput = string | PlanSource;

/**
 * Reads and checks a plan.
 * @param name - what errors call it; a file's path.
 * @throws PlanError `BT_PLAN_INVALID`: no JSON, unknown keys, wrong types, rules that can never match or never decide, contradictions.
 * @example parsePlan({ rules: [{ include: { module: "Shop.*", visibility: "exported" } }] })
 */
export function parsePlan(input: PlanInput, name = "the plan"): InstrumentationPlan {
  const checked = checkForm(typeof input === "string" ? parseJson(input, name) : input);
  if ("problems" in checked) throw new PlanError(name, checked.problems);
  const { plan } = checked;
  const problems: PlanProblem[] = [];
  const shared = checkRules(plan.rules ?? [], "", false);
  problems.push(...shared.problems);
  let byEnvironment: Map<string, Environment> | undefined;
  if (plan.environments !== undefined) {
    byEnvironment = new Map();
    const names = Object.keys(plan.environments);
    if (names.length === 0)
      problems.push({
        where: "environments",
        message:
          "it names none, so nothing would ever be instrumented: leave it out for rules that hold everywhere",
      });
    for (const [environment, { rules = [], inherit = true, optimize }] of Object.entries(plan.environments)) {
      const inherited = inherit ? shared.rules : [];
      const followed = inherited.some(({ verdict }) => verdict === "include");
      const own = checkRules(rules, `environments.${environment}.`, followed);
      problems.push(...own.problems);
      byEnvironment.set(environment, { rules: [...own.rules, ...inherited], optimize });
    }
  }
  if (plan.rules === undefined && plan.environments === undefined) {
    problems.push({ where: "", message: 'it has no "rules" and no "environments"' });
  }
  if (problems.length > 0) throw new PlanError(name, problems);
  return new InstrumentationPlan(name, shared.rules, byEnvironment, {
    runtime: plan.runtime ?? "embedded",
    embedSites: plan.embedSites ?? false,
    ...(plan.optimize === undefined ? {} : { optimize: plan.optimize }),
  });
}

/**
 * Reads a plan file.
 * @throws PlanError `BT_PLAN_INVALID`
 */
export async function readPlan(path: string): Promise<InstrumentationPlan> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    const why = missing ? "there is no such file" : `it can't be read: ${(cause as Error).message}`;
    throw new BeamtraceError("BT_PLAN_INVALID", `plan ${path}: ${why}`, { cause });
  }
  return parsePlan(text, path);
}

function parseJson(source: string, name: string): unknown {
  // Some editors write a mark before the first character that says that the file is UTF-8.
  const text = source.replace(/^\uFEFF/, "");
  try {
    return JSON.parse(text);
  } catch (cause) {
    const message = (cause as SyntaxError).message.replace(
      / in JSON at position \d+.*$|, .* is not valid JSON$/s,
      "",
    );
    const line = text.slice(0, errorPosition(text)).split("\n").length;
    throw new PlanError(name, [{ where: `line ${line}`, message: `it is no JSON: ${message}` }]);
  }
}

/** Where a text stops being JSON: engines don't always say. Of all that comes before, the only fault is that it ends. */
function errorPosition(text: string): number {
  let [sound, faulty] = [0, text.length + 1];
  while (faulty - sound > 1) {
    const middle = (sound + faulty) >> 1;
    if (endsEarly(text.slice(0, middle))) sound = middle;
    else faulty = middle;
  }
  return sound;
}

function endsEarly(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch (error) {
    const { message } = error as SyntaxError;
    return (
      /end of JSON|Unterminated string/.test(message) ||
      /position (\d+)/.exec(message)?.[1] === String(text.length)
    );
  }
}
