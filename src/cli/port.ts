/** The command `beamtrace port` alone: it serves a build tool over standard input and output. */
import { servePort } from "./port-server";

/** Serves until the input ends. */
export async function run(): Promise<void> {
  const code = await servePort(process.stdin, process.stdout);
  // Requests of a build tool that is gone would keep the process alive.
  process.stdout.end(() => process.exit(code));
  process.exitCode = code;
}
