/**
 * From a `.beam` to an instrumented `.beam`. The code's chunks are those of the second compilation; all others, debug info and
 * attributes among them, are the module's own, byte for byte: instrumenting the result again starts from the same original.
 */
import {
  atom,
  type Atom,
  BeamFile,
  BeamtraceError,
  compileInfo,
  debugInfo,
  isAbstractCode,
  moduleName,
  type Term,
} from "../erlang";
import type { Compiler, CompileWarning, ModuleForms } from "./compiler/remote-compiler";
import { type Form, formsFromTerm, formsToTerm, generatedAnno } from "./forms";
import { exportAllAsAttribute, type FunctionName } from "./inject/exports";
import { instrumentForms, type InstrumentOptions, type Refusal } from "./inject/instrument-forms";
import { type SiteTable, withSiteTable } from "../buffer";

/**
 * Chunks that belong together, as they name each other's atoms, literals and functions by number: they are replaced together. Those of native
 * records (`Recs`, OTP 29) are among them.
 */
const CODE_CHUNKS = "Atom AtU8 Code StrT ImpT ExpT FunT LitT LocT Line Type DbgB Recs".split(" ");

/** What the compiler makes besides: it holds terms, and the module's own is kept. */
const OTHER_CHUNKS = "Abst Attr CInf Dbgi Docs Meta".split(" ");

/**
 * Modules that the code server runs in its own process. Should one of them call the runtime before it is there, the VM would ask the
 * code server for it, which is itself, and halt (`error_handler`).
 */
const CODE_SERVER = new Set(
  (
    "code code_server error_handler init erl_init erl_prim_loader prim_file prim_zip prim_inet prim_socket prim_buffer " +
    "prim_eval zlib erlang erts_internal erts_literal_area_collector erts_dirty_process_signal_handler erts_code_purger " +
    "erts_trace_cleaner atomics counters persistent_term erl_tracer socket_registry " +
    "lists maps ets filename gb_trees gb_sets proplists string unicode unicode_util os file file_io_server file_server " +
    "binary erl_scan io_lib io_lib_format io_lib_pretty logger logger_server logger_config logger_filters proc_lib sys " +
    "gen gen_server supervisor heart rand beam_lib kernel application_controller application application_master"
  ).split(" "),
);

/** How a beam is instrumented. */
export interface InstrumentBeamOptions extends InstrumentOptions {
  /**
   * `embedded` (default): the runtime is put in place by the first call that misses it, which modules of the code server itself
   * can't do: they are refused. `present`: you see to it that module `beamtrace_rt` is loaded before any instrumented one runs.
   */
  readonly runtime?: "embedded" | "present";
  /**
   * Whether the compiler optimises the instrumented code as it did the plain one (default). `false` (its option `no_ssa_opt`) takes two
   * thirds of the time, for builds that somebody waits for. The code is slower then, and stack traces have frames that the optimiser leaves
   * out: of callers of functions that never return.
   */
  readonly optimize?: boolean;
}

/** The compiler's option that leaves out its optimisations of functions. */
const UNOPTIMIZED = atom("no_ssa_opt");

/** An instrumented beam. */
export interface InstrumentedBeam {
  readonly module: string;
  /** The file's bytes; those that were given when nothing was instrumented. */
  readonly bytes: Uint8Array;
  readonly table: SiteTable;
  readonly instrumented: readonly FunctionName[];
  readonly refused: readonly Refusal[];
  readonly warnings: readonly CompileWarning[];
}

/** Forms of a module, from wherever they can be had. */
async function formsOf(
  beam: BeamFile,
  compiler: Compiler,
  detail?: "outline",
): Promise<ModuleForms & { backend: string }> {
  const info = debugInfo(beam);
  if (isAbstractCode(info)) return info;
  const chunk = beam.chunk("Dbgi") as Uint8Array;
  return { backend: info.backend, ...(await compiler.forms(info.module, info.backend, chunk, detail)) };
}

/** The typed forms of a module. @throws BeamtraceError `BT_NO_DEBUG_INFO`, `BT_UNKNOWN_FORM` */
export const formsOfBeam = async (beam: BeamFile, compiler: Compiler): Promise<Form[]> =>
  formsFromTerm((await formsOf(beam, compiler)).forms);

/** Replaces the code of a module, keeping all else. */
function withCode(original: BeamFile, code: BeamFile): BeamFile {
  let result = original;
  for (const { id } of original.chunks)
    if (CODE_CHUNKS.includes(id) && code.chunk(id) === undefined) result = result.without(id);
  // Also a kind that a later compiler makes and that is not known here.
  for (const { id, data } of code.chunks) if (!OTHER_CHUNKS.includes(id)) result = result.with(id, data);
  return result;
}

/**
 * Compiles a module again from its own debug info, changed by `change` or not at all.
 * @throws BeamtraceError `BT_NO_DEBUG_INFO`, `BT_UNKNOWN_FORM`, `BT_COMPILE_FAILED`
 */
