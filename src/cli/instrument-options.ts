/** The options of `beamtrace instrument`. */
import { parseArgs } from "node:util";
import { nearNames } from "../capture/near-names";
import type { ErlOptions } from "./erl-compiler";
import { usageError } from "./usage";

/** What is asked for. */
export interface InstrumentRequest {
  readonly inputs: readonly string[];
  readonly plan: string;
  readonly environment: string | undefined;
  readonly out: string | undefined;
  readonly mode: "write" | "check" | "diff";
  readonly application: string | undefined;
  readonly erl: ErlOptions;
}

const OPTIONS = {
  plan: { type: "string" },
  env: { type: "string" },
  out: { type: "string" },
  check: { type: "boolean" },
  diff: { type: "boolean" },
  application: { type: "string" },
  erl: { type: "string" },
  "code-path": { type: "string", multiple: true },
  help: { type: "boolean", short: "h" },
} as const;

/** Reads the command line. @throws OptionError `BT_OPTION_INVALID` */
export function readOptions(args: readonly string[]): InstrumentRequest | "help" {
  const { values, positionals } = parse(args);
  if (values.help === true) return "help";
  refuseEmpty("EBIN", positionals);
  for (const [name, value] of Object.entries(values)) refuseEmpty(`--${name}`, [value].flat());
  if (positionals.length === 0) usageError("EBIN", "name at least one folder with .beam files");
  if (values.plan === undefined) usageError("--plan", "name the plan file");
  if (values.check === true && values.diff === true) usageError("--diff", "not together with --check");
  const mode = values.check === true ? "check" : values.diff === true ? "diff" : "write";
  if (mode !== "write" && values.out !== undefined) usageError("--out", `--${mode} writes nothing`);
  return {
    inputs: positionals,
    plan: values.plan ?? "",
    environment: values.env,
    out: values.out,
    mode,
    application: values.application,
    erl: { erl: values.erl, codePaths: values["code-path"] ?? [] },
  };
}

/** An empty text is what a shell makes of a variable that isn't set. It would mean the current folder, or nothing. */
function refuseEmpty(option: string, values: readonly (string | boolean)[]): void {
  if (values.some((value) => typeof value === "string" && value.trim() === ""))
    usageError(option, "it is empty: is a variable of the shell not set?");
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options: OPTIONS });
  } catch (error) {
    const { message } = error as Error;
    const [, option] = /Unknown option '(--?[^']+)'/.exec(message) ?? [];
    if (option === undefined) return usageError("options", message);
    const near = nearOptions(option).map((name) => `--${name}`);
    const hint = near.length === 0 ? "" : `; did you mean ${near.join(" or ")}?`;
    return usageError(option, `there is no such option${hint}`);
  }
}

function nearOptions(option: string): string[] {
  const known = Object.keys(OPTIONS);
  const name = option.replace(/^--?/, "");
  return option.startsWith("--")
    ? nearNames(name, known).slice(0, 1)
    : known.filter((one) => one.startsWith(name));
}
