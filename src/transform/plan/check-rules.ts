/**
 * What a rule means, checked before any module is seen: patterns that no name fits, conditions that exclude each other, rules that never
 * decide because an earlier one takes all of theirs, rules that contradict each other, exclusions of what is not included.
 */
import { BeamtraceError } from "../../erlang";
import { type CompiledRule, compileRule, type FunctionPattern } from "./compiled-rule";
import type { NamePattern } from "./name-pattern";
import type { PlanProblem } from "./plan-error";
import { RuleIndex } from "./rule-index";
import { type PlanRule, ruleText } from "./plan-schema";

/** The rules of one list, ready for use, and what is wrong with them. */
export interface CheckedRules {
  readonly rules: readonly CompiledRule[];
  readonly problems: readonly PlanProblem[];
}

/**
 * Checks a list of rules.
 * @param followed - whether other rules come after these, so that leaving something out at the end can make sense.
 */
export function checkRules(list: readonly PlanRule[], prefix: string, followed: boolean): CheckedRules {
  const rules: CompiledRule[] = [];
  const problems: PlanProblem[] = [];
  for (const [i, rule] of list.entries()) {
    const where = `${prefix}rules[${i}]`;
    const text = ruleText(rule);
    const wrong = (message: string): void => void problems.push({ where, rule: text, message });
    const own = problems.length;
    checkAlone(rule, wrong);
    if (problems.length > own) continue;
    try {
      rules.push(compileRule(rule, where));
    } catch (error) {
      if (!(error instanceof BeamtraceError)) throw error;
      wrong(error.message);
    }
  }
  for (const rule of rules) {
    const message = impossible(rule);
    if (message !== undefined) problems.push({ where: rule.where, rule: rule.text, message });
  }
  if (problems.length > 0) return { rules, problems };
  const before = new RuleIndex();
  const lastInclude = rules.findLastIndex(({ verdict }) => verdict === "include");
  for (const [i, rule] of rules.entries()) {
    const earlier = before.firstCovering(rule, covers);
    before.add(rule);
    const message =
      earlier === undefined
        ? followed || rule.verdict === "include" || lastInclude > i
          ? undefined
          : "it changes nothing: what no rule includes stays as it is anyway, and the first rule that matches decides; put it before the rule that includes, or leave it out"
        : shadowed(rule, earlier);
    if (message !== undefined) problems.push({ where: rule.where, rule: rule.text, message });
  }
  return { rules, problems };
}

const number = (where: string): string => String(Number(/\[(\d+)\]$/.exec(where)?.[1] ?? 0) + 1);

function shadowed(rule: CompiledRule, earlier: CompiledRule): string {
  const other = `rule ${number(earlier.where)}`;
  const differs = rule.verdict !== earlier.verdict || rule.options.exceptions !== earlier.options.exceptions;
  if (differs && covers(rule, earlier)) {
    return `it contradicts ${other}, which is about the same functions: keep one of them`;
  }
  return differs
    ? `it can never decide: ${other} comes before it and matches all that it matches; put it before ${other}`
    : `it can never decide: ${other} says the same of all that it matches; leave it out`;
}

/** Things that can be said of a rule as it is written. */
function checkAlone(rule: PlanRule, wrong: (message: string) => void): void {
  if ((rule.include === undefined) === (rule.exclude === undefined)) {
    wrong(
      rule.include === undefined
        ? 'it says neither "include" nor "exclude"; {"include": {}} is all functions'
        : 'it says both "include" and "exclude": make two rules of it',
    );
    return;
  }
  for (const option of ["exceptions", "callbacks"] as const) {
    if (rule.exclude !== undefined && rule[option] !== undefined)
      wrong(`"${option}" says how to instrument, but what it matches is excluded`);
  }
  const matcher = rule.include ?? rule.exclude ?? {};
  const names = (value: string | readonly string[] | undefined): readonly string[] => [value ?? []].flat();
  for (const name of names(matcher.module)) {
    const colon = /^:/.test(name);
    const file = /[/\\\s]|\.(beam|exs?|erl)$/.test(name);
    if (colon) wrong(`no module is called "${name}": write "${name.slice(1)}"`);
    else if (file)
      wrong(`no module is called "${name}": modules have names such as Shop.Cart or cart, not paths`);
  }
  for (const name of names(matcher.application)) {
    if (/^:/.test(name)) wrong(`no application is called "${name}": write "${name.slice(1)}"`);
    else if (/[/\\\s]/.test(name))
      wrong(`no application is called "${name}": it is a name such as shop, not a path`);
  }
  for (const name of names(matcher.function)) {
    const [, module, bare] = /^([\w.]+)[:.](\w+[?!]?(?:\/\d+)?)$/.exec(name) ?? [];
    if (module !== undefined)
      wrong(`no function is called "${name}": write {"module": "${module}", "function": "${bare}"}`);
    else if (/^-beamtrace-/.test(name)) wrong(`"${name}" is beamtrace's own and never instrumented`);
    else if (/\/(?!\d{1,3}$)./.test(name)) wrong(`what follows the / of "${name}" must be an arity`);
    else if (Number(/\/(\d+)$/.exec(name)?.[1] ?? 0) > 255)
      wrong(`no function has more than 255 arguments ("${name}")`);
  }
}

/** Why no function can ever match the rule, or undefined. */
function impossible({ functions, arities }: CompiledRule): string | undefined {
  if (functions === undefined || arities === undefined) return undefined;
  const possible = functions.some(({ arity }) => arity === undefined || arities.includes(arity));
  return possible
    ? undefined
    : `it can never match: "function" asks for other arities than "arity" (${arities.join(", ")})`;
}

/** Whether the one rule matches everything that the other does. May say no where it is so. */
function covers(one: CompiledRule, other: CompiledRule): boolean {
  return (
    coversNames(one.modules, other.modules) &&
    coversNames(one.applications, other.applications) &&
    coversNames(one.behaviours, other.behaviours) &&
    coversNames(one.attributes, other.attributes) &&
    (one.visibility === undefined || one.visibility === other.visibility) &&
    coversFunctions(one, other)
  );
}

function coversNames(
  one: readonly NamePattern[] | undefined,
  other: readonly NamePattern[] | undefined,
): boolean {
  if (one === undefined) return true;
  // `*` asks for any behaviour, application or attribute, which a module need not have.
  if (other === undefined) return false;
  return other.every((pattern) => one.some((candidate) => candidate.covers(pattern)));
}

function coversFunctions(one: CompiledRule, other: CompiledRule): boolean {
  // An arity can stand in either place.
  const within = ({ arity }: FunctionPattern, arities: readonly number[]): boolean =>
    arity === undefined
      ? (other.arities?.every((n) => arities.includes(n)) ?? false)
      : arities.includes(arity);
  if (one.arities !== undefined) {
    const { arities } = one;
    const fits =
      other.functions === undefined
        ? (other.arities?.every((n) => arities.includes(n)) ?? false)
        : other.functions.every((pattern) => within(pattern, arities));
    if (!fits) return false;
  }
  if (one.functions === undefined) return true;
  if (other.functions === undefined) return false;
  return other.functions.every((pattern) =>
    one.functions?.some(
      ({ name, arity }) => name.covers(pattern.name) && (arity === undefined || within(pattern, [arity])),
    ),
  );
}
