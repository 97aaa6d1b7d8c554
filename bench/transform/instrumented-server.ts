/**
 * A server of which every module is instrumented, that of its libraries included, beside the plain one, each under the same open loop at the
 * same time: every unit done, no crash in its log, no growth, and the CPU a unit against the plain one's in the same moments. Nobody
 * traces; then once more with the runtime that traces, whose events nobody takes.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { instrumentBeam, startCompileServer } from "../../src/transform";
import { RUNTIME_ON } from "../../src/transform/beam-code.generated";
import { eventually } from "../../test/support/erl-node";
import type { Row } from "../row";
import { cpuTime } from "../server/cpu-time";
import { growthRow } from "../server/growth";
import { bootstrap, formatEstimate, median } from "../server/statistics";
import type { PacedWorkload } from "../server/workloads";

const BLOCK_MS = 500;
/** Part of what is due that both servers must do in a block for it to count. */
const MINIMUM_RATE = 0.95;
/** Units under way when the load is stopped that need not have been counted. */
const UNDER_WAY = 1;
const CRASH = /crash|\[error\]|\[critical\]|beamtrace|undef\b/i;

export interface ServerPair {
  readonly name: string;
  readonly unit: string;
  /** Folder with the server and its libraries. */
  readonly home: string;
  /** Starts the server that lies in `home`; the package's own when that is undefined. */
  start(home: string | undefined): Promise<PacedWorkload & { readonly logs: string }>;
}

type Running = Awaited<ReturnType<ServerPair["start"]>>;

interface Copy {
  readonly modules: number;
  readonly functions: number;
  readonly refused: readonly string[];
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Copies the server, all its modules instrumented. */
async function instrumentedCopy(from: string, to: string): Promise<Copy> {
  cpSync(from, to, { recursive: true, verbatimSymlinks: true });
  await using server = await startCompileServer();
  let [modules, functions] = [0, 0];
  const refused: string[] = [];
  const queue = (readdirSync(to, { recursive: true }) as string[])
    .filter((name) => name.endsWith(".beam"))
    .map((name) => join(to, name));
  const work = async (): Promise<void> => {
    for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
      try {
        const result = await instrumentBeam(readFileSync(file), server);
        if (result.instrumented.length > 0) modules++;
        functions += result.instrumented.length;
        writeFileSync(file, result.bytes);
      } catch (error) {
        refused.push(`${basename(file)}: ${(error as Error).message.slice(0, 150)}`);
      }
    }
  };
  await Promise.all([work(), work(), work()]);
  return { modules, functions, refused };
}

interface Sample {
  readonly cpu: number;
  readonly done: number;
  readonly due: number;
}

async function sample(workload: Running): Promise<Sample> {
  const { done, due = 0 } = await workload.units();
  return { cpu: cpuTime(workload.node.osPid), done, due };
}

interface Block {
  /** Microseconds of CPU a unit. */
  readonly plain: number;
  readonly told: number;
}

/** CPU a unit of both servers, block by block; blocks in which one of them fell behind are left out. */
async function compare(
  plain: Running,
  told: Running,
  blocks: number,
  after: () => Promise<void> = () => Promise.resolve(),
): Promise<Block[]> {
  const found: Block[] = [];
  for (let left = 3 * blocks; found.length < blocks; left--) {
    if (left === 0) throw new Error("the machine is too crowded: the load is not kept up");
    const before = await Promise.all([sample(plain), sample(told)]);
    await sleep(BLOCK_MS);
    const now = await Promise.all([sample(plain), sample(told)]);
    const [a, b] = now.map((one, i) => {
      const was = before[i] as Sample;
      const done = one.done - was.done;
      return { cost: (one.cpu - was.cpu) / done, kept: done / (one.due - was.due) };
    });
    await after();
    if (a === undefined || b === undefined) continue;
    if (a.kept >= MINIMUM_RATE && b.kept >= MINIMUM_RATE) found.push({ plain: a.cost, told: b.cost });
  }
  return found;
}

/** Lines of the logs that speak of something going wrong. */
function complaints(logs: string): string[] {
  const files = readdirSync(logs).filter((name) => name.endsWith(".log"));
  if (files.length === 0) return ["there is no log"];
  return files
    .flatMap((name) => readFileSync(join(logs, name), "utf8").split("\n"))
    .filter((line) => CRASH.test(line));
}

