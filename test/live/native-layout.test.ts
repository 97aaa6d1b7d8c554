/**
 * A VM that lays out its terms in another way than the library thinks is not traced natively: libraries that are built with one wrong assumption
 * each stand for such a VM. The check at load must refuse every one of them, and the node must live. A library that is read rightly passes.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { AGENT_FILE_PREFIX } from "../../src/capture/agent-code.generated";
import { NATIVE_MODULE } from "../../src/capture/native-code.generated";
import { binary, charlist, inspect, Pid, atom, type Term } from "../../src/erlang";
import type { Session } from "../../src/capture";
import { startNode, type ErlNode } from "../support/erl-node";
import { attachTo } from "../support/traced";

/** What is thought wrongly; file, what stands there, what stands there then. `layouts`: on which releases it is wrong. */
interface Mistake {
  readonly what: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
  readonly otp?: readonly [number, number];
}

const before27 = [25, 26] as const;
const from27 = [27, 99] as const;
const from29 = [29, 99] as const;
const MISTAKES: readonly Mistake[] = [
  { what: "tag of atoms", file: "terms.h", from: "(t & 0x3f) == 0x0b", to: "(t & 0x3f) == 0x1b" },
  { what: "tag of small integers", file: "terms.h", from: "(t & 0xf) == 0xf", to: "(t & 0xf) == 0xe" },
  {
    what: "tag of processes",
    file: "terms.h",
    from: "bt_is_local_pid(bt_term t) { return (t & 0xf) == 0x3",
    to: "bt_is_local_pid(bt_term t) { return (t & 0xf) == 0x5",
  },
  {
    what: "tag of ports",
    file: "terms.h",
    from: "bt_is_local_port(bt_term t) { return (t & 0xf) == 0x7",
    to: "bt_is_local_port(bt_term t) { return (t & 0xf) == 0x5",
  },
  { what: "tag of boxed terms", file: "terms.h", from: "(t & 0x3) == 0x2", to: "(t & 0x3) == 0x0" },
  {
    what: "immediates taken for boxed terms",
    file: "terms.h",
    from: "(t & 0x3) == 0x2",
    to: "(t & 0x3) != 0x1",
  },
  { what: "lists taken for boxed terms", file: "terms.h", from: "(t & 0x3) == 0x2", to: "(t & 0x3) <= 0x2" },
  { what: "boxes far away", file: "terms.h", from: "(t & ~(uint64_t)7)", to: "((t & ~(uint64_t)7) << 8)" },
  { what: "header of floats", file: "terms.h", from: "BT_TAG_FLOAT = 0x18", to: "BT_TAG_FLOAT = 0x1c" },
  { what: "header of funs", file: "terms.h", from: "BT_TAG_FUN = 0x14", to: "BT_TAG_FUN = 0x1c" },
  { what: "header of references", file: "terms.h", from: "BT_TAG_REF = 0x10", to: "BT_TAG_REF = 0x3c" },
  {
    what: "headers of external processes and ports exchanged",
    file: "terms.h",
    from: "BT_TAG_EXTERNAL_PID = 0x30,\n    BT_TAG_EXTERNAL_PORT = 0x34",
    to: "BT_TAG_EXTERNAL_PID = 0x34,\n    BT_TAG_EXTERNAL_PORT = 0x30",
  },
  {
    what: "header of external references",
    file: "terms.h",
    from: "BT_TAG_EXTERNAL_REF = 0x38",
    to: "BT_TAG_EXTERNAL_REF = 0x3c",
  },
  { what: "name of the external node", file: "terms.h", from: "node + 24", to: "node + 16" },
  { what: "creation of the external node", file: "terms.h", from: "node + 32", to: "node + 36" },
  {
    what: "pointer to the external node",
    file: "terms.h",
    from: "(const unsigned char *)(uintptr_t)box[1]",
    to: "(const unsigned char *)(uintptr_t)box[2]",
  },
  {
    what: "numbers of a reference",
    file: "terms.h",
    from: "(const uint32_t *)(box + 1) + 1",
    to: "(const uint32_t *)(box + 1) + 2",
  },
  { what: "numbers of an external reference", file: "terms.h", from: "data + 1, sizeof", to: "data, sizeof" },
  {
    what: "size of binaries in bits",
    file: "terms.h",
    from: "return (int64_t)(box[1] * 8);",
    to: "return (int64_t)box[1];",
    otp: before27,
  },
  {
    what: "bits of a sub-binary",
    file: "terms.h",
    from: "(box[3] & 0xff)",
    to: "(box[4] & 0xff)",
    otp: before27,
  },
  {
    what: "size of bit strings in bytes",
    file: "terms.h",
    from: "return (int64_t)box[1];",
    to: "return (int64_t)box[1] * 8;",
    otp: from27,
  },
  {
    what: "start and end of sub-bits",
    file: "terms.h",
    from: "box[3] - box[2]",
    to: "box[2] - box[1]",
    otp: from27,
  },
  {
    what: "the other releases' layout",
    file: "beamtrace_nif.c",
    from: "bt_own.layout = otp >=",
    to: "otp = otp >= BT_LAYOUT_OTP27 ? BT_LAYOUT_OTP25 : BT_LAYOUT_OTP29;\n    bt_own.layout = otp >=",
  },
  {
    what: "OTP 29's funs taken for OTP 27's",
    file: "beamtrace_nif.c",
    from: "bt_own.layout = otp >=",
    to: "otp = BT_LAYOUT_OTP27;\n    bt_own.layout = otp >=",
    otp: from29,
  },
  {
    what: "export entries shorter",
    file: "terms.h",
    from: "BT_LAYOUT_OTP27 ? 7 : 8",
    to: "BT_LAYOUT_OTP27 ? 6 : 7",
  },
  {
    what: "export entries longer",
    file: "terms.h",
    from: "BT_LAYOUT_OTP27 ? 7 : 8",
    to: "BT_LAYOUT_OTP27 ? 8 : 9",
  },
  {
    what: "pointer to the export entry",
    file: "terms.h",
    from: "return (const uint64_t *)(uintptr_t)box[1]",
    to: "return (const uint64_t *)(uintptr_t)box[0]",
  },
  {
    what: "every fun external",
    file: "terms.h",
    from: "if (!bt_is_external_fun(box, layout))\n        return mfa;",
    to: "",
  },
  {
    what: "arity of funs",
    file: "terms.h",
    from: "box[3] & 0xff : box[0] >> 8 & 0xff",
    to: "box[3] >> 8 & 0xff : box[0] >> 16 & 0xff",
  },
  {
    what: "digits of integers",
    file: "walk.h",
    from: "memcpy(w->at, box + 1, bytes)",
    to: "memcpy(w->at, box + 2, bytes)",
  },
  {
    what: "sign of integers",
    file: "tokens.h",
    from: "BT_TAG_NEGATIVE_BIG = 0x0c",
    to: "BT_TAG_NEGATIVE_BIG = 0x04",
  },
  {
    what: "header of maps",
    file: "tokens.h",
    from: "BT_TAG_OTP25_MAP = 0x3c",
    to: "BT_TAG_OTP25_MAP = 0x2c",
    otp: before27,
  },
  {
    what: "header of maps",
    file: "tokens.h",
    from: "BT_TAG_OTP27_MAP = 0x2c",
    to: "BT_TAG_OTP27_MAP = 0x3c",
    otp: from27,
  },
  {
    what: "values of a small map",
    file: "tokens.h",
    from: "*bt_flat_values(const uint64_t *box) { return box + 3; }",
    to: "*bt_flat_values(const uint64_t *box) { return box + 2; }",
  },
  { what: "nodes of a map", file: "tokens.h", from: "box + 1 : box + 2;", to: "box + 2 : box + 1;" },
  { what: "children of a node", file: "tokens.h", from: "box[0] >> 16 & 0xffff", to: "box[0] >> 8 & 0xffff" },
  {
    what: "bytes of a binary",
    file: "tokens.h",
    from: "(const unsigned char *)(uintptr_t)box[4]",
    to: "(const unsigned char *)(uintptr_t)box[3]",
    otp: before27,
  },
  {
    what: "binary that a part is of",
    file: "tokens.h",
    from: "bt_whole_of(const uint64_t *box) { return box[4]; }",
    to: "bt_whole_of(const uint64_t *box) { return box[3]; }",
    otp: before27,
  },
  {
    what: "offset in bits",
    file: "tokens.h",
    from: "(box[3] >> 8 & 0xff)",
    to: "(box[3] >> 16 & 0xff)",
    otp: before27,
  },
  {
    what: "base of sub-bits",
    file: "tokens.h",
    from: "(const unsigned char *)(uintptr_t)box[1] :",
    to: "(const unsigned char *)(uintptr_t)box[2] :",
    otp: from27,
  },
  {
    what: "binaries that may still grow",
    file: "tokens.h",
    from: "BT_BINARY_BYTES 32",
    to: "BT_BINARY_BYTES 24",
    otp: from27,
  },
  {
    what: "binaries that may still grow taken for others",
    file: "tokens.h",
    from: "(box[1] & 3) == 0 ?",
    to: "true ?",
    otp: from27,
  },
  {
    what: "numbers of resources",
    file: "tokens.h",
    from: "BT_LAYOUT_OTP27 ? 32 : 40",
    to: "BT_LAYOUT_OTP27 ? 40 : 32",
  },
  {
    what: "entries of local funs",
    file: "tokens.h",
    from: "layout < BT_LAYOUT_OTP29 ? otp25 : otp29",
    to: "layout < BT_LAYOUT_OTP29 ? otp29 : otp25",
  },
  {
    what: "MD5 of local funs",
    file: "tokens.h",
    from: "{32, 48, 68, 52}, otp29 = {40, 68, 72, 48}",
    to: "{32, 48, 68, 48}, otp29 = {40, 68, 72, 52}",
  },
  {
    what: "how atoms count",
    file: "beamtrace_nif.c",
    from: "bt_external.latin1 = external[0] ==",
    to: "bt_external.latin1 = external[0] !=",
  },
  {
    what: "how ports are told",
    file: "beamtrace_nif.c",
    from: "bt_external.wide_ports = external[1] ==",
    to: "bt_external.wide_ports = external[1] !=",
  },
  {
    what: "no permutation of processes",
    file: "translate.h",
    from: "bt_translated(&bt_pids, word)",
    to: "(word & ~UINT64_C(0xf))",
  },
  {
    what: "no permutation of ports",
    file: "translate.h",
    from: "bt_translated(&bt_ports, word)",
    to: "(word & ~UINT64_C(0xf)) << 1",
  },
];

