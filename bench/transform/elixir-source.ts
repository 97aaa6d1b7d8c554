/**
 * Elixir's source as Debian has it for the Elixir that is installed here, with its tests: fetched by apt (with package lists of its own, so
 * that the machine's are left alone), unpacked into .cache. A tree that can run the tests has Debian's own beams beside it.
 */
import { execFile } from "node:child_process";
import { cpSync, existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const CACHE = fileURLToPath(new URL("../../.cache", import.meta.url));
const INSTALLED = "/usr/lib/elixir/lib";
const SOURCE_LISTS = "/etc/apt/sources.list.d";

/** The parts of Elixir that have tests of their own. */
export const ELIXIR_APPLICATIONS = ["elixir", "ex_unit", "logger", "eex", "iex", "mix"] as const;

/** This machine's package sources, of which only the sources are asked for. */
async function sourcesOnly(folder: string): Promise<void> {
  for (const name of await readdir(SOURCE_LISTS)) {
    const text = await readFile(join(SOURCE_LISTS, name), "utf8");
    if (name.endsWith(".sources"))
      await writeFile(join(folder, name), text.replace(/^Types:.*$/gm, "Types: deb-src"));
    if (name.endsWith(".list")) await writeFile(join(folder, name), text.replace(/^deb\s/gm, "deb-src "));
  }
  if (existsSync("/etc/apt/sources.list")) {
    const text = await readFile("/etc/apt/sources.list", "utf8");
    await writeFile(join(folder, "machine.list"), text.replace(/^deb\s/gm, "deb-src "));
  }
}

/** The folder of the source, fetched on first use. */
async function elixirSource(): Promise<string> {
  const { stdout } = await run("dpkg-query", ["-W", "-f", "${source:Package}=${source:Version}", "elixir"]);
  const version = stdout.split("=")[1] ?? "";
  const target = join(CACHE, "elixir-source", version);
  if (existsSync(target)) return target;
  await mkdir(join(CACHE, "elixir-source"), { recursive: true });
  const work = await mkdtemp(join(CACHE, "elixir-source", "fetching-"));
  try {
    await mkdir(join(work, "parts"));
    await mkdir(join(work, "lists/partial"), { recursive: true });
    await sourcesOnly(join(work, "parts"));
    const options = [
      ...["-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", "APT::Sandbox::User=root"],
      ...["-o", `Dir::Etc::sourceparts=${join(work, "parts")}`],
      ...["-o", `Dir::State::lists=${join(work, "lists")}`],
    ];
    const apt = (args: string[]): Promise<unknown> =>
      run("apt-get", [...options, ...args], { cwd: work, timeout: 300_000 });
    await apt(["update"]);
    await apt(["source", "--download-only", stdout]);
    const description = (await readdir(work)).find((name) => name.endsWith(".dsc"));
    if (description === undefined) throw new Error("apt-get source brought no .dsc");
    await run("dpkg-source", ["--no-check", "-x", description, "tree"], { cwd: work });
    await rename(join(work, "tree"), target);
    return target;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Puts a tree of source, tests and the installed beams into the folder. */
export async function elixirTree(folder: string): Promise<void> {
  cpSync(await elixirSource(), folder, { recursive: true });
  for (const application of ELIXIR_APPLICATIONS)
    cpSync(join(INSTALLED, application, "ebin"), join(folder, "lib", application, "ebin"), {
      recursive: true,
      dereference: true,
    });
}
