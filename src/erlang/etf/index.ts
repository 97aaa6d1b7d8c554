/** The external term format. */
export type { DecodeOptions } from "./decode-options";
export { decode, decodePrefix, decodeWithoutVersion } from "./decode";
export { Decoder } from "./decoder";
export { encode, encodeWithoutVersion } from "./encode";
export type { EncodeOptions } from "./encoder";
export { Encoder } from "./encoder";
export { skipTerm } from "./skip-term";
