/**
 * What tracing everything costs ejabberd under tsung's chat at a fixed rate.
 * `npx tsx bench/server/ejabberd.ts [--quick] [--rate 1500] [--rounds 40] [--block-ms 1000] [--twins 1] [--max-foreign 0.3]`
 */
import type { Row } from "../row";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { DEFAULTS, everything } from "./everything";
import { SERVERS } from "./workloads";

export const run = (quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> =>
  everything(SERVERS.ejabberd, { ...(quick ? { rounds: 12 } : {}), ...options });

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
