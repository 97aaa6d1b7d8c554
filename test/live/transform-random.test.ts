/** Property: a random valid program gives, raises, prints and sends the same plain and instrumented. */
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";

import { BeamFile, debugInfo, isAbstractCode } from "../../src/erlang";
import {
  type CompileServer,
  expressionLines,
  formsFromTerm,
  instrumentBeam,
  type SourceLine,
} from "../../src/transform";
import { RUNTIME_ON } from "../../src/transform/beam-code.generated";
import { type ErlNode, startNode } from "../support/erl-node";
import { compileErlang, compileText, fixture, load, startCompiler } from "../support/transform";
import { randomProgram } from "../transform/random-program";

let node: ErlNode;
let compiler: CompileServer;
let otp: number;

beforeAll(async () => {
  node = await startNode({ distributed: false });
  compiler = await startCompiler();
  otp = Number((await compiler.versions()).otp);
  await load(node, "harness", await compileErlang(node, fixture("harness.erl")));
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
});

/** Runs the program and keeps what came out on the node; answers with as many lines as it has cases. */
async function outcome(name: "before" | "after"): Promise<string[]> {
  const text = await node.eval(
    `logger:set_primary_config(level, none),
     R = harness:run(random_program), persistent_term:put('${name}', R),
     [lists:flatten(io_lib:format("~0tp", [One])) || One <- R]`,
  );
  return JSON.parse(text) as string[];
}

const differences = async (): Promise<string> => {
  await outcome("after");
  return node.eval("harness:differences(persistent_term:get(before), persistent_term:get('after'))");
};

const RUNS = Number(process.env["BEAMTRACE_RANDOM_PROGRAMS"] ?? "25");

/** Some of the lines of a program, other ones for each seed. */
function someLines(plain: Uint8Array, seed: number): SourceLine[] {
  const info = debugInfo(BeamFile.read(plain));
  if (!isAbstractCode(info)) throw new Error("no forms");
  return expressionLines(formsFromTerm(info.forms)).filter(({ line }) => ((line * 7 + seed) >>> 0) % 3 !== 0);
}

test("random programs behave the same, with the variables of their lines told or not", async () => {
  let lines = 0;
  let exceptions = 0;
  let values = 0;
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 0x7fffffff }), async (seed) => {
      // Compilers have bugs of their own: a program that crashes it as it is says nothing about us.
      const plain = await compileText(node, "random_program", randomProgram(seed, { otp })).catch(
        (error: Error) => (/compile,\{crash/.test(error.message) ? undefined : Promise.reject(error)),
      );
      fc.pre(plain !== undefined);
      // Every variable that is named is bound there, or the program would not compile.
      const locals = seed % 2 === 0 ? someLines(plain, seed) : [];
      lines += locals.length;
      const { bytes, refused, warnings } = await instrumentBeam(plain, compiler, { locals });
      expect(refused).toEqual([]);
      expect(warnings.filter(({ message }) => /beamtrace/i.test(message))).toEqual([]);
      await load(node, "random_program", plain);
      const before = await outcome("before");
      await load(node, "random_program", bytes);
      expect(await differences()).toBe("[]");
      await load(node, "beamtrace_rt", RUNTIME_ON);
      expect(await differences()).toBe("[]");
      await node.eval("code:delete(beamtrace_rt), code:purge(beamtrace_rt)");
      exceptions += before.filter((text) => /^\{\{result,\{(error|exit|throw),/.test(text)).length;
      values += before.filter((text) => text.startsWith("{{result,{value,")).length;
    }),
    {
      numRuns: RUNS,
      endOnFailure: true,
      examples: (process.env["SEEDS"] ?? "")
        .split(",")
        .filter(Boolean)
        .map((x) => [Number(x)]) as [number][],
    },
  );
  // The programs do something: both ways of ending are common.
  expect(values).toBeGreaterThan(RUNS);
  expect(exceptions).toBeGreaterThan(RUNS);
  expect(lines).toBeGreaterThan(RUNS);
}, 600_000);
