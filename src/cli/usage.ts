/** What the command line understands. */
import { OptionError } from "../erlang";

export const HELP = `usage: beamtrace COMMAND

  instrument EBIN… --plan FILE   put events into compiled modules, as a plan says
  port                           the same for build tools, over standard input and output

beamtrace COMMAND --help says more. Documentation: docs/instrument-builds.md`;

export const INSTRUMENT_HELP = `usage: beamtrace instrument EBIN… --plan FILE [options]

Instruments the modules of the folders (or .beam files) given, in place and each in one step. A module that no rule includes is not
touched; one that fails stays as it was. Doing it again changes nothing.

  --plan FILE          which functions of which modules get events (docs/instrument-builds.md)
  --env NAME           the environment whose rules hold; needed when the plan has environments
  --out DIR            write into this folder instead of in place, all modules, the untouched ones too
  --check              write nothing; show what each rule matches, and what a run would do
  --diff               write nothing; show what would be put in, as a diff of Erlang
  --application NAME   the application of the modules; default: by the .app file or the folder
  --erl COMMAND        the erl to compile with; default: erl. It should be the release that the modules are for
  --code-path DIR      folder with modules that compiling needs, such as Elixir's; may be given several times.
                       Default: Elixir's own, as the command elixir tells it

Exit code: 0 all is well, 1 some modules could not be instrumented, 2 the command line, the plan or a folder makes no sense.`;

export const PORT_HELP = `usage: beamtrace port

Serves a build tool: packets with a length of four bytes, each an external term, on standard input and output
(docs/instrument-builds.md). Ends with its input.`;

/** @throws OptionError */
export const usageError = (option: string, message: string): never => {
  throw new OptionError("BT_OPTION_INVALID", option, message);
};
