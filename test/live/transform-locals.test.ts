/** The values of variables at a line: those that are bound there and no others, without a change to what the program does. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { BeamFile, debugInfo, inspect, isAbstractCode, type Term } from "../../src/erlang";
import {
  type CompileServer,
  expressionLines,
  formsFromTerm,
  instrumentBeam,
  LOCALS_TRACE,
  type LocalsRequest,
  localsEvent,
  readSiteTable,
  recompile,
  type SiteTable,
  siteTables,
} from "../../src/transform";
import type { Session } from "../../src/capture";
import { expectClean } from "../support/clean";
import { type ErlNode, startNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";
import {
  compileElixir,
  compileErlang,
  compileText,
  ELIXIR_EBIN,
  fixture,
  load,
  startCompiler,
  unload,
} from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;
let session: Session;

beforeAll(async () => {
  node = await startNode({ args: ["-pa", ELIXIR_EBIN] });
  compiler = await startCompiler();
  session = await attachTo(node);
  await load(node, "harness", await compileErlang(node, fixture("harness.erl")));
});
afterAll(async () => {
  await session.close();
  await expectClean(node, { modules: ["beamtrace_rt"] });
  await compiler.close();
  await node.stop();
});

const SOURCE = `-module(seen).
-export([f/2, nested/1, tail/1, partial/1, local/1, caught/1, comprehension/1, several/1, elsewhere/0, password/1]).
f(X, {ok, Y}) ->
    Z = X + Y,
    Z * 2.
nested(X) ->
    A = [X],
    R = case X of
        {one, B} ->
            C = {B},
            {A, C};
        _ ->
            D = 5,
            D
    end,
    {R, A}.
tail(X) ->
    Y = X + 1,
    R = elsewhere(),
    R.
partial(X) ->
    case X of
        1 -> A = 1, P = A;
        _ -> P = 2
    end,
    {P, X}.
local(X) ->
    F = fun(Y) ->
        W = X + Y,
        W + 1
    end,
    F(1).
caught(X) ->
    catch (Q = hd(X)),
    T = try U = hd(X), U catch _:_ -> none after put(k, X) end,
    T.
comprehension(L) ->
    [
        E + N
     || {E, N} <- L
    ].
several(X) -> A = X, B = A, {A, B}.
elsewhere() -> erlang:process_info(self(), current_stacktrace).
password(Password) ->
    Auth = {Password, #{token => Password}},
    size(Auth).
`;

/** Runs an expression with locals at lines; gives `line: Name=Value …` for each event. */
async function seen(
  lines: readonly number[],
  expression: string,
  request: Partial<LocalsRequest> = {},
): Promise<string[]> {
  const plain = await compileText(node, "seen", SOURCE);
  const { bytes } = await instrumentBeam(plain, compiler, {
    select: () => false,
    locals: lines.map((line) => ({ file: "seen.erl", line, ...request })),
  });
  return told("seen", [readSiteTable(BeamFile.read(bytes)) as SiteTable], bytes, expression);
}

async function told(
  module: string,
  tables: readonly SiteTable[],
  bytes: Uint8Array,
  expression: string,
): Promise<string[]> {
  await load(node, module, bytes);
  const trace = await session.trace(LOCALS_TRACE);
  const collected = collect(trace);
  await node.eval(expression);
  await trace.stop();
  await collected.done;
  await unload(node, module);
  return collected.events.flatMap((event) => {
    const found = localsEvent(event, siteTables(tables));
    if (found === undefined) return [];
    expect(found.complete).toBe(true);
    return [
      `${found.site.line}: ${found.variables.map(({ name, value }) => `${name}=${inspect(value)}`).join(" ")}`.trim(),
    ];
  });
}

