/** The commands of `beamtrace`, each a file beside this one. Errors that people can do something about come as one line. */
import { BeamtraceError } from "../erlang";
import { nearNames } from "../capture/near-names";
import { systemWords } from "./file-error";
import { instrumentCommand, type Output } from "./instrument-command";
import { HELP, PORT_HELP, usageError } from "./usage";

/** As a shell tells of a program that wrote to nobody: 128 and SIGPIPE's number, which Node leaves no program to die of. */
const NOBODY_READS = 141;

/** Standard output and error. Who closes them gets no less done: what is printed is the end of a command. */
class StandardOutput implements Output {
  private failure: Error | undefined;

  constructor() {
    process.stdout.on("error", (error) => void (this.failure ??= error));
    // Nowhere is left to say it.
    process.stderr.on("error", () => undefined);
  }

  out(text: string): void {
    if (this.failure === undefined) process.stdout.write(`${text}\n`);
  }

  err(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  /** The exit code, once all is printed: a command's own when it failed, else that of an output that could not be written. */
  async exitCode(code: number): Promise<number> {
    await new Promise((resolve) => process.stdout.write("", resolve));
    if (this.failure === undefined) return code;
    const nobodyReads = (this.failure as NodeJS.ErrnoException).code === "EPIPE";
    if (!nobodyReads)
      this.err(`beamtrace: standard output: ${systemWords(this.failure) ?? this.failure.message}`);
    return code !== 0 ? code : nobodyReads ? NOBODY_READS : 2;
  }
}

const output = new StandardOutput();

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
    process.exitCode = await output.exitCode(await main(args));
  } catch (error) {
    // What is no BeamtraceError is a defect of ours: it keeps its stack trace.
    if (!(error instanceof BeamtraceError)) throw error;
    output.err(`beamtrace: ${error.message}`);
    process.exitCode = await output.exitCode(2);
  }
}
