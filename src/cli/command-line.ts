#!/usr/bin/env node
/** The command `beamtrace`. Each command is a file beside this one; errors that people can do something about come as one line. */
import { BeamtraceError } from "../erlang";
import { nearNames } from "../capture/near-names";
import { instrumentCommand, type Output } from "./instrument-command";
import { servePort } from "./port-server";
import { HELP, PORT_HELP, usageError } from "./usage";

const output: Output = {
  out: (text) => void process.stdout.write(`${text}\n`),
  err: (text) => void process.stderr.write(`${text}\n`),
};

async function main([command, ...args]: readonly string[]): Promise<number> {
  switch (command) {
    case "instrument":
      return instrumentCommand(args, output);
    case "port":
      if (args.includes("--help") || args.includes("-h")) {
        output.out(PORT_HELP);
        return 0;
      }
      if (args.length > 0) usageError("port", "it takes no arguments");
      return servePort(process.stdin, process.stdout);
    case undefined:
    case "help":
    case "--help":
    case "-h":
      output.out(HELP);
      return command === undefined ? 2 : 0;
    default: {
      const [near] = nearNames(command, ["instrument", "port"]);
      output.err(
        `there is no command ${command}${near === undefined ? "" : `; did you mean ${near}?`}\n${HELP}`,
      );
      return 2;
    }
  }
}

try {
  const code = await main(process.argv.slice(2));
  // Requests of a build tool that is gone would keep the process alive.
  if (process.argv[2] === "port") process.stdout.end(() => process.exit(code));
  process.exitCode = code;
} catch (error) {
  // What is no BeamtraceError is a defect of ours: it keeps its stack trace.
  if (!(error instanceof BeamtraceError)) throw error;
  output.err(`beamtrace: ${error.message}`);
  process.exitCode = 2;
}
