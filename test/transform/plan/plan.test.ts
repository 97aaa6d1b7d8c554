/** Plans: what a rule matches, which rule decides, and what a plan that can't be meant is told. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { type PlanInput, parsePlan, PlanError, type PlanSource } from "../../../src/transform";
import type { AttributeScope, ModuleFacts } from "../../../src/transform/plan/module-facts";
import { NamePattern } from "../../../src/transform/plan/name-pattern";

const whole = { functions: undefined, covers: () => true };

function facts(module: string, more: Partial<ModuleFacts> = {}): ModuleFacts {
  return { module, application: undefined, behaviours: [], attributes: new Map(), functions: [], ...more };
}

const add = { function: "add", arity: 2, exported: true };

/** What the rules make of a function: `false`, or the options. */
const decide = (rules: PlanSource["rules"], module: ModuleFacts, fun = add): unknown =>
  parsePlan({ rules: rules ?? [] })
    .rulesFor()
    .decide(fun, module);

/** The messages of a plan that is refused. */
function mistakes(plan: PlanInput | object): string[] {
  try {
    parsePlan(plan as PlanInput, "p.json");
  } catch (error) {
    expect(error).toBeInstanceOf(PlanError);
    expect(error).toMatchObject({ code: "BT_PLAN_INVALID" });
    return (error as PlanError).problems.map(({ where, message }) => `${where}: ${message}`);
  }
  return [];
}

describe("a rule matches by", () => {
  test("module, with or without Elixir's prefix", () => {
    const cart = facts("Elixir.Shop.Cart");
    for (const module of ["Shop.Cart", "Elixir.Shop.Cart", "Shop.*", "*", "Shop.{Store,Cart}", "*.Cart"])
      expect([module, decide([{ include: { module } }], cart)]).toEqual([module, {}]);
    for (const module of ["Cart", "Shop", "Shop.Cart.*", "shop.cart", "Shop.Car"])
      expect([module, decide([{ include: { module } }], cart)]).toEqual([module, false]);
    expect(decide([{ include: { module: ["nix", "lists"] } }], facts("lists"))).toEqual({});
  });

  test("function, arity and visibility; ? and ! are parts of names", () => {
    const m = facts("m");
    const valid = { function: "valid?", arity: 1, exported: false };
    expect(decide([{ include: { function: "valid?" } }], m, valid)).toEqual({});
    expect(decide([{ include: { function: "valid?" } }], m, { ...valid, function: "valids" })).toBe(false);
    expect(decide([{ include: { function: "add/2" } }], m)).toEqual({});
    expect(decide([{ include: { function: "add/3" } }], m)).toBe(false);
    expect(decide([{ include: { function: "add", arity: [1, 2] } }], m)).toEqual({});
    expect(decide([{ include: { arity: 3 } }], m)).toBe(false);
    expect(decide([{ include: { visibility: "private" } }], m)).toBe(false);
    expect(decide([{ include: { visibility: "private" } }], m, valid)).toEqual({});
  });

  test("application, behaviour and attribute", () => {
    const cart = facts("cart", {
      application: "shop",
      behaviours: ["gen_server", "GenServer"],
      attributes: new Map<string, AttributeScope>([
        ["beamtrace", { functions: [], covers: (fun) => fun.function === "add" }],
        ["vsn", whole],
      ]),
    });
    expect(decide([{ include: { application: "shop", behaviour: "GenServer" } }], cart)).toEqual({});
    expect(decide([{ include: { application: "shopping" } }], cart)).toBe(false);
    expect(decide([{ include: { behaviour: "gen_statem" } }], cart)).toBe(false);
    expect(decide([{ include: { attribute: "@beamtrace" } }], cart)).toEqual({});
    expect(decide([{ include: { attribute: "beamtrace" } }], cart, { ...add, function: "sub" })).toBe(false);
    expect(decide([{ include: { attribute: ["no", "vsn"] } }], cart, { ...add, function: "sub" })).toEqual(
      {},
    );
    expect(decide([{ include: { application: "*" } }], facts("orphan"))).toBe(false);
  });
});

