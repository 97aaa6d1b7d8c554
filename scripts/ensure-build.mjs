/**
 * Builds dist/ unless it was already built from exactly these sources. The tests need it for worker threads, the examples
 * because they import the package by its name. Without `--types` a build without declarations (much quicker) will do.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const stampFile = join(root, ".cache/build.json");
const types = process.argv.includes("--types");

function sourcesHash() {
  const sources = readdirSync(join(root, "src"), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  const settings = ["package.json", "package-lock.json", "tsconfig.json", "tsup.config.ts"].map((f) =>
    join(root, f),
  );
  const hash = createHash("sha256");
  for (const file of [...settings, ...sources.sort()]) {
    hash.update(`${file}\0`);
    hash.update(readFileSync(file));
  }
  return hash.digest("hex");
}

function upToDate(hash) {
  try {
    const stamp = JSON.parse(readFileSync(stampFile, "utf8"));
    return (
      stamp.hash === hash && (stamp.types || !types) && stamp.files.every((f) => existsSync(join(root, f)))
    );
  } catch {
    return false;
  }
}

const hash = sourcesHash();
if (!upToDate(hash)) {
  rmSync(stampFile, { force: true });
  rmSync(join(root, "dist"), { recursive: true, force: true });
  const tsup = join(root, "node_modules/tsup/dist/cli-default.js");
  const result = spawnSync(process.execPath, [tsup, "--silent", ...(types ? [] : ["--no-dts"])], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (result.status !== 0) {
    console.error("[setup] the build failed");
    process.exit(1);
  }
  const files = readdirSync(join(root, "dist"), { recursive: true, encoding: "utf8" })
    .filter((file) => /\.c?js$/.test(file))
    .map((file) => join("dist", file));
  mkdirSync(join(root, ".cache"), { recursive: true });
  writeFileSync(stampFile, JSON.stringify({ hash, types, files }));
}