export async function recompile(
  beam: BeamFile,
  compiler: Compiler,
  change: (forms: readonly Term[]) => readonly Term[] = (forms) => forms,
): Promise<{ readonly beam: BeamFile; readonly warnings: readonly CompileWarning[] }> {
  const { forms, ...whole } = await formsOf(beam, compiler);
  return compileInto(beam, compiler, { ...whole, forms: change(forms) });
}

/** Not `async`, as whoever waits within a function keeps its forms, megabytes of a module, until the compiler has answered. */
function compileInto(
  beam: BeamFile,
  compiler: Compiler,
  what: ModuleForms & { readonly backend: string },
): Promise<{ readonly beam: BeamFile; readonly warnings: readonly CompileWarning[] }> {
  const module: Atom = moduleName(beam);
  const source = compileInfo(beam, "source");
  return compiler
    .compile({ ...what, module, ...(source === undefined ? {} : { source }) })
    .then(({ beam: code, warnings }) => ({ beam: withCode(beam, BeamFile.read(code)), warnings }));
}

function refuseCodeServer(module: string, options: InstrumentBeamOptions): void {
  if (options.runtime === "present" || !CODE_SERVER.has(module)) return;
  throw new BeamtraceError(
    "BT_INSTRUMENT_REFUSED",
    `${module} is run by the VM's code server: it can only be instrumented where beamtrace_rt is loaded first (runtime: "present")`,
  );
}

/**
 * Instruments a module. Options can also be a function of the module's forms, which says what to do once they are known.
 * @throws BeamtraceError `BT_CORRUPT_BEAM`, `BT_NO_DEBUG_INFO`, `BT_UNKNOWN_FORM`, `BT_INSTRUMENT_REFUSED`, `BT_COMPILE_FAILED`:
 * the module is then best left as it is.
 * @example
 * await using server = await startCompileServer();
 * const { bytes, table } = await instrumentBeam(await readFile("cart.beam"), server);
 */
export async function instrumentBeam(
  bytes: Uint8Array,
  compiler: Compiler,
  options: InstrumentBeamOptions | ((forms: readonly Form[]) => InstrumentBeamOptions) = {},
): Promise<InstrumentedBeam> {
  return instrumentWith(bytes, compiler, options);
}

/** As `instrumentBeam`. From outlines, functions are instrumented the same with less to read and to write; who asks for more than that needs them whole. */
export async function instrumentWith(
  bytes: Uint8Array,
  compiler: Compiler,
  options: InstrumentBeamOptions | ((forms: readonly Form[]) => InstrumentBeamOptions),
  detail?: "outline",
): Promise<InstrumentedBeam> {
  const beam = BeamFile.read(bytes);
  if (typeof options !== "function") refuseCodeServer(moduleName(beam).name, options);
  const { result, compiling } = await instrumentForBeam(beam, compiler, options, detail);
  if (compiling === undefined) return { ...result, bytes, warnings: [] };
  const compiled = await compiling;
  const { warnings } = compiled;
  return { ...result, warnings, bytes: withSiteTable(compiled.beam, result.table).write() };
}

/** What is known before the compiler has answered; it is asked when there is anything to compile. The forms are gone by then. */
async function instrumentForBeam(
  beam: BeamFile,
  compiler: Compiler,
  options: InstrumentBeamOptions | ((forms: readonly Form[]) => InstrumentBeamOptions),
  detail: "outline" | undefined,
): Promise<{
  readonly result: Omit<InstrumentedBeam, "bytes" | "warnings">;
  readonly compiling?: ReturnType<typeof compileInto>;
}> {
  const module = moduleName(beam).name;
  const given = await formsOf(beam, compiler, detail);
  try {
    const typed = formsFromTerm(given.forms);
    const compilerOptions = exportAllAsAttribute(given.options, typed, generatedAnno(1));
    const chosen = typeof options === "function" ? options(typed) : options;
    const { forms: changed, compileOptions: added, ...result } = instrumentForms(typed, chosen);
    if (result.table.sites.length === 0) {
      await forget(compiler, given);
      return { result: { module, ...result } };
    }
    refuseCodeServer(module, chosen);
    const all = [...compilerOptions, ...added, ...(chosen.optimize === false ? [UNOPTIMIZED] : [])];
    const compiling = compileInto(beam, compiler, { ...given, options: all, forms: formsToTerm(changed) });
    return { result: { module, ...result }, compiling };
  } catch (error) {
    await forget(compiler, given);
    throw error;
  }
}

/** Of an outline that is not compiled nothing stays behind; a compiler that is gone keeps nothing. */
async function forget(compiler: Compiler, { kept }: ModuleForms): Promise<void> {
  if (kept !== undefined) await compiler.forget?.(kept).catch(() => undefined);
}
