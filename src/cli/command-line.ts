/** The commands of `beamtrace`, each a file beside this one. Errors that people can do something about come as one line. */
import { BeamtraceError } from "../erlang";
import { nearNames } from "../capture/near-names";
import { instrumentCommand, type Output } from "./instrument-command";
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
      return usageError("port", "it takes no arguments");
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

/** Runs the command line; sets the exit code. */
export async function run(args: readonly string[]): Promise<void> {
  try {
    process.exitCode = await main(args);
  } catch (error) {
    // What is no BeamtraceError is a defect of ours: it keeps its stack trace.
    if (!(error instanceof BeamtraceError)) throw error;
    output.err(`beamtrace: ${error.message}`);
    process.exitCode = 2;
  }
}
