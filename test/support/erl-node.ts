/**
 * Real BEAM nodes for tests. A node is driven through its stdin by a small evaluation loop, not through beamtrace,
 * so that what a test asks about the node does not depend on what it tests. Each test process runs its own epmd on its own port.
 * BEAMTRACE_OTP_ROOT names the root of a chroot with another OTP release; BEAMTRACE_TEST_OTP is then informative only.
 */
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { connect, createServer } from "node:net";
import { inspect } from "node:util";

export interface ErlNodeOptions {
  /** Part before the @; random when not given. */
  readonly name?: string;
  readonly cookie?: string;
  /** Further arguments of `erl`, e.g. `["+S", "2"]`. */
  readonly args?: readonly string[];
  /** Started without distribution when false. */
  readonly distributed?: boolean;
  /** Root of the chroot to run `erl` in; default BEAMTRACE_OTP_ROOT. Empty string: this machine's own. */
  readonly root?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** What to run instead of `erl`; it must hand its arguments on. */
  readonly program?: string;
}

export interface ErlNode {
  /** Full node name, `x@127.0.0.1`. */
  readonly name: string;
  readonly cookie: string;
  /** epmd's port, for `attach`. */
  readonly epmdPort: number;
  /** Operating system pid of the VM. */
  readonly osPid: number;
  /** Standard output so far, without the evaluation loop's own lines. */
  output(): string;
  /** Evaluates Erlang expressions (no final dot needed) and returns the value, printed by `~0p`. Rejects when they raise. */
  eval(expressions: string): Promise<string>;
  /** Settles when the VM has ended. */
  readonly exited: Promise<void>;
  stop(): Promise<void>;
  kill(signal: NodeJS.Signals): void;
}

const LOOP = `
F = fun Loop() ->
  case io:get_line("") of
    eof -> erlang:halt(0);
    {error, _} -> erlang:halt(0);
    Line ->
      [Id, B64] = string:lexemes(string:trim(Line), " "),
      spawn(fun() ->
        Text = try
          {ok, Ts, _} = erl_scan:string(unicode:characters_to_list(base64:decode(B64))),
          {ok, Es} = erl_parse:parse_exprs(Ts),
          {value, V, _} = erl_eval:exprs(Es, []),
          ["ok ", base64:encode(unicode:characters_to_binary(io_lib:format("~0tp", [V])))]
        catch C:R:St -> ["error ", base64:encode(unicode:characters_to_binary(io_lib:format("~0tp", [{C, R, St}])))] end,
        io:put_chars(["\\n@@", Id, " ", Text, "\\n"])
      end),
      Loop()
  end
end, F().`;

let epmd: Promise<{ port: number }> | undefined;

/** Resolves when something listens on the port of this machine. */
async function listening(port: number, deadlineMs = 10_000): Promise<void> {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const ok = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1", () => (socket.destroy(), resolve(true)));
      socket.on("error", () => resolve(false));
    });
    if (ok) return;
    if (Date.now() > end) throw new Error(`nothing listens on port ${port}`);
    await new Promise((r) => setTimeout(r, 20));
  }
}

/** A port of the loopback interface that nothing listens on at the moment. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 60_000);
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer().once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

function command(root: string, program: string, args: readonly string[]): [string, string[]] {
  return root === "" ? [program, [...args]] : ["chroot", [root, program, ...args]];
}

/** The epmd of this test process; started on first use, ends with the process. */
export function ensureEpmd(): Promise<{ port: number }> {
  epmd ??= (async () => {
    const port = await freePort();
    const [program, args] = command(process.env["BEAMTRACE_OTP_ROOT"] ?? "", "epmd", [
      "-port",
      String(port),
      "-address",
      "127.0.0.1",
    ]);
    // The shell ends epmd when its stdin closes: however this process ends, also by a signal, epmd does not outlive it.
    const keeper = '"$@" & epmd=$!; read -r _; kill -9 $epmd';
    const child = spawn("sh", ["-c", keeper, "sh", program, ...args], {
      stdio: ["pipe", "ignore", "ignore"],
    });
    await listening(port);
    child.unref();
    return { port };
  })();
  return epmd;
}

