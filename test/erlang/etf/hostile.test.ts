import { deflateSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  atom,
  BadTermError,
  binary,
  decode,
  type DecodeOptions,
  decodePrefix,
  encode,
  ErlMap,
  equals,
  ImproperList,
  inspect,
  map,
  skipTerm,
  type Term,
  tuple,
} from "../../../src/erlang";
import { arbitraryTerm } from "./arbitrary-term";

/** Cases of each property. */
const RUNS = Number(process.env["BEAMTRACE_FUZZ_RUNS"] ?? 5_000);

const u32 = (n: number): number[] => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
const bytes = (...parts: (number | number[] | string | Uint8Array)[]): Uint8Array =>
  new Uint8Array(
    Buffer.concat(parts.map((part) => Buffer.from(typeof part === "number" ? [part] : (part as string)))),
  );
const repeated = (times: number, part: number[]): Uint8Array =>
  new Uint8Array(part.length * times).map((_, i) => part[i % part.length] as number);

function refused(input: Uint8Array, options?: DecodeOptions): BadTermError {
  try {
    decode(input, options);
  } catch (error) {
    expect(error).toBeInstanceOf(BadTermError);
    expect((error as BadTermError).code).toBe("BT_BAD_TERM");
    return error as BadTermError;
  }
  throw new Error(`accepted ${Buffer.from(input).toString("hex")}`);
}

/** Bytes of heap and array buffers that a call leaves or passes through, roughly: what it allocates at once is seen, garbage may be. */
function allocated(work: () => void): number {
  const before = process.memoryUsage();
  work();
  const after = process.memoryUsage();
  return after.heapTotal + after.external - before.heapTotal - before.external;
}

describe("bytes that are no term are refused with the offset", () => {
  test.each([
    ["nothing", bytes(), 0],
    ["no version", bytes(97, 1), 0],
    ["version alone", bytes(131), 1],
    ["unknown tag", bytes(131, 1), 1],
    ["unknown tag within", bytes(131, 104, 2, 97, 1, 200), 5],
    ["bytes after the term", bytes(131, 97, 1, 0), 3],
    ["compressed within", bytes(131, 104, 1, 80, u32(1)), 3],
    ["local within", bytes(131, 104, 1, 121, 1, 2), 3],
    ["a version within", bytes(131, 104, 1, 131, 97, 1), 3],
    ["NaN", bytes(131, 70, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0), 1],
    ["infinity", bytes(131, 70, 0xff, 0xf0, 0, 0, 0, 0, 0, 0), 1],
    ["an atom that is not UTF-8", bytes(131, 119, 2, 0xc3, 0x28), 3],
    ["an atom of 256 characters", bytes(131, 118, 1, 0, "x".repeat(256)), 4],
    ["a Latin-1 atom of 256 characters", bytes(131, 100, 1, 0, "x".repeat(256)), 4],
    ["a surrogate in an atom", bytes(131, 119, 3, 0xed, 0xa0, 0x80), 3],
    ["a key twice", bytes(131, 116, u32(2), 97, 1, 97, 1, 97, 1, 97, 2), 1],
    ["a compound key twice", bytes(131, 116, u32(2), 104, 1, 97, 1, 106, 104, 1, 97, 1, 106), 1],
    ["a bit string with nine bits", bytes(131, 77, u32(1), 9, 0), 1],
    ["a bit string of no bytes with bits", bytes(131, 77, u32(0), 3), 1],
    ["a pid whose node is no atom", bytes(131, 88, 97, 1, u32(0), u32(0), u32(0)), 2],
    ["a reference of six numbers", bytes(131, 90, 0, 6, 119, 1, "a", u32(0), new Uint8Array(24)), 1],
    ["an arity of 256", bytes(131, 113, 119, 1, "a", 119, 1, "b", 98, u32(256)), 8],
    ["a fun with a wrong size", encode(sampleFun()).map((byte, i) => (i === 5 ? byte + 1 : byte)), 2],
    ["an old float that is none", bytes(131, 99, "hello".padEnd(31, "\0")), 1],
    ["a cache reference without a cache", bytes(131, 82, 0), 1],
    [
      "a record with a field twice",
      bytes(131, 67, u32(2), 0, ...Array(4).fill([119, 1, 97]).flat(), 106, 106),
      2,
    ],
  ])("%s", (_name, input, offset) => {
    expect(refused(input).offset).toBe(offset);
  });

  test("every prefix of a term", () => {
    fc.assert(
      fc.property(
        arbitraryTerm,
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (term, part) => {
          const whole = encode(term);
          const prefix = whole.slice(0, Math.floor(whole.length * part));
          refused(prefix);
          expect(() => skipTerm(prefix)).toThrow(BadTermError);
        },
      ),
      { numRuns: 2_000 },
    );
  });
});

