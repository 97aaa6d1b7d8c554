/** Property: a random valid program gives, raises, prints and sends the same plain and instrumented. */
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";

import { atom, BeamFile, debugInfo, isAbstractCode } from "../../src/erlang";
import {
  builderAt,
  type CompileServer,
  expressionLines,
  type Expr,
  type FunctionNode,
  formsFromTerm,
  formsToTerm,
  instrumentBeam,
  recompile,
  type Scope,
  type SourceLine,
  traverse,
  type Visitor,
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

/** The object code of a random program; undefined where the compiler crashes: it has bugs of its own, which say nothing about us. */
const compiled = (seed: number, options?: string): Promise<Uint8Array | undefined> =>
  compileText(node, "random_program", randomProgram(seed, { otp }), options).catch((error: Error) =>
    /compile,\{crash/.test(error.message) ? undefined : Promise.reject(error),
  );

const RUNS = Number(process.env["BEAMTRACE_RANDOM_PROGRAMS"] ?? "25");

/** Programs in which something wrong must show at the latest. */
const WRONG_RUNS = 40;

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
      const optimize = seed % 3 !== 0;
      const plain = await compiled(seed, optimize ? undefined : "debug_info, no_ssa_opt");
      fc.pre(plain !== undefined);
      // Every variable that is named is bound there, or the program would not compile.
      const locals = seed % 2 === 0 ? someLines(plain, seed) : [];
      lines += locals.length;
      const { bytes, refused, warnings } = await instrumentBeam(plain, compiler, { locals, optimize });
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

/** The name of a local function. */
const nameOf = (callee: Expr): string => (callee.type === "atom" ? callee.value.name : "");
/** Calls of the program's own functions; not those of guards. */
const isOwn = (callee: Expr): boolean => /^f\d/.test(nameOf(callee));

function eachBody(
  { clauses }: FunctionNode,
  scope: Scope,
  change: (body: Expr[], scope: Scope) => Expr[],
): void {
  for (const clause of clauses) clause.body = change(clause.body, scope);
}

/** What a transformer could do wrong. */
const WRONG: Readonly<Record<string, Visitor>> = {
  "arguments from right to left": {
    call(path) {
      const { node: call, scope } = path;
      if (!isOwn(call.callee) || call.arguments.length < 2) return;
      const b = builderAt(call.anno);
      const names = call.arguments.map(() => scope.fresh("Wrong"));
      const matches = call.arguments.map((value, i) =>
        b.match(b.variable(names[i] as (typeof names)[0]), value),
      );
      const again = { ...call, arguments: names.map((name) => b.variable(name)) };
      path.replaceWith({ type: "block", anno: call.anno, body: [...matches.reverse(), again] });
    },
  },
  "an effect twice": {
    call(path) {
      const { node: call } = path;
      if (nameOf(call.callee) === "note") path.replaceWith(builderAt(call.anno).call("note", [call]));
    },
  },
  "the stack trace lost": {
    function(path) {
      if (!/^f\d/.test(path.node.name.name)) return;
      eachBody(path.node, path.scope, (body, scope) => {
        const b = builderAt(path.node.anno);
        const [kind, reason] = [b.variable(scope.fresh("Kind")), b.variable(scope.fresh("Reason"))];
        const caught = b.tuple(kind, reason, b.wildcard());
        const raised = b.remoteCall("erlang", "raise", [kind, reason, b.list([])]);
        return [b.try(body, [b.clause([caught], [raised])])];
      });
    },
  },
  "an exception of another class": {
    call(path) {
      const { callee, anno } = path.node;
      if (nameOf(callee) === "throw") path.node.callee = { type: "atom", anno, value: atom("exit") };
    },
  },
  "a message not sent": {
    binary_op(path) {
      if (path.node.operator.name === "!") path.replaceWith(path.node.right);
    },
  },
};

test.each(Object.entries(WRONG))(
  "the comparison is no blind one: it sees %s",
  async (_, visitor) => {
    let seen = 0;
    for (let seed = 1; seed <= WRONG_RUNS && seen === 0; seed++) {
      const plain = await compiled(seed);
      if (plain === undefined) continue;
      const wrong = await recompile(BeamFile.read(plain), compiler, (terms) => {
        const forms = formsFromTerm(terms);
        traverse(forms, visitor);
        return formsToTerm(forms);
      });
      await load(node, "random_program", plain);
      await outcome("before");
      await load(node, "random_program", wrong.beam.write());
      if ((await differences()) !== "[]") seen++;
    }
    expect(seen).toBe(1);
  },
  120_000,
);
