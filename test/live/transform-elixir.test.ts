/** Elixir modules: the same behaviour plain and instrumented; docs, specs and debug info survive; the compiler's passes are Elixir's own. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { BeamFile } from "../../src/erlang";
import { type CompileServer, instrumentBeam, recompile, startCompileServer } from "../../src/transform";
import { RUNTIME_OFF, RUNTIME_ON } from "../../src/transform/beam-code.generated";
import { type ErlNode, startNode } from "../support/erl-node";
import {
  compileElixir,
  compileErlang,
  ELIXIR_EBIN,
  fixture,
  load,
  startCompiler,
  unload,
} from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;
/** Beams of the fixture by module. */
let plain: ReadonlyMap<string, Uint8Array>;

beforeAll(async () => {
  node = await startNode({
    distributed: false,
    args: ["-pa", ELIXIR_EBIN, "-elixir", "ansi_enabled", "false"],
  });
  compiler = await startCompiler();
  await load(node, "harness", await compileErlang(node, fixture("harness.erl")));
  plain = await compileElixir(node, readFileSync(fixture("subject.ex"), "utf8"));
  expect(plain.size).toBe(7);
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
});

const quoted = (module: string): string => `'${module}'`;

async function outcome(): Promise<string[]> {
  const text = await node.eval(
    `[lists:flatten(io_lib:format("~0tp", [R])) || R <- harness:run('Elixir.BtSubject')]`,
  );
  return JSON.parse(text) as string[];
}

async function loadAll(beams: ReadonlyMap<string, Uint8Array>): Promise<void> {
  for (const [module, bytes] of beams) await load(node, quoted(module), bytes);
}

describe("a program in Elixir", () => {
  test("behaves the same without, with idle and with tracing runtime", async () => {
    await loadAll(plain);
    const before = await outcome();
    expect(before.join("\n")).toMatch(/FunctionClauseError|function_clause/);
    const told = new Map<string, Uint8Array>();
    for (const [module, bytes] of plain) {
      const result = await instrumentBeam(bytes, compiler);
      expect(result.refused).toEqual([]);
      expect(result.instrumented.length).toBeGreaterThan(0);
      told.set(module, result.bytes);
      for (const id of ["Docs", "Dbgi", "ExCk", "Attr", "CInf"]) {
        const [was, is] = [bytes, result.bytes].map((b) => BeamFile.read(b).chunk(id));
        expect([module, id, is === undefined ? undefined : Buffer.from(is).toString("hex")]).toEqual([
          ...[module, id, was === undefined ? undefined : Buffer.from(was).toString("hex")],
        ]);
      }
    }
    await loadAll(told);
    expect(await outcome()).toEqual(before);
    await load(node, "beamtrace_rt", RUNTIME_OFF);
    expect(await outcome()).toEqual(before);
    await load(node, "beamtrace_rt", RUNTIME_ON);
    expect(await outcome()).toEqual(before);
    await unload(node, "beamtrace_rt");
  });

  test("compiled again from its debug info the code is the same: the passes are those that made it", async () => {
    for (const [module, bytes] of plain) {
      const beam = BeamFile.read(bytes);
      const again = (await recompile(beam, compiler)).beam;
      const code = (file: BeamFile): string => Buffer.from(file.chunk("Code") ?? []).toString("hex");
      expect([module, code(again)]).toEqual([module, code(beam)]);
    }
  });
});

test("without Elixir in the compile server's code path the error says what to do", async () => {
  const root = process.env["BEAMTRACE_OTP_ROOT"] ?? "";
  await using bare = await startCompileServer({
    command: root === "" ? ["erl"] : ["chroot", root, "erl"],
    env: { ERL_LIBS: undefined },
  });
  const bytes = plain.get("Elixir.BtSubject") as Uint8Array;
  await expect(instrumentBeam(bytes, bare)).rejects.toMatchObject({
    code: "BT_NO_DEBUG_INFO",
    message: expect.stringMatching(/elixir_erl is not in the code path.*code path/) as string,
  });
});

test("a compile server that can't be started or that ends is a typed error", async () => {
  await expect(startCompileServer({ command: ["no-such-erl"] })).rejects.toMatchObject({
    code: "BT_COMPILE_FAILED",
  });
  const server = await startCompiler();
  const asked = server.versions();
  const closed = server.close();
  await expect(asked).rejects.toMatchObject({ code: "BT_COMPILE_FAILED" });
  await closed;
  await expect(server.versions()).rejects.toMatchObject({ code: "BT_COMPILE_FAILED" });
});