function sampleFun(): Term {
  return decode(
    bytes(
      131,
      112,
      u32(52),
      1,
      new Uint8Array(16),
      u32(0),
      u32(0),
      119,
      1,
      "m",
      97,
      0,
      97,
      0,
      88,
      119,
      1,
      "n",
      u32(1),
      u32(0),
      u32(1),
    ),
  );
}

test("edited terms decode to a term or are refused; what decodes encodes, and skipTerm agrees on the end", () => {
  fc.assert(
    fc.property(
      arbitraryTerm,
      fc.array(fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.integer({ min: 97, max: 121 }))), {
        minLength: 1,
        maxLength: 6,
      }),
      (term, edits) => {
        const input = encode(term);
        for (const [at, byte] of edits) input[1 + (at % (input.length - 1))] = byte;
        let decoded: { term: Term; next: number };
        try {
          decoded = decodePrefix(input);
        } catch (error) {
          expect(error).toBeInstanceOf(BadTermError);
          expect((error as BadTermError).offset).toBeLessThanOrEqual(input.length);
          return;
        }
        expect(skipTerm(input)).toBe(decoded.next);
        expect(equals(decode(encode(decoded.term)), decoded.term)).toBe(true);
        inspect(decoded.term);
        inspect(decoded.term, { notation: "elixir" });
      },
    ),
    { numRuns: RUNS },
  );
});

test("random bytes decode to a term or are refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (tail) => {
      const input = bytes(131, tail);
      try {
        decodePrefix(input);
      } catch (error) {
        expect(error).toBeInstanceOf(BadTermError);
      }
      try {
        skipTerm(input);
      } catch (error) {
        expect(error).toBeInstanceOf(BadTermError);
      }
    }),
    { numRuns: RUNS },
  );
});

describe("claims that the bytes do not cover cost nothing", () => {
  const claims: [string, number[]][] = [
    ["tuple", [105]],
    ["list", [108]],
    ["map", [116]],
    ["binary", [109]],
    ["big integer", [111]],
    ["record", [67]],
  ];
  test.each(claims)("a %s of four billion elements", (_name, tag) => {
    expect(allocated(() => refused(bytes(131, tag, u32(0xfffffff0), new Uint8Array(100))))).toBeLessThan(
      20e6,
    );
  });

  test("tuples within tuples that each claim all that follows", () => {
    const size = 4_000_000;
    const input = new Uint8Array(size);
    input[0] = 131;
    for (let at = 1; at + 5 < size; at += 5) input.set([105, ...u32(size - at - 5)], at);
    expect(allocated(() => refused(input))).toBeLessThan(100e6);
  });

  test("compressed terms that inflate to more than they say, or than is allowed", () => {
    const bomb = deflateSync(new Uint8Array(50_000_000));
    refused(bytes(131, 80, u32(1000), bomb));
    refused(bytes(131, 80, u32(50_000_000), bomb), { maxInflatedBytes: 1_000_000 });
    refused(bytes(131, 80, u32(0xffffffff), bomb));
    refused(bytes(131, 80, u32(0), bomb));
    refused(bytes(131, 80, u32(10), deflateSync(bytes(97, 1))));
    refused(bytes(131, 80, u32(3), deflateSync(bytes(97, 1, 0))));
    expect(decode(bytes(131, 80, u32(2), deflateSync(bytes(97, 1))))).toBe(1);
  });

  test("what follows a compressed term is found", () => {
    const compressed = bytes(131, 80, u32(2), deflateSync(bytes(97, 1)));
    const input = bytes(compressed, 131, 97, 2);
    expect(decodePrefix(input)).toEqual({ term: 1, next: compressed.length });
    expect(skipTerm(input)).toBe(compressed.length);
  });

  test("integers beyond the limit", () => {
    const digits = new Uint8Array(2_000).fill(255);
    const input = bytes(131, 111, u32(2_000), 0, digits);
    expect(decode(input)).toBe(2n ** 16_000n - 1n);
    refused(input, { maxIntegerBytes: 1_999 });
  });
});

