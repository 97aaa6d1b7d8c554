/** `beamtrace instrument EBIN… --plan FILE`: modules of any build, in place or into another folder. */
import { realpath } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, dirname, join } from "node:path";
import { BeamtraceError, OptionError } from "../erlang";
import {
  type Compiler,
  explainPlan,
  failureText,
  instrumentByPlan,
  mayChangeByPlan,
  type ModuleFailure,
  moduleFailure,
  type PlannedBeam,
  printByPlan,
  readPlan,
  type RuleSet,
} from "../transform";
import { nearNames } from "../capture/near-names";
import { type BeamPath, findBeams, readBeam } from "./beam-folders";
import { diffText } from "./diff-text";
import { ErlCompiler, isElixir, withoutCompiling } from "./erl-compiler";
import { systemWords, withFile } from "./file-error";
import { readOptions } from "./instrument-options";
import { explanationText, type ModuleOutcome, shortName, summaryText } from "./instrument-text";
import { Interruption } from "./interruption";
import { checkOutputFolder, makeOutputFolder, refuseSameNames } from "./output-folder";
import { INSTRUMENT_HELP } from "./usage";
import { removeLeftovers, writeAtomically } from "./write-file";

/** Where a command writes. */
export interface Output {
  out(text: string): void;
  err(text: string): void;
}

/** A module that was read. */
interface Input extends BeamPath {
  readonly bytes: Uint8Array;
}

/** What a run works with. */
interface Run {
  readonly rules: RuleSet;
  readonly inputs: readonly Input[];
  readonly compiler: ErlCompiler;
  readonly interruption: Interruption;
  readonly failures: Failures;
  readonly output: Output;
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
  const beams = await findBeams(options.inputs, options.application);
  if (options.out !== undefined) {
    refuseSameNames(beams);
    await checkOutputFolder(options.out);
  }
  const failures = new Failures();
  const inputs = await readAll(beams, failures, options.out);
  const compiler = new ErlCompiler(options.erl, () => inputs.some(({ bytes }) => isElixir(bytes)));
  const interruption = new Interruption(() => compiler.close());
  try {
    const run: Run = { rules, inputs, compiler, interruption, failures, output };
    if (options.mode === "check") await check(run);
    else if (options.mode === "diff") await diff(run);
    else await write(run, options.out);
    failures.report(output);
    if (compiler.missesElixir && failures.count > 0)
      output.err(
        "no Elixir was found: put its command elixir into PATH, or name its ebin folder with --code-path",
      );
    return failures.count === 0 ? 0 : 1;
  } finally {
    await compiler.close();
    interruption[Symbol.dispose]();
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

/** Modules that could not be done, told at the end. */
class Failures {
  private readonly byPath = new Map<string, { readonly failure: ModuleFailure; readonly missing: boolean }>();

  get count(): number {
    return this.byPath.size;
  }

  /**
   * @param bytes - of the module, as far as it could be read.
   * @param missing - it is not in the folder of `--out`.
   * @throws what is no module's fault, or a defect of ours.
   */
  add(error: unknown, { path }: BeamPath, bytes: Uint8Array, missing = false): void {
    if (error instanceof OptionError) throw error;
    if (!(error instanceof BeamtraceError) && systemWords(error) === undefined) throw error;
    // The first failure says why; that the module couldn't be copied either only counts.
    const failure = this.byPath.get(path)?.failure ?? moduleFailure(error, bytes, path);
    this.byPath.set(path, { failure, missing });
  }

  report(output: Output): void {
    const all = [...this.byPath.values()];
    for (const { failure } of all) output.err(failureText(failure));
    const missing = all.filter((one) => one.missing).length;
    const stay = all.length - missing;
    if (stay > 0) output.err(`${stay} module${stay === 1 ? " stays" : "s stay"} as before`);
    if (missing > 0)
      output.err(
        `${missing} module${missing === 1 ? " was" : "s were"} not written into the folder of --out`,
      );
  }
}

const NO_BYTES = new Uint8Array();

/** Reads the beams; those that can't be read are failures. */
async function readAll(
  beams: readonly BeamPath[],
  failures: Failures,
  out: string | undefined,
): Promise<Input[]> {
  const inputs = await forEach(beams, async (beam): Promise<Input | undefined> => {
    try {
      return { ...beam, bytes: await readBeam(beam.path) };
    } catch (error) {
      failures.add(error, beam, NO_BYTES, out !== undefined);
      return undefined;
    }
  });
  return inputs.filter((input) => input !== undefined);
}

/** Does something with each, a few at a time; results in the order of what is given. */
async function forEach<S, T>(all: readonly S[], work: (one: S) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < all.length; i = next++) results[i] = await work(all[i] as S);
  };
  await Promise.all(Array.from({ length: availableParallelism() + 1 }, worker));
  return results;
}