function costRow(what: string, unit: string, blocks: readonly Block[]): Row {
  const factor = bootstrap(blocks, (some) => median(some.map(({ plain, told }) => told / plain)));
  const plain = median(blocks.map((block) => block.plain));
  return {
    what,
    target: "",
    measured: `× ${formatEstimate(factor)} CPU a ${unit}, plain ${plain.toFixed(0)} µs (${blocks.length} blocks)`,
    value: factor.value,
    ok: true,
  };
}

/** Runs the pair and answers its rows. */
export async function instrumentedServer(pair: ServerPair, quick: boolean): Promise<Row[]> {
  const { name, unit } = pair;
  const folder = mkdtempSync(join(tmpdir(), "beamtrace-instrumented-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  const running: Running[] = [];
  const start = async (home?: string): Promise<Running> => {
    const workload = await pair.start(home);
    running.push(workload);
    return workload;
  };
  try {
    const home = join(folder, "server");
    const copy = await instrumentedCopy(pair.home, home);
    for (const line of copy.refused) console.error(`  refused: ${line}`);
    const plain = await start();
    const told = await start(home);
    await plain.start();
    await told.start();
    await sleep(quick ? 5_000 : 30_000);
    const instrumented = Number(
      await told.node.eval(
        "length([M || {M, _} <- code:all_loaded(), lists:keymember('-beamtrace-absent-', 1, M:module_info(functions))])",
      ),
    );
    const idle = await told.node.eval(
      "{erlang:module_loaded(beamtrace_rt), erlang:function_exported(beamtrace_rt, entered, 4)}",
    );
    const at: number[] = [];
    const bytes: number[] = [];
    const begin = performance.now();
    const off = await compare(plain, told, quick ? 60 : 600, async () => {
      bytes.push(
        Number(await told.node.eval("[erlang:garbage_collect(P) || P <- processes()], erlang:memory(total)")),
      );
      at.push((performance.now() - begin) / 60_000);
    });
    const loaded = await told.node.eval(
      `code:purge(beamtrace_rt), code:load_binary(beamtrace_rt, "beamtrace_rt.beam", base64:decode("${RUNTIME_ON}"))`,
    );
    if (loaded !== "{module,beamtrace_rt}") throw new Error(`the tracing runtime is not loaded: ${loaded}`);
    await sleep(2_000);
    const on = await compare(plain, told, quick ? 30 : 240);
    // All that fell due is done when nothing new does.
    await told.setRate(0);
    const settled = ({ done, due = 0 }: { done: number; due?: number }): boolean => done >= due - UNDER_WAY;
    const units = await eventually(() => told.units(), settled, 30_000).catch(() => told.units());
    const lost = Math.max(0, Math.floor((units.due ?? 0) - units.done));
    const wrong = complaints(told.logs);
    for (const line of wrong.slice(0, 10)) console.error(`  ${line}`);
    const booted = `${copy.modules} modules, ${copy.functions} functions instrumented, ${copy.refused.length} refused; ${instrumented} of them in use`;
    return [
      {
        what: `${name} boots with all its modules instrumented`,
        target: "none refused, it serves",
        ...{ measured: booted, value: copy.modules },
        ok: copy.refused.length === 0 && instrumented > 0 && idle === "{true,false}",
      },
      {
        what: `${name} instrumented: ${unit}s that were due and not done`,
        target: "0",
        measured: `${lost} of ${Math.floor(units.due ?? 0)}`,
        ...{ value: lost, ok: lost <= UNDER_WAY },
      },
      {
        what: `${name} instrumented: crashes and errors in its log`,
        target: "none",
        ...{ measured: String(wrong.length), value: wrong.length, ok: wrong.length === 0 },
      },
      costRow(`${name} instrumented, tracing off`, unit, off),
      costRow(`${name} instrumented, tracing runtime, nobody listens`, unit, on),
      growthRow({ what: `${name} instrumented: memory of the node`, unit: "minute", at, bytes }),
    ];
  } finally {
    for (const workload of running.reverse()) await workload.stop();
    remove();
    process.off("exit", remove);
  }
}