describe("deep nesting needs no stack", () => {
  const nestings: [string, number, number[], number[]][] = [
    ["lists", 100_000, [108, ...u32(1)], [106]],
    ["tuples", 100_000, [104, 1], []],
    ["maps", 20_000, [116, ...u32(1), 97, 1], []],
    ["maps as keys beside others", 20_000, [116, ...u32(2)], [97, 1, 97, 2, 97, 3]],
    ["map keys", 20_000, [116, ...u32(1)], [97, 1]],
    ["improper lists", 20_000, [108, ...u32(1)], [97, 1]],
  ];
  test.each(nestings)("%s", (_name, depth, open, close) => {
    const input = bytes(131, repeated(depth, open), 106, repeated(depth, close));
    const term = decode(input);
    expect(Buffer.compare(encode(term), input)).toBe(0);
    expect(skipTerm(input)).toBe(input.length);
    expect(equals(term, decode(input))).toBe(true);
    expect(inspect(term, { maxLength: Infinity }).length).toBeGreaterThan(2 * depth);
    expect(inspect(term, { maxLength: Infinity, notation: "elixir" }).length).toBeGreaterThan(2 * depth);
    expect(map([[term, 1]]).get(decode(input))).toBe(1);
    refused(input, { maxDepth: depth - 1 });
    expect(inspect(decode(input, { maxDepth: depth }), { maxLength: 100 })).toHaveLength(101);
  });

  test("beyond the limit it is refused", () => {
    refused(bytes(131, repeated(100_001, [104, 1]), 106));
  });

  test("a term that contains itself can't be encoded", () => {
    const cycle: Term[] = [];
    cycle.push(cycle);
    expect(() => encode(cycle)).toThrow(expect.objectContaining({ code: "BT_NOT_ENCODABLE" }));
  });
});

describe("tails of lists", () => {
  test("a list as tail makes one list", () => {
    const n = 200_000;
    const input = bytes(
      131,
      Array(n)
        .fill([108, ...u32(1), 97, 1])
        .flat(),
      106,
    );
    expect(decode(input)).toEqual(Array(n).fill(1));
  });

  test("text as tail, and other things", () => {
    expect(decode(bytes(131, 108, u32(1), 119, 1, "a", 107, 0, 2, 1, 2))).toEqual([atom("a"), 1, 2]);
    expect(decode(bytes(131, 108, u32(0), 106))).toEqual([]);
    expect(decode(bytes(131, 108, u32(0), 97, 5))).toBe(5);
    expect(decode(bytes(131, 108, u32(1), 97, 1, 97, 2))).toEqual(new ImproperList([1], 2));
  });
});

test("maps with hostile keys cost time in proportion to their bytes", () => {
  // Chains of maps that are keys of maps, alike but for the very bottom.
  const pairs: Term[] = [];
  for (let i = 0; i < 300; i++) {
    let key: Term = i;
    for (let level = 0; level < 300; level++) key = new ErlMap([key, level, atom("x"), [level]]);
    pairs.push(key);
  }
  const big = map(pairs.map((key) => [key, 1] as const));
  const again = decode(encode(big));
  expect(equals(again, big)).toBe(true);
});

test("binaries own their bytes unless views are asked for", () => {
  const input = encode(tuple(binary("short"), new Uint8Array(1000).fill(7)));
  const [short, long] = decode(input) as unknown as [Uint8Array, Uint8Array];
  const [shortView, longView] = decode(input, { binaries: "view" }) as unknown as [Uint8Array, Uint8Array];
  input.fill(0);
  expect(new TextDecoder().decode(short)).toBe("short");
  expect(long[999]).toBe(7);
  expect(shortView).toEqual(new Uint8Array(5));
  expect(longView.buffer).toBe(input.buffer);
  const fromBuffer = decode(Buffer.from(encode(binary("x".repeat(100))))) as Uint8Array;
  expect(fromBuffer.constructor).toBe(Uint8Array);
  expect(fromBuffer.byteLength).toBe(fromBuffer.buffer.byteLength);
});