/** Starts a node and waits until it answers. */
export async function startNode(options: ErlNodeOptions = {}): Promise<ErlNode> {
  const { port } = await ensureEpmd();
  const short = options.name ?? `bt${randomBytes(4).toString("hex")}`;
  const name = `${short}@127.0.0.1`;
  const cookie = options.cookie ?? randomBytes(8).toString("hex");
  const root = options.root ?? process.env["BEAMTRACE_OTP_ROOT"] ?? "";
  const distribution =
    options.distributed === false
      ? []
      : ["-name", name, "-setcookie", cookie, "-kernel", "prevent_overlapping_partitions", "false"];
  const [program, args] = command(root, options.program ?? "erl", [
    "-noshell",
    ...distribution,
    ...(options.args ?? []),
    "-eval",
    LOOP,
  ]);
  const child: ChildProcessWithoutNullStreams = spawn(program, args, {
    env: {
      ...process.env,
      ERL_EPMD_PORT: String(port),
      ERL_CRASH_DUMP: "/dev/null",
      HOME: process.env["HOME"] ?? "/root",
      ...options.env,
    },
  });
  const onExit = (): void => void child.kill("SIGKILL");
  process.once("exit", onExit);
  const waiting = new Map<string, { resolve: (text: string) => void; reject: (error: Error) => void }>();
  let text = "";
  let rest = "";
  let ended = false;
  const exited = new Promise<void>((resolve) => {
    child.once("exit", () => {
      ended = true;
      process.off("exit", onExit);
      for (const { reject } of waiting.values())
        reject(new Error(`node ${name} has ended; its output:\n${text.slice(-4000)}`));
      waiting.clear();
      resolve();
    });
  });
  child.stdin.on("error", () => undefined);
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const match = /^@@(\w+) (ok|error) (.*)$/.exec(line);
      const job = match?.[1] === undefined ? undefined : waiting.get(match[1]);
      if (!match || !job) {
        if (line !== "") text += `${line}\n`;
        continue;
      }
      waiting.delete(match[1] as string);
      const value = Buffer.from(match[3] as string, "base64").toString("utf8");
      if (match[2] === "ok") job.resolve(value);
      else job.reject(new Error(value));
    }
  });
  let ids = 0;
  const evaluate = (expressions: string): Promise<string> =>
    new Promise((resolve, reject) => {
      if (ended) return reject(new Error(`node ${name} has ended`));
      const id = `e${(ids += 1)}`;
      waiting.set(id, { resolve, reject });
      child.stdin.write(`${id} ${Buffer.from(`${expressions.replace(/\.\s*$/, "")}.`).toString("base64")}\n`);
    });
  const osPid = Number((await evaluate("os:getpid()")).replaceAll('"', ""));
  return {
    name,
    cookie,
    epmdPort: port,
    osPid,
    output: () => text,
    eval: evaluate,
    exited,
    kill: (signal) => void child.kill(signal),
    async stop() {
      if (!ended) child.stdin.end();
      const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** What to evaluate for `processesAdded`. */
export const PROCESSES = "processes() -- [self()]";

/** Processes that are in the one printed list and not in the other. Not by count: what ends meanwhile would hide what was left. */
export function processesAdded(now: string, before: string): string[] {
  const pids = (text: string): string[] => text.match(/<[\d.]+>/g) ?? [];
  return pids(now).filter((pid) => !pids(before).includes(pid));
}

/** Evaluates until the predicate holds or the time is up; returns the last value. */
export async function eventually<T>(
  probe: () => Promise<T> | T,
  holds: (value: T) => boolean,
  deadlineMs = 10_000,
): Promise<T> {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const value = await probe();
    if (holds(value)) return value;
    if (Date.now() > end)
      throw new Error(`condition did not come true; last value: ${inspect(value, { depth: 4 })}`);
    await new Promise((r) => setTimeout(r, 20));
  }
}
