/**
 * What the corpus takes from Debian beyond what is installed: the rest of Erlang/OTP, RabbitMQ, ejabberd and what they stand on. apt says
 * which packages those are for the root's own release; they are unpacked, each into a folder of its own, and never installed.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const CACHE = fileURLToPath(new URL("../../../.cache/corpus", import.meta.url));
const WANTED = ["erlang", "rabbitmq-server", "ejabberd"];
const MODULES_IN = /^(erlang-|ejabberd$|rabbitmq-server$|elixir$)/;

/** A program inside a root. */
export const inRoot = (root: string, program: string): [string, ...string[]] =>
  root === "/" ? [program] : ["chroot", root, program];

/** The packages that apt would install. */
async function missing(root: string): Promise<string[]> {
  const [program, ...leading] = inRoot(root, "apt-get");
  const { stdout } = await run(program, [
    ...leading,
    ...["install", "--simulate", "--no-install-recommends", ...WANTED],
  ]);
  return [...stdout.matchAll(/^Inst (\S+)/gm)].map(([, name = ""]) => name).filter((n) => MODULES_IN.test(n));
}

/** Downloads and unpacks them unless that was done before; returns one folder a package, each standing for `/`. */
export async function unpackedPackages(root: string): Promise<string[]> {
  const target = root === "/" ? join(CACHE, "packages") : join(root, "opt/beamtrace-corpus");
  if (!existsSync(target)) {
    const work = `${target}.unpacking`;
    await rm(work, { recursive: true, force: true });
    await mkdir(work, { recursive: true });
    const downloads = await mkdtemp(join(root, "tmp/beamtrace-corpus-"));
    try {
      const inside = root === "/" ? downloads : downloads.slice(root.length);
      const fetch = `apt-get -qq update || true; cd ${inside} && exec apt-get -q -o APT::Sandbox::User=root download ${(await missing(root)).join(" ")}`;
      const [shell, ...leading] = inRoot(root, "sh");
      await run(shell, [...leading, "-c", fetch], { timeout: 600_000, maxBuffer: 1 << 26 });
      for (const deb of await readdir(downloads)) {
        // An epoch in the version is Erlang/OTP's own: its name is kept in the folder's.
        const into = join(work, deb.replace(/_(amd64|arm64|all)\.deb$/, ""));
        await mkdir(into);
        await run("dpkg-deb", ["-x", join(downloads, deb), into]);
      }
      await rename(work, target);
    } finally {
      await rm(downloads, { recursive: true, force: true });
    }
  }
  return (await readdir(target)).map((name) => join(target, name));
}
