/** Erlang sources to plain and instrumented beams, for tests: compiled by the OTP release that the tests run on. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { type CompileServer, startCompileServer } from "../../src/transform";
import type { ErlNode } from "./erl-node";

const root = process.env["BEAMTRACE_OTP_ROOT"] ?? "";

/** Where Elixir's own modules are, in the release's root. */
export const ELIXIR_EBIN = "/usr/lib/elixir/lib/elixir/ebin";

/** A compile server of the release under test. */
export function startCompiler(): Promise<CompileServer> {
  return startCompileServer({
    command: root === "" ? ["erl"] : ["chroot", root, "erl"],
    codePaths: [ELIXIR_EBIN],
  });
}

/** Path of a fixture. */
export const fixture = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/transform/${name}`, import.meta.url));

/** Object code of an Erlang source file, with debug info unless other options are given. */
export async function compileErlang(
  node: ErlNode,
  path: string,
  options = "debug_info",
): Promise<Uint8Array> {
  const text = await node.eval(
    `case compile:file("${path}", [binary, return, ${options}]) of {ok, _, B, _} -> base64:encode(B); {error, E, _} -> {failed, E} end`,
  );
  const [, bytes] = /^<<"(.*)">>$/.exec(text) ?? [];
  if (bytes === undefined) throw new Error(`${path} does not compile: ${text}`);
  return Buffer.from(bytes, "base64");
}

/** Object code of Erlang source text. */
export async function compileText(
  node: ErlNode,
  module: string,
  text: string,
  options?: string,
): Promise<Uint8Array> {
  const folder = await mkdtemp(join(tmpdir(), "beamtrace-transform-"));
  try {
    await writeFile(join(folder, `${module}.erl`), text);
    return await compileErlang(node, join(folder, `${module}.erl`), options);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Object code of the modules of Elixir source text, with docs and debug info; the node needs Elixir in its code path. */
export async function compileElixir(node: ErlNode, source: string): Promise<Map<string, Uint8Array>> {
  const text = await node.eval(
    `{ok, _} = application:ensure_all_started(elixir),
     'Elixir.Code':put_compiler_option(docs, true), 'Elixir.Code':put_compiler_option(debug_info, true),
     Compiled = 'Elixir.Code':compile_string(base64:decode("${Buffer.from(source).toString("base64")}"), <<"subject.ex">>),
     [[atom_to_list(M), binary_to_list(base64:encode(B))] || {M, B} <- Compiled]`,
  );
  return new Map((JSON.parse(text) as [string, string][]).map(([m, b]) => [m, Buffer.from(b, "base64")]));
}

/** Loads object code; of a module that is there already the old code is purged. */
export async function load(node: ErlNode, module: string, beam: Uint8Array | string): Promise<void> {
  const text = typeof beam === "string" ? beam : Buffer.from(beam).toString("base64");
  const loaded = await node.eval(
    `code:purge(${module}), code:load_binary(${module}, "${module}.beam", base64:decode("${text}"))`,
  );
  if (loaded !== `{module,${module}}`) throw new Error(`${module} could not be loaded: ${loaded}`);
}

/** Takes the module off the node. */
export async function unload(node: ErlNode, module: string): Promise<void> {
  await node.eval(`code:delete(${module}), code:purge(${module})`);
}
