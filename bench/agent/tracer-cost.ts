/**
 * CPU of the VM per event: the portable tracer, encoding and shipping included, against a process tracer that receives and discards.
 * Blocks are interleaved and each is compared with the untraced block beside it, so that drift of the machine cancels out; the median is reported.
 * Run: `npx tsx bench/agent/tracer-cost.ts [blocks]`. Tracers are set on a legacy session, the same for both.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { startNode, type ErlNode } from "../../test/support/erl-node";

interface Load {
  readonly name: string;
  readonly pairs: number;
  readonly rounds: number;
  readonly pauseMs: number;
}

const LOADS: readonly Load[] = [
  { name: "as fast as it goes, 64 pairs", pairs: 64, rounds: 600, pauseMs: 0 },
  { name: "paced, 64 pairs, 2 ms pauses", pairs: 64, rounds: 300, pauseMs: 2 },
];

const HERE = import.meta.dirname;
const AGENT = join(HERE, "../../beam/agent");
const BLOCKS = Number(process.argv[2] ?? 9);

async function loadModules(node: ErlNode, modules: readonly (readonly [string, string])[]): Promise<void> {
  const terms = modules.map(([name, beam]) => `{${name}, base64:decode("${beam}")}`);
  await node.eval(
    `[{module, M} = code:load_binary(M, atom_to_list(M), B) || {M, B} <- [${terms.join(",")}]], ok`,
  );
}

/** Object code of Erlang sources, by module. */
function compile(sources: readonly string[]): [string, string][] {
  const out = mkdtempSync(join(tmpdir(), "beamtrace-bench-"));
  try {
    execFileSync("erlc", ["-I", join(AGENT, "include"), "-o", out, ...sources]);
    return sources.map((source) => {
      const name = basename(source, ".erl");
      return [name, readFileSync(join(out, `${name}.beam`)).toString("base64")];
    });
  } finally {
    rmSync(out, { recursive: true });
  }
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number;

const cookie = "bench";
const target = await startNode({ cookie });
const client = await startNode({ cookie, args: ["-hidden"] });
try {
  const workload = compile([join(HERE, "agent_bench.erl")]);
  const agent = readdirSync(join(AGENT, "src")).map((name) => join(AGENT, "src", name));
  await loadModules(target, [...workload, ...compile(agent)]);
  await loadModules(client, workload);
  await client.eval(
    `pong = net_adm:ping('${target.name}'), register(sink, spawn(fun() -> agent_bench:sink() end))`,
  );
  await target.eval(`persistent_term:put(sink, erpc:call('${client.name}', erlang, whereis, [sink])),
    register(discard, spawn_opt(fun() -> agent_bench:discard() end, [{message_queue_data, off_heap}])),
    Keep = self(), spawn(fun() -> T = beamtrace_tracer:start(#{id => 1, mailbox => persistent_term:get(sink), holder => self(), client_node => '${client.name}', mask => (1 bsl 33) - 1, mode => shape,
      scheduler => false, batch => #{events => 512, ms => 10}, limits => #{events => infinity, rate => infinity, seconds => infinity, memory => infinity, queue => infinity, overhead => infinity}, filter => #{}}),
      register(tracer, T), Keep ! ok, receive after infinity -> ok end end), receive ok -> ok end`);
  const variants = ["none", "discard", "beamtrace"] as const;
  const how = { none: "none", discard: "{tracer, whereis(discard)}", beamtrace: "{tracer, whereis(tracer)}" };
  for (const load of LOADS) {
    const costs: Record<string, number[]> = { discard: [], beamtrace: [] };
    for (let block = 0; block <= BLOCKS; block += 1) {
      const cpu: Record<string, number> = {};
      const order = block % 2 === 0 ? variants : [...variants].reverse();
      let events = 0;
      for (const variant of order) {
        const answer = await target.eval(
          `agent_bench:round(${how[variant]}, ${load.pairs}, ${load.rounds}, ${load.pauseMs})`,
        );
        const [, micros, count] = /\{(\d+),(\d+)\}/.exec(answer) ?? [];
        cpu[variant] = Number(micros);
        events = Number(count);
      }
      if (block === 0) continue; // warm-up
      for (const variant of ["discard", "beamtrace"])
        costs[variant]?.push((((cpu[variant] ?? NaN) - (cpu["none"] ?? NaN)) * 1000) / events);
    }
    const [discard, beamtrace] = [median(costs["discard"] ?? []), median(costs["beamtrace"] ?? [])];
    const ratios = (costs["beamtrace"] ?? []).map((cost, i) => cost / (costs["discard"]?.[i] ?? NaN));
    console.log(
      `${load.name}: discard ${discard.toFixed(0)} ns/event, beamtrace ${beamtrace.toFixed(0)} ns/event, ratio of medians ${(beamtrace / discard).toFixed(2)}, median ratio ${median(ratios).toFixed(2)}`,
    );
  }
  console.log(
    await target.eval(
      `whereis(tracer) ! {beamtrace_stats, x}, process_info(whereis(tracer), [memory, garbage_collection, message_queue_len])`,
    ),
  );
} finally {
  await Promise.all([target.stop(), client.stop()]);
}
