/**
 * What the native tracer is compared with: a library whose gate discards, one that does nothing (the VM's own floor), without and with stamps, and
 * ours when it only records. Needs a C compiler here, and a node that can read files of this machine.
 */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { inflateRawSync } from "node:zlib";
import { AGENT_MODULES } from "../../src/capture/agent-code.generated";
import { NATIVE_LIBRARIES, NATIVE_MODULE } from "../../src/capture/native-code.generated";
import type { ErlNode } from "../../test/support/erl-node";
import { loadErlangModule } from "./erlang-module";
import type { Variant } from "./variant";

const run = promisify(execFile);
const NIF = "beamtrace_bench_nif";
const RECORD = "beamtrace_bench_record";
/** Loads what the variants below need on the node. */
export async function loadNativePeers(node: ErlNode): Promise<void> {
  await loadErlangModule(node, NIF);
  await loadErlangModule(node, RECORD);
  const directory = await mkdtemp(join(tmpdir(), "beamtrace-bench-"));
  try {
    const source = fileURLToPath(new URL(`./native/${NIF}.c`, import.meta.url));
    const root = (await node.eval("code:root_dir()")).slice(1, -1);
    const flags = ["-O2", "-fPIC", "-shared", `-I${root}/usr/include`];
    try {
      await run("gcc", [...flags, source, "-o", join(directory, `${NIF}.so`)]);
    } catch (error) {
      throw new Error(
        `the VM's floor is measured with a NIF that is compiled here, which did not work: it takes gcc, libc's and Erlang's headers (apt-get install gcc libc6-dev erlang-dev)`,
        { cause: error },
      );
    }
    const loaded = await node.eval(`${NIF}:load("${join(directory, NIF)}")`);
    if (loaded !== "ok") throw new Error(`${NIF} could not be loaded: ${loaded}`);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function library(name: string, state: 0 | 1 | 2 | 3, on: "on" | "on_stamped" = "on"): Variant {
  const tracer = `{${NIF}, ${state}}`;
  return {
    name,
    async start(node) {
      const traced = Number(await node.eval(`${NIF}:${on}(${tracer})`));
      if (!(traced > 10)) throw new Error(`only ${traced} processes are traced`);
    },
    stop: async (node) => void (await node.eval(`${NIF}:off(${tracer})`)),
  };
}

/** A library whose `enabled` answers `discard`. */
export const discardingLibrary = (): Variant => library("nif-discard", 0);

/** A library that does nothing: what the VM takes for a native tracer at the least. */
export const idleLibrary = (): Variant => library("nif-nothing", 1);

/** The same library, and the VM stamps the events, as it does for every peer of ours: the VM's floor of an event that says when. */
export const stampedLibrary = (): Variant => library("nif-stamped", 1, "on_stamped");

/** The same library, which writes each event's words, 64 bytes, into a ring of the thread: the least that a recorder does. No stamp, no shape. */
export const writingLibrary = (): Variant => library("nif-write", 3);

/** The same library, counting: shows that the one that does nothing is called for every event. */
export function countingLibrary(): Variant {
  const variant = library("nif-count", 2);
  let on: ErlNode | undefined;
  return {
    ...variant,
    start: (node) => variant.start((on = node)),
    count: async () => ({ delivered: Number(await on?.eval(`${NIF}:count()`)), lost: 0 }),
  };
}

/** Ours, recording only, as a flight recorder does. Counted, it says how many events it has recorded, which costs a little. */
export const recording = (counted = false): Variant =>
  unshipped(counted ? "nif-record-count" : "nif-record", "record", counted);

/** Ours, drained into a bounded queue of binaries that stays in the node. */
export const buffering = (): Variant => unshipped("nif-buffer", "buffer", false);

function unshipped(name: string, how: "record" | "buffer", counted: boolean): Variant {
  const code = NATIVE_LIBRARIES.find(({ platform }) => platform === `linux-${process.arch}`);
  if (!code) throw new Error("there is no library for this machine");
  const so = inflateRawSync(Buffer.from(code.deflated, "base64")).toString("base64");
  const beams = [...AGENT_MODULES, NATIVE_MODULE].map(
    ({ name, beam }) => `{${name}, base64:decode("${beam}")}`,
  );
  const modules = `[${[...beams, `{library, base64:decode("${so}")}`].join(", ")}]`;
  let on: ErlNode | undefined;
  return {
    name,
    async start(node) {
      on = node;
      const traced = Number(await node.eval(`${RECORD}:on(${modules}, ${how})`));
      if (!(traced > 10)) throw new Error(`only ${traced} processes are traced`);
    },
    ...(counted && {
      count: async () => ({ delivered: Number(await on?.eval(`${RECORD}:recorded()`)), lost: 0 }),
    }),
    async stop(node) {
      const answer = await node.eval(`${RECORD}:off()`);
      const [recorded, lost] = (/^\{(\d+),(\d+)\}$/.exec(answer) ?? []).slice(1).map(Number);
      if (!(recorded !== undefined && recorded > 0)) throw new Error(`nothing was recorded: ${answer}`);
      if (lost !== 0) throw new Error(`the rings were too small: ${lost} records found no room`);
    },
  };
}
