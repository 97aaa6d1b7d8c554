/** Terms as Erlang's `io_lib:format("~0tp", [Term])` writes them, with all of Unicode taken for printable (`erl +pc unicode`). */
import { Atom } from "./atom";
import { BitString } from "./bit-string";
import { ErlMap } from "./erl-map";
import { ExportFun } from "./export-fun";
import { ErlFloat } from "./float";
import { floatText } from "./float-text";
import { Fun } from "./fun";
import { ImproperList } from "./improper-list";
import { byteList, lastBits, type LayOptions, type Layout, nodeText, type Notation } from "./layout";
import { LocalExt } from "./local-ext";
import { NativeRecord } from "./native-record";
import { Pid } from "./pid";
import { Port } from "./port";
import { Reference } from "./reference";
import type { Term } from "./term";
import { everyCharacter, isGraphic, listText, utf8Text } from "./text-of-bytes";
import { Tuple } from "./tuple";

/** Words that are no atoms without quotes; `maybe` and `else` since OTP 27. */
const RESERVED = new Set(
  "after and andalso band begin bnot bor bsl bsr bxor case catch cond div else end fun if let maybe not of or orelse receive rem try when xor".split(
    " ",
  ),
);

const PLAIN_ATOM = /^[a-zß-öø-ÿ][a-zA-Z0-9_@ß-öø-ÿÀ-ÖØ-Þ]*$/;

const ESCAPES: Readonly<Record<string, string>> = {
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\b": "\\b",
  "\f": "\\f",
  "\x1b": "\\e",
  "\x7f": "\\d",
};

/** Control characters that text may contain. */
const TEXT_CONTROLS = new Set([8, 9, 10, 11, 12, 13, 27]);

const isPrintable = (code: number): boolean => isGraphic(code) || TEXT_CONTROLS.has(code);
const isPrintableLatin1 = (code: number): boolean => code <= 0xff && isPrintable(code);

/** An atom in Erlang notation, quoted where it must be. */
export function erlangAtom(name: string): string {
  return PLAIN_ATOM.test(name) && !RESERVED.has(name) ? name : quoted(name, "'");
}

function quoted(text: string, quote: string): string {
  let result = quote;
  for (const character of text) {
    const code = character.codePointAt(0) as number;
    if (character === quote || character === "\\") result += `\\${character}`;
    else if ((code >= 0x20 && code <= 0x7e) || code >= 0xa0) result += character;
    else result += ESCAPES[character] ?? `\\${code.toString(8).padStart(3, "0")}`;
  }
  return result + quote;
}

function list(term: readonly Term[], options: LayOptions, room: number): string | Layout {
  if (term.length === 0) return "[]";
  if (options.charlists && typeof term[0] === "number") {
    const text = listText(term, isPrintable, room);
    if (text !== undefined) return quoted(text, '"');
  }
  return { open: "[", close: "]", comma: ",", parts: term };
}

function binary(bytes: Uint8Array, room: number): string {
  if (bytes.length === 0) return "<<>>";
  const text = utf8Text(bytes, room);
  if (text !== undefined) {
    if (everyCharacter(text, isPrintable)) {
      const ascii = everyCharacter(text, (code) => code < 0x80);
      return `<<${quoted(text, '"')}${ascii ? "" : "/utf8"}>>`;
    }
  } else {
    const seen = bytes.length > room ? bytes.subarray(0, room) : bytes;
    if (seen.every(isPrintableLatin1)) return `<<${quoted(Buffer.from(seen).toString("latin1"), '"')}>>`;
  }
  return `<<${byteList(bytes, ",", room)}>>`;
}

function bitString(term: BitString, room: number): string {
  const last = term.bytes.length - 1;
  const bytes = byteList(term.bytes.subarray(0, last), ",", room);
  return `<<${bytes}${last > 0 ? "," : ""}${lastBits(term.bytes[last] as number, term.bits)}:${term.bits}>>`;
}

/** Erlang's notation. */
export const erlangNotation: Notation = {
  lay(term, options, room) {
    if (typeof term === "number" || typeof term === "bigint") return term.toString();
    if (term instanceof Atom) return erlangAtom(term.name);
    if (term instanceof Tuple) return { open: "{", close: "}", comma: ",", parts: term.elements };
    if (Array.isArray(term)) return list(term as readonly Term[], options, room);
    if (term instanceof Uint8Array) return binary(term, room);
    if (term instanceof ErlMap) {
      return { open: "#{", close: "}", comma: ",", arrow: " => ", parts: term.flat };
    }
    if (term instanceof ImproperList) {
      return { open: "[", close: "]", comma: ",", bar: "|", parts: [...term.elements, term.tail] };
    }
    if (term instanceof ErlFloat) return floatText(term.value);
    if (term instanceof Pid) return `<${nodeText(term.node.name, options)}.${term.id}.${term.serial}>`;
    if (term instanceof Reference) {
      return `#Ref<${[nodeText(term.node.name, options), ...[...term.numbers].reverse()].join(".")}>`;
    }
    if (term instanceof Port) return `#Port<${nodeText(term.node.name, options)}.${term.id}>`;
    if (term instanceof BitString) return bitString(term, room);
    if (term instanceof ExportFun) {
      return `fun ${erlangAtom(term.module.name)}:${erlangAtom(term.function.name)}/${term.arity}`;
    }
    if (term instanceof Fun) return `#Fun<${erlangAtom(term.module.name)}.${term.oldIndex}.${term.oldUniq}>`;
    if (term instanceof NativeRecord) {
      return {
        open: `#${erlangAtom(term.module.name)}:${erlangAtom(term.name.name)}{`,
        close: "}",
        comma: ",",
        parts: term.values,
        labels: term.fields.map((field) => `${erlangAtom(field.name)} = `),
      };
    }
    if (term instanceof LocalExt) return `#LocalTerm<${term.bytes.length} bytes>`;
    return `#NotATerm<${typeof term}>`;
  },
};
