/** Encoding in one call. */
import type { Term } from "../term";
import { type EncodeOptions, Encoder } from "./encoder";

/** Memory that the shared encoders keep between calls. */
const KEPT_BYTES = 64 * 1024;

const standard = new Encoder();

/**
 * The bytes of `term_to_binary(Term, [{minor_version, 2}])`.
 * @throws BeamtraceError `BT_NOT_ENCODABLE` for values that are no terms.
 * @example encode(tuple(atom("ok"), binary("text")))
 */
export function encode(term: Term, options?: EncodeOptions): Uint8Array {
  const encoder = options === undefined ? standard.reset(KEPT_BYTES) : new Encoder(options);
  return encoder.term(term).bytes();
}

/** As `encode`, but without the version byte. */
export function encodeWithoutVersion(term: Term, options?: EncodeOptions): Uint8Array {
  const encoder = options === undefined ? standard.reset(KEPT_BYTES) : new Encoder(options);
  return encoder.bareTerm(term).bytes();
}
