import fc from "fast-check";
import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { Dictionary, DICTIONARY_FULL } from "../../src/buffer/dictionary";
import type { AtomId } from "../../src/buffer/ids";

const atomText = fc.string({ unit: "binary", maxLength: 60 }).filter((s) => [...s].length <= 255);

describe("Dictionary", () => {
  test("gives each text one id and finds the text again", () => {
    fc.assert(
      fc.property(fc.array(atomText, { maxLength: 400 }), (texts) => {
        const dictionary = new Dictionary();
        const ids = texts.map((t) => dictionary.atomId(t));
        texts.forEach((t, i) => {
          expect(dictionary.atomId(t)).toBe(ids[i]);
          expect(dictionary.atomName(ids[i]!)).toBe(t);
          expect(dictionary.atom(ids[i]!)?.name).toBe(t);
        });
        expect(new Set(ids).size).toBe(new Set(texts).size);
      }),
      { numRuns: 50 },
    );
  });

  test("interns from bytes at any offset, also at the very end of the buffer", () => {
    const dictionary = new Dictionary();
    for (const text of ["a", "ab", "abc", "abcd", "abcde", "Elixir.Shop.Cart", "", "ö", "日本"]) {
      const utf8 = new TextEncoder().encode(text);
      const id = dictionary.atomId(text);
      for (let offset = 0; offset < 5; offset++) {
        const bytes = new Uint8Array(offset + utf8.length).fill(255);
        bytes.set(utf8, offset);
        expect(dictionary.internAtom(new DataView(bytes.buffer), offset, utf8.length)).toBe(id);
      }
    }
  });

  test("keeps MFAs and nodes; the same id gives the same object", () => {
    const dictionary = new Dictionary();
    const ids = new Map<string, number>();
    for (let i = 0; i < 5000; i++) {
      const m = dictionary.atomId(`m${i % 70}`);
      const f = dictionary.atomId(`f${i % 90}`);
      const id = dictionary.internMfa(m, f, i % 11);
      ids.set(`m${i % 70}:f${i % 90}/${i % 11}`, id);
    }
    for (const [text, id] of ids) {
      const mfa = dictionary.mfa(id)!;
      expect(`${mfa.module}:${mfa.function}/${mfa.arity}`).toBe(text);
      expect(dictionary.mfa(id)).toBe(mfa);
    }
    const node = dictionary.internNode(dictionary.atomId("a@b"), 0xffffffff);
    expect(dictionary.internNode(dictionary.atomId("a@b"), 1)).not.toBe(node);
    expect(dictionary.node(node)).toEqual({ name: "a@b", creation: 0xffffffff });
    expect(dictionary.mfa(0)).toBeUndefined();
    expect(dictionary.atomName(0)).toBeUndefined();
    expect(dictionary.node(999_999)).toBeUndefined();
  });

  test("a full dictionary answers with the reserved atom and counts", () => {
    const dictionary = new Dictionary({ maxBytes: 4096 });
    let last: AtomId = 0 as AtomId;
    for (let i = 0; i < 1000; i++) last = dictionary.atomId(`some_atom_${i}`);
    expect(dictionary.atomName(last)).toBe(DICTIONARY_FULL);
    expect(dictionary.overflowed).toBeGreaterThan(500);
    expect(dictionary.usedBytes).toBeLessThanOrEqual(4096);
    expect(dictionary.atomName(dictionary.atomId("some_atom_0"))).toBe("some_atom_0");
    expect(dictionary.mfa(dictionary.internMfa(last, last, 3))?.module).toBe(DICTIONARY_FULL);
    expect(dictionary.node(dictionary.internNode(last, 3))?.name).toBe(DICTIONARY_FULL);
  });

  test("refuses what no node can have as an atom", () => {
    const dictionary = new Dictionary();
    const bad = new Uint8Array([0xc3, 0x28]);
    expect(() => dictionary.internAtom(new DataView(bad.buffer), 0, 2)).toThrowError(
      expect.objectContaining({ code: "BT_BAD_TERM" }) as Error,
    );
    expect(() => dictionary.atomId("x".repeat(256))).toThrow();
    expect(() => new Dictionary({ maxBytes: 10 })).toThrow();
    expect(() => Dictionary.from({ dictionary: new SharedArrayBuffer(64) })).toThrow();
  });

  test("a second view of the same log sees and adds entries lazily", () => {
    const first = new Dictionary();
    const second = Dictionary.from(first.handle);
    const a = first.atomId("late");
    expect(second.atomName(a)).toBe("late");
    const b = second.atomId("later");
    expect(first.atomId("later")).toBe(b);
    const mfa = second.internMfa(a, b, 2);
    expect(first.mfa(mfa)).toEqual({ module: "late", function: "later", arity: 2 });
    const node = first.internNode(a, 7);
    expect(second.node(node)).toEqual({ name: "late", creation: 7 });
  });

  test("two threads that add the same names at once agree on every id", { timeout: 60_000 }, async () => {
    const dictionary = new Dictionary();
    const code = `
      const { parentPort, workerData } = require("node:worker_threads");
      require("tsx/cjs");
      const { Dictionary } = require(${JSON.stringify(new URL("../../src/buffer/dictionary.ts", import.meta.url).pathname)});
      const d = Dictionary.from(workerData.handle);
      const ids = [];
      for (let i = 0; i < 20000; i++) ids.push(d.atomId("n" + ((i * 7919 * workerData.step) % 20011)));
      parentPort.postMessage(ids);`;
    const run = (step: number) =>
      new Promise<number[]>((resolve, reject) => {
        const worker = new Worker(code, { eval: true, workerData: { handle: dictionary.handle, step } });
        worker.once("message", resolve);
        worker.once("error", reject);
      });
    const results = await Promise.all([run(1), run(3)]);
    [1, 3].forEach((step, k) => {
      results[k]!.forEach((id, i) => expect(dictionary.atomName(id)).toBe("n" + ((i * 7919 * step) % 20011)));
    });
  });
});
