/** Terms of all kinds for property tests. */
import { createHash } from "node:crypto";
import fc from "fast-check";
import {
  Atom,
  BitString,
  ErlFloat,
  ErlMap,
  ExportFun,
  Fun,
  improper,
  Pid,
  Port,
  Reference,
  type Term,
  Tuple,
} from "../../../src/erlang";

const u32 = fc.oneof(fc.nat(300), fc.nat(0xffffffff));
const bytes = fc.uint8Array({ maxLength: 40 });

export const arbitraryAtom = fc
  .oneof(
    fc.constantFrom("ok", "error", "undefined", "Elixir.Foo", "$gen_call", ""),
    fc.string({ maxLength: 12 }),
    fc.string({ maxLength: 60, unit: "grapheme" }),
  )
  .filter((name) => [...name].length <= 255 && !/\p{Surrogate}/u.test(name))
  .map((name) => Atom.of(name));

const node = fc.constantFrom("a@b", "shop@127.0.0.1", "x@host.example").map((name) => Atom.of(name));

/** Integers in the form that decoding gives them. */
export const arbitraryInteger: fc.Arbitrary<number | bigint> = fc
  .oneof(fc.integer(), fc.maxSafeInteger(), fc.bigInt(), fc.bigInt({ min: -(2n ** 2100n), max: 2n ** 2100n }))
  .map((n) => (n >= Number.MIN_SAFE_INTEGER && n <= Number.MAX_SAFE_INTEGER ? Number(n) || 0 : n));

const pid = fc.tuple(node, u32, u32, u32).map((fields) => new Pid(...fields));

const leaf: fc.Arbitrary<Term> = fc.oneof(
  { weight: 4, arbitrary: arbitraryInteger },
  { weight: 4, arbitrary: arbitraryAtom },
  { weight: 2, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => new ErlFloat(n)) },
  { weight: 3, arbitrary: bytes },
  { weight: 1, arbitrary: fc.string().map((text) => new TextEncoder().encode(text)) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.integer({ min: 1, max: 7 }))
      .map(([content, bits]) => new BitString(content, bits)),
  },
  { weight: 1, arbitrary: pid },
  {
    weight: 1,
    arbitrary: fc
      .tuple(node, fc.oneof(u32, fc.maxSafeInteger().map(Math.abs)), u32)
      .map((f) => new Port(...f)),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(node, u32, fc.nat(0x3ffff), fc.array(u32, { maxLength: 4 }))
      .map(([name, creation, first, more]) => new Reference(name, creation, [first, ...more])),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(arbitraryAtom, arbitraryAtom, fc.nat(255)).map((fields) => new ExportFun(...fields)),
  },
  { weight: 1, arbitrary: fc.array(fc.nat(255)) },
);

export const arbitraryTerm: fc.Arbitrary<Term> = fc.letrec<{ term: Term }>((tie) => {
  const terms = fc.array(tie("term"), { maxLength: 6 });
  return {
    term: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      { weight: 4, arbitrary: leaf },
      { weight: 2, arbitrary: terms.map((elements) => new Tuple(elements)) },
      { weight: 2, arbitrary: terms },
      {
        weight: 1,
        arbitrary: fc
          .tuple(fc.array(tie("term"), { minLength: 1, maxLength: 4 }), leaf)
          .map(([elements, tail]) => improper(elements, tail)),
      },
      {
        weight: 2,
        arbitrary: fc.array(fc.tuple(tie("term"), tie("term")), { maxLength: 6 }).map((e) => ErlMap.of(e)),
      },
      {
        weight: 1,
        arbitrary: fc
          .tuple(arbitraryAtom, fc.nat(255), fc.nat(1000), fc.nat(0x7ffffff), pid, terms)
          .map(([module, arity, index, oldUniq, maker, freeVars]) => {
            // As on a node, uniq tells funs apart: a node takes two with the same one for the same code.
            const uniq = createHash("md5").update(`${module.name} ${arity} ${index} ${oldUniq}`).digest();
            return new Fun({ module, arity, index, uniq, oldIndex: index, oldUniq, pid: maker, freeVars });
          }),
      },
    ),
  };
}).term;
