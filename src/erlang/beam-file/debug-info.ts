/**
 * The debug info of a module: chunk `Dbgi` (`{debug_info_v1, Backend, Data}`, OTP 20 and later) or `Abst` before. What `Data` means only
 * its backend knows; `erl_abstract_code` is the compiler's own, whose forms can be read as they are. For any other the node's
 * `Backend:debug_info(erlang_v1, Module, Data, Opts)` is the way (beam_lib, "debug_info"), so the data is handed on untouched.
 */
import { constants, inflateSync } from "node:zlib";

import { BadTermError, BeamtraceError } from "../errors";
import { Decoder } from "../etf";
import { Atom, type Term, Tuple } from "../term";
import type { BeamFile } from "./beam-file";
import { chunkTerm, moduleName } from "./chunk-terms";

/** Debug info whose forms are Erlang's own abstract format. */
export interface AbstractCode {
  readonly backend: "erl_abstract_code";
  readonly forms: readonly Term[];
  /** Options that the module was compiled with, as far as they matter for its meaning. */
  readonly options: readonly Term[];
}

/** Debug info that only its backend can turn into Erlang's abstract format, such as `elixir_erl`. */
export interface BackendDebugInfo {
  readonly backend: string;
  readonly module: Atom;
  /** The term `Data` of `{debug_info_v1, Backend, Data}`. */
  readonly data: Term;
}

export type DebugInfo = AbstractCode | BackendDebugInfo;

/** Tells the two apart. */
export function isAbstractCode(info: DebugInfo): info is AbstractCode {
  return info.backend === "erl_abstract_code";
}

const listOr = (term: Term | undefined): readonly Term[] =>
  Array.isArray(term) ? (term as readonly Term[]) : [];

function missing(beam: BeamFile, what: string, remedy: string): BeamtraceError {
  return new BeamtraceError("BT_NO_DEBUG_INFO", `module ${moduleName(beam).name} ${what}: ${remedy}`);
}

const COMPILE_AGAIN =
  "compile it with debug_info (erlc +debug_info, {erl_opts, [debug_info]} in rebar.config, @compile :debug_info in Elixir)";

/**
 * The debug info of a module.
 * @throws BeamtraceError `BT_NO_DEBUG_INFO` when it is absent, stripped or encrypted; the message says what to do.
 * @throws CorruptBeamError `BT_CORRUPT_BEAM`
 */
export function debugInfo(beam: BeamFile): DebugInfo {
  const chunk = beam.chunk("Dbgi");
  if (chunk === undefined || chunk.length === 0) return oldAbstractCode(beam);
  // A term begins with 131; `0, Length, CryptoType` is beam_lib's mark of an encrypted chunk.
  if (chunk[0] === 0) {
    throw missing(
      beam,
      "has encrypted debug info",
      "compile it without encrypt_debug_info, or decrypt the beam first",
    );
  }
  const foreign = foreignBackend(chunk);
  if (foreign !== undefined) {
    return {
      backend: foreign,
      module: moduleName(beam),
      // Most of the module's bytes, and nobody but the backend understands them.
      get data() {
        return (chunkTerm(beam, "Dbgi") as Tuple).elements[2]!;
      },
    };
  }
  const term = chunkTerm(beam, "Dbgi");
  const [version, backend, data] = term instanceof Tuple && term.length === 3 ? term.elements : [];
  if (
    !(version instanceof Atom) ||
    version.name !== "debug_info_v1" ||
    !(backend instanceof Atom) ||
    data === undefined
  ) {
    throw missing(beam, "has debug info of an unknown version", COMPILE_AGAIN);
  }
  if (backend.name !== "erl_abstract_code") {
    if (data instanceof Atom && data.name === "none") throw missing(beam, "has no debug info", COMPILE_AGAIN);
    return { backend: backend.name, module: moduleName(beam), data };
  }
  const [forms, options] = data instanceof Tuple && data.length === 2 ? data.elements : [];
  if (!Array.isArray(forms)) throw missing(beam, "was compiled without debug info", COMPILE_AGAIN);
  return { backend: "erl_abstract_code", forms: forms as readonly Term[], options: listOr(options) };
}

/** Where a term's bytes begin that says its backend within a few dozen; compressed, this many hold more than that. */
const HEAD_BYTES = 512;
const COMPRESSED = 80;
const SMALL_TUPLE = 104;

const isAtomTag = (tag: number | undefined): boolean =>
  tag === 100 || tag === 115 || tag === 118 || tag === 119;

/**
 * The backend of debug info that is another's and there, read from the first bytes of the chunk; undefined for all else, which has to be looked
 * at as a whole.
 */
function foreignBackend(chunk: Uint8Array): string | undefined {
  try {
    const head =
      chunk[1] === COMPRESSED
        ? inflateSync(chunk.subarray(6, 6 + HEAD_BYTES), { finishFlush: constants.Z_SYNC_FLUSH })
        : chunk.subarray(1);
    if (head[0] !== SMALL_TUPLE || head[1] !== 3) return undefined;
    const decoder = new Decoder();
    const version = decoder.decodeBareAt(head, 2);
    const backend = decoder.decodeBareAt(head, decoder.next);
    if (!(version instanceof Atom) || version.name !== "debug_info_v1" || !(backend instanceof Atom))
      return undefined;
    const data = head[decoder.next];
    return backend.name === "erl_abstract_code" || data === undefined || isAtomTag(data)
      ? undefined
      : backend.name;
  } catch (error) {
    // Nothing that begins like a term: the whole chunk is read, and says what is wrong with it.
    if (error instanceof BadTermError || (error as NodeJS.ErrnoException).code?.startsWith("Z_") === true)
      return undefined;
    throw error;
  }
}

function oldAbstractCode(beam: BeamFile): AbstractCode {
  const chunk = beam.chunk("Abst");
  if (chunk !== undefined && chunk.length > 0 && chunk[0] === 0) {
    throw missing(beam, "has encrypted abstract code", "compile it without encrypt_debug_info");
  }
  const term = chunkTerm(beam, "Abst");
  const [version, forms] = term instanceof Tuple && term.length === 2 ? term.elements : [];
  if (version instanceof Atom && version.name === "raw_abstract_v1" && Array.isArray(forms)) {
    return { backend: "erl_abstract_code", forms: forms as readonly Term[], options: [] };
  }
  throw missing(beam, "has no debug info (or it was stripped)", COMPILE_AGAIN);
}
