/**
 * The VM's own leak: OTP 25 does not give back all memory of code that was loaded and purged (`erlang:memory` doesn't show it, resident memory
 * does; gone by OTP 27). beamtrace takes its modules out at every detach, so that this is the control for its own growth: the same modules, the native library's among them, loaded
 * and purged by the node itself.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startNode } from "../../test/support/erl-node";
import { AGENT_MODULES } from "../../src/capture/agent-code.generated";
import { NATIVE_MODULE } from "../../src/capture/native-code.generated";
import { residentBytes } from "../../test/support/resident";
import { slopeEstimate, type Estimate } from "./statistics";

const MODULES = [...AGENT_MODULES, NATIVE_MODULE];
const STEPS = 20;
/** Steps in which the node's allocators find their size. */
const WARM_UP_STEPS = 6;
/** Fewer show no slope. */
const MINIMUM_TIMES = 500;

/** Bytes of resident memory that one loading and purging of the agent's modules costs a node for good. */
export async function codeLoadingSlope(times: number): Promise<Estimate> {
  const node = await startNode();
  // By files: source text as long as the modules would leave memory free in the node that what is lost would fill first.
  const folder = mkdtempSync(join(tmpdir(), "beamtrace-control-"));
  try {
    const modules = MODULES.map(({ name, beam }) => {
      const file = join(folder, `${name}.beam`);
      writeFileSync(file, Buffer.from(beam, "base64"));
      return `{${name}, "control", element(2, {ok, _} = file:read_file("${file}"))}`;
    });
    const names = MODULES.map(({ name }) => name).join(",");
    await node.eval(`persistent_term:put(control, [${modules.join(",")}])`);
    const each = Math.round(Math.max(times, MINIMUM_TIMES) / STEPS);
    const at: number[] = [];
    const bytes: number[] = [];
    for (let step = 0; step < STEPS; step += 1) {
      await node.eval(
        `Modules = persistent_term:get(control),
         [begin ok = code:atomic_load(Modules), [begin true = code:delete(M), false = code:purge(M) end || M <- [${names}]] end
          || _ <- lists:seq(1, ${each})],
         [garbage_collect(P) || P <- processes()], ok`,
      );
      at.push((step + 1) * each);
      bytes.push(residentBytes(node.osPid));
    }
    return slopeEstimate(at.slice(WARM_UP_STEPS), bytes.slice(WARM_UP_STEPS));
  } finally {
    await node.stop();
    rmSync(folder, { recursive: true });
  }
}
