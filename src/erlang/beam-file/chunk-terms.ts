/** What single chunks hold: the module's name (`AtU8`, `Atom`), and the external terms of `Attr`, `CInf`, `Dbgi` and the like. */
import { BadTermError, CorruptBeamError } from "../errors";
import { decode, encode } from "../etf";
import { Atom, type Term, Tuple } from "../term";
import type { BeamFile } from "./beam-file";

/** A compile-time constant of hundreds of megabytes is possible but no module that anybody wrote has it. */
const MAX_TERM_BYTES = 512 * 1024 * 1024;
/** Forms nest as deep as the longest list literal of the source; what the bytes can hold is bound enough. */
const MAX_DEPTH = 10_000_000;

/**
 * The external term in a chunk, or undefined when there is no such chunk or it is empty.
 * @throws CorruptBeamError `BT_CORRUPT_BEAM`; the offset counts from the start of the chunk's data.
 */
export function chunkTerm(beam: BeamFile, id: string): Term | undefined {
  const data = beam.chunk(id);
  if (data === undefined || data.length === 0) return undefined;
  try {
    return decode(data, { binaries: "view", maxInflatedBytes: MAX_TERM_BYTES, maxDepth: MAX_DEPTH });
  } catch (cause) {
    if (!(cause instanceof BadTermError)) throw cause;
    throw new CorruptBeamError(`chunk ${id} holds no term: ${cause.message}`, cause.offset, { cause });
  }
}

/** The beam with an external term as chunk. */
export function withChunkTerm(beam: BeamFile, id: string, term: Term): BeamFile {
  return beam.with(id, encode(term));
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The module's name: the first atom of the atom table.
 * @throws CorruptBeamError `BT_CORRUPT_BEAM`
 */
export function moduleName(beam: BeamFile): Atom {
  const wide = beam.chunk("AtU8");
  const table = wide ?? beam.chunk("Atom");
  if (table === undefined) throw new CorruptBeamError("no chunk with atoms (AtU8 or Atom)", 12);
  if (table.length < 6) throw new CorruptBeamError("the atom table is cut off", table.length);
  // OTP 28 and later write a negative count, and lengths as tagged values of the compact term encoding.
  const tagged = (table[0]! & 0x80) !== 0;
  let at = 4;
  let length = table[at++]!;
  if (tagged) {
    if ((length & 0x07) !== 0) throw new CorruptBeamError("the length of an atom is no number", 4);
    if ((length & 0x08) === 0) length >>= 4;
    else if ((length & 0x10) === 0) length = ((length & 0xe0) << 3) | table[at++]!;
    else throw new CorruptBeamError("an atom is too long", 4);
  }
  if (length === 0 || length > table.length - at) throw new CorruptBeamError("an atom is cut off", at);
  const bytes = table.subarray(at, at + length);
  try {
    return Atom.of(wide === undefined ? Buffer.from(bytes).toString("latin1") : utf8.decode(bytes));
  } catch (cause) {
    throw new CorruptBeamError("the module's name is no atom", at, { cause });
  }
}

/** An entry of `module_info(compile)`, such as `options` or `source`. */
export function compileInfo(beam: BeamFile, key: string): Term | undefined {
  const info = chunkTerm(beam, "CInf");
  if (!Array.isArray(info)) return undefined;
  for (const entry of info as readonly Term[]) {
    if (entry instanceof Tuple && entry.length === 2) {
      const [name, value] = entry.elements;
      if (name instanceof Atom && name.name === key) return value;
    }
  }
  return undefined;
}
