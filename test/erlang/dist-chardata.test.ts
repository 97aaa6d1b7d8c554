import { describe, expect, test } from "vitest";
import { chardataToText } from "../../src/erlang/dist/chardata";
import { atom, binary, improper, type Term } from "../../src/erlang/term";

describe("chardata to text", () => {
  test.each<[string, Term, string | undefined]>([
    ["a binary", binary("grüße €"), "grüße €"],
    ["code points", [0x48, 0x20ac, 0x1f600], "H€😀"],
    ["nested", [[0x41, [binary("b"), []]], 0x43], "AbC"],
    ["an improper list", improper([0x41], binary("b")), "Ab"],
    ["a code point split over two binaries", [new Uint8Array([0xe2, 0x82]), new Uint8Array([0xac])], "€"],
    ["nothing", [], ""],
    ["a byte order mark stays", binary("\ufeffx"), "\ufeffx"],
    ["bytes that are no UTF-8", new Uint8Array([0xff]), undefined],
    ["a surrogate", [0xd800], undefined],
    ["too large", [0x110000], undefined],
    ["an atom", atom("x"), undefined],
  ])("unicode: %s", (_what, term, text) => {
    expect(chardataToText(term, "unicode")).toBe(text);
  });

  test("latin1", () => {
    expect(chardataToText([0xe9, new Uint8Array([0xe8])], "latin1")).toBe("éè");
    expect(chardataToText([0x20ac], "latin1")).toBeUndefined();
  });

  test("a list nested a million deep", () => {
    let term: Term = [0x41];
    for (let i = 0; i < 1_000_000; i += 1) term = [term];
    expect(chardataToText(term, "unicode")).toBe("A");
  });
});
