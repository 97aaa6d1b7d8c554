import { afterAll, beforeAll, expect, test } from "vitest";
import {
  any,
  checkMatchSpecOnNode,
  listOf,
  mapOf,
  matchSpec,
  type MatchSpec,
  MatchSpecError,
  rest,
  tupleOf,
  v,
} from "../../../src/capture/match-spec";
import { availableSince, MATCH_FUNCTIONS, matchFunction } from "../../../src/capture/match-spec/functions";
import type { Atom } from "../../../src/erlang";
import { atom, binary, decode, encode, map, tuple, Tuple, type Term } from "../../../src/erlang";
import { show } from "./show";
import { type SpecNode, startSpecNode } from "./node";

let on: SpecNode;
beforeAll(async () => {
  on = await startSpecNode();
});
afterAll(() => on.node.stop());

/** What `{message, …}` made of these arguments: a term, `true` without one, `false` when nothing matched. */
async function run(spec: MatchSpec, ...args: readonly Term[]): Promise<string> {
  const result = await on.test(args, spec.toTerm({ otp: on.otp }));
  if (!(result instanceof Tuple) || (result.elements[0] as Atom).name !== "ok") throw new Error(show(result));
  return show(result.elements[1] as Term);
}

test("heads match as patterns do in Erlang", async () => {
  const spec = matchSpec
    .call([tupleOf(atom("ok"), v("a")), v("a"), mapOf({ id: v("id") }), listOf([v("h")], v("t"))])
    .do(({ a, id, h, t }, act) => act.message([a, id, h, t]));
  const args = [tuple(atom("ok"), 1), 1, map({ id: binary("x"), other: 2 }), [1, 2, 3]] as const;
  expect(await run(spec, ...args)).toBe('[1,<<"x">>,1,[2,3]]');
  expect(await run(spec, args[0], 2, args[2], args[3])).toBe("false");
  expect(await run(spec, args[0], 1, map({ other: 2 }), args[3])).toBe("false");
});

test("atoms that look like patterns match only themselves", async () => {
  const spec = matchSpec.call([atom("_"), tuple(atom("$1"))]);
  expect(await run(spec, atom("_"), tuple(atom("$1")))).toBe("true");
  expect(await run(spec, atom("x"), tuple(atom("$1")))).toBe("false");
  expect(await run(spec, atom("_"), tuple(atom("x")))).toBe("false");
});

test("literals in bodies arrive as they were written", async () => {
  const literals = [
    tuple(atom("self")),
    tuple(atom("const"), 1),
    tuple(tuple(1)),
    atom("$1"),
    atom("$_"),
    atom("_"),
    map({ k: tuple(atom("node")) }),
    [tuple(1), atom("$$")],
    [1, 2],
    binary("b"),
    2n ** 70n,
  ];
  for (const literal of literals) {
    const spec = matchSpec.call([v("a")]).do(({ a }, act) => act.message(tupleOf(a, literal)));
    expect(await run(spec, 7)).toBe(`{7,${show(literal)}}`);
  }
});

