/**
 * A server of which every module is instrumented, that of its libraries included, beside the plain one, each under the same open loop at the
 * same time: every unit done, no crash in its log, no growth, and the CPU a unit against the plain one's in the same moments. First nobody
 * traces; then a native trace takes all that the modules tell; then the tracing runtime is there and nobody listens.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EventBatch, RingBuffer } from "../../src/buffer";
import type { TraceLimits } from "../../src/capture";
import { RUNTIME_ON } from "../../src/transform/beam-code.generated";
import { eventually } from "../../test/support/erl-node";
import type { Row } from "../row";
import { attachTo } from "../server/beamtrace";
import { CountedTrace } from "../server/counted-trace";
import { cpuTime } from "../server/cpu-time";
import { growthRow } from "../server/growth";
import { bootstrap, formatEstimate, median, slopeEstimate } from "../server/statistics";
import type { PacedWorkload } from "../server/workloads";
import { type InstrumentedCopy, instrumentedCopy } from "./instrumented-copy";

const BLOCK_MS = 500;
/** Part of what is due that both servers must do in a block for it to count. */
const MINIMUM_RATE = 0.95;
/** Units under way when the load is stopped that need not have been counted. */
const UNDER_WAY = 1;
const CRASH = /crash|\[error\]|\[critical\]|beamtrace|undef\b/i;
/** Room for what comes while a shared machine does not let the node or the client run. */
const ROOMY: TraceLimits = { rate: Infinity, queue: 1_000_000, memory: 2 ** 29, seconds: 900 };
const ROOMY_RING = 1 << 20;
/** Of every so many events it is looked whether its site is known. */
const SITE_EVERY = 997;

export interface ServerPair {
  readonly name: string;
  readonly unit: string;
  /** Folder with the server and its libraries. */
  readonly home: string;
  /** Starts the server that lies in `home`; the package's own when that is undefined. */
  start(home: string | undefined): Promise<PacedWorkload & { readonly logs: string }>;
}

type Running = Awaited<ReturnType<ServerPair["start"]>>;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

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
    .flatMap((name) => readFileSync(join(logs, name), "utf8").replaceAll(logs, "").split("\n"))
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

/** Events whose site is known, of those that are looked at. */
function countSites(batch: EventBatch, counts: { known: number; looked: number }): void {
  for (let i = 0; i < batch.length; i += SITE_EVERY) {
    const event = batch.event(i);
    if (!("siteNumber" in event)) continue;
    counts.looked++;
    if (event.site !== undefined) counts.known++;
  }
}

/** A native trace of all that the instrumented server tells, which is counted to the event. */
async function tracedRows(pair: ServerPair, plain: Running, told: Running, blocks: number): Promise<Row[]> {
  const what = `${pair.name} instrumented, native trace of all of it`;
  await using session = await attachTo(told.node, { tracer: "native" });
  const into = new RingBuffer({ capacity: ROOMY_RING, payloadBytes: 0 });
  const counted = await CountedTrace.start(session, { instrumented: true, limits: ROOMY, into });
  await counted.trace.sites.load();
  const sites = { known: 0, looked: 0 };
  counted.trace.batches$.subscribe((batch) => countSites(batch, sites));
  const from = performance.now();
  const before = { events: counted.delivered, units: (await told.units()).done };
  const found = await compare(plain, told, blocks);
  const seconds = (performance.now() - from) / 1000;
  const events = counted.delivered - before.events;
  const units = (await told.units()).done - before.units;
  await counted.stop();
  const { delivered, lost } = counted;
  return [
    {
      what: `${what}: events produced − delivered`,
      target: "0",
      measured: `${lost} of ${delivered + lost} (all counted), ${Math.round(events / seconds)} events/s, ${(events / units).toFixed(0)} a ${pair.unit}`,
      value: lost,
      ok: lost === 0 && events > 0,
    },
    {
      what: `${what}: events whose site is known`,
      target: "all",
      measured: `${sites.known} of ${sites.looked} looked at`,
      value: sites.known,
      ok: sites.looked > 0 && sites.known === sites.looked,
    },
    costRow(what, pair.unit, found),
  ];
}

