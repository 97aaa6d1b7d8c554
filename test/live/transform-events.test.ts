/** What instrumented code says: entries, returns and tail calls of the right sites, each frame by its id, through an ordinary call trace. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { BeamFile } from "../../src/erlang";
import { siteIn } from "../../src/buffer";
import { type CompileServer, instrumentBeam, readSiteTable, type SiteTable } from "../../src/transform";
import { RUNTIME_OFF, RUNTIME_ON } from "../../src/transform/beam-code.generated";
import { type ErlNode, startNode } from "../support/erl-node";
import { TOLD_FUNCTIONS } from "../support/told-events";
import { compileText, load, startCompiler, unload } from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;

beforeAll(async () => {
  node = await startNode({ distributed: false });
  compiler = await startCompiler();
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
});

const SOURCE = `-module(told).
-export([add/2, loop/1, pick/1, bytes/2, risky/1, outer/1, noreturn/1, many/7]).
${TOLD_FUNCTIONS}bytes(<<_, R/binary>>, N) -> bytes(R, N + 1);
bytes(<<>>, N) -> N.
risky(X) -> Y = outer(X), Y + 1.
outer(X) -> X + 1.
noreturn(X) -> throw(X).
many(A, B, C, D, E, F, G) -> {A, B, C, D, E, F, G}.
`;

interface Told {
  readonly what: string;
  readonly frame: number;
  readonly rest: string;
}

/** Runs an expression in a traced process and gives what was told, ids numbered from 1 in order of appearance. */
async function told(expression: string): Promise<Told[]> {
  const text = await node.eval(`
    erlang:trace_pattern({beamtrace_rt, '_', '_'}, false, [local]),
    [1 = erlang:trace_pattern({beamtrace_rt, F, A}, true, [local]) || {F, A} <- [{entered, 4}, {left, 4}, {tail_called, 3}, {raised, 6}]],
    Self = self(),
    {P, Ref} = spawn_monitor(fun() -> receive go -> ok end, catch ${expression} end),
    1 = erlang:trace(P, true, [call, {tracer, Self}]),
    P ! go,
    receive {'DOWN', Ref, _, _, _} -> ok end,
    D = erlang:trace_delivered(P), receive {trace_delivered, P, D} -> ok end,
    Collect = fun C(Acc) -> receive {trace, P, call, {_, F, [Id, told, Site | Rest]}} -> C([{F, Id, Site, Rest} | Acc]) after 0 -> lists:reverse(Acc) end end,
    [lists:flatten(io_lib:format("~w ~w ~w ~0tp", tuple_to_list(E))) || E <- Collect([])]`);
  const ids = new Map<string, number>();
  return (JSON.parse(text) as string[]).map((line) => {
    const [, what = "", id = "", site = "", rest = ""] = /^(\w+) (\d+) (\d+) (.*)$/s.exec(line) ?? [];
    if (!ids.has(id)) ids.set(id, ids.size + 1);
    const at = siteIn(table, Number(site));
    return {
      what: `${what} ${at?.kind} ${at?.function}/${at?.arity}.${at?.clause}:${at?.line}`,
      frame: ids.get(id) ?? 0,
      rest,
    };
  });
}

let table: SiteTable;
const lines = (events: readonly Told[]): string[] => events.map((e) => `${e.frame} ${e.what} ${e.rest}`);

