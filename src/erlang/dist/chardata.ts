/**
 * `unicode:chardata()` to text: binaries, code points, and lists of both nested at will, as the I/O protocol carries them.
 * Follows "unicode" (stdlib Reference Manual), types chardata and latin1_chardata.
 */
import { ImproperList, type Term } from "../term";

/** How bytes in binaries are meant. */
export type CharEncoding = "unicode" | "latin1";

/** The text, or undefined when the term is no chardata. */
export function chardataToText(term: Term, encoding: CharEncoding): string | undefined {
  const parts: Buffer[] = [];
  // Text between binaries; a code point split over two binaries is legal, so all is joined as bytes first.
  let text = "";
  const stack: Term[] = [term];
  while (stack.length > 0) {
    const top = stack.pop() as Term;
    if (typeof top === "number") {
      if (!isCodePoint(top) || (encoding === "latin1" && top > 255)) return undefined;
      text += String.fromCodePoint(top);
    } else if (top instanceof Uint8Array) {
      if (encoding === "latin1") {
        text += Buffer.from(top.buffer, top.byteOffset, top.length).toString("latin1");
      } else {
        parts.push(Buffer.from(text, "utf8"), Buffer.from(top.buffer, top.byteOffset, top.length));
        text = "";
      }
    } else if (Array.isArray(top)) {
      const list = top as readonly Term[];
      for (let i = list.length - 1; i >= 0; i -= 1) stack.push(list[i] as Term);
    } else if (top instanceof ImproperList) {
      stack.push(top.tail, top.elements);
    } else {
      return undefined;
    }
  }
  if (parts.length === 0) return text;
  parts.push(Buffer.from(text, "utf8"));
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(parts));
  } catch {
    return undefined;
  }
}

function isCodePoint(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0x10ffff && (value < 0xd800 || value > 0xdfff);
}
