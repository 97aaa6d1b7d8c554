/**
 * Servers and load generators of Debian, unpacked into .cache and never installed: nothing is configured, no service is started, and one `rm -r`
 * takes them away. apt picks the versions that fit this machine's Erlang.
 */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const CACHE = fileURLToPath(new URL("../../.cache", import.meta.url));
const DOWNLOAD_MS = 300_000;
/** Which packages a root holds; written last, so that a root with it is complete. */
const LIST = ".packages";

function isComplete(root: string, packages: readonly string[]): boolean {
  const list = join(root, LIST);
  return existsSync(list) && readFileSync(list, "utf8") === packages.join("\n");
}

/** Downloads packages by apt and unpacks them, unless that was done before; returns the directory that stands for `/`. */
export async function unpackedPackages(name: string, packages: readonly string[]): Promise<string> {
  const root = join(CACHE, name, "root");
  if (isComplete(root, packages)) return root;
  const directory = await mkdtemp(join(tmpdir(), `beamtrace-${name}-`));
  try {
    await run("apt-get", ["download", ...packages], { cwd: directory, timeout: DOWNLOAD_MS });
    await mkdir(join(CACHE, name), { recursive: true });
    const unpacked = await mkdtemp(join(CACHE, name, "unpacking-"));
    for (const deb of await readdir(directory)) await run("dpkg-deb", ["-x", join(directory, deb), unpacked]);
    await writeFile(join(unpacked, LIST), packages.join("\n"));
    await rm(root, { recursive: true, force: true });
    await rename(unpacked, root);
    return root;
  } catch (error) {
    throw new Error(
      `this benchmark needs the Debian packages ${packages.join(" ")}, which apt-get could not download here (a machine with Debian's apt and a package source is needed)`,
      { cause: error },
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Directories below `directory` whose names match, with their full paths; none when there is no such directory. */
async function matching(directory: string, pattern: RegExp): Promise<string[]> {
  if (!existsSync(directory)) return [];
  return (await readdir(directory))
    .filter((entry) => pattern.test(entry))
    .map((entry) => join(directory, entry));
}

/** The directories of a root that hold Erlang applications (for ERL_LIBS) and those with shared libraries (for LD_LIBRARY_PATH). */
export async function libraryPaths(root: string): Promise<{ erlang: string[]; shared: string[] }> {
  const shared = await matching(join(root, "usr/lib"), /-linux-gnu$/);
  const tsung = shared
    .map((directory) => join(directory, "tsung"))
    .filter((directory) => existsSync(directory));
  const plain = join(root, "usr/lib/erlang/lib");
  return { erlang: [...(existsSync(plain) ? [plain] : []), ...shared, ...tsung], shared };
}
