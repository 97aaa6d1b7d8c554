/** `beamtrace instrument EBIN… --plan FILE`: modules of any build, in place or into another folder. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { BeamFile, BeamtraceError, type Term } from "../erlang";
import {
  type Compiler,
  explainPlan,
  failureText,
  instrumentByPlan,
  type ModuleFailure,
  moduleFailure,
  type PlanExplanation,
  type PlannedBeam,
  printByPlan,
  readPlan,
  type RuleSet,
} from "../transform";
import { nearNames } from "../capture/near-names";
import { type BeamPath, findBeams } from "./beam-folders";
import { diffText } from "./diff-text";
import { type ErlOptions, isElixir, startErl } from "./erl-compiler";
import { textTable } from "./text-table";
import { INSTRUMENT_HELP, usageError } from "./usage";
import { writeAtomically } from "./write-file";

/** Where a command writes. */
export interface Output {
  out(text: string): void;
  err(text: string): void;
}

interface Options {
  readonly inputs: readonly string[];
  readonly plan: string;
  readonly environment: string | undefined;
  readonly out: string | undefined;
  readonly mode: "write" | "check" | "diff";
  readonly application: string | undefined;
  readonly erl: ErlOptions;
}

/** A module that was read. */
interface Input extends BeamPath {
  readonly bytes: Uint8Array;
}

/** Runs the command; gives its exit code. @throws BeamtraceError for what makes no sense as a whole. */
export async function instrumentCommand(args: readonly string[], output: Output): Promise<number> {
  const options = readOptions(args);
  if (options === "help") {
    output.out(INSTRUMENT_HELP);
    return 0;
  }
  const plan = await readPlan(options.plan);
  const rules = plan.rulesFor(options.environment);
  noteUnknownEnvironment(plan.environments, options.environment, output);
  const inputs = await Promise.all(
    (await findBeams(options.inputs, options.application)).map(async (one): Promise<Input> => ({
      ...one,
      bytes: await readFile(one.path),
    })),
  );
  const compiler = new LazyCompiler(options.erl, inputs);
  try {
    switch (options.mode) {
      case "check":
        return await check(rules, inputs, compiler, output);
      case "diff":
        return await diff(rules, inputs, compiler, output);
      case "write":
        return await write(rules, inputs, compiler, options.out, output);
    }
  } finally {
    await compiler.close();
  }
}

function readOptions(args: readonly string[]): Options | "help" {
  const { values, positionals } = parse(args);
  if (values.help === true) return "help";
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

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options: OPTIONS });
  } catch (error) {
    const { message } = error as Error;
    const [, name = ""] = /Unknown option '--?([^']+)'/.exec(message) ?? [];
    const [near] = name === "" ? [] : nearNames(name, Object.keys(OPTIONS));
    return usageError(
      name === "" ? "options" : `--${name}`,
      name === ""
        ? message
        : near === undefined
          ? "there is no such option"
          : `there is no such option; did you mean --${near}?`,
    );
  }
}

function noteUnknownEnvironment(
  known: readonly string[] | undefined,
  environment: string | undefined,
  output: Output,
): void {
  if (known === undefined || environment === undefined || known.includes(environment)) return;
  const [near] = nearNames(environment, known);
  output.err(
    `note: the plan says nothing of environment "${environment}" (it has ${known.join(", ")}): no module is touched${near === undefined ? "" : `; did you mean ${near}?`}`,
  );
}

/** Starts its compile server when the first module asks for it. */
class LazyCompiler implements Compiler {
  private server: ReturnType<typeof startErl> | undefined;
  private readonly options: ErlOptions;
  private readonly inputs: readonly Input[];

  constructor(options: ErlOptions, inputs: readonly Input[]) {
    this.options = options;
    this.inputs = inputs;
  }

  private start(): ReturnType<typeof startErl> {
    this.server ??= startErl(
      this.options,
      this.inputs.some(({ bytes }) => {
        try {
          return isElixir(BeamFile.read(bytes));
        } catch {
          return false;
        }
      }),
    );
    return this.server;
  }

  async forms(...args: Parameters<Compiler["forms"]>): ReturnType<Compiler["forms"]> {
    return (await this.start()).forms(...args);
  }

  async compile(...args: Parameters<Compiler["compile"]>): ReturnType<Compiler["compile"]> {
    return (await this.start()).compile(...args);
  }

  async forget(kept: Term): Promise<void> {
    await (await this.start()).forget(kept);
  }

  async close(): Promise<void> {
    await (await this.server?.catch(() => undefined))?.close();
  }
}

/** Does something with each input, a few at a time; results in the order of the inputs. */
async function forEach<T>(inputs: readonly Input[], work: (input: Input) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < inputs.length; i = next++) results[i] = await work(inputs[i] as Input);
  };
  await Promise.all(Array.from({ length: availableParallelism() + 1 }, worker));
  return results;
}

/** A program or file that isn't there is no module's fault. */
function rethrowUnlessOfModule(error: unknown): void {
  const cause = error instanceof BeamtraceError ? error.cause : undefined;
  if ((cause as NodeJS.ErrnoException | undefined)?.code === "ENOENT") throw error;
  if (!(error instanceof BeamtraceError)) throw error;
}