describe("variables at a line", () => {
  test.each<readonly [string, number[], string, string[]]>([
    ["those of the head, before the first expression", [4], "seen:f(1, {ok, 2})", ["4: X=1 Y=2"]],
    ["and what was bound before", [5], "seen:f(1, {ok, 2})", ["5: X=1 Y=2 Z=3"]],
    [
      "of a clause within, with what is around it",
      [10, 11, 14],
      "seen:nested({one, 1}), seen:nested(x)",
      ["10: X={one,1} A=[{one,1}] B=1", "11: X={one,1} A=[{one,1}] B=1 C={1}", "14: X=x A=[x] D=5"],
    ],
    [
      "not what only some of the ways bind",
      [16],
      "seen:nested({one, 1})",
      ["16: X={one,1} A=[{one,1}] R={[{one,1}],{1}}"],
    ],
    ["what all of the ways bind", [26], "seen:partial(1), seen:partial(2)", ["26: X=1 P=1", "26: X=2 P=2"]],
    ["within a fun", [30], "seen:local(5)", ["30: X=5 Y=1 W=6"]],
    [
      "after the fun",
      [32],
      "case seen:local(5) of 7 -> ok end",
      ["32: X=5 F={'[fun]',seen,'-local/1-fun-0-',1}"],
    ],
    ["not what catch or try bind", [35, 36], "seen:caught([1])", ["35: X=[1]", "36: X=[1] T=1"]],
    [
      "within a comprehension",
      [39],
      "seen:comprehension([{1, 2}, {3, 4}])",
      ["39: L=[{1,2},{3,4}] E=1 N=2", "39: L=[{1,2},{3,4}] E=3 N=4"],
    ],
    ["before the first of several expressions", [42], "seen:several(1)", ["42: X=1"]],
    ["before a call whose result only gets a name: it is a tail call", [20], "seen:tail(1)", ["20: X=1 Y=2"]],
  ])("%s", async (_, lines, expression, events) => {
    expect(await seen(lines, expression)).toEqual(events);
  });

  test("what is in tail position stays there", async () => {
    const stack = "[{M, F, A} || {M, F, A, _} <- element(2, seen:tail(1)), M =:= seen]";
    await load(node, "seen", await compileText(node, "seen", SOURCE));
    const before = await node.eval(stack);
    expect(before).toBe("[{seen,elsewhere,0}]");
    const plain = await compileText(node, "seen", SOURCE);
    const locals = [18, 19, 20].map((line) => ({ file: "seen.erl", line }));
    const { bytes } = await instrumentBeam(plain, compiler, { locals });
    await load(node, "seen", bytes);
    expect(await node.eval(stack)).toBe(before);
    await unload(node, "seen");
  });

  test("values are cut, and redacted by the name of their variable or a key within", async () => {
    expect(await seen([46], 'seen:password(<<"hunter2">>)')).toEqual([
      "46: Password='[redacted]' Auth={<<\"hunter2\">>,#{token => '[redacted]'}}",
    ]);
    expect(
      await seen([4], "seen:f(1, {ok, 2}), catch seen:f(lists:seq(1, 100), {ok, 1})", { maxBytes: 40 }),
    ).toEqual(["4: X=1 Y=2", "4: X=[1,2,3,4,'[trimmed]'] Y=1"]);
  });

  test("a line without an expression names the nearest that have one; so does a file that is not the module's", async () => {
    await expect(seen([9], "ok")).rejects.toMatchObject({
      code: "BT_OPTION_INVALID",
      option: "locals[0]",
      message: expect.stringMatching(/no expression at line 9; .*: 7, 8, 10, 11/) as string,
    });
    await expect(seen([4, 1000], "ok")).rejects.toMatchObject({ option: "locals[1]" });
    await expect(seen([4], "ok", { file: "other.erl" })).rejects.toMatchObject({
      message: expect.stringMatching(/no code of other.erl; it is made of .*seen\.erl/) as string,
    });
    await expect(seen([4], "ok", { maxBytes: 0 })).rejects.toMatchObject({ code: "BT_OPTION_INVALID" });
  });
});

describe("Elixir", () => {
  const SHOP = `defmodule Shop do
  def total(items, tax) do
    total = 0
    total = total + length(items)
    total =
      if tax > 0 do
        extra = tax * 2
        total + extra
      else
        total
      end
    {:ok, total}
  end
end
`;
  test("variables are called as in the source, each in its latest binding", async () => {
    const [[module, plain] = ["", new Uint8Array()]] = await compileElixir(node, SHOP);
    const { bytes } = await instrumentBeam(plain, compiler, {
      locals: [3, 4, 8, 12].map((line) => ({ file: "subject.ex", line })),
    });
    const table = readSiteTable(BeamFile.read(bytes)) as SiteTable;
    expect(await told(`'${module}'`, [table], bytes, "'Elixir.Shop':total([a], 3)")).toEqual([
      "3: items=[a] tax=3",
      "4: items=[a] tax=3 total=0",
      "8: items=[a] tax=3 total=1 extra=6",
      "12: items=[a] tax=3 total=7",
    ]);
  });
});

test("with the variables of every line told, a program does the same and no warning is new", async () => {
  const text = (warnings: readonly { message: string }[]): Set<string> =>
    new Set(warnings.map((w) => w.message));
  const outcome = async (): Promise<string> => node.eval("harness:run(subject)");
  const plain = await compileErlang(node, fixture("subject.erl"));
  const info = debugInfo(BeamFile.read(plain));
  if (!isAbstractCode(info)) throw new Error("no forms");
  const lines = expressionLines(formsFromTerm(info.forms as readonly Term[]));
  expect(lines.length).toBeGreaterThan(50);
  const { bytes, warnings } = await instrumentBeam(plain, compiler, { locals: lines });
  const before = text((await recompile(BeamFile.read(plain), compiler)).warnings);
  expect([...text(warnings)].filter((message) => !before.has(message))).toEqual([]);
  await load(node, "subject", plain);
  const was = await outcome();
  await load(node, "subject", bytes);
  expect(await outcome()).toBe(was);
  await unload(node, "subject");
});
