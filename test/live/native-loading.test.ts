/**
 * Whatever keeps the native tracer out of a node, the trace runs with the portable one, says why in `info.tracer`, in `status$` and in the
 * stream, and nothing stays: no module, no folder. Faults are real ones: file systems, libraries and modules, not stand-ins.
 */
import { createHash } from "node:crypto";
import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { afterEach, describe, expect, test, vi } from "vitest";
import { AGENT_FILE_PREFIX } from "../../src/capture/agent-code.generated";
import { NATIVE_LIBRARIES, NATIVE_MODULE, type NativeLibrary } from "../../src/capture/native-code.generated";
import type { SessionStatus } from "../../src/capture";
import { atom, Pid } from "../../src/erlang";
import { expectClean } from "../support/clean";
import { startNode, type ErlNode, type ErlNodeOptions } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";

vi.setConfig({ testTimeout: 60_000 });
const nodes: ErlNode[] = [];
const folders: string[] = [];
const swapped: [number, NativeLibrary][] = [];
afterEach(async () => {
  for (const [at, library] of swapped.splice(0)) (NATIVE_LIBRARIES as NativeLibrary[])[at] = library;
  await Promise.all(nodes.splice(0).map((node) => node.stop()));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

async function start(options: ErlNodeOptions = {}): Promise<ErlNode> {
  const node = await startNode(options);
  nodes.push(node);
  return node;
}

/** A node whose folders for temporary files are mounted so; it runs in a mount namespace of its own. */
function startWithMounts(options: string): Promise<ErlNode> {
  const folder = mkdtempSync("/tmp/beamtrace-test-");
  folders.push(folder);
  const program = join(folder, "erl");
  const mounts = ["/tmp", "/dev/shm", "/var/tmp"]
    .map((each) => `mkdir -p ${each} && mount -t tmpfs -o ${options} tmpfs ${each}`)
    .join(" && ");
  // One line, read before the mounts hide this file. Nobody writes into /proc.
  writeFileSync(
    program,
    `#!/bin/sh\nexec unshare --mount --propagation "$(mountpoint -q / && echo private || echo unchanged)" sh -c '${mounts} && cd /proc && exec erl "$@"' sh "$@"\n`,
  );
  chmodSync(program, 0o755);
  return start({ program, env: { TMPDIR: "/tmp" } });
}

/** Traces something with `tracer: "auto"` and returns why it was the portable tracer. */
async function expectPortable(node: ErlNode, reason: RegExp): Promise<void> {
  const session = await attachTo(node);
  const statuses: SessionStatus[] = [];
  session.status$.subscribe((status) => statuses.push(status));
  const target = await session.call("erlang", "whereis", [atom("kernel_sup")]);
  if (!(target instanceof Pid)) throw new Error("no process to trace");
  const trace = await session.trace({ processes: [target], events: ["receive"] });
  expect(session.info.tracer.kind).toBe("portable");
  expect(session.info.tracer.reason).toMatch(reason);
  expect(trace.tracer).toEqual(session.info.tracer);
  expect(statuses).toContainEqual({
    state: "warning",
    code: "BT_NATIVE_UNAVAILABLE",
    detail: session.info.tracer.reason,
  });
  const collected = collect(trace);
  await node.eval("gen_server:call(kernel_sup, which_children), ok");
  await collected.until((events) => events.some(({ kind }) => kind === "receive"));
  const [first] = collected.events;
  expect(first).toMatchObject({ kind: "marker", name: "portable_tracer" });
  await trace.stop();
  // Whoever insists on the native one is told the same.
  await session.close();
  const strict = await attachTo(node, { tracer: "native" });
  await expect(strict.trace({ processes: [target], events: ["receive"] })).rejects.toMatchObject({
    code: "BT_NATIVE_UNAVAILABLE",
    message: expect.stringMatching(reason) as string,
  });
  await strict.close();
}

async function expectNative(node: ErlNode): Promise<void> {
  const session = await attachTo(node, { tracer: "native" });
  const target = await session.call("erlang", "whereis", [atom("kernel_sup")]);
  if (!(target instanceof Pid)) throw new Error("no process to trace");
  const trace = await session.trace({ processes: [target], events: ["receive"] });
  const collected = collect(trace);
  await node.eval("gen_server:call(kernel_sup, which_children), ok");
  await collected.until((events) => events.some(({ kind }) => kind === "receive"));
  await session.close();
}

/** Gives every platform another library. */
function swap(change: (library: NativeLibrary) => NativeLibrary): void {
  NATIVE_LIBRARIES.forEach((library, i) => {
    swapped.push([i, library]);
    (NATIVE_LIBRARIES as NativeLibrary[])[i] = change(library);
  });
}

function withBytes(library: NativeLibrary, bytes: Uint8Array): NativeLibrary {
  return {
    ...library,
    md5: createHash("md5").update(bytes).digest("hex"),
    bytes: bytes.length,
    deflated: deflateRawSync(bytes).toString("base64"),
  };
}

const bytesOf = (library: NativeLibrary): Buffer => inflateRawSync(Buffer.from(library.deflated, "base64"));
const ourFolders = (): string[] => readdirSync("/tmp").filter((name) => /^beamtrace-[0-9A-Z]+$/.test(name));

describe.skipIf(process.getuid?.() !== 0)("file systems", () => {
  test("no folder can be written", async () => {
    const node = await startWithMounts("ro");
    await expectPortable(node, /could not be loaded: (erofs|eacces|enoent|eperm)/);
    await expectClean(node);
  });

  test("no folder's files may be executed", async () => {
    const node = await startWithMounts("noexec");
    await expectPortable(node, /could not be loaded: load_failed.*(map|denied|permitted)/i);
    expect(await node.eval('file:list_dir_all("/tmp")')).toBe("{ok,[]}");
    await expectClean(node);
  });
});

describe("libraries", () => {
  test("one damaged on the way", async () => {
    swap((library) => ({ ...library, md5: library.md5.replace(/^./, (c) => (c === "0" ? "1" : "0")) }));
    const node = await start();
    await expectPortable(node, /could not be loaded: damaged/);
    await expectClean(node);
  });

  test("one of another processor", async () => {
    const before = ourFolders();
    swap((library) => {
      const other = NATIVE_LIBRARIES.find(({ platform }) => platform !== library.platform) ?? library;
      return withBytes(
        library,
        bytesOf(swapped.find(([, each]) => each.platform === other.platform)?.[1] ?? other),
      );
    });
    const node = await start();
    await expectPortable(node, /could not be loaded: load_failed/);
    expect(ourFolders()).toEqual(before);
    await expectClean(node);
  });

  test("one that is none", async () => {
    swap((library) => withBytes(library, Buffer.alloc(4096, 7)));
    const node = await start();
    await expectPortable(node, /could not be loaded: load_failed/);
    await expectClean(node);
  });

  test("one that a loader who was ended has not proved is not used, but loaded again", async () => {
    const node = await start();
    const library = NATIVE_LIBRARIES.find(({ platform }) => platform === "linux-x64");
    if (library === undefined) throw new Error("no library");
    const folder = mkdtempSync("/tmp/beamtrace-test-");
    folders.push(folder);
    writeFileSync(join(folder, "beamtrace_nif.so"), bytesOf(library));
    await node.eval(
      `{module, _} = code:load_binary(beamtrace_nif, "${AGENT_FILE_PREFIX}${NATIVE_MODULE.name}:${library.md5}", base64:decode("${NATIVE_MODULE.beam}")),
       ok = beamtrace_nif:load("${folder}/beamtrace_nif"), false = beamtrace_nif:proven(false),
       {error, unproven} = beamtrace_nif:open(1, 256, {true, true, 1}, {self(), undefined, []})`,
    );
    await expectNative(node);
    await expectClean(node);
  });
});

test("two sessions load it at the same time", async () => {
  const node = await start();
  const sessions = await Promise.all([attachTo(node), attachTo(node)]);
  const target = await sessions[0].call("erlang", "whereis", [atom("kernel_sup")]);
  if (!(target instanceof Pid)) throw new Error("no process to trace");
  const results = await Promise.allSettled(
    sessions.map((session) => session.trace({ processes: [target], events: ["receive"] })),
  );
  // On a node without trace sessions one of them is told that the other one traces.
  for (const result of results)
    if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "BT_TRACER_BUSY" });
  expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(
    sessions[0].info.capabilities.traceSessions ? 2 : 1,
  );
  expect(sessions.map(({ info }) => info.tracer.kind)).toEqual(["native", "native"]);
  await Promise.all(sessions.map((session) => session.close()));
  await expectClean(node);
});

