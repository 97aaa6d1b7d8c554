/** Which variables are bound before each expression of each body: those that are on every way to it, and no others. */
import { describe, expect, test } from "vitest";

import { atom, type Term, tuple } from "../../src/erlang";
import { builderAt, type ClauseNode, type Expr, exprFromTerm } from "../../src/transform";
import { boundBy, forEachBody, ownLines, sourceName } from "../../src/transform/bodies";

const b = builderAt(1);
const v = (name: string): Expr => b.variable(name);
const is = (name: string, value: Expr = b.integer(1)): Expr => b.match(v(name), value);
const clause = (patterns: Expr[], ...body: Expr[]): ClauseNode => b.clause(patterns, body);
const choice = (value: Expr, ...clauses: ClauseNode[]): Expr => b.case(value, clauses);
const names = (set: ReadonlySet<string>): string => [...set].sort().join(" ");

describe("what an expression binds", () => {
  test.each<readonly [string, Expr, string]>([
    ["a match its pattern and what its value binds", b.match(b.tuple(v("A"), v("_")), is("B")), "A B"],
    ["arguments what each of them binds", b.call("f", [is("A"), b.tuple(is("B"))]), "A B"],
    [
      "a case what all of its clauses bind, and its value",
      choice(is("V"), clause([v("P")], is("A"), is("B")), clause([v("Q")], is("A"))),
      "A V",
    ],
    [
      "but of Elixir's variables only its value",
      choice(is("_v@1"), clause([b.integer(1)], is("_a@1")), clause([v("_")], is("_a@1"))),
      "_v@1",
    ],
    [
      "receive with a timeout also that",
      {
        ...{ type: "receive_after", anno: 1, timeout: b.integer(0) },
        ...{ clauses: [clause([v("P")], is("A"), is("B"))], body: [is("A")] },
      },
      "A",
    ],
    ["a block all", { type: "block", anno: 1, body: [is("A"), is("B")] }, "A B"],
    ["andalso its left side", b.operator("andalso", is("A"), is("B")), "A"],
    ["another operator both", b.operator("+", is("A"), is("B")), "A B"],
    ["try nothing", b.try([is("A")], [clause([v("_")], is("A"))]), ""],
    ["catch nothing", { type: "catch", anno: 1, body: is("A") }, ""],
    ["maybe nothing", { type: "maybe", anno: 1, body: [is("A")] }, ""],
    ["a fun nothing", { type: "fun", anno: 1, clauses: [clause([v("X")], is("A"))] }, ""],
    [
      "a comprehension nothing",
      {
        ...{ type: "lc", anno: 1, template: is("A") },
        qualifiers: [{ type: "generate", anno: 1, pattern: v("E"), value: is("B") }],
      },
      "",
    ],
  ])("%s", (_, expression, bound) => {
    expect(names(boundBy(expression))).toBe(bound);
  });

  test("of a list of any length", () => {
    expect(
      names(
        boundBy(b.list(Array.from({ length: 100_000 }, (_, i) => (i === 99_999 ? is("Last") : b.list([]))))),
      ),
    ).toBe("Last");
  });
});

/** The bodies of a clause: before each expression, by its line, what is bound. */
function scopes(...body: Expr[]): string[] {
  const found: string[] = [];
  forEachBody(clause([v("X")], ...body), ({ steps }) => {
    for (const { expression, bound } of steps)
      if (expression.type === "atom") found.push(`${expression.value.name}: ${names(bound)}`);
    return new Set();
  });
  return found.sort();
}

describe("what is bound before an expression", () => {
  test("in turn", () => {
    expect(scopes(b.atom("a"), is("A"), b.atom("b"), is("B"), b.atom("c"))).toEqual([
      "a: X",
      "b: A X",
      "c: A B X",
    ]);
  });

  test("in clauses their patterns too, and what their value binds", () => {
    expect(
      scopes(
        choice(is("V"), clause([v("P")], b.atom("a"), is("A"), b.atom("b")), clause([v("_")], is("A"))),
        b.atom("c"),
      ),
    ).toEqual(["a: P V X", "b: A P V X", "c: A V X"]);
  });

  test("in try: its body sees what is before it, `of` what it bound, handlers and `after` not", () => {
    const node = b.try([is("A"), b.atom("a")], [clause([v("P")], b.atom("c"))]);
    if (node.type !== "try") throw new Error("no try");
    node.clauses = [clause([v("V")], b.atom("b"))];
    node.after = [b.atom("d")];
    expect(scopes(node, b.atom("e"))).toEqual(["a: A X", "b: A V X", "c: P X", "d: X", "e: X"]);
  });

  test("in funs and comprehensions what is around them; nothing of theirs after them", () => {
    const fun: Expr = { type: "fun", anno: 1, clauses: [clause([v("Y")], b.atom("a"))] };
    const lc: Expr = {
      ...{ type: "lc", anno: 1, template: b.atom("b") },
      qualifiers: [{ type: "generate", anno: 1, pattern: v("E"), value: v("X") }],
    };
    expect(scopes(is("F", fun), is("L", lc), b.atom("c"))).toEqual(["a: X Y", "b: E F X", "c: F L X"]);
  });

  test("in maybe what its own matches bind, in else not", () => {
    const node: Expr = {
      ...{ type: "maybe_else", anno: 1 },
      body: [{ type: "maybe_match", anno: 1, pattern: v("A"), value: v("X") }, b.atom("a")],
      otherwise: { type: "else", anno: 1, clauses: [clause([v("O")], b.atom("b"))] },
    };
    expect(scopes(node)).toEqual(["a: A X", "b: O X"]);
  });

  test("of arguments not what their neighbours bind", () => {
    const block: Expr = { type: "block", anno: 1, body: [b.atom("a")] };
    expect(
      scopes(
        b.call("f", [is("A"), block]),
        b.operator("andalso", is("B"), { ...block, body: [b.atom("b")] }),
      ),
    ).toEqual([...["a: X", "b: A B X"]]);
  });
});

test("what is put before the template of a comprehension makes it a block", () => {
  const lc: Expr = {
    ...{ type: "lc", anno: 1, template: b.atom("a") },
    qualifiers: [{ type: "generate", anno: 1, pattern: v("E"), value: v("X") }],
  };
  forEachBody(clause([v("X")], lc), ({ steps, insertBefore }) => {
    const [first] = steps;
    if (first?.expression.type === "atom") insertBefore(first.expression, b.atom("before"));
    return new Set();
  });
  expect(lc).toMatchObject({ template: { type: "block", body: [b.atom("before"), b.atom("a")] } });
});

test("lines of an expression are those outside of its bodies, clauses' patterns and guards", () => {
  const at = (line: number): Term => tuple(atom("atom"), line, atom("a"));
  const inner = tuple(atom("clause"), 3, [tuple(atom("var"), 3, atom("P"))], [], [at(4)]);
  const node = exprFromTerm(tuple(atom("case"), 1, at(2), [inner]));
  expect([...ownLines(node, ({ anno }) => Number(anno))].sort()).toEqual([1, 2]);
});

test.each([
  ["Cart", { name: "Cart", version: 0 }],
  ["_Cart", { name: "_Cart", version: 0 }],
  ["_total@2", { name: "total", version: 2 }],
  ["_@1", undefined],
  ["_1", undefined],
  ["_", undefined],
])("the source's name of %s", (name, source) => {
  expect(sourceName(name)).toEqual(source);
});