/** What is loaded and instrumented on the node, and whether the idle runtime is. */
async function witness({ node }: Running): Promise<{ instrumented: number; idle: boolean }> {
  const loaded = await node.eval(
    "length([M || {M, _} <- code:all_loaded(), lists:keymember('-beamtrace-absent-', 1, M:module_info(functions))])",
  );
  const runtime = await node.eval(
    "{erlang:module_loaded(beamtrace_rt), erlang:function_exported(beamtrace_rt, entered, 4)}",
  );
  return { instrumented: Number(loaded), idle: runtime === "{true,false}" };
}

/** Bytes that the node holds when its garbage is gone. */
const memory = async ({ node }: Running): Promise<number> =>
  Number(await node.eval("[erlang:garbage_collect(P) || P <- processes()], erlang:memory(total)"));

async function measure(
  pair: ServerPair,
  copy: InstrumentedCopy,
  start: (home?: string) => Promise<Running>,
  quick: boolean,
): Promise<Row[]> {
  const { name, unit } = pair;
  const plain = await start();
  const told = await start(copy.home);
  await plain.start();
  await told.start();
  await sleep(quick ? 10_000 : 30_000);
  const { instrumented, idle } = await witness(told);
  const at: number[] = [];
  const bytes = { plain: [] as number[], told: [] as number[] };
  const begin = performance.now();
  const off = await compare(plain, told, quick ? 60 : 600, async () => {
    bytes.plain.push(await memory(plain));
    bytes.told.push(await memory(told));
    at.push((performance.now() - begin) / 60_000);
  });
  const traced = await tracedRows(pair, plain, told, quick ? 30 : 240);
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
      ok: copy.refused.length === 0 && instrumented > 0 && idle,
    },
    {
      what: `${name} instrumented: ${unit}s that were due and not done`,
      target: `none but ${UNDER_WAY} under way`,
      measured: `${lost} of ${Math.floor(units.due ?? 0)}`,
      ...{ value: lost, ok: lost <= UNDER_WAY },
    },
    {
      what: `${name} instrumented: crashes and errors in its log`,
      target: "none",
      ...{ measured: String(wrong.length), value: wrong.length, ok: wrong.length === 0 },
    },
    costRow(`${name} instrumented, tracing off`, unit, off),
    ...traced,
    costRow(`${name} instrumented, tracing runtime, nobody listens`, unit, on),
    growthRow({
      what: `${name} instrumented: memory of the node`,
      ...{ unit: "minute", at, bytes: bytes.told, control: slopeEstimate(at, bytes.plain) },
    }),
  ];
}

/** Runs the pair and answers its rows. */
export async function instrumentedServer(pair: ServerPair, quick: boolean): Promise<Row[]> {
  const kept = process.env["BEAMTRACE_SERVER_FOLDER"];
  const folder = kept ?? mkdtempSync(join(tmpdir(), "beamtrace-instrumented-"));
  const remove = (): void => {
    if (kept === undefined) rmSync(folder, { recursive: true, force: true });
  };
  process.once("exit", remove);
  const running: Running[] = [];
  const start = async (home?: string): Promise<Running> => {
    const workload = await pair.start(home);
    running.push(workload);
    return workload;
  };
  try {
    const minutes = Number(process.env["BEAMTRACE_SERVER_MINUTES"] ?? Infinity);
    const copy = await instrumentedCopy(pair.home, join(folder, pair.name), minutes);
    for (const line of copy.refused) console.error(`  refused: ${line}`);
    if (copy.left > 0)
      return [
        {
          what: `${pair.name}: modules that are still to be instrumented`,
          target: "0",
          measured: `${copy.left}; the next run with the same BEAMTRACE_SERVER_FOLDER goes on`,
          ...{ value: copy.left, ok: false },
        },
      ];
    return await measure(pair, copy, start, quick);
  } finally {
    for (const workload of running.reverse()) await workload.stop();
    remove();
    process.off("exit", remove);
  }
}
