/** The native tracer's library is loaded and unloaded a thousand times; nothing stays: no memory, no thread-local space, no file, no trace. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { inflateRawSync } from "node:zlib";
import { readFileSync } from "node:fs";
import { residentBytes } from "../support/resident";
import { AGENT_FILE_PREFIX, AGENT_MODULES } from "../../src/capture/agent-code.generated";
import { NATIVE_LIBRARIES, NATIVE_MODULE } from "../../src/capture/native-code.generated";
import { eventually, startNode, type ErlNode } from "../support/erl-node";

const CYCLES = 1000;
let node: ErlNode;

beforeAll(async () => {
  node = await startNode();
});
afterAll(() => node.stop());

const mappings = (osPid: number): number =>
  readFileSync(`/proc/${osPid}/maps`, "utf8")
    .split("\n")
    .filter((line) => line.includes("beamtrace_nif")).length;

/** Loads, traces a few thousand events, frees, unloads. */
const CYCLE = `fun Cycle(0) -> ok; Cycle(N) ->
  ok = beamtrace_agent:native_loader_load(File, Nif, Library, erlang:md5(Library)),
  {Trace, State, _} = beamtrace_nif:open(erlang:system_info(schedulers), 4096, {true, false, 16#FFFFFFF}, {self(), undefined, []}),
  P = spawn(fun L() -> receive stop -> ok; _ -> L() end end),
  1 = erlang:trace(P, true, ['receive', procs, {tracer, beamtrace_nif, State}]),
  [P ! I || I <- lists:seq(1, 50)], P ! stop,
  M = monitor(process, P), receive {'DOWN', M, _, _, _} -> ok end,
  Barrier = fun() -> R = erlang:trace_delivered(all), receive {trace_delivered, all, R} -> ok end end,
  Barrier(),
  {52, _, _, 0, _, 0, _, _} = beamtrace_nif:drain(Trace, 4096),
  ok = beamtrace_nif:shut(Trace), Barrier(), ok = beamtrace_nif:free(Trace),
  {0, 0, 0} = beamtrace_nif:usage(),
  code:purge(beamtrace_nif), code:delete(beamtrace_nif), code:purge(beamtrace_nif),
  erlang:garbage_collect(),
  Cycle(N - 1)
end`;

test("a thousand cycles leave nothing behind", { timeout: 180_000 }, async () => {
  const code = NATIVE_LIBRARIES.find(({ platform }) => platform === "linux-x64");
  const library = inflateRawSync(Buffer.from(code?.deflated ?? "", "base64")).toString("base64");
  const cycles = (count: number): Promise<string> =>
    node.eval(
      `{module, _} = code:load_binary(beamtrace_agent, "${AGENT_FILE_PREFIX}beamtrace_agent", base64:decode("${AGENT_MODULES[0]?.beam}")),
       File = "${AGENT_FILE_PREFIX}cycle", Nif = base64:decode("${NATIVE_MODULE.beam}"), Library = base64:decode("${library}"),
       (${CYCLE})(${count}), code:purge(beamtrace_agent), code:delete(beamtrace_agent), code:purge(beamtrace_agent), ok`,
    );
  /** The process of the last cycle, and with it the last trace, ends a moment after its answer. */
  const unmapped = (): Promise<number> =>
    eventually(
      () => mappings(node.osPid),
      (count) => count === 0,
    );
  await cycles(100);
  await unmapped();
  const before = residentBytes(node.osPid);
  await cycles(CYCLES);
  await unmapped();
  // The library takes 100 KiB in memory, a trace 800 KiB: one left over in each tenth cycle would be 90 MB.
  expect(residentBytes(node.osPid) - before).toBeLessThan(50_000_000);
});
