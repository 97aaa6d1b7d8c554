import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  Atom,
  atom,
  binary,
  BitString,
  charlist,
  encode,
  equals,
  ErlMap,
  float,
  Fun,
  improper,
  ImproperList,
  map,
  Pid,
  type Term,
  tuple,
} from "../../../src/erlang";
import { atomTableSize } from "../../../src/erlang/term/atom";
import { arbitraryTerm } from "../etf/arbitrary-term";

const notEncodable = expect.objectContaining({ code: "BT_NOT_ENCODABLE" }) as Error;

describe("atoms", () => {
  test("of one name are one object", () => {
    expect(atom("ok")).toBe(Atom.of(["o", "k"].join("")));
    expect(atom("ok")).not.toBe(atom("error"));
  });

  test("no node could have are refused", () => {
    expect(() => atom("x".repeat(256))).toThrow(notEncodable);
    expect(() => atom("\ud800")).toThrow(notEncodable);
    expect(atom("😀".repeat(255)).name).toHaveLength(510);
    expect(() => atom("😀".repeat(256))).toThrow(notEncodable);
  });

  test("that nobody holds are forgotten", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const before = atomTableSize();
    for (let i = 0; i < 50_000; i++) atom(`passing ${i}`);
    for (let i = 0; i < 100 && atomTableSize() > before + 25_000; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      collect();
    }
    expect(atomTableSize()).toBeLessThanOrEqual(before + 25_000);
    expect(atom("ok")).toBe(atom("ok"));
  });
});

describe("maps", () => {
  test("find any key by structure, and keep the order of insertion", () => {
    const m = map([
      [tuple(1, atom("a")), 1],
      [float(1), 2],
      [1, 3],
      [binary("1"), 4],
      [charlist("1"), 5],
      [map({ x: 1, y: 2 }), 6],
      [2n ** 70n, 7],
      [[], 8],
    ]);
    expect(m.get(tuple(1, atom("a")))).toBe(1);
    expect(m.get(float(1))).toBe(2);
    expect(m.get(1)).toBe(3);
    expect(m.get(1n)).toBe(3);
    expect(m.get(binary("1"))).toBe(4);
    expect(m.get(charlist("1"))).toBe(5);
    expect(m.get(map({ y: 2, x: 1 }))).toBe(6);
    expect(m.get(2n ** 70n)).toBe(7);
    expect(m.get([])).toBe(8);
    expect(m.get(tuple(1, atom("b")))).toBeUndefined();
    expect(m.has(tuple(1))).toBe(false);
    expect([...m.values()]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(m.size).toBe(8);
  });

  test("of two equal keys the last one counts", () => {
    expect([...map([[1, 1], [2, 2], [1, 3]]).entries()]).toEqual([[1, 3], [2, 2]]); // prettier-ignore
  });

  test("find each of their keys", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(arbitraryTerm, arbitraryTerm), { maxLength: 20 }), (entries) => {
        const m = ErlMap.of(entries);
        for (const [key, value] of m) expect(m.get(key)).toBe(value);
        for (const [key] of entries) expect(m.has(key)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});

function funOf(maker: number): Fun {
  const fields = { module: atom("m"), arity: 1, index: 0, uniq: new Uint8Array(16), oldIndex: 0, oldUniq: 5 };
  return new Fun({ ...fields, pid: new Pid(atom("a@b"), maker, 0, 1), freeVars: [7] });
}

describe("equality", () => {
  test("is that of the encoded bytes, apart from the order of maps", () => {
    fc.assert(
      fc.property(arbitraryTerm, arbitraryTerm, (a, b) => {
        expect(equals(a, a)).toBe(true);
        const same = Buffer.compare(encode(a), encode(b)) === 0;
        if (same) expect(equals(a, b)).toBe(true);
        else if (equals(a, b)) expect(encode(a)).toHaveLength(encode(b).length);
      }),
      { numRuns: 3_000 },
    );
  });

  const node = atom("a@b");
  const cases: [string, Term, Term, boolean][] = [
    ["integers and floats", 1, float(1), false],
    ["0.0 and -0.0", float(0), float(-0), false],
    ["a number and its bigint", 5, 5n, true],
    ["an atom and a binary", atom("a"), binary("a"), false],
    ["text as list and as binary", charlist("a"), binary("a"), false],
    ["a tuple and a list", tuple(1), [1], false],
    ["an empty tuple and an empty list", tuple(), [], false],
    ["proper and improper lists", [1, 2], improper([1], 2), false],
    ["maps in another order", map([[1, 2], [3, 4]]), map([[3, 4], [1, 2]]), true], // prettier-ignore
    ["maps with another value", map([[1, 2]]), map([[1, 3]]), false],
    ["maps with another key", map([[1, 2]]), map([[2, 2]]), false],
    ["pids of two lives of a node", new Pid(node, 1, 2, 3), new Pid(node, 1, 2, 4), false],
    ["funs of two makers", funOf(1), funOf(2), true],
    [
      "bit strings that differ in unused bits",
      new BitString(Uint8Array.of(0xe0), 3),
      new BitString(Uint8Array.of(0xff), 3),
      true,
    ],
    [
      "bit strings of different length",
      new BitString(Uint8Array.of(0xe0), 3),
      new BitString(Uint8Array.of(0xe0), 4),
      false,
    ],
  ];
  test.each(cases)("of %s", (_name, a, b, equal) => {
    expect(equals(a, b)).toBe(equal);
    expect(equals(b, a)).toBe(equal);
    expect(equals(tuple([a]), tuple([b]))).toBe(equal);
    expect(map([[[a], 1]]).has([b])).toBe(equal);
  });
});

describe("what is no term is not encoded", () => {
  const values: [string, unknown][] = [
    ["a fraction", 1.5],
    ["NaN", NaN],
    ["an inexact integer", 2 ** 60],
    ["a string", "text"],
    ["a boolean", true],
    ["null", null],
    ["undefined", undefined],
    ["an object", {}],
    ["a date", new Date()],
    ["a function", () => 1],
    ["a hole", [1, , 2]],
    ["a pid with a negative id", new Pid(atom("a@b"), -1, 0, 0)],
  ];
  test.each(values)("%s", (_name, value) => {
    expect(() => encode(value as Term)).toThrow(notEncodable);
    expect(() => encode(tuple([value as Term]))).toThrow(notEncodable);
  });

  test("nor made", () => {
    expect(() => float(Infinity)).toThrow(notEncodable);
    expect(() => new ImproperList([], 1)).toThrow(notEncodable);
    expect(() => new ImproperList([1], [])).toThrow(notEncodable);
    expect(() => new BitString(new Uint8Array(1), 8)).toThrow(notEncodable);
  });
});
