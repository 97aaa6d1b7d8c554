/** What `beamtrace instrument` makes of files and folders that are not as they should be: who is told, what is written, what stays. */
import { spawn } from "node:child_process";
import {
  chmod,
  copyFile,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { COMMAND, makeFolder, mustRun, type Outcome, removeFolder } from "../support/build-project";
import { ELIXIR_EBIN } from "../support/transform";

const root = process.env["BEAMTRACE_OTP_ROOT"] ?? "";
const ERL = root === "" ? [] : ["--erl", `chroot ${root} erl`, "--code-path", ELIXIR_EBIN];
/** Some need another user, or a disk of their own. */
const isRoot = process.getuid?.() === 0;

const NAMES = ["a.beam", "b.beam", "c.beam"];
let folder: string;

/** A shell line in the folder; `bt` is the command with the plan, or that of `PLAN`. */
function shell(line: string, env: Record<string, string> = {}): Promise<Outcome> {
  const quoted = [process.execPath, COMMAND].map((part) => `'${part}'`).join(" ");
  const script = `set -o pipefail; bt() { ${quoted} instrument "$@" --plan "\${PLAN:-plan.json}"; }; ${line}`;
  return new Promise((resolve) => {
    const child = spawn("bash", ["-c", script], { cwd: folder, env: { ...process.env, ...env } });
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (chunk: string) => void (text += chunk));
    child.once("close", (code) => {
      expect(text).not.toMatch(/^\s+at /m);
      resolve({ code: code ?? 255, text });
    });
  });
}
const erl = ERL.map((part) => `'${part}'`).join(" ");
const inFolder = (name: string): Promise<string[]> => readdir(join(folder, name)).then((all) => all.sort());
const isPlain = async (path: string): Promise<boolean> => {
  const name = path.split("/").at(-1) ?? "";
  return (await readFile(join(folder, path))).equals(await readFile(join(folder, "kept", name)));
};

beforeAll(async () => {
  const source = (name: string) =>
    `-module(${name}).\n-export([f/1, g/1]).\nf(X) -> X.\ng(X) -> {f(X), X}.\n`;
  folder = await makeFolder({
    "src/a.erl": source("a"),
    "src/b.erl": source("b"),
    "src/c.erl": source("c"),
    "src/stub.erl":
      "-module(stub).\n-export([f/1, g/1]).\nf(_) -> erlang:nif_error(none).\ng(_) -> erlang:nif_error(none).\n",
    "src/wrapped.erl": "-module(wrapped).\n-export([f/1, g/1]).\nf(X) -> X.\ng(X) -> f(X).\n",
    "plan.json": '{"rules": [{"include": {}}]}',
  });
  await mkdir(join(folder, "kept"));
  const sources = ["a", "b", "c", "stub", "wrapped"].map((name) => `src/${name}.erl`);
  await mustRun(["erlc", "+debug_info", "-o", "kept", ...sources], folder);
});
afterAll(() => removeFolder(folder));

beforeEach(async () => {
  await rm(join(folder, "ebin"), { recursive: true, force: true });
  await rm(join(folder, "out"), { recursive: true, force: true });
  await mkdir(join(folder, "ebin"));
  for (const name of NAMES) await copyFile(join(folder, "kept", name), join(folder, "ebin", name));
});

