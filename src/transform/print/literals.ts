/** Atoms, numbers, characters and strings as Erlang source. */
import { Atom, BeamtraceError, type ErlFloat, inspect, type Term, Tuple } from "../../erlang";

const RESERVED = new Set(
  "after and andalso band begin bnot bor bsl bsr bxor case catch cond div else end fun if let maybe not of or orelse receive rem try when xor".split(
    " ",
  ),
);

function escaped(codes: readonly number[], quote: '"' | "'"): string {
  let text = "";
  for (const code of codes) {
    const char = String.fromCodePoint(code);
    if (char === quote || char === "\\") text += `\\${char}`;
    else if (code === 10) text += "\\n";
    else if (code < 32 || code === 127 || (code >= 0x80 && code < 0xa0) || (code >= 0xd800 && code < 0xe000))
      text += `\\x{${code.toString(16)}}`;
    else text += char;
  }
  return `${quote}${text}${quote}`;
}

/** An atom, quoted where it must be. */
export function atomText(value: Atom): string {
  const { name } = value;
  if (/^[a-zß-öø-ÿ][\w@À-ÖØ-öø-ÿ]*$/u.test(name) && !RESERVED.has(name)) return name;
  return escaped(
    Array.from(name, (char) => char.codePointAt(0) as number),
    "'",
  );
}

/** A string literal of code points. */
export function stringText(codes: Term): string {
  return escaped(codes as readonly number[], '"');
}

/** A character, `$a`. */
export function charText(code: Term): string {
  const value = code as number;
  if (value > 32 && value < 127 && value !== 92) return `$${String.fromCharCode(value)}`;
  return value === 92 ? "$\\\\" : value === 32 ? "$\\s" : `$\\x{${value.toString(16)}}`;
}

/** A float, with a point as Erlang wants it. */
export function floatText({ value }: ErlFloat): string {
  const text = Object.is(value, -0) ? "-0.0" : String(value);
  if (/^-?\d+$/.test(text)) return `${text}.0`;
  return text.replace(/^(-?\d+)e/, "$1.0e").replace("e+", "e");
}

/** A term in an attribute. */
export function termText(term: Term): string {
  return inspect(term, { maxLength: 10_000_000, charlists: "as-lists" });
}

/** The name of a variable. */
export function variableText(name: Atom): string {
  if (/^[A-Z_À-ÖØ-Þ][\w@À-ÖØ-öø-ÿ]*$/u.test(name.name)) return name.name;
  throw new BeamtraceError(
    "BT_NOT_ENCODABLE",
    `a variable of the name ${JSON.stringify(name.name)} can't be written as source`,
  );
}

/** The name of a record: an atom, or of a native record `module:name`, or nothing. */
export function recordText(name: Term): string {
  if (name instanceof Atom) return `#${atomText(name)}`;
  if (name instanceof Tuple && name.length === 2) {
    return `#${name.elements.map((part) => atomText(part as Atom)).join(":")}`;
  }
  return "#_";
}
