/**
 * Projects of Mix and rebar3 in temporary folders, built by the release under test (BEAMTRACE_OTP_ROOT) with this project as it was
 * built last. What they print comes back as text.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = process.env["BEAMTRACE_OTP_ROOT"] ?? "";

/** This project's folder, and what of it a user's project names. */
export const PROJECT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
export const MIX_DEPENDENCY = `{:beamtrace, path: "${PROJECT}/beam/mix", runtime: false}`;
export const COMMAND = join(PROJECT, "dist/cli/main.js");

/** Whether the release under test has the program. */
export const hasProgram = (name: string): boolean =>
  ["/usr/bin", "/usr/local/bin", "/bin"].some((folder) =>
    existsSync(join(root === "" ? "/" : root, folder, name)),
  );

/** How a command ended. */
export interface Outcome {
  readonly code: number;
  /** Standard output and error, as they came. */
  readonly text: string;
}

// env -C changes the folder after chroot has made / its own.
const inRoot = (command: readonly string[], folder: string): readonly string[] =>
  root === "" ? command : ["chroot", root, "env", "-C", folder, ...command];

const environment = (env: Readonly<Record<string, string | undefined>>): NodeJS.ProcessEnv => ({
  ...process.env,
  // Certificates of this machine are not in another release's root.
  NODE_EXTRA_CA_CERTS: undefined,
  MIX_ENV: undefined,
  LANG: "C.UTF-8",
  ERL_CRASH_DUMP: "/dev/null",
  ...env,
});

/** Starts a program in a folder, as a process group of its own, which whoever starts it has to end. */
export function start(
  command: readonly string[],
  folder: string,
  env: Readonly<Record<string, string | undefined>> = {},
): ChildProcess {
  const [program = "", ...args] = inRoot(command, folder);
  return spawn(program, args, { cwd: folder, detached: true, stdio: "ignore", env: environment(env) });
}

/** Runs a program in a folder. */
export function run(
  command: readonly string[],
  folder: string,
  env: Readonly<Record<string, string | undefined>> = {},
): Promise<Outcome> {
  const [program = "", ...args] = inRoot(command, folder);
  return new Promise((resolve) => {
    const child = execFile(
      program,
      args,
      {
        cwd: folder,
        maxBuffer: 1 << 26,
        env: environment(env),
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : 255;
        resolve({ code, text: `${stdout}${stderr}` });
      },
    );
    child.stdin?.end();
  });
}

/** Runs a program that must end well. */
export async function mustRun(...args: Parameters<typeof run>): Promise<string> {
  const { code, text } = await run(...args);
  if (code !== 0) throw new Error(`${args[0].join(" ")} ended with code ${code}:\n${text}`);
  return text;
}

/** A folder with files, by path within it. */
export async function makeFolder(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "beamtrace-build-"));
  await chmod(folder, 0o755);
  await writeFiles(folder, files);
  return folder;
}

export async function writeFiles(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }
}

export const removeFolder = (folder: string): Promise<void> => rm(folder, { recursive: true, force: true });

/** SHA-256 of all beams below a folder, by path within it; those that are kept beside manifests aside. */
export async function beamHashes(folder: string): Promise<Record<string, string>> {
  const hashes: Record<string, string> = {};
  for (const path of (await readdir(folder, { recursive: true })).sort()) {
    if (!path.endsWith(".beam") || path.includes(".kept/")) continue;
    hashes[path] = createHash("sha256")
      .update(await readFile(join(folder, path)))
      .digest("hex");
  }
  return hashes;
}

/** Inode and times of all files below a folder: equal when nothing was written. */
export async function fileStates(folder: string): Promise<Record<string, string>> {
  const states: Record<string, string> = {};
  for (const path of (await readdir(folder, { recursive: true })).sort()) {
    const { ino, mtimeMs, ctimeMs, size } = await lstat(join(folder, path));
    states[path] = [ino, mtimeMs, ctimeMs, size].join(" ");
  }
  return states;
}

/** Names that differ between two records. */
export const changed = (before: Record<string, string>, after: Record<string, string>): string[] =>
  [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((key) => before[key] !== after[key])
    .sort();

/** The package as npm would install it, with what it depends on. */
export async function packInto(modules: string): Promise<void> {
  await mkdir(modules, { recursive: true });
  const pack = (command: string, ...args: string[]): Promise<string> =>
    new Promise((resolve, reject) =>
      execFile(command, args, { cwd: PROJECT }, (error, stdout) =>
        error === null ? resolve(stdout) : reject(error),
      ),
    );
  const [file = ""] = (
    await pack("npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", modules)
  )
    .trim()
    .split("\n");
  await pack("tar", "-xzf", join(modules, file), "-C", modules);
  await rename(join(modules, "package"), join(modules, "beamtrace"));
  const { dependencies } = JSON.parse(await readFile(join(PROJECT, "package.json"), "utf8")) as {
    dependencies: Record<string, string>;
  };
  for (const name of Object.keys(dependencies))
    await symlink(join(PROJECT, "node_modules", name), join(modules, name));
}
