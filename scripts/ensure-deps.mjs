/**
 * Installs the npm dependencies when they are missing or not those of package-lock.json; else returns at once.
 * Plain Node without dependencies: it is the first step of `npm test` and `npm run demo` on a fresh clone.
 * `node scripts/ensure-deps.mjs [RELEASE]`: the least release of Node.js that will do for what follows, if not the package's.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** @param {string} file */
const readJson = (file) => JSON.parse(readFileSync(join(root, file), "utf8"));

/** `os`, `cpu` and `libc` of a lock entry: lists of names, a leading ! excludes. */
function fits(list, actual) {
  if (list === undefined || actual === undefined) return true;
  if (list.includes(`!${actual}`)) return false;
  const wanted = list.filter((name) => !name.startsWith("!"));
  return wanted.length === 0 || wanted.includes(actual) || wanted.includes("any");
}

function libc() {
  if (process.platform !== "linux") return undefined;
  return process.report.getReport().header.glibcVersionRuntime === undefined ? "musl" : "glibc";
}

/** Why node_modules is not what the lock file asks for; undefined when it is. */
function staleReason() {
  if (!existsSync(join(root, "node_modules/.package-lock.json"))) return "node_modules is missing";
  const wanted = readJson("package-lock.json").packages;
  const installed = readJson("node_modules/.package-lock.json").packages;
  const actualLibc = libc();
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === "" || entry.link) continue;
    const present = installed[path];
    if (present === undefined) {
      // An optional package must be there only when it names a platform and that is ours.
      const ours =
        (entry.os ?? entry.cpu) !== undefined &&
        fits(entry.os, process.platform) &&
        fits(entry.cpu, process.arch) &&
        fits(entry.libc, actualLibc);
      if (entry.peer === true || (entry.optional === true && !ours)) continue;
      return `${path} is missing`;
    }
    if (present.version !== entry.version || present.integrity !== entry.integrity)
      return `${path} is ${present.version}, the lock file has ${entry.version}`;
    if (!existsSync(join(root, path, "package.json"))) return `${path} has no files`;
  }
  return undefined;
}

function requireNode() {
  const minimum = process.argv[2] ?? readJson("package.json").engines.node.replace(/^\D*/, "");
  const [needMajor = 0, needMinor = 0] = minimum.split(".").map(Number);
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major > needMajor || (major === needMajor && minor >= needMinor)) return;
  console.error(`This needs Node.js ${minimum} or later, and here is ${process.versions.node}.`);
  process.exit(1);
}

requireNode();
const reason = staleReason();
if (reason !== undefined) {
  console.error(`[setup] ${reason}: npm ci`);
  const args = ["ci", "--include=dev", "--include=optional", "--no-audit", "--no-fund"];
  const npm = process.env.npm_execpath;
  const result = npm?.endsWith(".js")
    ? spawnSync(process.execPath, [npm, ...args], { cwd: root, stdio: ["ignore", "inherit", "inherit"] })
    : spawnSync("npm", args, {
        cwd: root,
        stdio: ["ignore", "inherit", "inherit"],
        shell: process.platform === "win32",
      });
  if (result.error !== undefined) console.error(`[setup] cannot run npm: ${result.error.message}`);
  if (result.status !== 0) {
    console.error("[setup] npm ci failed; its message is above. Nothing else was tried.");
    process.exit(1);
  }
}
