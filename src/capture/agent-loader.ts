/**
 * Brings the agent's modules into the node. They are loaded from memory by `code:atomic_load/1`, which refuses where old code lingers;
 * `code:load_binary/3` would kill the processes in it. A module of that name that is not ours is never replaced.
 */
import { BeamtraceError } from "../erlang/errors";
import type { NodeLink } from "../erlang/dist";
import { Atom, atom, charlist, equals, inspect, tuple, Tuple, type Term } from "../erlang/term";
import { AGENT_MODULES, type AgentModule } from "./agent-code.generated";
import type { CallOptions } from "./deadline";

/** Marks modules as ours in `code:is_loaded/1`. */
const FILE_PREFIX = "beamtrace:";
/** Names that holders register under, see docs/agent-protocol.md. */
const HOLDER_NAMES = 64;
/** Old code of an agent that has just left is purged by its janitor within moments. */
const PURGE_ATTEMPTS = 50;

type State = "absent" | "current" | "outdated" | "foreign";

/** Makes sure that the node runs exactly our version of the agent. */
export async function loadAgent(link: NodeLink, options: CallOptions): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const states = await Promise.all(AGENT_MODULES.map((module) => stateOf(link, module, options)));
    const foreign = AGENT_MODULES.find((_module, i) => states[i] === "foreign");
    if (foreign !== undefined) {
      throw new BeamtraceError(
        "BT_AGENT_CLASH",
        `the node has a module ${foreign.name} that is not beamtrace's; beamtrace leaves it alone and can't be loaded beside it`,
      );
    }
    if (states.every((state) => state === "current")) return;
    if (states.includes("outdated")) await refuseWhileInUse(link, options);
    const failure = await load(link, options);
    if (failure === undefined) return;
    if (!inspect(failure).includes("not_purged") || attempt >= PURGE_ATTEMPTS) {
      await compileOnNode(link, failure, options);
      return;
    }
    await Promise.all(
      AGENT_MODULES.map((module) => link.call("code", "soft_purge", [atom(module.name)], options)),
    );
  }
}

async function stateOf(link: NodeLink, module: AgentModule, options: CallOptions): Promise<State> {
  const name = atom(module.name);
  const loaded = await link.call("code", "is_loaded", [name], options);
  if (!(loaded instanceof Tuple)) return "absent";
  const file = loaded.elements[1];
  const ours = Array.isArray(file) && String.fromCharCode(...(file as number[])).startsWith(FILE_PREFIX);
  if (!ours) return "foreign";
  try {
    const md5 = await link.call("erlang", "get_module_info", [name, atom("md5")], options);
    return md5 instanceof Uint8Array && Buffer.from(md5).toString("hex") === module.md5
      ? "current"
      : "outdated";
  } catch {
    return "absent"; // unloaded between the two questions
  }
}

/** Another version of the agent is loaded: replaceable when no session uses it. */
async function refuseWhileInUse(link: NodeLink, options: CallOptions): Promise<void> {
  const names = Array.from({ length: HOLDER_NAMES }, (_value, i) => `beamtrace_${i + 1}`);
  const pids = await Promise.all(names.map((name) => link.call("erlang", "whereis", [atom(name)], options)));
  const used = names.filter((_name, i) => !equals(pids[i] as Term, atom("undefined")));
  if (used.length > 0) {
    throw new BeamtraceError(
      "BT_AGENT_CLASH",
      `another version of beamtrace is attached to this node (${used.join(", ")}); end that session, or use the same version of the package`,
    );
  }
}

async function load(link: NodeLink, options: CallOptions): Promise<Term | undefined> {
  const modules = AGENT_MODULES.map((m) =>
    tuple(atom(m.name), charlist(FILE_PREFIX + m.name), Buffer.from(m.beam, "base64")),
  );
  const result = await link.call("code", "atomic_load", [modules], options);
  return result instanceof Atom && result.name === "ok" ? undefined : result;
}

/** The beams did not load (a VM that no longer takes code this old): compile the agent there, if the node has a compiler. */
async function compileOnNode(link: NodeLink, failure: Term, options: CallOptions): Promise<void> {
  const compiled: Term[] = [];
  for (const module of AGENT_MODULES) {
    let result: Term;
    try {
      const forms = await link.call(
        "erlang",
        "binary_to_term",
        [Buffer.from(module.forms, "base64")],
        options,
      );
      result = await link.call(
        "compile",
        "forms",
        [forms, [atom("binary"), atom("return_errors"), atom("deterministic")]],
        options,
      );
    } catch (error) {
      throw new BeamtraceError(
        "BT_AGENT_FAILED",
        `the node refused the agent's modules (${inspect(failure)}) and has no compiler to build them there`,
        { cause: error },
      );
    }
    if (!(result instanceof Tuple) || !equals(result.elements[0] as Term, atom("ok"))) {
      throw new BeamtraceError(
        "BT_AGENT_FAILED",
        `${module.name} does not compile on the node: ${inspect(result)}`,
      );
    }
    compiled.push(tuple(atom(module.name), charlist(FILE_PREFIX + module.name), result.elements[2] as Term));
  }
  const result = await link.call("code", "atomic_load", [compiled], options);
  if (!(result instanceof Atom && result.name === "ok")) {
    throw new BeamtraceError(
      "BT_AGENT_FAILED",
      `the node refused the agent's modules: ${inspect(failure)}; compiled there: ${inspect(result)}`,
    );
  }
}
