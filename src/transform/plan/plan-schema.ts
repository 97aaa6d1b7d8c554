/** The form of a plan file: which keys there are and of what type. What a rule means is checked in check-rules.ts. */
import * as v from "valibot";
import { nearNames } from "../../capture/near-names";
import type { PlanProblem } from "./plan-error";

/** An object of these keys and no others; a list is none, which valibot's own would take for one without keys. */
const object = <T extends v.ObjectEntries>(entries: T) =>
  v.pipe(
    v.custom<Record<string, unknown>>(
      (value) => typeof value === "object" && value !== null && !Array.isArray(value),
      "an object",
    ),
    v.strictObject(entries),
  );

const NAMES = 'a pattern such as "Shop.*", or a list of them';
const pattern = v.pipe(v.string(NAMES), v.nonEmpty("a pattern that isn't empty"));
const patterns = v.union(
  [pattern, v.pipe(v.array(pattern), v.nonEmpty("a list that isn't empty: it would never match"))],
  NAMES,
);
const ARITY = "a number from 0 to 255, or a list of them";
const arity = v.pipe(v.number(ARITY), v.integer(ARITY), v.minValue(0, ARITY), v.maxValue(255, ARITY));

const matcherEntries = {
  module: v.exactOptional(patterns),
  application: v.exactOptional(patterns),
  behaviour: v.exactOptional(patterns),
  attribute: v.exactOptional(patterns),
  function: v.exactOptional(patterns),
  arity: v.exactOptional(v.union([arity, v.pipe(v.array(arity), v.nonEmpty(ARITY))], ARITY)),
  visibility: v.exactOptional(v.picklist(["exported", "private"], '"exported" or "private"')),
};
const matcher = object(matcherEntries);

const BYTES = "a number from 1 to 65536";

const ruleEntries = {
  include: v.exactOptional(matcher),
  exclude: v.exactOptional(matcher),
  exceptions: v.exactOptional(v.picklist(["infer", "wrap"], '"infer" or "wrap"')),
  callbacks: v.exactOptional(
    v.union(
      [
        v.picklist(["none", "shape"]),
        object({
          maxBytes: v.pipe(
            v.number(BYTES),
            v.integer(BYTES),
            v.minValue(1, BYTES),
            v.maxValue(65_536, BYTES),
          ),
        }),
      ],
      '"none", "shape" or {"maxBytes": a number from 1 to 65536}',
    ),
  ),
  note: v.exactOptional(v.string("text")),
};
const rule = object(ruleEntries);

const rules = v.array(rule, "a list of rules");

const planEntries = {
  $schema: v.exactOptional(v.string("text")),
  version: v.exactOptional(v.literal(1, "1, the only version there is")),
  note: v.exactOptional(v.string("text")),
  runtime: v.exactOptional(v.picklist(["embedded", "present"], '"embedded" or "present"')),
  embedSites: v.exactOptional(v.boolean("true or false")),
  optimize: v.exactOptional(v.boolean("true or false")),
  rules: v.exactOptional(rules),
  environments: v.exactOptional(
    v.record(
      v.string(),
      object({
        rules: v.exactOptional(rules),
        inherit: v.exactOptional(v.boolean("true or false")),
        optimize: v.exactOptional(v.boolean("true or false")),
        note: v.exactOptional(v.string("text")),
      }),
      "an object of environments",
    ),
  ),
};
const planSchema = object(planEntries);

/** What a rule asks of a function; all of it must hold. */
export type Matcher = v.InferOutput<typeof matcher>;
/** One rule of a plan: either `include` or `exclude`. */
export type PlanRule = v.InferOutput<typeof rule>;
/** A plan as it is written. */
export type PlanSource = v.InferOutput<typeof planSchema>;

const MATCHER_KEYS = Object.keys(matcherEntries);
const RULE_KEYS = Object.keys(ruleEntries);

/** The plan, or what is wrong with its form. */
export function checkForm(value: unknown): { plan: PlanSource } | { problems: PlanProblem[] } {
  const result = v.safeParse(planSchema, value);
  // The plan as it was written, not as it was read: errors show rules with their keys in the author's order.
  if (result.success) return { plan: value as PlanSource };
  return { problems: result.issues.map((issue) => problemOf(issue, value)) };
}

function problemOf(issue: v.BaseIssue<unknown>, plan: unknown): PlanProblem {
  const keys = (issue.path ?? []).map((item) => item.key as string | number);
  const where = keys
    .map((key, i) => (typeof key === "number" ? `[${key}]` : i === 0 ? key : `.${key}`))
    .join("");
  const text = ruleAt(keys, plan);
  const context = { where, ...(text === undefined ? {} : { rule: text }) };
  const last = keys.at(-1);
  if (issue.type === "strict_object" && issue.expected === "never") {
    return { ...context, message: unknownKey(String(last), siblingKeys(keys)) };
  }
  const entry = typeof last === "number" ? `entry ${last + 1} of "${String(keys.at(-2))}"` : `"${last}"`;
  const name = last === undefined ? "a plan" : entry;
  return { ...context, message: `${name} must be ${issue.message}, not ${shown(issue.input)}` };
}

const shown = (value: unknown, max = 60): string => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > max ? `${text.slice(0, max - 1)}…` : text;
};

/** Keys that could have been meant beside the last one. */
function siblingKeys(keys: readonly (string | number)[]): readonly string[] {
  const parent = keys.at(-2);
  if (parent === "include" || parent === "exclude") return MATCHER_KEYS;
  if (typeof parent === "number") return RULE_KEYS;
  if (keys.length === 1) return Object.keys(planEntries);
  return ["rules", "inherit", "note"];
}

function unknownKey(key: string, known: readonly string[]): string {
  const british = key === "behavior" || key === "behaviors" ? ["behaviour"] : [];
  const [near] = [...british, ...nearNames(key, known)];
  // A matcher's key beside `include` is the most likely slip.
  const inside = known === RULE_KEYS && MATCHER_KEYS.includes(key);
  const remedy = inside
    ? `it belongs into "include" or "exclude"`
    : near === undefined
      ? `there are: ${known.filter((name) => name !== "$schema").join(", ")}`
      : `did you mean "${near}"?`;
  return `there is no key "${key}": ${remedy}`;
}

function ruleAt(keys: readonly (string | number)[], plan: unknown): string | undefined {
  let value: unknown = plan;
  for (const [i, key] of keys.entries()) {
    value = (value as Record<string | number, unknown> | undefined)?.[key];
    if (typeof key === "number" && keys[i - 1] === "rules") return ruleText(value);
  }
  return undefined;
}

/** A rule as it is written. */
export const ruleText = (rule: unknown): string => shown(rule, 120);
