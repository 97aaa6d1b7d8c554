/**
 * Erlang modules of the benchmarks: compiled here by erlc in a temporary directory, loaded into a node from memory,
 * so that a node in another root (another OTP release) needs no file of ours.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { ErlNode } from "../../test/support/erl-node";

const run = promisify(execFile);

/** Compiles `erlang/<name>.erl` and returns the `.beam`. */
async function compile(name: string): Promise<Buffer> {
  const directory = await mkdtemp(join(tmpdir(), "beamtrace-bench-"));
  try {
    const source = fileURLToPath(new URL(`./erlang/${name}.erl`, import.meta.url));
    await run("erlc", ["-Werror", "-o", directory, source]);
    return await readFile(join(directory, `${name}.beam`));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Compiles a module of the benchmarks and loads it into the node. */
export async function loadErlangModule(node: ErlNode, name: string): Promise<void> {
  const beam = await compile(name);
  const loaded = await node.eval(
    `code:load_binary(${name}, "${name}.erl", base64:decode("${beam.toString("base64")}"))`,
  );
  if (loaded !== `{module,${name}}`) throw new Error(`${name} could not be loaded: ${loaded}`);
}