describe("with the runtime that traces", () => {
  beforeAll(async () => {
    const { bytes } = await instrumentBeam(await compileText(node, "told", SOURCE), compiler);
    table = readSiteTable(BeamFile.read(bytes)) as SiteTable;
    await load(node, "told", bytes);
    await load(node, "beamtrace_rt", RUNTIME_ON);
  });

  test("entry and return share an id and carry arguments and result", async () => {
    expect(lines(await told("told:add(1, b)"))).toEqual([
      "1 entered entry add/2.1:3 [[1,b]]",
      "1 left return add/2.1:4 [2]",
    ]);
  });

  test("a loop is a chain of tail calls", async () => {
    expect(lines(await told("told:loop(2)"))).toEqual([
      "1 entered entry loop/1.2:6 [[2]]",
      "1 tail_called tail loop/1.2:7 []",
      "2 entered entry loop/1.2:6 [[1]]",
      "2 tail_called tail loop/1.2:7 []",
      "3 entered entry loop/1.1:5 [[0]]",
      "3 left return loop/1.1:5 [done]",
    ]);
  });

  test("the arguments of a tail call are made within the frame", async () => {
    expect(lines(await told("told:pick(b)"))).toEqual([
      "1 entered entry pick/1.3:12 [[b]]",
      "2 entered entry add/2.1:3 [[1,2]]",
      "2 left return add/2.1:4 [2]",
      "1 tail_called tail pick/1.3:15 []",
      "3 entered entry add/2.1:3 [[1,2]]",
      "3 left return add/2.1:4 [2]",
    ]);
  });

  test("each leaf of a case says how it was left", async () => {
    expect(lines(await told("told:pick(a)"))).toEqual([
      "1 entered entry pick/1.3:12 [[a]]",
      "1 left return pick/1.3:14 [{a}]",
    ]);
    expect(lines(await told("told:pick([1])"))).toEqual([
      "1 entered entry pick/1.2:10 [[[1]]]",
      "1 tail_called tail pick/1.2:11 []",
    ]);
  });

  test("binaries that are taken apart are not carried, and the site says so", async () => {
    expect(lines(await told("told:bytes(<<1>>, 0)"))).toEqual([
      "1 entered entry bytes/2.1:17 [[0]]",
      "1 tail_called tail bytes/2.1:17 []",
      "2 entered entry bytes/2.2:18 [[1]]",
      "2 left return bytes/2.2:18 [1]",
    ]);
    const entries = table.sites.filter((site) => site.function === "bytes" && site.kind === "entry");
    expect(entries.map((site) => site.arguments)).toEqual([[1], [1]]);
  });

  test("a frame that ends by an exception has no end of its own", async () => {
    expect(lines(await told("told:risky(a)"))).toEqual([
      "1 entered entry risky/1.1:19 [[a]]",
      "2 entered entry outer/1.1:20 [[a]]",
    ]);
    expect(lines(await told("told:noreturn(1)"))).toEqual(["1 entered entry noreturn/1.1:21 [[1]]"]);
  });

  test("many arguments travel as a list", async () => {
    expect((await told("told:many(1, 2, 3, 4, 5, 6, 7)"))[0]?.rest).toBe("[[1,2,3,4,5,6,7]]");
  });

  test("a process that isn't traced says nothing, and nothing is told to others", async () => {
    expect(await told("ok")).toEqual([]);
  });

  test("the runtime goes away in the middle of a frame", async () => {
    await node.eval("code:delete(beamtrace_rt), code:purge(beamtrace_rt), told:pick(b)");
    expect(
      await node.eval("{beamtrace_rt:enter(a, 1), erlang:function_exported(beamtrace_rt, entered, 4)}"),
    ).toBe("{0,false}");
  });
});

test("exceptions: wrap tells of class, reason and stack, and refuses what it would break", async () => {
  const plain = await compileText(node, "told", SOURCE);
  const { bytes, refused } = await instrumentBeam(plain, compiler, { exceptions: "wrap" });
  expect(refused.map((r) => r.function).sort()).toEqual(["bytes", "loop", "pick"]);
  expect(refused[0]?.reason).toMatch(/tail calls/);
  const stack = "try told:risky(a) catch C:R:S -> {C, R, [{F, A, L} || {told, F, A, L} <- S]} end";
  await load(node, "told", plain);
  const before = await node.eval(stack);
  await load(node, "told", bytes);
  await load(node, "beamtrace_rt", RUNTIME_OFF);
  expect(await node.eval(stack)).toBe(before);
  await load(node, "beamtrace_rt", RUNTIME_ON);
  expect(await node.eval(stack)).toBe(before);
  table = readSiteTable(BeamFile.read(bytes)) as SiteTable;
  const events = await told("told:risky(a)");
  expect(events.map((e) => `${e.frame} ${e.what}`)).toEqual([
    "1 entered entry risky/1.1:19",
    "2 entered entry outer/1.1:20",
    "2 raised return outer/1.1:20",
    "1 raised return risky/1.1:19",
  ]);
  expect(events[2]?.rest).toMatch(/^\[error,badarith,\[(\{erlang,'\+',.*\},)?\{told,outer,1,/);
  await unload(node, "told");
  await unload(node, "beamtrace_rt");
});