describe("which rule decides", () => {
  test("the first that matches; without one nothing is instrumented", () => {
    const rules: PlanSource["rules"] = [
      { exclude: { function: "__*__" } },
      { include: { module: "a" }, exceptions: "wrap" },
      { include: { module: "*", function: "add" } },
    ];
    expect(decide(rules, facts("a"))).toEqual({ exceptions: "wrap" });
    expect(decide(rules, facts("b"))).toEqual({});
    expect(decide(rules, facts("a"), { ...add, function: "__info__" })).toBe(false);
    expect(decide(rules, facts("b"), { ...add, function: "sub" })).toBe(false);
  });

  test("an environment's own rules come before the shared ones, which it can leave out", () => {
    const plan = parsePlan({
      rules: [{ include: { module: "*" } }],
      environments: {
        dev: {},
        test: { rules: [{ exclude: { module: "a" } }] },
        prod: { inherit: false, rules: [{ include: { function: "add" } }] },
      },
    });
    expect(plan.environments).toEqual(["dev", "test", "prod"]);
    const a = facts("a");
    expect(plan.rulesFor("dev").decide(add, a)).toEqual({});
    expect(plan.rulesFor("test").decide(add, a)).toBe(false);
    expect(plan.rulesFor("test").decide(add, facts("b"))).toEqual({});
    expect(plan.rulesFor("prod").decide({ ...add, function: "sub" }, a)).toBe(false);
    expect(plan.rulesFor("staging").isEmpty).toBe(true);
    expect(() => plan.rulesFor()).toThrow(/say which: dev, test, prod/);
  });

  test("code of dev builds is not optimized, unless the plan or the environment says otherwise", () => {
    const optimized = (plan: object, environment?: string): unknown =>
      parsePlan({ rules: [{ include: {} }], ...plan }).rulesFor(environment).options.optimize;
    expect(["dev", "test", "prod", "staging", undefined].map((name) => optimized({}, name))).toEqual([
      false,
      true,
      true,
      true,
      true,
    ]);
    expect(optimized({ optimize: true }, "dev")).toBe(true);
    expect(optimized({ optimize: false })).toBe(false);
    const environments = { dev: { optimize: true }, prod: { optimize: false }, test: {} };
    expect(["dev", "test", "prod"].map((name) => optimized({ environments }, name))).toEqual([
      true,
      true,
      false,
    ]);
    expect(mistakes({ rules: [], optimize: "yes" })[0]).toMatch(
      /"optimize" must be true or false, not "yes"/,
    );
  });

  test("a plan without environments holds in all", () => {
    const plan = parsePlan('{"rules": [{"include": {}}]}');
    expect(plan.environments).toBeUndefined();
    expect(plan.rulesFor("prod").decide(add, facts("a"))).toEqual({});
  });
});

