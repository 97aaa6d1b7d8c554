/** Earlier rules that cover a later one: found as by looking at each, without looking at each. */
import fc from "fast-check";
import { expect, test } from "vitest";

import type { PlanRule } from "../../../src/transform";
import { type CompiledRule, compileRule } from "../../../src/transform/plan/compiled-rule";
import { RuleIndex } from "../../../src/transform/plan/rule-index";

const compiled = (matchers: readonly PlanRule["include"][]): CompiledRule[] =>
  matchers.map((include, i) => compileRule({ include: include ?? {} }, `rules[${i}]`));

/** Whether names cover names, as the check of rules has it; the rest is not the index's. */
function covers(one: CompiledRule, other: CompiledRule): boolean {
  const kinds = ["modules", "behaviours"] as const;
  const functions = (rule: CompiledRule) => rule.functions?.map(({ name }) => name);
  return [...kinds.map((kind) => [one[kind], other[kind]]), [functions(one), functions(other)]].every(
    ([a, b]) => a === undefined || (b?.every((name) => a.some((by) => by.covers(name))) ?? false),
  );
}

test("the first rule that covers another is the one that looking at each finds", () => {
  const name = fc
    .array(fc.constantFrom("a", "b", "*", "{a,b}", "{ab,*b}"), { minLength: 1, maxLength: 3 })
    .map((parts) => parts.join(""));
  const names = fc.option(fc.oneof(name, fc.array(name, { minLength: 1, maxLength: 2 })), {
    nil: undefined,
  });
  const matcher = fc.record({ module: names, function: names, behaviour: names }).map(
    (all) => Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)), // as read
  );
  fc.assert(
    fc.property(fc.array(matcher, { maxLength: 12 }), (matchers) => {
      const rules = compiled(matchers);
      const index = new RuleIndex();
      for (const [i, rule] of rules.entries()) {
        const first = rules.slice(0, i).find((other) => covers(other, rule));
        expect(index.firstCovering(rule, covers)).toBe(first);
        index.add(rule);
      }
    }),
    { numRuns: 2000 },
  );
});

test("comparisons grow with the rules, not with their square, and have a bound", () => {
  const comparisons = (count: number, matcher: (i: number) => PlanRule["include"]): number => {
    const index = new RuleIndex();
    let compared = 0;
    for (const rule of compiled(Array.from({ length: count }, (_, i) => matcher(i)))) {
      index.firstCovering(rule, () => (compared++, false));
      index.add(rule);
    }
    return compared;
  };
  expect(comparisons(2000, (i) => ({ module: `m${i}`, function: "f" }))).toBeLessThan(2000);
  expect(comparisons(2000, (i) => ({ module: "Shop.*", function: `f${i}` }))).toBeLessThan(4000);
  expect(comparisons(2000, (i) => ({ module: `Shop.M${i}.*` }))).toBeLessThan(10_000);
  expect(comparisons(2000, (i) => ({ module: `*.M${i}` }))).toBeLessThan(10_000);
  expect(comparisons(2000, (i) => ({ module: `*M${i}x*` }))).toBe(200_000);
});
