/** Visitors find every node, and change the tree where they stand. */
import { describe, expect, test } from "vitest";

import { atom, tuple } from "../../src/erlang";
import {
  builderAt,
  type Expr,
  FreshNames,
  formFromTerm,
  type FunctionNode,
  printFunction,
  traverse,
} from "../../src/transform";

const b = builderAt(1);
/** `f(X) -> g(X), case X of 1 -> h(1); _ -> h(X) end.` */
const sample = (): FunctionNode =>
  b.function("f", 1, [
    b.clause(
      [b.variable("X")],
      [
        b.call("g", [b.variable("X")]),
        b.case(b.variable("X"), [
          b.clause([b.integer(1)], [b.call("h", [b.integer(1)])]),
          b.clause([b.wildcard()], [b.call("h", [b.variable("X")])]),
        ]),
      ],
    ),
  ]);
const flat = (node: FunctionNode): string => printFunction(node).replace(/\s+/g, " ").trim();

describe("traverse", () => {
  test("goes through everything, parents first, and back", () => {
    const seen: string[] = [];
    traverse(sample(), {
      call: {
        enter: ({ node }) => void seen.push(`> ${(node.callee as { value: { name: string } }).value.name}`),
        exit: () => void seen.push("<"),
      },
      integer: ({ node }) => void seen.push(String(node.value)),
    });
    expect(seen).toEqual(["> g", "<", "1", "> h", "1", "<", "> h", "<"]);
  });

  test("inserts before and after without visiting what it put in", () => {
    const node = sample();
    let calls = 0;
    traverse(node, {
      call(path) {
        calls++;
        path.insertBefore(b.call("before", []));
        path.insertAfter(b.call("after_", []));
      },
    });
    expect(calls).toBe(3);
    expect(flat(node)).toBe(
      "f(X) -> before(), g(X), after_(), case X of 1 -> before(), h(1), after_(); _ -> before(), h(X), after_() end.",
    );
  });

  test("replaces, removes, skips and stops", () => {
    const node = sample();
    traverse(node, {
      case: (path) => path.replaceWith(b.atom("gone")),
      integer: () => expect.unreachable("it was below what was replaced"),
    });
    expect(flat(node)).toBe("f(X) -> g(X), gone.");
    traverse(node, { call: (path) => path.replaceWithMultiple([b.atom("a"), b.atom("b")]) });
    expect(flat(node)).toBe("f(X) -> a, b, gone.");
    traverse(node, {
      atom(path) {
        if (path.node.value.name === "b") path.remove();
      },
    });
    expect(flat(node)).toBe("f(X) -> a, gone.");
    let visited = 0;
    traverse(sample(), { clause: (path) => (visited++, path.stop()) });
    expect(visited).toBe(1);
  });

  test("a node that is no element of a list has no neighbours", () => {
    const root: Expr = b.match(b.variable("X"), b.call("f", []));
    expect(() => traverse(root, { call: (path) => path.insertBefore(b.integer(1)) })).toThrow(
      /no neighbours/,
    );
    traverse(root, { call: (path) => path.replaceWith(b.integer(1)) });
    expect(root).toMatchObject({ type: "match", value: { type: "integer" } });
  });

  test("a scope gives names that collide with nothing in the function", () => {
    const node = sample();
    node.clauses[0]!.body.push(b.variable("New"), {
      type: "named_fun",
      anno: 1,
      name: atom("New2"),
      clauses: [],
    });
    traverse(node, {
      case({ scope, function: fun, findParent }) {
        void findParent;
        expect(fun).toBe(node);
        expect([scope.has("X"), scope.has("Y")]).toEqual([true, false]);
        expect([scope.fresh("New").name, scope.fresh("New").name]).toEqual(["New3", "New4"]);
      },
    });
  });

  test("types of a spec are visited too", () => {
    const type = tuple(atom("type"), 1, atom("fun"), [[tuple(atom("var"), 1, atom("T"))]]);
    const spec = formFromTerm(tuple(atom("attribute"), 1, atom("spec"), tuple(tuple(atom("f"), 1), [type])));
    const names: string[] = [];
    traverse(spec, { var: ({ node }) => void names.push(node.name.name) });
    expect(names).toEqual(["T"]);
  });
});

test("fresh names are counted up by base, past those that the code has, and never come twice", () => {
  const names = new FreshNames(b.tuple(b.variable("A"), b.variable("A3"), b.variable("B2")));
  expect(["A", "A", "B", "A", "B", "C"].map((base) => names.next(base).name)).toEqual([
    "A2",
    "A4",
    "B",
    "A5",
    "B3",
    "C",
  ]);
  const many = Array.from({ length: 5000 }, () => names.next("D").name);
  expect(new Set(many).size).toBe(5000);
  expect(many.at(-1)).toBe("D5000");
});
