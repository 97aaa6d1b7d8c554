/**
 * Every example runs as its user would run it, in a process of its own, against a real node with a small shop on it. What it prints must tell
 * what happened there, and afterwards nothing of beamtrace's is left on the node.
 */
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { expectClean } from "../support/clean";
import type { ErlNode } from "../support/erl-node";
import { startShop } from "../support/shop";

const root = fileURLToPath(new URL("../..", import.meta.url));
const examples = join(root, "examples");
const covered: string[] = [];
let node: ErlNode;

/** Runs an example to its end and returns the lines that it printed. */
async function run(name: string, env: Record<string, string> = {}): Promise<string[]> {
  covered.push(`${name}.ts`);
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ["--import", "tsx", join(examples, `${name}.ts`)],
    {
      cwd: root,
      timeout: 50_000,
      env: {
        ...process.env,
        BEAMTRACE_NODE: node.name,
        BEAMTRACE_COOKIE: node.cookie,
        ERL_EPMD_PORT: String(node.epmdPort),
        ...env,
      },
    },
  );
  expect(stderr).toBe("");
  return stdout.trimEnd().split("\n");
}

describe("examples", () => {
  beforeAll(async () => {
    node = await startShop(8);
  });
  afterEach(() => expectClean(node, { modules: ["gen_server", "shop_server", "lists"] }));
  afterAll(() => node.stop());

  it("spawns: prints who starts whom to run what", async () => {
    const [first, ...spawns] = await run("spawns");
    expect(first).toBe(`attached to ${node.name}, OTP ${await otp()}`);
    expect(spawns).toHaveLength(20);
    for (const line of spawns)
      expect(line).toMatch(/^<\d+\.\d+\.\d+> spawned by <\d+\.\d+\.\d+>: \w+:\w+\/\d$/);
    expect(spawns.some((line) => line.endsWith("shop:checkout/2"))).toBe(true);
    expect(spawns.some((line) => line.endsWith("shop_server:init/1"))).toBe(true);
  });

  it("top-talkers: counts by process, and asks the node for names", async () => {
    const [head, ...lines] = await run("top-talkers");
    expect(head).toMatch(/^\d+ processes sent messages in two seconds; the first 10:$/);
    const counts = lines.map((line) => Number.parseInt(line, 10));
    expect(counts).toHaveLength(10);
    expect(counts).toEqual([...counts].sort((a, b) => b - a));
    // Every customer asks it for prices, so it answers more than anybody else asks.
    expect(lines[0]).toMatch(/^ +\d+ {2}<\d+\.\d+\.\d+> shop_catalogue$/);
  });

  it("message-rates: messages of each second by type", async () => {
    const lines = await run("message-rates");
    expect(lines).toHaveLength(3);
    for (const line of lines) {
      expect(line).toMatch(/^[1-9]\d* messages\/s: /);
      // The five most frequent ones; those of a shop's requests come equally often.
      expect(line).toMatch(/\$gen_(call|cast) (price|add|reserve) \d+/);
    }
  });

  it("latency: durations of one function", async () => {
    const [matched, calls, ended] = await run("latency", { BEAMTRACE_MFA: "shop_server:handle_call/3" });
    expect(matched).toBe(`shop_server:handle_call/3 on ${node.name}: 1 function matched`);
    const figures = /^(\d+) calls: median ([\d.]+) µs, p95 ([\d.]+) µs, longest ([\d.]+) µs$/.exec(
      calls ?? "",
    );
    const [count = 0, median = 0, p95 = 0, longest = 0] = (figures ?? []).slice(1).map(Number);
    expect(count).toBeGreaterThan(100);
    expect([0, median, p95, longest]).toEqual([0, median, p95, longest].sort((a, b) => a - b));
    expect(ended).toMatch(/^ended by limits\.(seconds|events)$/);
  });

  it("record-and-replay: the file gives what the live trace gave", async () => {
    const [live = "", recorded = "", size] = await run("record-and-replay");
    const counts = JSON.parse(live.replace(/^live: +/, "")) as Record<string, number>;
    expect(JSON.parse(recorded.replace(/^recorded: +/, ""))).toEqual(counts);
    expect(counts["send"]).toBeGreaterThan(100);
    expect(counts["spawn"]).toBeGreaterThan(0);
    expect(size).toMatch(/^[1-9]\d* events, \d+\.\d bytes each$/);
  });

  it("flight-recorder: the life of a process that crashed, up to its exit", async () => {
    const [first, crashed, ...life] = await run("flight-recorder");
    expect(first).toBe("recording; waiting for a crash");
    expect(crashed).toMatch(/^<\d+\.\d+\.\d+> crashed; [1-9]\d* events of \d+ ms$/);
    // A checkout whose payment was declined: it was started, and ended at the moment of the trigger.
    expect(life[0]).toMatch(/^ *-\d+ µs {2}spawned$/);
    expect(life.at(-1)).toMatch(/^ *-?0 µs {2}exit payment_declined insufficient_funds$/);
  });

  it("custom-decoder: calls of gen_servers with their durations", async () => {
    const lines = await run("custom-decoder");
    expect(lines).toHaveLength(10);
    for (const line of lines) expect(line).toMatch(/^<[\d.]+> → <[\d.]+> (price|add|items): \d+\.\d µs$/);
    const catalogue = await node.eval("whereis(shop_catalogue)");
    expect(lines.some((line) => line.includes(`→ ${catalogue} price: `))).toBe(true);
  });

  it("worker-consumer: the worker counted every event that was written", async () => {
    const [counted = "", written = ""] = await run("worker-consumer");
    const counts = JSON.parse(counted.replace("counted by the worker: ", "")) as Record<string, number>;
    const sum = Object.values(counts).reduce((a, b) => a + b);
    expect(counts["receive"]).toBeGreaterThan(100);
    expect(written).toBe(`written here: ${sum}, lost: 0`);
  });

  it("no example is without a test", () => {
    const all = readdirSync(examples).filter((file) => file.endsWith(".ts"));
    expect([...covered, "demo.ts", "target.ts"].sort()).toEqual(all.sort());
  });

  async function otp(): Promise<string> {
    return (await node.eval("erlang:system_info(otp_release)")).replaceAll('"', "");
  }
});
