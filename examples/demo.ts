/**
 * `npm run demo`: starts a real Erlang node with a small shop on it, attaches, and shows live what its processes do.
 * Where no Erlang can be had it replays a recording of a real Phoenix application, and says so.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { attach, openRecording, type EventSource, type TraceEvent } from "beamtrace";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const seconds = Number(process.env["BEAMTRACE_DEMO_SECONDS"] ?? 6);

/** Counts of one interval, printed as one block. */
class Board {
  #messages = new Map<string, number>();
  #calls = new Map<string, number[]>();
  #open = new Map<object, { request: string; at: number }>();
  #crashes = new Map<string, number>();
  #spawned = 0;
  #exited = 0;
  #gcMs = 0;
  #gcStart = new Map<object, number>();
  events = 0;

  add(event: TraceEvent): void {
    this.events += 1;
    switch (event.kind) {
      case "spawned":
        this.#spawned += 1;
        break;
      case "exit":
        this.#exited += 1;
        if (!["normal", "shutdown", "killed"].includes(event.reason.tags[0] ?? ""))
          count(this.#crashes, event.reason.tags.join(" ") || event.reason.type);
        break;
      case "send": {
        const [first = "", second = ""] = event.shape.tags;
        if (first === "$gen_call") this.#open.set(event.process, { request: second, at: event.timestamp });
        count(this.#messages, event.shape.tags.join(" ") || event.shape.type);
        break;
      }
      case "receive": {
        const call =
          event.shape.type === "tuple" && event.shape.size === 2 ? this.#open.get(event.process) : undefined;
        if (call === undefined) break;
        this.#open.delete(event.process);
        const times = this.#calls.get(call.request) ?? [];
        times.push((event.timestamp - call.at) / 1000);
        this.#calls.set(call.request, times);
        break;
      }
      case "gc_minor_start":
      case "gc_major_start":
        this.#gcStart.set(event.process, event.timestamp);
        break;
      case "gc_minor_end":
      case "gc_major_end": {
        const start = this.#gcStart.get(event.process);
        if (start !== undefined) this.#gcMs += (event.timestamp - start) / 1e6;
        break;
      }
      default:
    }
  }

  print(title: string): void {
    console.log(
      `\n── ${title} · ${this.events} events · ${this.#spawned} spawned, ${this.#exited} exited · ${this.#gcMs.toFixed(1)} ms in garbage collections`,
    );
    console.log(
      `   messages   ${top(this.#messages)
        .map(([k, n]) => `${k} ×${n}`)
        .join("   ")}`,
    );
    for (const [request, times] of [...this.#calls].sort((a, b) => b[1].length - a[1].length).slice(0, 3)) {
      times.sort((a, b) => a - b);
      const at = (share: number): string =>
        (times[Math.floor(times.length * share)] ?? 0).toFixed(0).padStart(6);
      console.log(
        `   call ${request.padEnd(10)} ${String(times.length).padStart(6)}×   median ${at(0.5)} µs   p99 ${at(0.99)} µs`,
      );
    }
    if (this.#crashes.size > 0)
      console.log(
        `   crashes    ${top(this.#crashes)
          .map(([k, n]) => `${k} ×${n}`)
          .join("   ")}`,
      );
  }
}

function count(map: Map<string, number>, key: string): void {
  map.set(key, (map.get(key) ?? 0) + 1);
}

function top(map: Map<string, number>): [string, number][] {
  return [...map].sort((a, b) => b[1] - a[1]).slice(0, 5);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

function hasErlang(): boolean {
  try {
    execFileSync("erl", ["-noshell", "-eval", "halt(0)."], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** A node of our own with the shop on it; ended, epmd included, by `stop`. */
async function startShop(): Promise<{ name: string; cookie: string; epmdPort: number; stop(): void }> {
  const dir = mkdtempSync(join(tmpdir(), "beamtrace-demo-"));
  execFileSync("erlc", [
    "-o",
    dir,
    join(root, "examples/demo/shop.erl"),
    join(root, "examples/demo/shop_server.erl"),
  ]);
  const port = await freePort();
  const cookie = randomBytes(12).toString("hex");
  const name = "shop@127.0.0.1";
  const children: ChildProcess[] = [
    spawn("epmd", ["-port", String(port), "-address", "127.0.0.1"], { stdio: "ignore" }),
  ];
  const env = { ...process.env, ERL_EPMD_PORT: String(port), ERL_CRASH_DUMP: "/dev/null" };
  const stop = (): void => {
    for (const child of children) child.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  };
  process.once("exit", stop);
  const args = [
    "-noinput",
    "-noshell",
    "-name",
    name,
    "-setcookie",
    cookie,
    "-pa",
    dir,
    "-kernel",
    "logger_level",
    "none",
    "-eval",
    'shop:start(40), io:put_chars("ready\\n")',
  ];
  const vm = spawn("erl", args, { env, stdio: ["ignore", "pipe", "inherit"] });
  children.push(vm);
  await new Promise<void>((resolve, reject) => {
    vm.stdout.once("data", () => resolve());
    vm.once("exit", (code) => reject(new Error(`the demo's node ended with ${String(code)}`)));
  });
  return { name, cookie, epmdPort: port, stop };
}

async function live(): Promise<void> {
  const shop = await startShop();
  const begun = performance.now();
  const session = await attach(shop.name, { cookie: shop.cookie, epmd: { port: shop.epmdPort } });
  const { info } = session;
  console.log(
    `beamtrace: attached to ${info.node} (OTP ${info.otp}, ERTS ${info.erts}, ${info.schedulersOnline} schedulers) in ${(performance.now() - begun).toFixed(0)} ms as a hidden node`,
  );
  const trace = await session.trace({
    processes: "all",
    events: ["spawned", "exit", "send", "receive", "gc"],
    limits: { seconds: seconds + 10 },
  });
  console.log(
    `tracing all processes with the ${info.tracer.kind} tracer for ${seconds} s; payloads stay on the node, only shapes travel`,
  );

  let board = new Board();
  let second = 0;
  const timer = setInterval(() => {
    board.print(`second ${(second += 1)}`);
    board = new Board();
  }, 1000);
  const done = trace.events$.forEach((event) => board.add(event));
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000 + 100));
  clearInterval(timer);
  await trace.stop();
  await done;
  const { node, lost } = trace.stats;
  console.log(
    `\nstopped: ${node.received} events on the node = ${node.shipped} delivered + ${lost} lost; estimated overhead ${(node.overhead * 100).toFixed(2)} % of the node's CPU`,
  );
  await session.close();
  console.log("detached: flags, tracer, agent and connection are gone from the node");
  shop.stop();
}

async function replay(): Promise<void> {
  console.log(
    "beamtrace: no Erlang on this machine and none could be installed. This replays a recording of a real Phoenix application instead.",
  );
  const recording = await openRecording(join(root, "assets/demo.btrec"));
  const boards = new Map<number, Board>();
  const source: EventSource = recording;
  await source.events$.forEach((event) => {
    const second = Math.floor(event.timestamp / 1e9);
    let board = boards.get(second);
    if (board === undefined) boards.set(second, (board = new Board()));
    board.add(event);
  });
  for (const [second, board] of [...boards].sort((a, b) => a[0] - b[0]).slice(0, 12))
    board.print(`second ${second}`);
  await recording.close();
  console.log("\nThis was a replay. Install Erlang (apt-get install erlang-base) to see it live.");
}

if (process.env["BEAMTRACE_DEMO"] !== "replay" && hasErlang()) await live();
else if (existsSync(join(root, "assets/demo.btrec"))) await replay();
else throw new Error("the bundled recording assets/demo.btrec is missing");
process.exit(0);
