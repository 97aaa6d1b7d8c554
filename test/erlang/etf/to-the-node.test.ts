import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  atom,
  decode,
  decodePrefix,
  encode,
  equals,
  inspect,
  LocalExt,
  type Term,
  tuple,
} from "../../../src/erlang";
import { arbitraryTerm } from "./arbitrary-term";
import { type Oracle, startOracle } from "./oracle";

let oracle: Oracle;
beforeAll(async () => {
  oracle = await startOracle();
});
afterAll(() => oracle.stop());

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const bytesOf = (...parts: (number | string | Uint8Array)[]): Uint8Array =>
  Buffer.concat(parts.map((part) => (typeof part === "number" ? Buffer.from([part]) : Buffer.from(part))));

test("terms made here are read by the node, and are equal when they come back", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(arbitraryTerm, { minLength: 1, maxLength: 60 }), async (terms) => {
      const sent = terms.map((term) => encode(term, { release: oracle.release }));
      const judged = await oracle.judge(sent);
      judged.forEach(({ bytes }, i) => {
        if (Buffer.compare(bytes, sent[i] ?? bytes) === 0) return;
        // The node orders the keys of maps in its own way, and OTP 26 and later put themselves in as the maker of a fun.
        expect(bytes.length, hex(sent[i] ?? bytes)).toBeGreaterThan(0);
        expect(equals(decode(bytes), terms[i] as Term), hex(sent[i] ?? bytes)).toBe(true);
      });
    }),
    { numRuns: 200, seed: 20_250_102 },
  );
});

test("whatever the bytes: what the node reads is read here, and as the same term", async () => {
  // Random edits of valid terms. Here as there, bytes after the term do not matter.
  const sources = await oracle.generate(4711, 600);
  const edited: Uint8Array[] = [];
  let state = 1;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  for (const { bytes } of sources.filter((source) => source.bytes.length < 400)) {
    for (let i = 0; i < 10; i++) {
      const copy = Uint8Array.from(bytes);
      for (let n = random(3); n >= 0; n--) copy[1 + random(copy.length - 1)] = random(256);
      // Not these: the VM itself (OTP 25) can crash on a broken fun (112), and it reads tags that name its own atom table (73, 75).
      if (![112, 73, 75].some((tag) => copy.includes(tag))) edited.push(copy);
    }
  }
  const judged = await oracle.judge(edited);
  let both = 0;
  const differ: string[] = [];
  judged.forEach(({ bytes, text }, i) => {
    const input = edited[i] as Uint8Array;
    let ours: Term | undefined;
    try {
      ours = decodePrefix(input).term;
    } catch {
      ours = undefined;
    }
    if (ours !== undefined && bytes.length > 0) {
      both++;
      if (!equals(ours, decode(bytes))) differ.push(`${hex(input)} is ${text}, not ${inspect(ours)}`);
    } else if (ours === undefined && bytes.length > 0) {
      differ.push(`${hex(input)} is ${text}, refused here`);
    }
  });
  expect(both).toBeGreaterThan(500);
  expect(differ.slice(0, 10)).toEqual([]);
});

test("older forms of identifiers and floats are read as the node reads them", async () => {
  const node = bytesOf(100, 0, 3, "a@b");
  const forms = [
    bytesOf(131, 103, node, bytesOf(0, 0, 0, 9, 0, 0, 0, 1, 2)),
    bytesOf(131, 102, node, bytesOf(0, 0, 0, 9, 2)),
    bytesOf(131, 101, node, bytesOf(0, 0, 0, 9, 2)),
    bytesOf(131, 114, bytesOf(0, 2), node, bytesOf(1, 0, 0, 0, 7, 0, 0, 0, 8)),
    bytesOf(131, 99, "1.50000000000000000000e+00\0\0\0\0\0"),
    bytesOf(131, 115, 2, "ok"),
    bytesOf(131, 118, 0, 2, "ok"),
    bytesOf(131, 110, 3, 1, 5, 0, 0),
    bytesOf(131, 110, 0, 1),
    bytesOf(131, 111, 0, 0, 0, 1, 0, 9),
    bytesOf(131, 108, 0, 0, 0, 1, 97, 1, 107, 0, 2, 2, 3),
    bytesOf(131, 108, 0, 0, 0, 1, 97, 1, 108, 0, 0, 0, 1, 97, 2, 97, 3),
    bytesOf(131, 108, 0, 0, 0, 0, 97, 7),
    bytesOf(131, 77, 0, 0, 0, 1, 3, 0xff),
    bytesOf(131, 77, 0, 0, 0, 1, 8, 0xff),
  ];
  const judged = await oracle.judge(forms);
  judged.forEach(({ bytes }, i) => {
    const form = forms[i] as Uint8Array;
    expect(bytes.length, hex(form)).toBeGreaterThan(0);
    expect(hex(encode(decode(form), { release: oracle.release }))).toBe(hex(bytes));
  });
});

test("compressed terms are read", async () => {
  const bytes = await oracle.eval("term_to_binary({lists:duplicate(5000, word), 1}, [compressed])");
  expect(bytes[1]).toBe(80);
  expect(equals(decode(bytes), tuple(Array<Term>(5000).fill(atom("word")), 1))).toBe(true);
});

test("local terms pass through unread, back to the node that made them", async (context) => {
  if (oracle.release < 26) return context.skip();
  const bytes = await oracle.eval("term_to_binary({self(), make_ref(), #{a => 1}}, [local])");
  const term = decode(bytes);
  expect(term).toBeInstanceOf(LocalExt);
  expect(hex(encode(term))).toBe(hex(bytes));
});