async function write(
  rules: RuleSet,
  inputs: readonly Input[],
  compiler: Compiler,
  out: string | undefined,
  output: Output,
): Promise<number> {
  const failures: ModuleFailure[] = [];
  const results = await forEach(inputs, async (input): Promise<PlannedBeam | undefined> => {
    let result: PlannedBeam | undefined;
    try {
      const { application } = input;
      result = await instrumentByPlan(
        input.bytes,
        rules,
        compiler,
        application === undefined ? {} : { application },
      );
    } catch (error) {
      rethrowUnlessOfModule(error);
      failures.push(moduleFailure(error, input.bytes, input.path));
    }
    const bytes = result?.bytes ?? input.bytes;
    if (out !== undefined) await writeAtomically(join(out, basename(input.path)), bytes);
    else if (bytes !== input.bytes) await writeAtomically(input.path, bytes);
    return result;
  });
  output.out(summary(inputs, results));
  report(failures, output);
  return failures.length === 0 ? 0 : 1;
}

function report(failures: readonly ModuleFailure[], output: Output): void {
  for (const failure of failures) output.err(failureText(failure));
  if (failures.length > 0)
    output.err(`${failures.length} module${failures.length === 1 ? " stays" : "s stay"} as before`);
}

const shortName = (module: string): string => module.replace(/^Elixir\./, "");

function summary(inputs: readonly Input[], results: readonly (PlannedBeam | undefined)[]): string {
  const touched = results.flatMap((result, i) =>
    result === undefined || result.status === "unchanged" ? [] : [{ result, input: inputs[i] as Input }],
  );
  const rows = touched.map(({ result, input }) => [
    shortName(result.module),
    result.status,
    String(result.instrumented.length),
    String(result.refused.length),
    String(result.table.sites.length),
    `${input.bytes.length} → ${result.bytes.length}${result.bytes === input.bytes ? " (as it was)" : ""}`,
  ]);
  const lines: string[] = [];
  if (rows.length > 0)
    lines.push(textTable(["module", "", "functions", "left out", "sites", "bytes"], rows), "");
  const reasons = new Map<string, number>();
  for (const { result } of touched)
    for (const { reason } of result.refused) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  for (const [reason, count] of reasons) lines.push(`left out, ${count}: ${reason}`);
  const count = (status: string): number => results.filter((result) => result?.status === status).length;
  const functions = touched.reduce((sum, { result }) => sum + result.instrumented.length, 0);
  const restored = count("restored");
  lines.push(
    `${results.length} modules: ${count("instrumented")} instrumented (${functions} functions), ${count("unchanged")} not touched` +
      (restored === 0 ? "" : `, ${restored} plain again`),
  );
  return lines.join("\n");
}

async function check(
  rules: RuleSet,
  inputs: readonly Input[],
  compiler: Compiler,
  output: Output,
): Promise<number> {
  const failures: ModuleFailure[] = [];
  const sound = inputs.filter((input) => {
    try {
      BeamFile.read(input.bytes);
      return true;
    } catch (error) {
      failures.push(moduleFailure(error, input.bytes, input.path));
      return false;
    }
  });
  const beams = sound.map(({ bytes, application }) => ({
    bytes,
    ...(application === undefined ? {} : { application }),
  }));
  const explanation = await explainPlan(rules, beams, compiler, (i, error) => {
    rethrowUnlessOfModule(error);
    const input = sound[i] as Input;
    failures.push(moduleFailure(error, input.bytes, input.path));
  });
  output.out(explanationText(explanation));
  report(failures, output);
  return failures.length === 0 ? 0 : 1;
}

/** Functions that are listed by name for a module before it gets long. */
const NAMED_FUNCTIONS = 8;

function explanationText(explanation: PlanExplanation): string {
  const lines: string[] = [];
  for (const rule of explanation.rules) {
    lines.push(`${rule.name} ${rule.text}`);
    for (const { module, functions } of rule.decides) {
      const named = functions.slice(0, NAMED_FUNCTIONS).join(" ");
      const more =
        functions.length > NAMED_FUNCTIONS ? ` and ${functions.length - NAMED_FUNCTIONS} more` : "";
      lines.push(`  ${rule.verdict}s ${shortName(module)}: ${named}${more}`);
    }
    if (rule.decidedEarlier > 0)
      lines.push(`  matches ${rule.decidedEarlier} more, about which an earlier rule decides`);
    if (rule.decides.length === 0 && rule.decidedEarlier === 0) lines.push("  matches nothing");
    for (const hint of rule.hints) lines.push(`  ${hint}`);
  }
  const { included, functions, modules } = explanation;
  lines.push(`${included} of ${functions} functions in ${modules} modules would be instrumented`);
  return lines.join("\n");
}

async function diff(
  rules: RuleSet,
  inputs: readonly Input[],
  compiler: Compiler,
  output: Output,
): Promise<number> {
  const failures: ModuleFailure[] = [];
  const diffs = await forEach(inputs, async (input): Promise<string> => {
    try {
      const { application } = input;
      const printed = await printByPlan(
        input.bytes,
        rules,
        compiler,
        application === undefined ? {} : { application },
      );
      return printed === undefined
        ? ""
        : await diffText(shortName(printed.module), printed.before, printed.after);
    } catch (error) {
      rethrowUnlessOfModule(error);
      failures.push(moduleFailure(error, input.bytes, input.path));
      return "";
    }
  });
  const text = diffs.filter((one) => one !== "").join("\n");
  output.out(text === "" ? "nothing would change" : text.trimEnd());
  report(failures, output);
  return failures.length === 0 ? 0 : 1;
}
