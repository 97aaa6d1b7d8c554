/** A plan put to a module: instrumented as the rules say, or the same bytes; one that was instrumented and no longer is to be, plain again. */
import { BeamFile } from "../../erlang";
import type { Compiler } from "../compiler/remote-compiler";
import { instrumentForms } from "../inject/instrument-forms";
import { formsOfBeam, type InstrumentedBeam, instrumentWith, recompile } from "../instrument";
import { printForms } from "../print";
import { SITE_CHUNK } from "../../buffer";
import { factsOfBeam, factsOfForms } from "./module-facts";
import type { RuleSet } from "./plan";

/** What became of a module. */
export interface PlannedBeam extends InstrumentedBeam {
  /** `unchanged`: the bytes that were given. `restored`: it was instrumented and no rule includes it any more. */
  readonly status: "instrumented" | "unchanged" | "restored";
}

/**
 * Whether putting the rules to the module may need a compiler: some function of it may be included, or it was instrumented before.
 * @throws CorruptBeamError
 */
export function mayChangeByPlan(bytes: Uint8Array, rules: RuleSet, application?: string): boolean {
  const beam = BeamFile.read(bytes);
  return beam.chunk(SITE_CHUNK) !== undefined || rules.mayInclude(factsOfBeam(beam, application));
}

/**
 * Instruments a module as the rules say. Bytes of a module that no rule includes come back as they are.
 * @throws BeamtraceError as `instrumentBeam`; the module is then best left as it is.
 */
export async function instrumentByPlan(
  bytes: Uint8Array,
  rules: RuleSet,
  compiler: Compiler,
  { application }: { readonly application?: string } = {},
): Promise<PlannedBeam> {
  const beam = BeamFile.read(bytes);
  const facts = factsOfBeam(beam, application);
  const none = { module: facts.module, bytes, table: { module: facts.module, version: 0, sites: [] } };
  const nothing = { ...none, instrumented: [], refused: [], warnings: [] };
  const result: InstrumentedBeam = rules.mayInclude(facts)
    ? await instrumentWith(
        bytes,
        compiler,
        (forms) => {
          const all = factsOfForms(facts, forms);
          return { select: (fun) => rules.decide(fun, all), ...rules.options };
        },
        "outline",
      )
    : nothing;
  if (result.instrumented.length > 0) {
    const same = Buffer.compare(result.bytes, bytes) === 0;
    return { ...result, ...(same ? { bytes } : {}), status: "instrumented" };
  }
  if (beam.chunk(SITE_CHUNK) === undefined) return { ...result, bytes, status: "unchanged" };
  const plain = await recompile(beam.without(SITE_CHUNK), compiler);
  return { ...result, bytes: plain.beam.write(), status: "restored" };
}

/** A module as Erlang, before and after; undefined when no rule includes a function of it. Nothing is compiled. */
export async function printByPlan(
  bytes: Uint8Array,
  rules: RuleSet,
  compiler: Compiler,
  { application }: { readonly application?: string } = {},
): Promise<{ readonly module: string; readonly before: string; readonly after: string } | undefined> {
  const beam = BeamFile.read(bytes);
  const facts = factsOfBeam(beam, application);
  if (!rules.mayInclude(facts)) return undefined;
  const forms = await formsOfBeam(beam, compiler);
  const before = printForms(forms);
  const all = factsOfForms(facts, forms);
  const result = instrumentForms(forms, { select: (fun) => rules.decide(fun, all) });
  if (result.instrumented.length === 0) return undefined;
  return { module: facts.module, before, after: printForms(result.forms) };
}
