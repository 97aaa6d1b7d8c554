/** What the text forms need of a node: applying functions of its standard library. Nothing of the text is ever run there. */
import { BeamtraceError } from "../../erlang/errors";
import { Atom, ImproperList, Tuple, type Term } from "../../erlang/term";
import { MatchSpecError, type TextPosition } from "./error";

/** Applies a function on the node, as `session.call` does; rejects with `BT_REMOTE_ERROR` when it raises. */
export type Evaluate = (module: string, fn: string, args: readonly Term[]) => Promise<Term>;

/** Longest text of a match specification, in UTF-16 units. A node never forgets an atom, and its scanner makes one of every name. */
export const MAX_TEXT_LENGTH = 16_384;

/** @throws MatchSpecError when the text is longer than anyone's match specification. */
export function checkText(text: string): void {
  if (text.trim() === "") throw new MatchSpecError("the text is empty");
  if (text.length > MAX_TEXT_LENGTH)
    throw new MatchSpecError(
      `the text has ${text.length} characters; at most ${MAX_TEXT_LENGTH} are sent to a node`,
    );
}

/** Calls a function of the node; when it raises, that is a MatchSpecError, with the remote error as cause. */
export async function evaluateOr(
  message: string,
  evaluate: Evaluate,
  module: string,
  fn: string,
  args: readonly Term[],
): Promise<Term> {
  try {
    return await evaluate(module, fn, args);
  } catch (error) {
    if (error instanceof BeamtraceError && error.code === "BT_REMOTE_ERROR")
      throw new MatchSpecError(`${message}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** The elements of a tuple that begins with this atom, without the atom. */
export function tagged(term: Term | undefined, tag: string): readonly Term[] | undefined {
  if (!(term instanceof Tuple)) return undefined;
  const [first, ...others] = term.elements;
  return first instanceof Atom && first.name === tag ? others : undefined;
}

const utf8 = new TextDecoder();

/** Text from Erlang's chardata: code points and binaries in lists of lists. */
export function charsToString(term: Term | undefined): string {
  if (typeof term === "number") return String.fromCodePoint(term);
  if (term instanceof Uint8Array) return utf8.decode(term);
  if (term instanceof Atom) return term.name;
  if (Array.isArray(term)) return (term as readonly Term[]).map(charsToString).join("");
  if (term instanceof ImproperList)
    return term.elements.map(charsToString).join("") + charsToString(term.tail);
  return "";
}

/** A location of Erlang's tools: `{Line, Column}`, a line, or an annotation list with one of them. */
export function positionOf(location: Term | undefined): TextPosition | undefined {
  if (typeof location === "number") return location > 0 ? { line: location } : undefined;
  if (location instanceof Tuple && location.length === 2) {
    const [line, column] = location.elements;
    if (typeof line === "number" && typeof column === "number") return { line, column };
  }
  if (Array.isArray(location)) {
    for (const item of location as readonly Term[]) {
      const found = tagged(item, "location");
      if (found !== undefined) return positionOf(found[0]);
    }
  }
  return undefined;
}
