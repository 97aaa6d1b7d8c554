/**
 * What a callback costs that tells what it did: a module with gen_server's callbacks, plain and instrumented, called directly in short blocks in
 * turn; with the runtime that does nothing and with the one that makes summaries, of a state of five keys, of one of a million and of one of 42
 * whose values are large. The summary must not grow with the state.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { instrumentBeam, startCompileServer } from "../../src/transform";
import { RUNTIME_OFF, RUNTIME_ON } from "../../src/transform/beam-code.generated";
import { startNode, type ErlNode } from "../../test/support/erl-node";
import type { Row } from "../row";
import { formatEstimate, medianEstimate } from "../server/statistics";

const source = (module: string): string => `-module(${module}).
-behaviour(gen_server).
-export([init/1, handle_call/3, handle_cast/2, blocks/3]).
init(small) -> #{count => 0, name => <<"shop">>, items => [1, 2, 3], waiting => none, limit => 10};
init(million) -> maps:from_list([{I, I} || I <- lists:seq(1, 1000000)] ++ [{count, 0}]);
init(copies) -> maps:from_list([{count, 0}, {big, lists:seq(1, 100000)} | [{I, lists:seq(1, 1000)} || I <- lists:seq(1, 40)]]).
handle_call({add, N}, _From, #{count := C} = S) -> {reply, C + N, S#{count := C + N}}.
handle_cast(_, S) -> {noreply, S}.
%% Nanoseconds a call of each of Blocks blocks.
blocks(State, Blocks, N) ->
    S = persistent_term:get(State),
    From = {self(), make_ref()},
    [begin T = erlang:monotonic_time(nanosecond), loop(N, From, S), (erlang:monotonic_time(nanosecond) - T) / N end || _ <- lists:seq(1, Blocks)].
loop(0, _, _) -> ok;
loop(N, From, S) -> handle_call({add, 1}, From, S), loop(N - 1, From, S).
`;

async function load(node: ErlNode, module: string, beam: Uint8Array | string): Promise<void> {
  const text = typeof beam === "string" ? beam : Buffer.from(beam).toString("base64");
  const loaded = await node.eval(
    `code:purge(${module}), code:load_binary(${module}, "${module}.beam", base64:decode("${text}"))`,
  );
  if (loaded !== `{module,${module}}`) throw new Error(loaded);
}

/** `plain`; `callback_told`: a callback; `function_told`: the same function, told of as any other. */
async function prepare(node: ErlNode): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "beamtrace-callback-cost-"));
  await using compiler = await startCompileServer();
  try {
    for (const module of ["cost_plain", "callback_told", "function_told"]) {
      writeFileSync(join(folder, `${module}.erl`), source(module));
      execFileSync("erlc", ["+debug_info", "-o", folder, join(folder, `${module}.erl`)]);
      const plain = readFileSync(join(folder, `${module}.beam`));
      const { bytes } = await instrumentBeam(plain, compiler, {
        select: (f) => f.function === "handle_call" && module !== "cost_plain",
        callbacks: module === "callback_told" ? "shape" : "none",
      });
      await load(node, module, bytes);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  await node.eval("[persistent_term:put(S, cost_plain:init(S)) || S <- [small, million, copies]]");
}

/** Added nanoseconds a call, block by block, of one module over another. */
async function added(
  node: ErlNode,
  [told, plain]: readonly [string, string],
  state: string,
  rounds: number,
  calls: number,
): Promise<number[]> {
  const text = await node.eval(
    `lists:append([begin
       [P | _] = lists:sort(${plain}:blocks(${state}, 3, ${calls})),
       [T | _] = lists:sort(${told}:blocks(${state}, 3, ${calls})),
       [T - P]
     end || _ <- lists:seq(1, ${rounds})])`,
  );
  return JSON.parse(text) as number[];
}

export async function run(quick: boolean): Promise<Row[]> {
  const node = await startNode({ distributed: false });
  try {
    await prepare(node);
    const rounds = quick ? 60 : 300;
    const calls = 10_000;
    const rows: Row[] = [];
    const cost = async (
      what: string,
      of: readonly [string, string],
      state: string,
      over: string,
    ): Promise<number> => {
      const estimate = medianEstimate(await added(node, of, state, rounds, calls));
      const measured = `${formatEstimate(estimate)} ns a call over ${over}`;
      rows.push({ what, target: "", measured, value: estimate.value, ok: true });
      return estimate.value;
    };
    const overPlain = ["callback_told", "cost_plain"] as const;
    await load(node, "beamtrace_rt", RUNTIME_OFF);
    await cost("tracing off: a callback", overPlain, "small", "plain");
    await cost(
      "tracing off: as a callback",
      ["callback_told", "function_told"],
      "small",
      "any other function",
    );
    await load(node, "beamtrace_rt", RUNTIME_ON);
    const small = await cost("summary: five keys", overPlain, "small", "plain");
    const million = await cost(
      "summary: a million keys, 64 of them looked at",
      overPlain,
      "million",
      "plain",
    );
    const copies = await cost("summary: 42 keys", overPlain, "copies", "plain");
    const worst = Math.max(million, copies);
    rows.push({
      what: "the summary of the largest state against that of five keys",
      target: "≤ 64 times: as many keys as it looks at",
      measured: `${(worst / small).toFixed(1)} times`,
      value: worst / small,
      ok: worst / small <= 64,
    });
    return rows;
  } finally {
    await node.stop();
  }
}