test("tracer states of an earlier load never come again: flags that were left behind find nothing", async () => {
  const node = await start();
  const library = NATIVE_LIBRARIES.find(({ platform }) => platform === "linux-x64");
  if (library === undefined) throw new Error("no library");
  const folder = mkdtempSync("/tmp/beamtrace-test-");
  folders.push(folder);
  for (const name of ["first", "second"]) writeFileSync(join(folder, `${name}.so`), bytesOf(library));
  const states = await node.eval(
    `Beam = base64:decode("${NATIVE_MODULE.beam}"),
     P = spawn(fun L() -> receive stop -> ok; _ -> L() end end),
     Load = fun(Name) ->
       {module, _} = code:load_binary(beamtrace_nif, "beamtrace:beamtrace_nif", Beam),
       ok = beamtrace_nif:load("${folder}/" ++ Name), true = beamtrace_nif:proven(true),
       {T, S, _} = beamtrace_nif:open(1, 256, {true, true, 16#FFFFFFF}, {self(), undefined, []}), {T, S} end,
     Unload = fun() -> code:purge(beamtrace_nif), code:delete(beamtrace_nif), code:purge(beamtrace_nif) end,
     Barrier = fun() -> R = erlang:trace_delivered(all), receive {trace_delivered, all, R} -> ok end end,
     {T1, S1} = Load("first"), 1 = erlang:trace(P, true, ['receive', {tracer, beamtrace_nif, S1}]), P ! a, Barrier(),
     {1, _, _, 0, _, 0, _, _} = beamtrace_nif:drain(T1, 100),
     ok = beamtrace_nif:shut(T1), Barrier(), ok = beamtrace_nif:free(T1), Unload(),
     %% The flags stay; the next load has another trace at the same place.
     %% The same file while something of the first load is alive is refused: the system would give it the same memory.
     {module, _} = code:load_binary(beamtrace_nif, "beamtrace:beamtrace_nif", Beam),
     {error, {load, _}} = beamtrace_nif:load("${folder}/first"), Unload(),
     {T2, S2} = Load("second"), P ! b, P ! c, Barrier(),
     {0, _, _, 0, _, 0, _, _} = beamtrace_nif:drain(T2, 100),
     _ = (catch erlang:trace(P, false, [all])), P ! stop,
     ok = beamtrace_nif:shut(T2), Barrier(), ok = beamtrace_nif:free(T2), Unload(),
     {S1 =/= S2, S1 band 63 =:= S2 band 63, is_reference(T1)}`,
  );
  expect(states).toBe("{true,true,true}");
});

test("a module of this name that is not ours is left alone", async () => {
  const node = await start();
  await node.eval(
    `{ok, M, B} = compile:forms([{attribute, 1, module, beamtrace_nif}, {attribute, 1, export, [{whose, 0}]},
       {function, 1, whose, 0, [{clause, 1, [], [], [{atom, 1, theirs}]}]}], []),
     {module, M} = code:load_binary(M, "/opt/beamtrace_nif.beam", B), ok`,
  );
  await expectPortable(node, /could not be loaded: .*foreign/);
  expect(await node.eval("beamtrace_nif:whose()")).toBe("theirs");
  await node.eval("code:purge(beamtrace_nif), code:delete(beamtrace_nif), code:purge(beamtrace_nif)");
  await expectClean(node);
  await expectNative(node);
  await expectClean(node);
});
