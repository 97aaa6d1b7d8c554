/** What a notation says about a term: its text, or how its parts are laid out. `inspect` does the walking and keeps the limits. */
import type { Term } from "./term";

/** A container in some notation. */
export interface Layout {
  readonly open: string;
  readonly close: string;
  readonly parts: readonly Term[];
  /** Between parts, or between pairs. */
  readonly comma: string;
  /** Between the first and second of a pair; parts then come in pairs. */
  readonly arrow?: string;
  /** Before the last part: the tail of an improper list. */
  readonly bar?: string;
  /** Written before each part, such as the key of a keyword. */
  readonly labels?: readonly string[];
}

/** How terms are written in one language. */
export interface Notation {
  /** `room` is how many characters will be used at most: more need not be made. */
  lay(term: Term, options: LayOptions, room: number): string | Layout;
}

/** Options that concern single terms. */
export interface LayOptions {
  /** Write lists that look like text as text. */
  readonly charlists: boolean;
  /** Name of the node whose identifiers are written with a 0, as on that node itself. */
  readonly localNode: string | undefined;
}

/** The node part of an identifier. */
export function nodeText(node: string, { localNode }: LayOptions): string {
  return node === localNode ? "0" : node;
}

/** Text of a binary as numbers. */
export function byteList(bytes: Uint8Array, comma: string, room: number): string {
  return bytes.length > room ? bytes.subarray(0, room).join(comma) : bytes.join(comma);
}

/** The number in the used bits of a last byte. */
export function lastBits(byte: number, bits: number): number {
  return byte >> (8 - bits);
}
