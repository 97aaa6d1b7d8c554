/**
 * What the native tracer's library keeps of a term, cuts and encodes is the term that the portable tracer makes of it: random terms of all kinds,
 * at random limits. The library and the agent's modules are loaded by themselves, so that both can be asked for any term.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startNode, type ErlNode } from "../support/erl-node";

const ROOT = join(import.meta.dirname, "../..");
const AGENT = join(ROOT, "beam/agent");
const LIBRARY = join(ROOT, "beam/native/prebuilt", `linux-${process.arch}`, "beamtrace_nif");

let node: ErlNode;

beforeAll(async () => {
  node = await startNode();
  const sources = [
    ...readdirSync(join(AGENT, "src")).map((name) => join(AGENT, "src", name)),
    join(ROOT, "beam/native/erl/beamtrace_nif.erl"),
    join(import.meta.dirname, "agent-erl/contents_terms.erl"),
  ];
  // By the node's own compiler: some releases refuse the code of older ones.
  const files = sources.map((source) => `"${source}"`).join(",");
  await node.eval(
    `[begin {ok, M, B} = compile:file(F, [binary, {i, "${join(AGENT, "include")}"}]), {module, M} = code:load_binary(M, F, B) end || F <- [${files}]], ok`,
  );
  expect(await node.eval(`ok = beamtrace_nif:load("${LIBRARY}"), beamtrace_native_check:check()`)).toBe("ok");
});
afterAll(() => node.stop());

test("random terms are shown as the portable tracer shows them", { timeout: 120_000 }, async () => {
  // Another one each time; a failure names it.
  const seed = Date.now() % 1_000_000;
  expect(await node.eval(`contents_terms:compare(3000, ${seed})`), `seed ${seed}`).toBe("ok");
  expect(await node.eval("contents_terms:compare(3000, 42)")).toBe("ok");
});

test("what is nested too deep counts against the limit", async () => {
  const size =
    await node.eval(`Deep = lists:foldl(fun(_, T) -> [T] end, lists:seq(1, 100000), lists:seq(1, 63)),
    byte_size(beamtrace_trim:encode(Deep, 4096, #{}))`);
  expect(Number(size)).toBeLessThan(4096 * 2);
});
