import { describe, expect, test } from "vitest";
import {
  atom,
  binary,
  charlist,
  ExportFun,
  float,
  improper,
  inspect,
  map,
  NativeRecord,
  Pid,
  Reference,
  type Term,
  tuple,
} from "../../../src/erlang";

// What both notations share with the languages themselves is compared with real nodes in ../etf/oracle.test.ts.

const pid = new Pid(atom("shop@127.0.0.1"), 112, 3, 1);
const struct = map([
  [atom("__struct__"), atom("Elixir.Shop.Cart")],
  [atom("items"), [map({ a: 1 })]],
  [atom("owner"), pid],
]);

describe("both notations", () => {
  const cases: [Term, string, string][] = [
    [atom("ok"), "ok", ":ok"],
    [atom("Elixir.Shop.Cart"), "'Elixir.Shop.Cart'", "Shop.Cart"],
    [atom("two words"), "'two words'", ':"two words"'],
    [tuple(atom("ok"), binary("hé")), '{ok,<<"hé"/utf8>>}', '{:ok, "hé"}'],
    [charlist("abc"), '"abc"', '~c"abc"'],
    [charlist('"'), '"\\""', '~c"\\""'],
    [[tuple(atom("a"), 1), tuple(atom("b c"), 2)], "[{a,1},{'b c',2}]", '[a: 1, "b c": 2]'],
    [improper([1, 2], 3), "[1,2|3]", "[1, 2 | 3]"],
    [map([[binary("k"), float(1.5)]]), '#{<<"k">> => 1.5}', '%{"k" => 1.5}'],
    [map({ a: 1 }), "#{a => 1}", "%{a: 1}"],
    [
      struct,
      "#{'__struct__' => 'Elixir.Shop.Cart',items => [#{a => 1}],owner => <shop@127.0.0.1.112.3>}",
      "%Shop.Cart{items: [%{a: 1}], owner: #PID<shop@127.0.0.1.112.3>}",
    ],
    [new Reference(atom("a@b"), 1, [1, 2, 3]), "#Ref<a@b.3.2.1>", "#Reference<a@b.3.2.1>"],
    [new ExportFun(atom("Elixir.Enum"), atom("map"), 2), "fun 'Elixir.Enum':map/2", "&Enum.map/2"],
    [
      new NativeRecord(atom("m"), atom("r"), 0, [atom("a"), atom("B")], [1, []]),
      "#m:r{a = 1,'B' = []}",
      "#:m.r{a: 1, B: []}",
    ],
    [atom("nil"), "nil", "nil"],
    [[], "[]", "[]"],
    [tuple(), "{}", "{}"],
  ];
  test.each(cases)("%#", (term, erlang, elixir) => {
    expect(inspect(term)).toBe(erlang);
    expect(inspect(term, { notation: "elixir" })).toBe(elixir);
  });
});

describe("limits", () => {
  test("characters", () => {
    expect(inspect(tuple(1, 2, 3), { maxLength: 4 })).toBe("{1,2…");
    expect(inspect(tuple(1, 2, 3), { maxLength: 7 })).toBe("{1,2,3}");
    expect(inspect(binary("😀😀"), { maxLength: 4 })).toBe('<<"…');
    expect(inspect(binary("x".repeat(1e6)), { maxLength: 10 })).toBe('<<"xxxxxxx…');
    expect(inspect(new Uint8Array(1e6), { maxLength: 7 })).toBe("<<0,0,0…");
    expect(inspect(charlist("x".repeat(1e6)), { maxLength: 3 })).toBe('"xx…');
    expect(inspect(Array<Term>(1e6).fill(atom("a")), { maxLength: 4 })).toBe("[a,a…");
  });

  test("elements", () => {
    expect(inspect([1000, 2, 3], { limit: 2 })).toBe("[1000,2,...]");
    expect(inspect(map({ a: 1, b: 2 }), { limit: 1 })).toBe("#{a => 1,...}");
    expect(inspect(map({ a: 1, b: 2 }), { limit: 1, notation: "elixir" })).toBe("%{a: 1, ...}");
    expect(inspect(tuple(1, 2), { limit: 2 })).toBe("{1,2}");
  });

  test("depth", () => {
    expect(inspect(tuple(1, tuple(2, tuple(3))), { maxDepth: 2 })).toBe("{1,{2,{...}}}");
  });

  test("lists as lists", () => {
    expect(inspect(charlist("ab"), { charlists: "as-lists" })).toBe("[97,98]");
  });

  test("the local node", () => {
    expect(inspect(pid, { localNode: "shop@127.0.0.1" })).toBe("<0.112.3>");
  });
});

test("what is no term is shown, not thrown", () => {
  expect(inspect([undefined, "x"] as unknown as Term)).toBe("[#NotATerm<undefined>,#NotATerm<string>]");
});
