/**
 * `npm run demo` as a first-time user sees it, short: live, and as a replay where there is no Erlang. It tells the truth, ends by itself,
 * fails when something fails, and no process is left behind, whichever way it ends.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../support/erl-node";

const root = fileURLToPath(new URL("../..", import.meta.url));
const MARK = "BEAMTRACE_DEMO_TEST";

interface Run {
  readonly child: ChildProcess;
  readonly text: () => string;
  readonly ended: Promise<{ code: number | null; lines: string[] }>;
}

describe("npm run demo", () => {
  const folders: string[] = [];
  let mark = "";

  /** Another release's `erl`, where the tests run on one; its root may see the same PATH. */
  const otherErl = process.env["BEAMTRACE_OTP_ROOT"]
    ? () => withErl('PATH=/usr/sbin:/usr/bin:/sbin:/bin exec chroot "$BEAMTRACE_OTP_ROOT" erl "$@"')
    : () => ({});

  function demo(env: Record<string, string> = otherErl(), args: readonly string[] = []): Run {
    mark = randomUUID();
    const child = spawn(process.execPath, ["--import", "tsx", "examples/demo.ts", ...args], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, BEAMTRACE_DEMO_SECONDS: "2", [MARK]: mark, ...env },
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    const ended = new Promise<{ code: number | null; lines: string[] }>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => resolve({ code, lines: text.split("\n") }));
    });
    return { child, text: () => text, ended };
  }

  /** A PATH on which `erl` is this script. */
  function withErl(script: string): { PATH: string } {
    const folder = mkdtempSync(join(tmpdir(), "beamtrace-demo-"));
    folders.push(folder);
    writeFileSync(join(folder, "erl"), `#!/bin/sh\n${script}\n`);
    chmodSync(join(folder, "erl"), 0o755);
    return { PATH: `${folder}:${dirname(process.execPath)}:/usr/sbin:/usr/bin` };
  }

  /** Processes that the demo started, or started by those, are known by their environment. */
  function processesLeft(): string[] {
    return readdirSync("/proc")
      .filter((pid) => /^\d+$/.test(pid))
      .filter((pid) => {
        try {
          return readFileSync(`/proc/${pid}/environ`, "latin1").includes(`${MARK}=${mark}`);
        } catch {
          return false; // it has ended meanwhile
        }
      })
      .map((pid) => readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " "));
  }

  afterEach(async () => {
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
    if (process.platform === "linux") await eventually(processesLeft, (left) => left.length === 0);
  });

  it("shows a live node second by second, accounts for every event, and asks the node what is left", async () => {
    const { code, lines } = await demo().ended;
    const text = lines.join("\n");
    expect(text).not.toContain("failed");
    expect(code).toBe(0);
    expect(lines[0]).toBe("beamtrace: a small shop on a real Erlang node, watched live for 2 seconds");
    expect(text).toMatch(/ {2}node +shop@127\.0\.0\.1, OTP \d+, \d+ schedulers, \d+ processes/);
    for (const second of [1, 2]) {
      const at = lines.findIndex((line) => line.startsWith(`second ${second} of 2 · `));
      const block = lines.slice(at, at + 11).join("\n");
      expect(block).toMatch(/ {2}processes +[1-9][\d,]* started, [1-9][\d,]* ended/);
      expect(block).toMatch(/ price +[1-9][\d,]* × median +[\d,]+ µs p99 +[\d,]+ µs/);
      expect(block).toMatch(/ {2}messages .*(call|cast) [a-z]+ \d/);
      expect(block).toMatch(/ {2}received by .*shop_catalogue \d/);
      expect(block).toMatch(/ {2}collections +(minor|major) +[1-9]/);
    }
    const [, received, delivered, lost] =
      / {2}stopped +([\d,]+) events on the node, ([\d,]+) delivered, ([\d,]+) lost/.exec(text) ?? [];
    expect(received).toMatch(/^[1-9]\d*,\d{3}$/);
    const [all, here = 0, gone = 0] = [received, delivered, lost].map((n) => Number(n?.replaceAll(",", "")));
    expect(here + gone).toBe(all);
    expect(text).toContain("left there   nothing");
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
  });

  it("says that it replays, and of what, when that is asked for", async () => {
    const { code, lines } = await demo({ BEAMTRACE_DEMO: "replay" }).ended;
    const text = lines.join("\n");
    expect(code).toBe(0);
    expect(text).toContain("a recording of a real Phoenix application, not a live node");
    expect(text).toMatch(/ {2}node +\S+@\S+, OTP \d+, recorded on \d{4}-\d\d-\d\d/);
    expect(text).toMatch(/ {2}processes +[1-9][\d,]* started/);
    expect(text).toMatch(/ {2}messages .*\{plug_conn,sent\} \d/);
    expect(text).toMatch(/ {2}functions .*\/\d +\d+ × median/);
  });

  it("replays where there is no Erlang, or one that is too old, and says so", async () => {
    const { code, lines } = await demo(withErl("exit 1")).ended;
    expect(lines.join("\n")).toContain("there is no Erlang/OTP here, or one older than 25");
    expect(code).toBe(0);
  });

  it("fails when the node does not start", async () => {
    const { code, lines } = await demo(withErl('case "$*" in *otp_release*) exit 0;; *) exit 3;; esac'))
      .ended;
    expect(lines.join("\n")).toContain("the demo failed: the demo's Erlang node has ended with code 3");
    expect(code).toBe(1);
  });

  it("fails when the recording given is none", async () => {
    const { code, lines } = await demo({}, ["package.json"]).ended;
    expect(lines.join("\n")).toContain("the demo failed: ");
    expect(code).toBe(1);
  });

  it("takes its node with it when it is killed", async () => {
    const { child, text, ended } = demo({ BEAMTRACE_DEMO_SECONDS: "600", ...otherErl() });
    await eventually(text, (shown) => shown.includes("second 1 of 600"), 50_000);
    child.kill("SIGKILL");
    await ended;
  });
});
