/**
 * Brings the native tracer's library into the node, through the agent, and says why when that can't be: the node then gets the portable
 * tracer. Nothing here throws but for a lost connection; what is wrong is a reason (docs/agent-protocol.md, "Native batches").
 */
import { inflateRawSync } from "node:zlib";
import { BeamtraceError, ConnectionError } from "../erlang/errors";
import { atom, Atom, binary, charlist, equals, inspect, tuple, Tuple, type Term } from "../erlang/term";
import { AGENT_FILE_PREFIX } from "./agent-code.generated";
import type { AgentClient } from "./agent-client";
import type { CallOptions } from "./deadline";
import { NATIVE_LIBRARIES, NATIVE_MODULE, type NativeLibrary } from "./native-code.generated";
import type { SessionInfo, TracerChoice } from "./session-info";

/** Which tracer to use. */
export type TracerOption = "auto" | "native" | "portable";

const LOAD_TIMEOUT_MS = 10_000;
const libraries = new Map<string, Uint8Array>();

/** `linux-x64` and the like, whatever the libc; undefined for what no library is made for. */
export function nativePlatform(systemArchitecture: string): string | undefined {
  const [cpu, rest] = [systemArchitecture.split("-")[0], systemArchitecture];
  if (!rest.includes("linux") || rest.includes("android")) return undefined;
  if (cpu === "x86_64" || cpu === "amd64") return rest.endsWith("x32") ? undefined : "linux-x64";
  return cpu === "aarch64" ? "linux-arm64" : undefined;
}

/** What can be said before anything has been put into the node. */
export function foreseeTracer(
  option: TracerOption,
  info: Pick<SessionInfo, "systemArchitecture" | "wordSize">,
): TracerChoice {
  if (option === "portable") return { kind: "portable", reason: "asked for" };
  const platform = nativePlatform(info.systemArchitecture);
  if (platform === undefined || info.wordSize !== 8)
    return { kind: "portable", reason: `there is no native tracer for ${info.systemArchitecture}` };
  return { kind: "native", reason: `the node runs on ${platform}` };
}

/** Makes sure that the node has the library; the choice that remains. */
export async function loadNative(
  agent: AgentClient,
  info: Pick<SessionInfo, "systemArchitecture" | "wordSize">,
  options: CallOptions,
): Promise<TracerChoice> {
  const foreseen = foreseeTracer("auto", info);
  if (foreseen.kind === "portable") return foreseen;
  const platform = nativePlatform(info.systemArchitecture);
  const library = NATIVE_LIBRARIES.find((each) => each.platform === platform);
  if (library === undefined)
    return { kind: "portable", reason: `this package has no native tracer for ${platform}` };
  try {
    const file = charlist(`${AGENT_FILE_PREFIX}${NATIVE_MODULE.name}:${library.md5}`);
    const status = await callAgent(agent, "native_loader_status", [file], options);
    if (status instanceof Atom && status.name === "loaded") return foreseen;
    const md5 = binary(Buffer.from(library.md5, "hex"));
    const beam = binary(Buffer.from(NATIVE_MODULE.beam, "base64"));
    const args = [file, beam, binary(codeOf(library)), md5];
    const result = await callAgent(agent, "native_loader_load", args, options);
    if (equals(result, atom("ok"))) return foreseen;
    return { kind: "portable", reason: `the native tracer could not be loaded: ${reasonOf(result)}` };
  } catch (error) {
    if (error instanceof ConnectionError || options.signal?.aborted === true) throw error;
    const message = error instanceof Error ? error.message : String(error);
    return { kind: "portable", reason: `the native tracer could not be loaded: ${message}` };
  }
}

function codeOf(library: NativeLibrary): Uint8Array {
  let code = libraries.get(library.md5);
  if (code === undefined) {
    code = inflateRawSync(Buffer.from(library.deflated, "base64"));
    libraries.set(library.md5, code);
  }
  return code;
}

async function callAgent(
  agent: AgentClient,
  name: string,
  args: Term[],
  options: CallOptions,
): Promise<Term> {
  const answer = await agent.request(
    tuple(atom("call"), atom("beamtrace_agent"), atom(name), args, LOAD_TIMEOUT_MS),
    (reason) => new BeamtraceError("BT_AGENT_FAILED", inspect(reason, { notation: "erlang" })),
    { ...options, timeoutMs: Math.max(LOAD_TIMEOUT_MS, options.timeoutMs ?? 0) },
  );
  if (answer instanceof Tuple && equals(answer.elements[0] as Term, atom("return")))
    return answer.elements[1] as Term;
  throw new BeamtraceError("BT_AGENT_FAILED", inspect(answer, { notation: "erlang" }));
}

function reasonOf(result: Term): string {
  const reason = result instanceof Tuple ? (result.elements[1] as Term) : result;
  if (reason instanceof Tuple && reason.elements[1] instanceof Uint8Array)
    return `${inspect(reason.elements[0] as Term, { notation: "erlang" })}: ${Buffer.from(reason.elements[1]).toString("utf8")}`;
  return inspect(reason, { notation: "erlang" });
}
