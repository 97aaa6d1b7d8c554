/**
 * CPU of the VM per event: the portable tracer, encoding and shipping included, against a process tracer that receives and discards.
 * Short blocks are interleaved; of each variant the block at the lower 15 % counts, because a shared machine only ever adds. Schedulers of the target don't
 * busy-wait (+sbwt none), which would be counted as work.
 * Run: `npx tsx bench/agent/tracer-cost.ts [blocks] [batch events] [batch ms]`. Tracers are set on a legacy session, the same for both.
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
  { name: "as fast as it goes, 64 pairs", pairs: 64, rounds: 150, pauseMs: 0 },
  { name: "with pauses of 5 ms, 64 pairs", pairs: 64, rounds: 40, pauseMs: 5 },
];

const HERE = import.meta.dirname;
const AGENT = join(HERE, "../../beam/agent");
const BLOCKS = Number(process.argv[2] ?? 40);

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

/** The value that 15 % of the blocks are below. */
const low = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length * 0.15)] as number;

const cookie = "bench";
const target = await startNode({ cookie, args: ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"] });
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
      scheduler => false, batch => #{events => ${process.argv[3] ?? 512}, ms => ${process.argv[4] ?? 10}}, limits => #{events => infinity, rate => infinity, seconds => infinity, memory => infinity, queue => infinity, overhead => infinity}, filter => #{}}),
      register(tracer, T), Keep ! ok, receive after infinity -> ok end end), receive ok -> ok end`);
  const variants = ["none", "discard", "beamtrace"] as const;
  const how = { none: "none", discard: "{tracer, whereis(discard)}", beamtrace: "{tracer, whereis(tracer)}" };
  for (const load of LOADS) {
    const nanos: Record<(typeof variants)[number], number[]> = { none: [], discard: [], beamtrace: [] };
    for (let block = 0; block <= BLOCKS; block += 1) {
      for (const variant of block % 2 === 0 ? variants : [...variants].reverse()) {
        const answer = await target.eval(
          `agent_bench:round(${how[variant]}, ${load.pairs}, ${load.rounds}, ${load.pauseMs})`,
        );
        const [, micros, events] = /\{(\d+),(\d+)\}/.exec(answer) ?? [];
        // The first round warms up.
        if (block > 0) nanos[variant].push((Number(micros) * 1000) / Number(events));
      }
    }
    const added = (variant: "discard" | "beamtrace"): number => low(nanos[variant]) - low(nanos.none);
    console.log(
      `${load.name}: untraced ${low(nanos.none).toFixed(0)} ns/event, a discarding tracer adds ${added("discard").toFixed(0)}, ` +
        `beamtrace ${added("beamtrace").toFixed(0)}: ratio ${(added("beamtrace") / added("discard")).toFixed(2)}`,
    );
  }
} finally {
  await Promise.all([target.stop(), client.stop()]);
}
