/**
 * Two nodes for tests of the agent: the target, and a hidden node that plays the client in plain Erlang (agent_client.erl).
 * The target is loaded through its own stdin, so that the load comes from no client.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AGENT_FILE_PREFIX, AGENT_LOADER, AGENT_MODULES } from "../../../src/capture/agent-code.generated";
import { startNode, type ErlNode } from "../../support/erl-node";

export interface AgentPair {
  readonly target: ErlNode;
  readonly client: ErlNode;
  /** Evaluates on the client node; `Node` is bound to the target's name. */
  on(expressions: string): Promise<string>;
  /** Another client node for the same target. */
  anotherClient(): Promise<ErlNode>;
  stop(): Promise<void>;
}

let compiled: string | undefined;

/** Compiled by this machine's own erlc, the oldest, so that it loads on every node. */
function clientBeam(): string {
  if (compiled !== undefined) return compiled;
  const out = mkdtempSync(join(tmpdir(), "beamtrace-client-"));
  try {
    execFileSync("erlc", ["-o", out, join(import.meta.dirname, "agent_client.erl")], { stdio: "inherit" });
    return (compiled = readFileSync(join(out, "agent_client.beam")).toString("base64"));
  } finally {
    rmSync(out, { recursive: true });
  }
}

async function startClient(cookie: string, target: string): Promise<ErlNode> {
  const node = await startNode({ cookie, args: ["-hidden"] });
  const modules = AGENT_MODULES.map(
    ({ name, beam }) => `{${name}, "${AGENT_FILE_PREFIX}${name}", base64:decode("${beam}")}`,
  );
  await node.eval(`{module, agent_client} = code:load_binary(agent_client, "agent_client", base64:decode("${clientBeam()}")),
    agent_client:agent(binary_to_term(base64:decode("${AGENT_LOADER}")), [${modules.join(",")}]), pong = net_adm:ping('${target}'), ok`);
  return node;
}

export async function startPair(targetArgs: readonly string[] = []): Promise<AgentPair> {
  const cookie = randomBytes(8).toString("hex");
  const target = await startNode({ cookie, args: targetArgs });
  const client = await startClient(cookie, target.name);
  const extra: ErlNode[] = [];
  return {
    target,
    client,
    on: (expressions) => client.eval(`Node = '${target.name}', ${expressions}`),
    async anotherClient() {
      const node = await startClient(cookie, target.name);
      extra.push(node);
      return node;
    },
    async stop() {
      await Promise.all([target, client, ...extra].map((node) => node.stop()));
    },
  };
}
