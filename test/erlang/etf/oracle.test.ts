import { afterAll, beforeAll, expect, test } from "vitest";
import { decode, encode, equals, inspect, skipTerm } from "../../../src/erlang";
import { type Oracle, startOracle } from "./oracle";

// The seed is fixed so that runs can be compared; another one finds other terms.
const SEED = Number(process.env["BEAMTRACE_SEED"] ?? 20_250_101);
const BATCH = 2_000;
const TERMS = Number(process.env["BEAMTRACE_TERMS"] ?? 100_000);

let oracle: Oracle;
let release: number;
beforeAll(async () => {
  oracle = await startOracle();
  release = oracle.release;
});
afterAll(() => oracle.stop());

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

test(`decoding and encoding ${TERMS} terms of a node gives its own bytes again (seed ${SEED})`, async () => {
  for (let done = 0; done < TERMS; done += BATCH) {
    for (const { bytes } of await oracle.generate(SEED + done, BATCH)) {
      const term = decode(bytes);
      const again = encode(term, { release });
      if (Buffer.compare(again, bytes) !== 0) {
        expect.fail(
          `seed ${SEED + done}: ${inspect(term, { maxLength: 2000 })}\n${hex(bytes)}\n${hex(again)}`,
        );
      }
      if (skipTerm(bytes) !== bytes.length) expect.fail(`skipTerm stops early: ${hex(bytes)}`);
    }
  }
}, 600_000);

test("with Latin-1 atoms the bytes are those of minor version 1", async () => {
  for (const { bytes } of await oracle.generate(SEED, 5_000, { minorVersion: 1 })) {
    const term = decode(bytes);
    if (Buffer.compare(encode(term, { atoms: "latin1", release }), bytes) !== 0) {
      expect.fail(`${inspect(term, { maxLength: 2000 })}\n${hex(bytes)}`);
    }
  }
});

test("binaries decoded as views encode to the same bytes", async () => {
  for (const { bytes } of await oracle.generate(SEED + 1, 3_000)) {
    const term = decode(bytes, { binaries: "view" });
    expect(Buffer.compare(encode(term, { release }), bytes)).toBe(0);
    expect(equals(term, decode(bytes))).toBe(true);
  }
});

test("inspect writes what ~0tp writes", async () => {
  const wrong: string[] = [];
  for (let batch = 0; batch < 10; batch++) {
    for (const { bytes, text } of await oracle.generate(SEED + batch, BATCH, { text: "erlang" })) {
      const ours = inspect(decode(bytes), { localNode: "nonode@nohost", maxLength: Infinity });
      if (ours !== text) wrong.push(`${text}\n${ours}`);
    }
  }
  expect(wrong.slice(0, 10)).toEqual([]);
});

test("inspect writes what Elixir's inspect writes", async (context) => {
  if (!(await oracle.withElixir())) return context.skip();
  const wrong: string[] = [];
  for (let batch = 0; batch < 5; batch++) {
    for (const { bytes, text } of await oracle.generate(SEED + batch, BATCH, { text: "elixir" })) {
      const ours = inspect(decode(bytes), {
        notation: "elixir",
        charlists: "as-lists",
        localNode: "nonode@nohost",
        maxLength: Infinity,
      });
      if (ours !== text) wrong.push(`${text}\n${ours}`);
    }
  }
  expect(wrong.slice(0, 10)).toEqual([]);
});
