/**
 * The native tracer, built with ASan and UBSan, in a real VM that is not: the sanitizers' runtime is preloaded, and the VM's allocators hand
 * everything to malloc, so that the rings have red zones. Thousands of processes start, work and die, traced by several traces at once, while
 * traces start, stop and are killed. `npx tsx stress/native-vm.ts [rounds]`; leaks are the harness's to find (native-c): a VM never frees everything.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { fileURLToPath } from "node:url";
import type { Row } from "../bench/row";
import { NATIVE_LIBRARIES, type NativeLibrary } from "../src/capture/native-code.generated";
import { eventually, startNode } from "../test/support/erl-node";
import {
  account,
  EVENTS_OF_A_SPAWN,
  SPAWNED,
  spawnAll,
  startSpawners,
  stopSpawners,
} from "../test/support/spawners";
import { attachTo } from "../test/support/traced";

const SPAWNERS = 4;
const EACH = 2_000;
const REPORT = /AddressSanitizer|runtime error:|Sanitizer:DEADLYSIGNAL/;
const NOISE = `[register(list_to_atom("noise_" ++ integer_to_list(I)), spawn(fun Loop() ->
  receive stop -> ok after 1 ->
    P = spawn(fun() -> receive {From, X} -> From ! {X, lists:seq(1, 100)} end end),
    link(P), P ! {self(), make_ref()}, receive {_, [_ | _]} -> ok end, unlink(P),
    _ = lists:foldl(fun(J, Acc) -> [{J, <<I:32, J:7>>, #{J => Acc}}] end, [], lists:seq(1, 50)),
    self() ! fun lists:map/2, receive F when is_function(F) -> ok end,
    Loop()
  end end)) || I <- lists:seq(1, 3)], ok`;

interface VmReport {
  readonly otp: number;
  readonly rounds: number;
  readonly events: number;
  readonly wrong: readonly string[];
}

/** The library with sanitizers, and what has to be preloaded for it. */
function build(folder: string): { bytes: Buffer; preload: string } {
  const library = join(folder, "beamtrace_nif.so");
  execFileSync("sh", ["beam/native/compile.sh", "beam/native/src/beamtrace_nif.c", library], {
    env: {
      ...process.env,
      CFLAGS: "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all",
    },
    stdio: "inherit",
  });
  // Copied, so that a node in a root of its own finds them.
  const runtime = (name: string): string => {
    const copy = join(folder, name);
    copyFileSync(execFileSync("gcc", [`-print-file-name=${name}`], { encoding: "utf8" }).trim(), copy);
    return copy;
  };
  return { bytes: readFileSync(library), preload: `${runtime("libasan.so")} ${runtime("libubsan.so")}` };
}

export async function sanitized(rounds: number): Promise<VmReport> {
  const folder = mkdtempSync("/tmp/beamtrace-vm-");
  const { bytes, preload } = build(folder);
  const at = NATIVE_LIBRARIES.findIndex(({ platform }) => platform === "linux-x64");
  const shipped = NATIVE_LIBRARIES[at];
  if (shipped === undefined) throw new Error("no library for linux-x64");
  (NATIVE_LIBRARIES as NativeLibrary[])[at] = {
    ...shipped,
    md5: createHash("md5").update(bytes).digest("hex"),
    bytes: bytes.length,
    deflated: deflateRawSync(bytes).toString("base64"),
  };
  const node = await startNode({
    args: ["+Mea", "min", "+S", "4:4"],
    env: {
      LD_PRELOAD: preload,
      ASAN_OPTIONS: "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:handle_segv=1",
      UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
    },
  });
  const wrong: string[] = [];
  let events = 0;
  let otp = 0;
  try {
    await node.eval(NOISE);
    for (let round = 0; round < rounds; round++) {
      // Loaded and unloaded with each session.
      await using session = await attachTo(node, { tracer: "native", callTimeoutMs: 60_000 });
      otp = session.info.otp;
      const processes = await startSpawners(node, session, SPAWNERS);
      const several = session.info.capabilities.traceSessions;
      for (let i = 0; i < 3; i++) {
        const payload = i === 1 ? ({ maxBytes: 300 } as const) : "shape";
        const exact = await session.trace({ ...SPAWNED, processes, payload });
        const others = several
          ? [
              await session.trace({
                events: ["send", "receive", "procs", "running", "gc"],
                scheduler: true,
                payload: i === 2 ? { maxBytes: 2000 } : "shape",
                limits: { rate: Infinity, memory: 1 << 22 },
              }),
              await session.trace({ events: ["procs"], processes: "new", limits: { rate: Infinity } }),
            ]
          : [];
        const counted = [exact, ...others].map((trace) => account(trace));
        await spawnAll(node, SPAWNERS, EACH);
        if (i === 2)
          await node.eval(
            `case [P || P <- processes(), {initial_call, {beamtrace_agent, rings_init, _}} <- [process_info(P, initial_call)]] of
               [_, P | _] -> exit(P, kill); _ -> ok end`,
          );
        await Promise.all([exact, ...others].map((trace) => trace.stop().catch(() => undefined)));
        await Promise.all(counted.map(({ done }) => done));
        const { delivered, lost, backwards } = counted[0]?.counts ?? { delivered: 0, lost: 0, backwards: 0 };
        const ended = await exact.ended;
        if (ended.kind === "stopped" && delivered + lost !== EVENTS_OF_A_SPAWN * SPAWNERS * EACH)
          wrong.push(`round ${round}: ${delivered} + ${lost} are not ${EVENTS_OF_A_SPAWN * SPAWNERS * EACH}`);
        if (backwards > 0) wrong.push(`round ${round}: ${backwards} backwards`);
        events += counted.reduce((sum, { counts }) => sum + counts.delivered, 0);
      }
      await stopSpawners(node, SPAWNERS);
      await session.close();
      await eventually(
        () => node.eval("code:is_loaded(beamtrace_nif)"),
        (loaded) => loaded === "false",
      );
    }
  } catch (error) {
    wrong.push(String(error));
  } finally {
    await node.stop();
    (NATIVE_LIBRARIES as NativeLibrary[])[at] = shipped;
    rmSync(folder, { recursive: true });
  }
  if (REPORT.test(node.output())) wrong.push(node.output().slice(-8000));
  return { otp, rounds, events, wrong };
}

/** `quick`: three sessions of three traces, else sixty. */
export async function run(quick: boolean): Promise<Row[]> {
  const { otp, rounds, events, wrong } = await sanitized(quick ? 3 : 60);
  for (const line of wrong) console.error(line);
  return [
    {
      what: `OTP ${otp}: native tracer with ASan and UBSan in the VM, ${rounds} sessions`,
      target: "no report, every event accounted for",
      measured: `${wrong.length} wrong; ${events} events`,
      value: wrong.length,
      ok: wrong.length === 0 && events > 0,
    },
  ];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const report = await sanitized(Number(process.argv[2] ?? 3));
  console.log(JSON.stringify({ ...report, wrong: report.wrong.length }), report.wrong.join("\n"));
  process.exit(report.wrong.length === 0 ? 0 : 1);
}
