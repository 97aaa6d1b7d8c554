/**
 * RabbitMQ of which every module is instrumented, that of its plugins and libraries included, beside the plain one, each under the same open
 * loop at the same time: every message delivered, no crash in its log, no growth, and the CPU a message against the plain one's in the same
 * moments. Nobody traces; then once more with the runtime that traces, whose events nobody takes.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { instrumentBeam, startCompileServer } from "../../src/transform";
import { RUNTIME_ON } from "../../src/transform/beam-code.generated";
import { eventually } from "../../test/support/erl-node";
import type { Row } from "../row";
import { cpuTime } from "../server/cpu-time";
import { growthRow } from "../server/growth";
import { rabbitHome } from "../server/rabbitmq-node";
import { type RabbitWorkload, rabbitWorkload } from "../server/rabbitmq-workload";
import { bootstrap, formatEstimate, median } from "../server/statistics";

/** Messages a second on each of the two servers. */
const LOAD = { rate: 1500, bytes: 32, queues: 4 };
const BLOCK_MS = 500;
const MINIMUM_RATE = 0.95;
const CRASH = /crash|CRASH|\[error\]|supervisor.*error|beamtrace|undef/;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A copy of RabbitMQ with all its modules instrumented. */
async function instrumentedCopy(
  home: string,
): Promise<{ modules: number; functions: number; refused: string[] }> {
  cpSync(await rabbitHome(), home, { recursive: true, dereference: true });
  await using server = await startCompileServer();
  const found = { modules: 0, functions: 0, refused: [] as string[] };
  const queue = (readdirSync(join(home, "plugins"), { recursive: true }) as string[])
    .filter((name) => name.endsWith(".beam"))
    .map((name) => join(home, "plugins", name));
  const work = async (): Promise<void> => {
    for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
      try {
        const result = await instrumentBeam(readFileSync(file), server);
        if (result.instrumented.length > 0) found.modules++;
        found.functions += result.instrumented.length;
        writeFileSync(file, result.bytes);
      } catch (error) {
        found.refused.push(`${file.split("/").pop()}: ${(error as Error).message.slice(0, 100)}`);
      }
    }
  };
  await Promise.all([work(), work(), work()]);
  return found;
}

interface Sample {
  readonly cpu: number;
  readonly done: number;
  readonly due: number;
}

async function sample(workload: RabbitWorkload): Promise<Sample> {
  const { done, due = 0 } = await workload.units();
  return { cpu: cpuTime(workload.node.osPid), done, due };
}

/** CPU a message of both servers, block by block; blocks in which one of them fell behind are left out. */
async function compare(
  plain: RabbitWorkload,
  told: RabbitWorkload,
  blocks: number,
  after: () => Promise<void> = () => Promise.resolve(),
): Promise<{ readonly plain: number; readonly told: number }[]> {
  const found: { plain: number; told: number }[] = [];
  for (let left = 3 * blocks; found.length < blocks; left--) {
    if (left === 0) throw new Error("the machine is too crowded: the load is not kept up");
    const before = await Promise.all([sample(plain), sample(told)]);
    await sleep(BLOCK_MS);
    const now = await Promise.all([sample(plain), sample(told)]);
    const [a, b] = now.map((one, i) => {
      const was = before[i] as Sample;
      return {
        cost: (one.cpu - was.cpu) / (one.done - was.done),
        kept: (one.done - was.done) / (one.due - was.due),
      };
    });
    await after();
    if (a === undefined || b === undefined) continue;
    if (a.kept >= MINIMUM_RATE && b.kept >= MINIMUM_RATE) found.push({ plain: a.cost, told: b.cost });
  }
  return found;
}

/** Lines of the log that speak of something going wrong. */
function complaints(logs: string): string[] {
  return readdirSync(logs)
    .filter((name) => name.endsWith(".log"))
    .flatMap((name) => readFileSync(join(logs, name), "utf8").split("\n"))
    .filter((line) => CRASH.test(line));
}

function costRow(what: string, blocks: readonly { plain: number; told: number }[]): Row {
  const factor = bootstrap(blocks, (some) => median(some.map(({ plain, told }) => told / plain)));
  const plain = median(blocks.map((block) => block.plain));
  return {
    what,
    target: "",
    measured: `× ${formatEstimate(factor)} CPU a message, plain ${plain.toFixed(0)} µs (${blocks.length} blocks)`,
    value: factor.value,
    ok: true,
  };
}

export async function run(quick: boolean): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), "beamtrace-rabbitmq-instrumented-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  const running: RabbitWorkload[] = [];
  try {
    const home = join(folder, "server");
    const found = await instrumentedCopy(home);
    const plain = await rabbitWorkload(LOAD);
    running.push(plain);
    const told = await rabbitWorkload({ ...LOAD, home });
    running.push(told);
    const instrumented = await told.node.eval(
      `length([M || {M, _} <- code:all_loaded(), lists:keymember('-beamtrace-absent-', 1, M:module_info(functions))])`,
    );
    const runtime = await told.node.eval("erlang:function_exported(beamtrace_rt, entered, 4)");
    await plain.start();
    await told.start();
    await sleep(quick ? 5_000 : 30_000);
    const at: number[] = [];
    const bytes: number[] = [];
    const begin = performance.now();
    const off = await compare(plain, told, quick ? 60 : 600, async () => {
      bytes.push(Number(await told.node.eval("erlang:garbage_collect(), erlang:memory(total)")));
      at.push((performance.now() - begin) / 60_000);
    });
    const loaded = await told.node.eval(
      `code:purge(beamtrace_rt), code:load_binary(beamtrace_rt, "beamtrace_rt.beam", base64:decode("${RUNTIME_ON}"))`,
    );
    if (loaded !== "{module,beamtrace_rt}") throw new Error(loaded);
    await sleep(2_000);
    const on = await compare(plain, told, quick ? 30 : 240);
    // What was published is delivered: the consumers catch up when nothing new falls due.
    await told.setRate?.(0);
    const units = await eventually(
      () => told.units(),
      ({ done, due = 0 }) => done >= due - 1,
      30_000,
    ).catch(() => told.units());
    const wrong = complaints(told.logs);
    for (const line of wrong.slice(0, 10)) console.error(`  ${line}`);
    for (const line of found.refused) console.error(`  refused: ${line}`);
    const lost = Math.max(0, Math.floor((units.due ?? 0) - units.done));
    return [
      {
        what: "RabbitMQ boots with all its modules instrumented",
        target: "it serves",
        measured: `${found.modules} modules, ${found.functions} functions instrumented, ${found.refused.length} refused; ${instrumented} of them loaded; runtime ${runtime === "false" ? "idle" : runtime}`,
        value: found.modules,
        ok: Number(instrumented) > 0 && runtime === "false",
      },
      {
        what: "RabbitMQ instrumented: messages not delivered",
        target: "0",
        measured: `${lost} of ${Math.floor(units.due ?? 0)}`,
        ...{ value: lost, ok: lost <= 1 },
      },
      {
        what: "RabbitMQ instrumented: crashes and errors in its log",
        target: "none",
        ...{ measured: String(wrong.length), value: wrong.length, ok: wrong.length === 0 },
      },
      costRow("RabbitMQ instrumented, tracing off", off),
      costRow("RabbitMQ instrumented, tracing runtime, nobody listens", on),
      growthRow({ what: "RabbitMQ instrumented: memory of the node", unit: "minute", at, bytes }),
    ];
  } finally {
    for (const workload of running.reverse()) await workload.stop();
    remove();
    process.off("exit", remove);
  }
}
