/** Decoding in one call. */
import { BadTermError } from "../errors";
import type { Term } from "../term";
import type { DecodeOptions } from "./decode-options";
import { Decoder } from "./decoder";

const standard = new Decoder();

function decoderFor(options: DecodeOptions | undefined): Decoder {
  return options === undefined ? standard : new Decoder(options);
}

/**
 * Decodes one external term (`term_to_binary/1`) that takes up all of `bytes`.
 * @throws BadTermError `BT_BAD_TERM` for anything else, with the offset where it went wrong.
 * @example decode(await readFile("state.etf"))
 */
export function decode(bytes: Uint8Array, options?: DecodeOptions): Term {
  const { term, next } = decodePrefix(bytes, 0, options);
  if (next !== bytes.length) throw new BadTermError(`${bytes.length - next} bytes after the term`, next);
  return term;
}

/** Decodes the external term at `offset` and tells where the next one starts: frames of the distribution hold two in a row. */
export function decodePrefix(
  bytes: Uint8Array,
  offset = 0,
  options?: DecodeOptions,
): { readonly term: Term; readonly next: number } {
  const decoder = decoderFor(options);
  const term = decoder.decodeAt(bytes, offset);
  return { term, next: decoder.next };
}

/** Decodes a term without version byte that takes up all of `bytes`: what chunks of `.beam` files and frame parts hold. */
export function decodeWithoutVersion(bytes: Uint8Array, options?: DecodeOptions): Term {
  const decoder = decoderFor(options);
  const term = decoder.decodeBareAt(bytes, 0);
  if (decoder.next !== bytes.length) {
    throw new BadTermError(`${bytes.length - decoder.next} bytes after the term`, decoder.next);
  }
  return term;
}