describe("an entry that can't be read is told and the others are done", () => {
  test("a folder, a link to nothing", async () => {
    await mkdir(join(folder, "ebin/x.beam"));
    await symlink("nowhere", join(folder, "ebin/y.beam"));
    const { code, text } = await shell(`bt ebin ${erl}`);
    expect(code).toBe(1);
    expect(text).toMatch(/ebin\/x\.beam: x: it is a folder, not a file/);
    expect(text).toMatch(/ebin\/y\.beam: y: it is a link to nowhere/);
    expect(text).toMatch(/5 modules: 3 instrumented \(6 functions\), 0 not touched, 2 failed/);
    expect(await isPlain("ebin/a.beam")).toBe(false);
    expect((await shell(`bt ebin ${erl} --out out`)).text).toMatch(
      /2 modules were not written into the folder/,
    );
    expect((await shell(`bt ebin ${erl} --check`)).code).toBe(1);
  });

  test.skipIf(!isRoot || root !== "")("what another user may not read or write", async () => {
    await chmod(join(folder, "ebin/a.beam"), 0);
    const other = (line: string) =>
      shell(line.replace("bt ", "setpriv --reuid=65534 --regid=65534 --clear-groups $BT "), {
        BT: `${process.execPath} ${COMMAND} instrument --plan plan.json`,
      });
    const inPlace = await other("bt ebin");
    expect(inPlace.code).toBe(1);
    expect(inPlace.text).toMatch(/a\.beam: a: it can't be read: permission denied/);
    expect(inPlace.text).toMatch(/b: \S*b\.beam can't be written: permission denied/);
    expect(inPlace.text).toMatch(/3 modules stay as before/);
    const out = await other("bt ebin --out ebin/deep/er");
    expect(out).toMatchObject({
      code: 2,
      text: expect.stringMatching(/^beamtrace: --out: nothing can be/) as string,
    });
    await chmod(join(folder, "ebin"), 0);
    expect(await other("bt ebin")).toMatchObject({
      code: 2,
      text: expect.stringMatching(/EBIN: ebin can't be read: permission denied/) as string,
    });
  });
});

test.skipIf(!isRoot || root !== "")(
  "a full disk: what did not fit is told and leaves nothing behind",
  async () => {
    await mkdir(join(folder, "out"));
    // Pages of 4 KiB: one module each and one for the folder.
    const { code, text } = await shell(
      "mount -t tmpfs -o size=8k tmpfs out || exit 77; bt ebin --out out; R=$?; ls -A out; umount out; exit $R",
    );
    if (code === 77) return;
    expect(code).toBe(1);
    expect(text).toMatch(/can't be written: no space left on device/);
    expect(text).toMatch(/3 modules: 2 instrumented \(4 functions\), 0 not touched, 1 failed/);
    expect(text).not.toMatch(/^\.beamtrace-/m);
  },
);

describe("the folder of --out", () => {
  test("is refused before any work when it is a file, or one folder can't hold all", async () => {
    await mkdir(join(folder, "again"), { recursive: true });
    await copyFile(join(folder, "kept/a.beam"), join(folder, "again/a.beam"));
    const refused: [string, RegExp][] = [
      ["bt ebin --out plan.json", /--out: plan\.json is a file: name a folder/],
      ["bt ebin --out plan.json/deep", /--out: .*plan\.json is a file: name a folder/],
      ["bt ebin again --out out", /can't hold ebin\/a\.beam and again\/a\.beam: give those folders in runs/],
      ["bt ebin --out ''", /--out: it is empty/],
      ["bt ebin --erl '' --out out", /--erl: it is empty/],
      ["bt ebin --erl nonesuch --out out", /--erl: .*nonesuch.* could not be started/],
      ["bt -p plan.json ebin", /-p: there is no such option; did you mean --plan/],
    ];
    for (const [line, message] of refused)
      expect([line, await shell(line)]).toEqual([
        line,
        { code: 2, text: expect.stringMatching(message) as string },
      ]);
    await expect(lstat(join(folder, "out"))).rejects.toThrow();
    // The same folder through a link has each module once.
    await symlink("ebin", join(folder, "linked"));
    expect(await shell(`bt ebin linked --out out ${erl}`)).toMatchObject({ code: 0 });
    expect(await inFolder("out")).toEqual(NAMES);
  });
});

test("a beam that is a link in place stays one: its target is instrumented", async () => {
  await mkdir(join(folder, "links"));
  await symlink("../ebin/a.beam", join(folder, "links/a.beam"));
  expect((await shell(`bt links ${erl}`)).code).toBe(0);
  expect(await readlink(join(folder, "links/a.beam"))).toBe("../ebin/a.beam");
  expect(await isPlain("ebin/a.beam")).toBe(false);
});

describe("temporary files", () => {
  test("of processes that are gone are removed by the next run, those of others stay", async () => {
    for (const name of [".a.beam.beamtrace-4194999", ".beamtrace-4194999-7", `.beamtrace-${process.pid}-7`])
      await writeFile(join(folder, "ebin", name), "half");
    expect((await shell(`bt ebin ${erl}`)).code).toBe(0);
    expect(await inFolder("ebin")).toEqual([`.beamtrace-${process.pid}-7`, ...NAMES]);
  });

  test("don't stay after a signal: each module is either plain or instrumented", async () => {
    await mkdir(join(folder, "many"));
    const beams = Array.from({ length: 60 }, (_, i) => `m${i}.beam`);
    for (const name of beams) await copyFile(join(folder, "kept/a.beam"), join(folder, "many", name));
    const args = [COMMAND, "instrument", "many", "--plan", "plan.json", "--out", "out", ...ERL];
    const child = spawn(process.execPath, args, { cwd: folder, stdio: "ignore" });
    const ended = new Promise((resolve) => child.once("close", (_code, signal) => resolve(signal)));
    while (!(await inFolder("out").catch(() => [])).some((name) => name.endsWith(".beam")))
      await new Promise((resolve) => setTimeout(resolve, 2));
    child.kill("SIGTERM");
    expect(await ended).toBe("SIGTERM");
    expect((await inFolder("out")).filter((name) => !name.endsWith(".beam"))).toEqual([]);
  });
});

describe("standard output", () => {
  test("that nobody reads ends the command quietly, after the work", async () => {
    expect(await shell(`bt ebin ${erl} | true`)).toEqual({ code: 141, text: "" });
    expect(await isPlain("ebin/c.beam")).toBe(false);
  });

  test("that can't be written is told", async () => {
    const { code, text } = await shell(`bt ebin ${erl} > /dev/full`);
    expect([code, text]).toEqual([2, "beamtrace: standard output: no space left on device (ENOSPC)\n"]);
    expect(await isPlain("ebin/c.beam")).toBe(false);
  });
});

describe("--check says what a run would do", () => {
  test("functions that would be left out are not counted, and named", async () => {
    await writeFile(join(folder, "wrap.json"), '{"rules": [{"include": {}, "exceptions": "wrap"}]}');
    const { code, text } = await shell(`bt kept/wrapped.beam kept/stub.beam --check ${erl}`, {
      PLAN: "wrap.json",
    });
    expect(code).toBe(0);
    expect(text).toMatch(/^leaves out wrapped: g\/1$/m);
    expect(text).toMatch(/^leaves out stub: f\/1 g\/1$/m);
    expect(text).toMatch(/^left out, 2: it stands in for native code$/m);
    expect(text).toMatch(/^1 of 4 functions in 2 modules would be instrumented$/m);
  });

  test("a module that would fail is told", async () => {
    await mkdir(join(folder, "server"));
    await writeFile(join(folder, "src/lists.erl"), "-module(lists).\n-export([f/1]).\nf(X) -> X.\n");
    await mustRun(["erlc", "+debug_info", "-o", "server", "src/lists.erl"], folder);
    const { code, text } = await shell(`bt server --check ${erl}`);
    expect(code).toBe(1);
    expect(text).toMatch(/lists: lists is run by the VM's code server/);
    expect(text).toMatch(/^0 of 1 functions in 1 modules would be instrumented$/m);
  });
});

test("a module whose functions are all left out has a row and the reason", async () => {
  const { code, text } = await shell(`bt kept/stub.beam --out out ${erl}`);
  expect(code).toBe(0);
  expect(text).toMatch(/^stub\s+not touched\s+0\s+2\s/m);
  expect(text).toMatch(/^left out, 2: it stands in for native code$/m);
});

test.skipIf(root !== "")("where there is no Elixir, what to do is said once", async () => {
  await mkdir(join(folder, "el"));
  await writeFile(
    join(folder, "src/e.ex"),
    "for m <- [E1, E2] do\n  defmodule m do\n    def f(x), do: x\n  end\nend\n",
  );
  await mustRun(["elixirc", "-o", "el", "src/e.ex"], folder);
  const { code, text } = await shell(`mkdir bin; ln -s $(command -v erl) bin/erl; PATH=$PWD/bin bt el`);
  expect(code).toBe(1);
  expect(text.match(/reading the debug info of Elixir\.E\d takes Elixir/g)).toHaveLength(2);
  expect(text.match(/--code-path/g)).toHaveLength(1);
});
