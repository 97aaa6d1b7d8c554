/** One rule with its patterns made ready, and what it says of a function. */
import type { InjectOptions } from "../inject/instrument-function";
import type { FunctionFacts, ModuleFacts } from "./module-facts";
import { NamePattern } from "./name-pattern";
import { type Matcher, type PlanRule, ruleText } from "./plan-schema";

/** A function's name with the arity that may stand behind it (`add/2`). */
export interface FunctionPattern {
  readonly name: NamePattern;
  readonly arity: number | undefined;
}

/** A rule, ready for use. */
export interface CompiledRule {
  /** Where it stands: `rules[0]`, `environments.dev.rules[2]`. */
  readonly where: string;
  /** The rule as it is written. */
  readonly text: string;
  readonly verdict: "include" | "exclude";
  /** How what it includes is instrumented. */
  readonly options: InjectOptions;
  readonly modules?: readonly NamePattern[];
  readonly applications?: readonly NamePattern[];
  readonly behaviours?: readonly NamePattern[];
  readonly attributes?: readonly NamePattern[];
  readonly functions?: readonly FunctionPattern[];
  readonly arities?: readonly number[];
  readonly visibility?: "exported" | "private";
}

const ELIXIR = "Elixir.";
const list = <T>(value: T | readonly T[]): readonly T[] =>
  Array.isArray(value) ? (value as readonly T[]) : [value as T];

/** Makes the patterns of a rule ready. @throws BeamtraceError `BT_PLAN_INVALID` for patterns that are none. */
export function compileRule(rule: PlanRule, where: string): CompiledRule {
  const verdict = rule.include === undefined ? "exclude" : "include";
  const matcher: Matcher = rule.include ?? rule.exclude ?? {};
  const patterns = (value: string | readonly string[] | undefined): NamePattern[] | undefined =>
    value === undefined ? undefined : list(value).map((text) => new NamePattern(text));
  // `@beamtrace` and `-beamtrace` are how sources write it.
  const attributes =
    matcher.attribute === undefined
      ? undefined
      : list(matcher.attribute).map((text) => new NamePattern(text.replace(/^[@-]/, "")));
  const functions =
    matcher.function === undefined
      ? undefined
      : list(matcher.function).map((text): FunctionPattern => {
          const [, name = text, arity] = /^(.+)\/(\d+)$/s.exec(text) ?? [];
          return { name: new NamePattern(name), arity: arity === undefined ? undefined : Number(arity) };
        });
  const [modules, applications, behaviours] = [matcher.module, matcher.application, matcher.behaviour].map(
    patterns,
  );
  return {
    where,
    text: ruleText(rule),
    verdict,
    options: {
      ...(rule.exceptions === undefined ? {} : { exceptions: rule.exceptions }),
      ...(rule.callbacks === undefined ? {} : { callbacks: rule.callbacks }),
    },
    ...(modules === undefined ? {} : { modules }),
    ...(applications === undefined ? {} : { applications }),
    ...(behaviours === undefined ? {} : { behaviours }),
    ...(attributes === undefined ? {} : { attributes }),
    ...(functions === undefined ? {} : { functions }),
    ...(matcher.arity === undefined ? {} : { arities: list(matcher.arity) }),
    ...(matcher.visibility === undefined ? {} : { visibility: matcher.visibility }),
  };
}

/** `Shop.Cart` is how people write `Elixir.Shop.Cart`. */
export const matchesModule = (pattern: NamePattern, module: string): boolean =>
  pattern.matches(module) || (module.startsWith(ELIXIR) && pattern.matches(module.slice(ELIXIR.length)));

const some = (patterns: readonly NamePattern[] | undefined, names: Iterable<string>): boolean =>
  patterns === undefined || [...names].some((name) => patterns.some((pattern) => pattern.matches(name)));

/** Whether the module's part of the rule holds: no function of another module can be matched. */
export function ruleMatchesModule(rule: CompiledRule, module: ModuleFacts): boolean {
  return (
    (rule.modules === undefined || rule.modules.some((pattern) => matchesModule(pattern, module.module))) &&
    some(rule.applications, module.application === undefined ? [] : [module.application]) &&
    some(rule.behaviours, module.behaviours) &&
    some(rule.attributes, module.attributes.keys())
  );
}

/** Whether the rule's own part about a function holds, given that the module's does. */
export function ruleMatchesFunction(rule: CompiledRule, fun: FunctionFacts, module: ModuleFacts): boolean {
  const { functions, arities, visibility, attributes } = rule;
  if (arities !== undefined && !arities.includes(fun.arity)) return false;
  if (visibility !== undefined && (visibility === "exported") !== fun.exported) return false;
  if (
    functions !== undefined &&
    !functions.some(
      ({ name, arity }) => (arity === undefined || arity === fun.arity) && name.matches(fun.function),
    )
  )
    return false;
  if (attributes === undefined) return true;
  return [...module.attributes].some(
    ([name, scope]) => attributes.some((pattern) => pattern.matches(name)) && scope.covers(fun),
  );
}