const applicationOf = ({ application }: BeamPath): { readonly application?: string } =>
  application === undefined ? {} : { application };

/** Whether the rules may change the module; undefined for what is none. */
function mayChange({ bytes, application }: Input, rules: RuleSet): boolean | undefined {
  try {
    return mayChangeByPlan(bytes, rules, application);
  } catch {
    return undefined;
  }
}

/** The module by the plan; undefined, and a failure, when it can't be. */
async function instrumented(input: Input, run: Run, compiler: Compiler): Promise<PlannedBeam | undefined> {
  try {
    return await instrumentByPlan(input.bytes, run.rules, compiler, applicationOf(input));
  } catch (error) {
    run.failures.add(error, input, input.bytes);
    return undefined;
  }
}

async function write(run: Run, out: string | undefined): Promise<void> {
  const { rules, inputs, compiler, interruption, failures, output } = run;
  // All that can go wrong with the whole goes wrong before anything is written.
  if (inputs.some((input) => mayChange(input, rules) === true)) await compiler.start();
  if (out !== undefined) await makeOutputFolder(out);
  const folders =
    out === undefined ? await Promise.all(inputs.map(({ path }) => targetOf(path))) : [join(out, "_")];
  for (const folder of new Set(folders.map((path) => dirname(path)))) await removeLeftovers(folder);
  const results = await forEach(inputs, async (input): Promise<PlannedBeam | undefined> => {
    const result = await instrumented(input, run, compiler);
    const bytes = result?.bytes ?? input.bytes;
    if (out === undefined && bytes === input.bytes) return result;
    try {
      const path = out === undefined ? await targetOf(input.path) : join(out, basename(input.path));
      await interruption.whole(() =>
        withFile(`${path} can't be written`, () => writeAtomically(path, bytes)),
      );
      return result;
    } catch (error) {
      failures.add(error, input, input.bytes, out !== undefined);
      return undefined;
    }
  });
  // Nothing is told after a signal, which also ends the compiler where it came from a terminal.
  await interruption.whole(() => Promise.resolve());
  const outcomes = results.flatMap((result, i): ModuleOutcome[] =>
    result === undefined ? [] : [{ result, before: inputs[i]?.bytes ?? NO_BYTES }],
  );
  output.out(summaryText(outcomes, failures.count));
}

/** The file itself, where a beam in place is a link. */
const targetOf = (path: string): Promise<string> => realpath(path).catch(() => path);

/** Does all that a run would do but compile and write. */
async function check(run: Run): Promise<void> {
  const { rules, inputs, compiler, output } = run;
  const results = await forEach(inputs, (input) =>
    instrumented(input, run, withoutCompiling(compiler, input.bytes)),
  );
  // One that fails is still a name that rules may mean.
  const readable = inputs.filter((input) => mayChange(input, rules) !== undefined);
  const beams = readable.map((input) => ({ bytes: input.bytes, ...applicationOf(input) }));
  const explanation = await explainPlan(rules, beams, compiler);
  output.out(
    explanationText(
      explanation,
      results.filter((result) => result !== undefined),
    ),
  );
}

async function diff(run: Run): Promise<void> {
  const { rules, inputs, compiler, interruption, failures, output } = run;
  const diffs = await forEach(inputs, async (input): Promise<string> => {
    try {
      const printed = await printByPlan(input.bytes, rules, compiler, applicationOf(input));
      if (printed === undefined) return "";
      const { module, before, after } = printed;
      return await interruption.whole(() => diffText(shortName(module), before, after));
    } catch (error) {
      failures.add(error, input, input.bytes);
      return "";
    }
  });
  const text = diffs.filter((one) => one !== "").join("\n");
  output.out(text === "" ? "nothing would change" : text.trimEnd());
}
