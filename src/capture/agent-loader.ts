/**
 * Brings the agent's modules into the node: one call evaluates `beam/agent/loader.eval` there, which loads them atomically under a lock
 * (docs/agent-protocol.md, "Start"). Where the node refuses the beams, they are compiled there from their forms, if it has a compiler.
 */
import { BeamtraceError } from "../erlang/errors";
import { decode } from "../erlang/etf";
import type { NodeLink } from "../erlang/dist";
import { atom, charlist, equals, inspect, tuple, Tuple, type Term } from "../erlang/term";
import { AGENT_FILE_PREFIX, AGENT_LOADER, AGENT_MODULES, type AgentModule } from "./agent-code.generated";
import type { CallOptions } from "./deadline";

/** What the loader may find at most before it gives up waiting for another session that loads or unloads. */
const LOAD_TIMEOUT_MS = 20_000;

let loader: Term | undefined;
let modules: Term[] | undefined;

/** Makes sure that the node runs exactly our version of the agent. */
export async function loadAgent(link: NodeLink, options: CallOptions): Promise<void> {
  modules ??= AGENT_MODULES.map((module) => entry(module, Buffer.from(module.beam, "base64")));
  const failure = await evaluateLoader(link, modules, options);
  if (failure === undefined) return;
  const [reason, detail] = failure instanceof Tuple ? failure.elements : [failure];
  if (equals(reason ?? failure, atom("foreign"))) {
    throw new BeamtraceError(
      "BT_AGENT_CLASH",
      `the node has a module of its own called ${inspect(detail ?? [])}; beamtrace leaves it alone and can't be loaded beside it`,
    );
  }
  if (equals(reason ?? failure, atom("in_use"))) {
    throw new BeamtraceError(
      "BT_AGENT_CLASH",
      `another version of beamtrace is attached to this node (${inspect(detail ?? [])}); end that session, or use the same version of the package`,
    );
  }
  if (equals(failure, atom("locked")) || equals(reason ?? failure, atom("not_purged"))) {
    throw new BeamtraceError(
      "BT_AGENT_FAILED",
      `the node is still unloading another session's agent (${inspect(failure)}); try again`,
    );
  }
  await compileOnNode(link, failure, options);
}

function entry(module: AgentModule, beam: Term): Term {
  return tuple(atom(module.name), charlist(AGENT_FILE_PREFIX + module.name), beam);
}

/** Loading and compiling may take a busy node longer than a call should. */
const patient = (options: CallOptions): CallOptions => ({
  ...options,
  timeoutMs: Math.max(LOAD_TIMEOUT_MS, options.timeoutMs ?? 0),
});

/** Runs the loader; the reason when it answers `{error, Reason}`. */
async function evaluateLoader(
  link: NodeLink,
  entries: Term[],
  options: CallOptions,
): Promise<Term | undefined> {
  loader ??= decode(Buffer.from(AGENT_LOADER, "base64"));
  const bindings = [tuple(atom("Modules"), entries)];
  const result = await link.call("erl_eval", "exprs", [loader, bindings], patient(options));
  const value = result instanceof Tuple ? result.elements[1] : undefined;
  if (value !== undefined && equals(value, atom("ok"))) return undefined;
  return value instanceof Tuple && equals(value.elements[0] ?? [], atom("error"))
    ? value.elements[1]
    : result;
}

/** The beams did not load (a VM that no longer takes code this old): compile the agent there. */
async function compileOnNode(link: NodeLink, failure: Term, options: CallOptions): Promise<void> {
  const compiled: Term[] = [];
  for (const module of AGENT_MODULES) {
    const forms = decode(Buffer.from(module.forms, "base64"));
    let result: Term;
    try {
      result = await link.call(
        "compile",
        "forms",
        [forms, [atom("binary"), atom("return_errors"), atom("deterministic")]],
        patient(options),
      );
    } catch (cause) {
      throw new BeamtraceError(
        "BT_AGENT_FAILED",
        `the node refused the agent's modules (${inspect(failure)}) and has no compiler to build them there`,
        { cause },
      );
    }
    const beam =
      result instanceof Tuple && equals(result.elements[0] ?? [], atom("ok"))
        ? result.elements[2]
        : undefined;
    if (!(beam instanceof Uint8Array))
      throw new BeamtraceError(
        "BT_AGENT_FAILED",
        `${module.name} does not compile on the node: ${inspect(result)}`,
      );
    compiled.push(entry(module, beam));
  }
  const again = await evaluateLoader(link, compiled, options);
  if (again !== undefined) {
    throw new BeamtraceError(
      "BT_AGENT_FAILED",
      `the node refused the agent's modules: ${inspect(failure)}; compiled there: ${inspect(again)}`,
    );
  }
}