const run = promisify(execFile);
const sources = "beam/native/src";
let folder: string;
let node: ErlNode;
let session: Session;
let otp: number;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "beamtrace-layout-"));
  node = await startNode();
  session = await attachTo(node, { tracer: "portable" });
  otp = session.info.otp;
  // A trace keeps the agent there.
  await node.eval("register(layout_target, spawn(fun() -> receive stop -> ok end end)), ok");
  const target = await session.call("erlang", "whereis", [atom("layout_target")]);
  if (!(target instanceof Pid)) throw new Error("no target");
  await session.trace({ processes: [target], events: ["receive"], limits: { seconds: 600 } });
});
afterAll(async () => {
  await session.close();
  await node.stop();
  rmSync(folder, { recursive: true });
});

let built = 0;
/** The library with one mistake, if any. */
async function build(mistake?: Mistake): Promise<Buffer> {
  const work = join(folder, String((built += 1)));
  cpSync(sources, work, { recursive: true });
  if (mistake !== undefined) {
    const path = join(work, mistake.file);
    const text = readFileSync(path, "utf8");
    if (!text.includes(mistake.from)) throw new Error(`${mistake.file} has no ${mistake.from}`);
    writeFileSync(path, text.replace(mistake.from, mistake.to));
  }
  const out = join(work, "beamtrace_nif.so");
  await run("sh", ["beam/native/compile.sh", join(work, "beamtrace_nif.c"), out], {
    env: { ...process.env, CFLAGS: "-O0 -w" },
  });
  return readFileSync(out);
}

async function load(library: Buffer): Promise<Term> {
  const md5 = createHash("md5").update(library).digest();
  const file = charlist(`${AGENT_FILE_PREFIX}beamtrace_nif:${md5.toString("hex")}`);
  const beam = binary(Buffer.from(NATIVE_MODULE.beam, "base64"));
  return session.call("beamtrace_agent", "native_loader_load", [file, beam, binary(library), binary(md5)]);
}

const holds = ({ otp: range }: Mistake): boolean =>
  range === undefined || (otp >= (range[0] ?? 0) && otp <= (range[1] ?? 0));

test(
  "the check passes what is right, and refuses every mistake without ending the node",
  { timeout: 300_000 },
  async () => {
    expect(inspect(await load(await build()), { notation: "erlang" })).toBe("ok");
    const accepted: string[] = [];
    for (const mistake of MISTAKES.filter(holds)) {
      const result = inspect(await load(await build(mistake)), { notation: "erlang" });
      if (!result.startsWith("{error,{layout,")) accepted.push(`${mistake.what}: ${result}`);
      expect(await node.eval("code:is_loaded(beamtrace_nif)"), mistake.what).toBe("false");
    }
    expect(accepted).toEqual([]);
  },
);