test("maps and lists of expressions are made at each match", async () => {
  const spec = matchSpec
    .call([v("a"), v("b")])
    .do(({ a, b }, act) =>
      act.message(mapOf({ sum: act.add(a, b), list: listOf([a], b), t: tupleOf(tupleOf(b)) })),
    );
  expect(await run(spec, 1, 2)).toMatch(/^#\{/);
  const result = (await on.test([1, 2], spec.toTerm())) as Tuple;
  expect(result.elements[1]).toEqual(
    decode(encode(decode(encode((await on.term("#{sum => 3, list => [1 | 2], t => {{2}}}")) as Term)))),
  );
});

test("the whole target and all bindings can be had", async () => {
  const spec = matchSpec
    .call([v("a"), any, v("b")])
    .do((_variables, act) => act.message([act.whole(), act.bound()]));
  expect(await run(spec, 1, 2, 3)).toBe("[[1,2,3],[1,3]]");
});

test("guards decide as in Erlang, and an exception in one is a no", async () => {
  const sized = matchSpec
    .call([v("x")])
    .when(({ x }, g) =>
      g.orelse(g.andalso(g.isBinary(x), g.gt(g.byteSize(x), 3)), g.oneOf(x, [atom("a"), tuple(1)])),
    );
  expect(await run(sized, binary("long"))).toBe("true");
  expect(await run(sized, binary("no"))).toBe("false");
  expect(await run(sized, tuple(1))).toBe("true");
  const head = matchSpec.call([v("x")]).when(({ x }, g) => g.strictEq(g.hd(x), 1));
  expect(await run(head, [1])).toBe("true");
  expect(await run(head, 1)).toBe("false");
});

test("every guard function of the builder is one that the node has, with that number of arguments", async () => {
  const x = 1;
  let guards: Record<string, (...args: readonly unknown[]) => unknown> = {};
  matchSpec.call(any).when((_variables, g) => ((guards = g as never), g.isAtom(x)));
  const counts: Record<string, readonly number[]> = {
    isFunction: [1, 2],
    isRecord: [3],
    binaryPart: [3],
    node: [0, 1],
  };
  for (const name of Object.keys(guards).filter((n) => !["oneOf", "constant", "raw"].includes(n))) {
    const fn = guards[name] as (...args: readonly unknown[]) => never;
    for (const count of counts[name] ?? [
      Math.max(fn.length, ["and", "or", "andalso", "orelse"].includes(name) ? 2 : 0),
    ]) {
      const args = name === "isRecord" ? [x, "r", 2] : new Array<number>(count).fill(x);
      const spec = matchSpec.call(any).when(() => fn(...args));
      let term: readonly Term[];
      try {
        term = spec.toTerm({ otp: on.otp });
      } catch (error) {
        expect((error as Error).message).toMatch(/needs OTP (26|29)/);
        await expect(checkMatchSpecOnNode(spec.toTerm(), on.evaluate), name).rejects.toThrow(
          "does_not_exist",
        );
        continue;
      }
      await expect(checkMatchSpecOnNode(term, on.evaluate), name).resolves.toBeUndefined();
    }
  }
});

const CLAUSE_ARGUMENTS: Readonly<Record<string, readonly Term[]>> = {
  is_record: [1, atom("r"), 2],
};

test("the table of functions says of this release what the VM says: where, for which events, with how many arguments", async () => {
  for (const name of MATCH_FUNCTIONS) {
    const fn = matchFunction(name);
    if (fn === undefined) throw new Error(name);
    for (const count of fn.arities ?? [1, 2, 3]) {
      const call = tuple(atom(name), ...(CLAUSE_ARGUMENTS[name] ?? new Array<number>(count).fill(1)));
      const exists = on.otp >= availableSince(name, fn, count);
      for (const event of ["call", "send", "receive"] as const) {
        const allowed = exists && (fn.targets === undefined || fn.targets.includes(event));
        const label = `${name}/${count} for ${event} on OTP ${on.otp}`;
        // The VM takes return_trace and exception_trace for send and receive, where they do nothing.
        const lenient = name === "return_trace" || name === "exception_trace";
        if (!lenient)
          expect(await on.takes(event, [tuple(atom("_"), [], [call])]), `${label}, body`).toBe(allowed);
        expect(await on.takes(event, [tuple(atom("_"), [call], [])]), `${label}, guard`).toBe(
          allowed && !fn.action,
        );
      }
    }
    if (fn.arities !== undefined)
      for (const count of [0, 1, 2, 3, 4].filter((n) => !fn.arities?.includes(n))) {
        const call = tuple(atom(name), ...new Array<number>(count).fill(1));
        expect(await on.takes("call", [tuple(atom("_"), [], [call])]), `${name}/${count}`).toBe(false);
      }
  }
});

test("the rest of the arguments is matched from OTP 29 on, and refused by name before", async () => {
  const spec = matchSpec.call([v("a"), any, rest]).do(({ a }, act) => act.message(a));
  if (on.otp < 29) {
    expect(() => spec.toTerm({ otp: on.otp })).toThrow("needs OTP 29");
    await expect(checkMatchSpecOnNode(spec.toTerm(), on.evaluate)).rejects.toThrow("not a proper list");
    return;
  }
  expect(await run(spec, 1, 2)).toBe("1");
  expect(await run(spec, 1, 2, 3, 4)).toBe("1");
  expect(await run(spec, 1)).toBe("false");
});

test("the node's own words come back for what it refuses, and nothing is carried out", async () => {
  const unbound = [tuple([atom("$1")], [], [tuple(atom("message"), atom("$2"))])];
  await expect(checkMatchSpecOnNode(unbound, on.evaluate)).rejects.toThrow("Variable $2 is unbound.");
  await expect(checkMatchSpecOnNode([atom("x")], on.evaluate)).rejects.toBeInstanceOf(MatchSpecError);
  const before = show(await on.evaluate("erlang", "system_info", [atom("trace_control_word")]));
  const acting = matchSpec
    .call(any)
    .do((_variables, act) => [
      act.setTcw(4711),
      act.enableTrace("send"),
      act.enableTrace(act.self(), "send"),
      act.trace([], ["receive"]),
      act.traceProcess(act.self(), ["call"], []),
      act.disableTrace("send"),
      act.silent(true),
      act.setSeqToken("label", 1),
      act.display(atom("never")),
      act.processDump(),
    ]);
  await checkMatchSpecOnNode(acting.toTerm(), on.evaluate);
  expect(show(await on.evaluate("erlang", "system_info", [atom("trace_control_word")]))).toBe(before);
  expect(on.node.output()).not.toContain("never");
});
