/** `.beam` containers: byte for byte, bounded, and refused with an offset where they are broken. */
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import {
  atom,
  BeamFile,
  CorruptBeamError,
  debugInfo,
  encode,
  isAbstractCode,
  moduleName,
  type Term,
  tuple,
} from "../../../src/erlang";

const atoms = (name: string): Uint8Array => Uint8Array.of(0, 0, 0, 1, name.length, ...Buffer.from(name));
const beam = (...chunks: readonly (readonly [string, Uint8Array])[]): BeamFile =>
  BeamFile.of([["AtU8", atoms("cart")] as const, ...chunks].map(([id, data]) => ({ id, data })));
const withDebugInfo = (term: Term): BeamFile => beam(["Dbgi", encode(term)]);

const chunk = fc.record({
  id: fc.stringMatching(/^[\x20-\x7e]{4}$/),
  data: fc.uint8Array({ maxLength: 40 }),
});
const chunks = fc.uniqueArray(chunk, { selector: ({ id }) => id, maxLength: 12 });

describe("container", () => {
  test("what is written is read again, compressed or not", () => {
    fc.assert(
      fc.property(chunks, fc.boolean(), (list, compressed) => {
        const bytes = BeamFile.of(list, { compressed }).write();
        const read = BeamFile.read(bytes);
        expect(read.compressed).toBe(compressed);
        expect(read.chunks.map(({ id, data }) => [id, [...data]])).toEqual(
          list.map((c) => [c.id, [...c.data]]),
        );
        expect(read.write()).toBe(bytes);
        expect([...BeamFile.of(read.chunks).write()]).toEqual([...BeamFile.of(list).write()]);
      }),
    );
  });

  test("replacing a chunk leaves the others and their order alone", () => {
    const file = beam(["Code", Uint8Array.of(1, 2, 3)], ["Docs", Uint8Array.of(4)]);
    const changed = BeamFile.read(file.with("Code", Uint8Array.of(9)).with("BtSt", Uint8Array.of(7)).write());
    expect(changed.chunks.map(({ id }) => id)).toEqual(["AtU8", "Code", "Docs", "BtSt"]);
    expect([...(changed.chunk("Code") ?? [])]).toEqual([9]);
    expect([...(changed.chunk("Docs") ?? [])]).toEqual([4]);
    expect(changed.without("Docs").chunk("Docs")).toBeUndefined();
    expect(changed.without("None")).toBe(changed);
    expect(() => file.with("Toolong", Uint8Array.of())).toThrow(/four ASCII characters/);
  });

  test("a last chunk without padding is accepted", () => {
    const bytes = BeamFile.of([{ id: "Code", data: Uint8Array.of(1) }]).write();
    const bare = bytes.slice(0, -3);
    new DataView(bare.buffer).setUint32(4, bare.length - 8);
    expect([...(BeamFile.read(bare).chunk("Code") ?? [])]).toEqual([1]);
  });
});

