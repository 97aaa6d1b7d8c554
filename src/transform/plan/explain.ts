/**
 * What each rule of a plan matches in given modules, and what a rule that matches nothing may have meant: names near the ones it asks
 * for, of those that there are.
 */
import { nearNames } from "../../capture/near-names";
import type { Compiler } from "../compiler/remote-compiler";
import { formsOfBeam } from "../instrument";
import { BeamFile, type BeamtraceError } from "../../erlang";
import { type CompiledRule, matchesModule, ruleMatchesFunction, ruleMatchesModule } from "./compiled-rule";
import { factsOfBeam, factsOfForms, type ModuleFacts } from "./module-facts";
import type { NamePattern } from "./name-pattern";
import type { RuleSet } from "./plan";
import { ruleName } from "./plan-error";

/** A module and functions of it, as `name/arity`. */
export interface MatchedModule {
  readonly module: string;
  readonly functions: readonly string[];
}

/** What one rule does. */
export interface RuleExplanation {
  readonly where: string;
  /** As people count: `rule 3`, `rule 1 of dev`. */
  readonly name: string;
  /** The rule as it is written. */
  readonly text: string;
  readonly verdict: "include" | "exclude";
  /** Functions about which it decides. */
  readonly decides: readonly MatchedModule[];
  /** How many more it matches, about which an earlier rule decides. */
  readonly decidedEarlier: number;
  /** What it asks for that isn't there, with near names. */
  readonly hints: readonly string[];
}

/** What a plan does to some modules. */
export interface PlanExplanation {
  readonly environment: string | undefined;
  readonly rules: readonly RuleExplanation[];
  readonly modules: number;
  readonly functions: number;
  readonly included: number;
}

/** Explains what the rules do to these modules. */
export function explainRules(rules: RuleSet, modules: readonly ModuleFacts[]): PlanExplanation {
  const decided = new Map<CompiledRule, Map<string, string[]>>();
  const matched = new Map<CompiledRule, number>();
  let functions = 0;
  let included = 0;
  for (const module of modules) {
    const possible = rules.rules.filter((rule) => ruleMatchesModule(rule, module));
    for (const fun of module.functions) {
      functions++;
      const matching = possible.filter((rule) => ruleMatchesFunction(rule, fun, module));
      for (const rule of matching) matched.set(rule, (matched.get(rule) ?? 0) + 1);
      const [first] = matching;
      if (first === undefined) continue;
      if (first.verdict === "include") included++;
      const names = decided.get(first) ?? new Map<string, string[]>();
      decided.set(
        first,
        names.set(module.module, [...(names.get(module.module) ?? []), `${fun.function}/${fun.arity}`]),
      );
    }
  }
  return {
    environment: rules.environment,
    modules: modules.length,
    ...{ functions, included },
    rules: rules.rules.map((rule): RuleExplanation => {
      const decides = [...(decided.get(rule) ?? [])].map(([module, names]) => ({ module, functions: names }));
      const own = decides.reduce((sum, { functions: names }) => sum + names.length, 0);
      return {
        ...{ where: rule.where, name: ruleName(rule.where), text: rule.text, verdict: rule.verdict, decides },
        decidedEarlier: (matched.get(rule) ?? 0) - own,
        hints: hintsFor(rule, modules, (matched.get(rule) ?? 0) > 0),
      };
    }),
  };
}

/**
 * Explains what the rules do to these beams.
 * @throws BeamtraceError for a beam that can't be read and that a rule may match.
 */
export async function explainPlan(
  rules: RuleSet,
  beams: readonly { readonly bytes: Uint8Array; readonly application?: string }[],
  compiler: Compiler,
  onUnreadable?: (index: number, error: BeamtraceError) => void,
): Promise<PlanExplanation> {
  const modules: ModuleFacts[] = [];
  for (const [i, { bytes, application }] of beams.entries()) {
    const beam = BeamFile.read(bytes);
    const facts = factsOfBeam(beam, application);
    try {
      modules.push(factsOfForms(facts, await formsOfBeam(beam, compiler)));
    } catch (error) {
      if (onUnreadable === undefined || !rules.mayInclude(facts)) {
        modules.push(facts);
        continue;
      }
      onUnreadable(i, error as BeamtraceError);
    }
  }
  return explainRules(rules, modules);
}

/** Names that the rule asks for and that are not there. */
function hintsFor(rule: CompiledRule, modules: readonly ModuleFacts[], matches: boolean): string[] {
  const hints: string[] = [];
  const missing = (
    what: string,
    patterns: readonly NamePattern[] | undefined,
    names: Iterable<string>,
    fits: (pattern: NamePattern, name: string) => boolean = (pattern, name) => pattern.matches(name),
  ): void => {
    const all = [...new Set(names)];
    for (const pattern of patterns ?? []) {
      if (all.some((name) => fits(pattern, name))) continue;
      hints.push(`no ${what} is called ${pattern.text}${suggestion(pattern.text, all)}`);
    }
  };
  missing(
    "module",
    rule.modules,
    modules.map(({ module }) => module),
    matchesModule,
  );
  missing(
    "application",
    rule.applications,
    modules.flatMap(({ application }) => application ?? []),
  );
  missing(
    "behaviour",
    rule.behaviours,
    modules.flatMap(({ behaviours }) => behaviours),
  );
  missing(
    "attribute",
    rule.attributes,
    modules.flatMap(({ attributes }) => [...attributes.keys()]),
  );
  const within = modules.filter((module) => ruleMatchesModule(rule, module));
  const functions = [...new Set(within.flatMap((m) => m.functions.map((f) => `${f.function}/${f.arity}`)))];
  if (hints.length === 0 && within.length > 0) {
    for (const { name, arity } of rule.functions ?? []) {
      const found = within.some((m) =>
        m.functions.some((f) => name.matches(f.function) && (arity === undefined || f.arity === arity)),
      );
      const text = `${name.text}${arity === undefined ? "" : `/${arity}`}`;
      if (!found) {
        hints.push(
          `no function is called ${text}${suggestion(arity === undefined ? `${text}/` : text, functions)}`,
        );
      }
    }
  }
  if (hints.length === 0 && !matches) {
    hints.push(
      within.length === 0
        ? "no module meets all of its conditions"
        : "no function meets all of its conditions",
    );
  }
  return hints;
}

function suggestion(text: string, names: readonly string[]): string {
  const near = nearNames(text.replaceAll("*", ""), names).map((name) => name.replace(/^Elixir\./, ""));
  return near.length === 0 ? "" : `; did you mean ${near.join(" or ")}?`;
}
