/**
 * Bundles a TypeScript file for a worker thread (Node 20 can't start one from TypeScript). The bundle lies in a temporary folder that its user removes.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";

/** A bundled file, ready for `new Worker(path)`. */
export interface WorkerBundle extends AsyncDisposable {
  readonly path: string;
}

/** Bundles a file with all that it imports. */
export async function bundleWorker(entry: string): Promise<WorkerBundle> {
  const folder = await mkdtemp(join(tmpdir(), "beamtrace-worker-"));
  const path = join(folder, "worker.mjs");
  await build({
    entryPoints: [entry],
    outfile: path,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    logLevel: "error",
  });
  return { path, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}