describe("corrupt files", () => {
  const good = beam(["Code", Uint8Array.of(1, 2, 3, 4, 5)]).write();
  const broken = (change: (view: DataView) => void): Uint8Array => {
    const copy = good.slice();
    change(new DataView(copy.buffer));
    return copy;
  };
  const cases: readonly (readonly [string, Uint8Array, number, RegExp])[] = [
    ["nothing", new Uint8Array(0), 0, /0 bytes/],
    ["no FOR1", broken((v) => v.setUint8(0, 0x47)), 0, /FOR1/],
    ["no BEAM", broken((v) => v.setUint8(8, 0x47)), 8, /BEAM/],
    ["a size beyond the file", broken((v) => v.setUint32(4, 1 << 30)), 4, /claims/],
    ["a chunk beyond the file", broken((v) => v.setUint32(16, 0xffffffff)), 16, /AtU8 claims/],
    ["an id that is no text", broken((v) => v.setUint8(12, 0)), 12, /id is no text/],
    ["a cut off header", broken((v) => v.setUint32(4, good.length - 8 - 13)), 32, /cut off|claims/],
    [
      "a chunk twice",
      broken((v) => [..."AtU8"].forEach((c, i) => v.setUint8(32 + i, c.charCodeAt(0)))),
      32,
      /twice/,
    ],
    ["gzip that is none", Uint8Array.of(0x1f, 0x8b, 1, 2, 3), 0, /inflate/],
  ];
  test.each(cases)("%s", (_, bytes, offset, message) => {
    const error = (() => {
      try {
        BeamFile.read(bytes);
      } catch (thrown) {
        return thrown;
      }
      return undefined;
    })();
    expect(error).toBeInstanceOf(CorruptBeamError);
    expect((error as CorruptBeamError).code).toBe("BT_CORRUPT_BEAM");
    expect((error as CorruptBeamError).message).toMatch(message);
    expect((error as CorruptBeamError).offset).toBe(offset);
  });

  test("inflation is bounded", () => {
    const bomb = gzipSync(new Uint8Array(8 << 20));
    expect(() => BeamFile.read(bomb, { maxInflatedBytes: 1 << 20 })).toThrow(/more than 1048576 bytes/);
  });

  test("hostile bytes give a typed error or a file, nothing else", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 }), (changes) => {
        const copy = good.slice();
        for (const [at, value] of changes) copy[at] = value;
        try {
          const file = BeamFile.read(copy);
          moduleName(file);
          debugInfo(file);
        } catch (error) {
          expect(["BT_CORRUPT_BEAM", "BT_NO_DEBUG_INFO"]).toContain((error as { code?: string }).code);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("module name", () => {
  test("in the atom tables of OTP 25 and 28", () => {
    expect(moduleName(beam()).name).toBe("cart");
    const tagged = (...length: number[]): BeamFile =>
      BeamFile.of([
        { id: "AtU8", data: Uint8Array.of(255, 255, 255, 255, ...length, ...Buffer.from("m".repeat(20))) },
      ]);
    expect(moduleName(tagged(4 << 4)).name).toBe("mmmm");
    expect(moduleName(tagged(0x08, 20)).name).toBe("m".repeat(20));
    expect(() => moduleName(tagged(0x01))).toThrow(CorruptBeamError);
    expect(() => moduleName(BeamFile.of([]))).toThrow(/AtU8/);
  });
});

describe("debug info", () => {
  const forms = [tuple(atom("attribute"), 1, atom("module"), atom("cart"))];

  test("of the compiler is read as it is", () => {
    const term = tuple(atom("debug_info_v1"), atom("erl_abstract_code"), tuple(forms, [atom("inline")]));
    const info = debugInfo(withDebugInfo(term));
    expect(isAbstractCode(info) && info.forms).toEqual(forms);
    expect(isAbstractCode(info) && info.options).toEqual([atom("inline")]);
  });

  test("of old modules is in chunk Abst", () => {
    const info = debugInfo(beam(["Abst", encode(tuple(atom("raw_abstract_v1"), forms))]));
    expect(isAbstractCode(info) && info.forms).toEqual(forms);
  });

  test("of another backend is handed on", () => {
    const data = tuple(atom("elixir_v1"), atom("map"), []);
    const info = debugInfo(withDebugInfo(tuple(atom("debug_info_v1"), atom("elixir_erl"), data)));
    expect(info).toEqual({ backend: "elixir_erl", module: atom("cart"), data });
  });

  const none = tuple(atom("debug_info_v1"), atom("erl_abstract_code"), tuple(atom("none"), []));
  test.each([
    ["absent", beam(), /erlc \+debug_info/],
    ["empty", beam(["Abst", new Uint8Array(0)]), /stripped/],
    ["left out", withDebugInfo(none), /without debug info.*debug_info/],
    [
      "left out by another backend",
      withDebugInfo(tuple(atom("debug_info_v1"), atom("elixir_erl"), atom("none"))),
      /@compile :debug_info/,
    ],
    ["of a version to come", withDebugInfo(tuple(atom("debug_info_v2"), atom("x"), 1)), /unknown version/],
    [
      "encrypted",
      beam(["Dbgi", Uint8Array.of(0, 8, ...Buffer.from("des3_cbc"), 1, 2)]),
      /encrypt_debug_info/,
    ],
  ])("%s: the error says what to do", (_, file, message) => {
    expect(() => debugInfo(file)).toThrow(expect.objectContaining({ code: "BT_NO_DEBUG_INFO" }));
    expect(() => debugInfo(file)).toThrow(message);
    expect(() => debugInfo(file)).toThrow(/module cart/);
  });

  test("that is no term is corrupt", () => {
    expect(() => debugInfo(beam(["Dbgi", Uint8Array.of(131, 104)]))).toThrow(CorruptBeamError);
  });
});