describe("a plan that can't be meant is refused, naming the rule", () => {
  test("text that is no JSON, by line", () => {
    expect(mistakes('{\n "rules": [\n ,]}')[0]).toMatch(/^line 3: it is no JSON/);
    expect(mistakes("")[0]).toMatch(/it is no JSON/);
    expect(mistakes("[]")[0]).toMatch(/a plan must be an object/);
    expect(mistakes({})[0]).toMatch(/no "rules" and no "environments"/);
  });

  test("the mark that some editors begin a file with is no mistake", () => {
    expect(mistakes('\uFEFF{"rules": [{"include": {}}]}')).toEqual([]);
    expect(mistakes('\uFEFF{\n"rules": [}')).toEqual([expect.stringMatching(/^line 2: it is no JSON/)]);
  });

  test("unknown keys, with the one that was meant", () => {
    expect(mistakes({ rules: [{ include: { modul: "x" } }] })).toEqual([
      'rules[0].include.modul: there is no key "modul": did you mean "module"?',
    ]);
    expect(mistakes({ rules: [{ include: { behavior: "x" } }] })[0]).toMatch(/did you mean "behaviour"/);
    expect(mistakes({ rules: [{ module: "x" }] })[0]).toMatch(/belongs into "include" or "exclude"/);
    expect(mistakes({ rulez: [] })[0]).toMatch(/did you mean "rules"/);
    expect(mistakes({ environments: { dev: { rule: [] } } })[0]).toMatch(/environments.dev.rule: .*"rules"/);
  });

  test("wrong types", () => {
    expect(mistakes({ rules: [{ include: { arity: "2" } }] })[0]).toMatch(
      /"arity" must be a number from 0 to 255.*not "2"/,
    );
    expect(mistakes({ rules: [{ include: { arity: 256 } }] })[0]).toMatch(/from 0 to 255/);
    expect(mistakes({ rules: [{ include: { module: 7 } }] })[0]).toMatch(/"module" must be a pattern/);
    expect(mistakes({ rules: [{ include: { module: [] } }] })[0]).toMatch(/would never match/);
    expect(mistakes({ rules: [{ include: { visibility: "public" } }] })[0]).toMatch(
      /"exported" or "private"/,
    );
    expect(mistakes({ rules: [{ include: {}, exceptions: "catch" }] })[0]).toMatch(/"infer" or "wrap"/);
    expect(mistakes({ rules: "all" })[0]).toMatch(/"rules" must be a list of rules, not "all"/);
    expect(mistakes({ rules: [7] })[0]).toMatch(/entry 1 of "rules" must be an object, not 7/);
    expect(mistakes({ rules: [{ include: [] }] })[0]).toMatch(/"include" must be an object, not \[\]/);
    expect(mistakes({ environments: { dev: [] } })[0]).toMatch(/"dev" must be an object/);
    expect(mistakes({ version: 2, rules: [] })[0]).toMatch(/the only version/);
  });

  test("rules that say neither or both, and names that no module or function has", () => {
    expect(mistakes({ rules: [{}] })[0]).toMatch(/neither "include" nor "exclude"/);
    expect(mistakes({ rules: [{ include: {}, exclude: {} }] })[0]).toMatch(/make two rules/);
    expect(mistakes({ rules: [{ include: { module: "lib/cart.ex" } }] })[0]).toMatch(/not paths/);
    expect(mistakes({ rules: [{ include: { module: ":lists" } }] })[0]).toMatch(/write "lists"/);
    expect(mistakes({ rules: [{ include: { module: "a{b" } }] })[0]).toMatch(/braces/);
    expect(mistakes({ rules: [{ include: { function: "lists:map/2" } }] })[0]).toMatch(
      /"module": "lists", "function": "map\/2"/,
    );
    expect(mistakes({ rules: [{ include: { function: "f/x" } }] })[0]).toMatch(/must be an arity/);
    expect(mistakes({ rules: [{ include: { function: "f/2", arity: 3 } }] })[0]).toMatch(/can never match/);
  });

  test("rules that an earlier one leaves nothing, or that contradict it", () => {
    const second = (a: object, b: object): string | undefined =>
      mistakes({ rules: [a, b, { include: { module: "zzz" } }] })[0];
    expect(second({ include: { module: "a.*" } }, { include: { module: "a.b" } })).toMatch(
      /rules\[1\]: it can never decide: rule 1 says the same/,
    );
    expect(second({ include: { module: "a.*" } }, { exclude: { module: "a.b", arity: 1 } })).toMatch(
      /put it before rule 1/,
    );
    expect(second({ include: { module: "a" } }, { exclude: { module: "a" } })).toMatch(/contradicts rule 1/);
    expect(second({ include: { module: "a" }, exceptions: "wrap" }, { include: { module: "a" } })).toMatch(
      /contradicts rule 1/,
    );
    expect(second({ include: { function: "f" } }, { include: { function: "f/2" } })).toMatch(
      /can never decide/,
    );
    expect(second({ include: { function: "f/2" } }, { include: { function: "f", arity: 2 } })).toMatch(
      /can never decide/,
    );
    // These leave something.
    expect(second({ include: { function: "f/2" } }, { include: { function: "f" } })).toBeUndefined();
    expect(second({ include: { behaviour: "*" } }, { include: { module: "a" } })).toBeUndefined();
    expect(second({ include: { module: "a", arity: 1 } }, { include: { module: "a" } })).toBeUndefined();
  });

  test("an exclusion of what nothing includes", () => {
    expect(mistakes({ rules: [{ include: { module: "a" } }, { exclude: { function: "x" } }] })[0]).toMatch(
      /rules\[1\]: it changes nothing/,
    );
    expect(mistakes({ rules: [{ exclude: {} }] })[0]).toMatch(/it changes nothing/);
    // Before the shared rules it does change something.
    expect(
      mistakes({
        rules: [{ include: {} }],
        environments: { test: { rules: [{ exclude: { function: "x" } }] } },
      }),
    ).toEqual([]);
  });

  test("all mistakes at once, in one message", () => {
    const plan = { rules: [{ include: { modul: "x" } }, { include: { arity: -1 } }] };
    expect(() => parsePlan(plan as PlanSource, "p.json")).toThrow(
      /^p\.json has 2 mistakes:\n  rule 1 \{"include":\{"modul":"x"\}\}: .*\n  rule 2 .*arity/,
    );
  });
});

test("a pattern that covers another matches all that the other does", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", ".", "*", "{a,b}", "{*,.b}"), maxLength: 6 });
  const name = fc.string({ unit: fc.constantFrom("a", "b", "."), maxLength: 8 });
  fc.assert(
    fc.property(text, text, fc.array(name, { minLength: 30, maxLength: 30 }), (one, other, names) => {
      const [a, b] = [new NamePattern(one), new NamePattern(other)];
      if (!a.covers(b)) return true;
      return names.every((candidate) => !b.matches(candidate) || a.matches(candidate));
    }),
    { numRuns: 2000 },
  );
  expect(new NamePattern("Shop.*").covers(new NamePattern("Shop.*.Cart"))).toBe(true);
  expect(new NamePattern("Shop.*.Cart").covers(new NamePattern("Shop.*"))).toBe(false);
});
