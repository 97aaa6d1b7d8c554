/**
 * Adds to package-lock.json the platform packages that npm left out. npm leaves an optional dependency out of the lock
 * when it cannot read its manifest at that moment, and `npm ci` then refuses the lock on every machine that can.
 * Such packages are pinned to one version by their parent and name their platform, so the entry follows from both.
 * Run it after `npm install NAME` when `npm ci` says "Missing: … from lock file".
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const file = fileURLToPath(new URL("../package-lock.json", import.meta.url));
const lock = JSON.parse(readFileSync(file, "utf8"));

const systems = [
  "android",
  "darwin",
  "freebsd",
  "linux",
  "netbsd",
  "openbsd",
  "openharmony",
  "sunos",
  "win32",
];
const cpus = ["arm64", "arm", "ia32", "loong64", "mips64el", "ppc64", "riscv64", "s390x", "x64", "wasm32"];

/** `@rollup/rollup-linux-arm64-musl` → os linux, cpu arm64, libc musl. */
function platformOf(name) {
  const words = name.split("/").at(-1).split("-");
  const os = systems.find((s) => words.includes(s));
  const cpu = cpus.find((c) => words.includes(c));
  const libc = words.includes("musl") ? "musl" : words.some((w) => w.startsWith("gnu")) ? "glibc" : undefined;
  return { os, cpu, libc: os === "linux" ? libc : undefined };
}

const added = [];
for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(path === "" ? {} : (entry.optionalDependencies ?? {}))) {
    // Where Node would look for it: next to the parent, or in any node_modules above.
    let folder = path;
    let found = false;
    while (!found) {
      found = lock.packages[`${folder === "" ? "" : `${folder}/`}node_modules/${name}`] !== undefined;
      if (folder === "") break;
      const cut = folder.lastIndexOf("node_modules/");
      folder = cut <= 0 ? "" : folder.slice(0, cut - 1);
    }
    if (found) continue;
    const { os, cpu, libc } = platformOf(name);
    if (os === undefined || !/^\d+\.\d+\.\d+/.test(version))
      throw new Error(`${name}@${version}, wanted by ${path}, is not a platform package with one version`);
    lock.packages[`node_modules/${name}`] = {
      version,
      ...(cpu === undefined ? {} : { cpu: [cpu] }),
      ...(entry.dev ? { dev: true } : {}),
      ...(libc === undefined ? {} : { libc: [libc] }),
      optional: true,
      os: [os],
    };
    added.push(`${name}@${version}`);
  }
}
if (added.length > 0) {
  const sorted = Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  lock.packages = Object.fromEntries(sorted);
  writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
}
console.log(added.length === 0 ? "package-lock.json is complete" : `added ${added.join("\n      ")}`);
