/**
 * What tracing everything costs an Elixir HTTP server (elixir/shop.ex on cowboy) under an open loop of requests.
 * `npx tsx bench/server/http.ts [--quick] [--rate 400] [--rounds 40] [--block-ms 1000] [--twins 1] [--max-foreign 0.3]`
 */
import type { Row } from "../row";
import { isProgram, numberOptions, runAsProgram } from "./command-line";
import { DEFAULTS, everything } from "./everything";
import { SERVERS } from "./workloads";

/** What the native tracer may add. */
const LIMIT = 0.03;

export const run = (quick: boolean, options: Partial<typeof DEFAULTS> = {}): Promise<Row[]> =>
  everything(SERVERS.http, { ...(quick ? { rounds: 12 } : {}), ...options }, LIMIT);

if (isProgram(import.meta.url)) {
  const { quick, ...options } = numberOptions(DEFAULTS);
  await runAsProgram(() => run(quick, options));
}
