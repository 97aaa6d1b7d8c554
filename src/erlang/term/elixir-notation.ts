/** Terms as Elixir's `inspect/1` writes them. Structs are written with all their fields: a struct's own `Inspect` lives in its node. */
import { Atom } from "./atom";
import { BitString } from "./bit-string";
import { elixirAtom, elixirCall, elixirEscape, elixirKey } from "./elixir-atom";
import { ErlMap } from "./erl-map";
import { ExportFun } from "./export-fun";
import { ErlFloat } from "./float";
import { elixirFloatText } from "./float-text";
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

/** Control characters that strings may contain. */
const STRING_CONTROLS = new Set([7, 8, 9, 10, 11, 12, 13, 27, 127]);

const isPrintable = (code: number): boolean => isGraphic(code) || STRING_CONTROLS.has(code);
const isPrintableAscii = (code: number): boolean =>
  (code >= 0x20 && code <= 0x7e) || (code !== 127 && STRING_CONTROLS.has(code));

/** Keys of a keyword list or of a map that is written like one; aliases are not written so. */
function isKeyword(term: Term | undefined): term is Atom {
  return term instanceof Atom && !term.name.startsWith("Elixir.");
}

function list(term: readonly Term[], options: LayOptions, room: number): string | Layout {
  if (term.length === 0) return "[]";
  if (options.charlists && typeof term[0] === "number") {
    const text = listText(term, isPrintableAscii, room);
    if (text !== undefined) return `~c"${elixirEscape(text, '"')}"`;
  }
  const labels: string[] = [];
  const values: Term[] = [];
  for (const pair of term) {
    const key = pair instanceof Tuple && pair.length === 2 ? pair.elements[0] : undefined;
    if (!isKeyword(key)) return { open: "[", close: "]", comma: ", ", parts: term };
    labels.push(elixirKey(key.name));
    values.push((pair as Tuple).elements[1] as Term);
  }
  return { open: "[", close: "]", comma: ", ", parts: values, labels };
}

const STRUCT = Atom.of("__struct__");
const EXCEPTION = Atom.of("__exception__");

function map(term: ErlMap): string | Layout {
  const { flat } = term;
  const labels: string[] = [];
  const values: Term[] = [];
  let struct: Atom | undefined;
  let exception = false;
  for (let i = 0; i < flat.length; i += 2) {
    const key = flat[i];
    const value = flat[i + 1] as Term;
    if (!isKeyword(key)) return { open: "%{", close: "}", comma: ", ", arrow: " => ", parts: flat };
    if (key === STRUCT && value instanceof Atom) struct = value;
    else {
      exception ||= key === EXCEPTION;
      labels.push(elixirKey(key.name));
      values.push(value);
    }
  }
  if (struct !== undefined && exception) {
    const at = labels.indexOf(elixirKey(EXCEPTION.name));
    labels.splice(at, 1);
    values.splice(at, 1);
  }
  const name = struct === undefined ? "" : elixirAtom(struct.name);
  return { open: `%${name}{`, close: "}", comma: ", ", parts: values, labels };
}

function binary(bytes: Uint8Array, room: number): string {
  if (bytes.length === 0) return '""';
  const text = utf8Text(bytes, room);
  if (text !== undefined && everyCharacter(text, isPrintable)) return `"${elixirEscape(text, '"')}"`;
  return `<<${byteList(bytes, ", ", room)}>>`;
}

function bitString(term: BitString, room: number): string {
  const last = term.bytes.length - 1;
  const bytes = byteList(term.bytes.subarray(0, last), ", ", room);
  const rest = lastBits(term.bytes[last] as number, term.bits);
  return `<<${bytes}${last > 0 ? ", " : ""}${rest}::size(${term.bits})>>`;
}

/** Elixir's notation. */
export const elixirNotation: Notation = {
  lay(term, options, room) {
    if (typeof term === "number" || typeof term === "bigint") return term.toString();
    if (term instanceof Atom) return elixirAtom(term.name);
    if (term instanceof Tuple) return { open: "{", close: "}", comma: ", ", parts: term.elements };
    if (Array.isArray(term)) return list(term as readonly Term[], options, room);
    if (term instanceof Uint8Array) return binary(term, room);
    if (term instanceof ErlMap) return map(term);
    if (term instanceof ImproperList) {
      return { open: "[", close: "]", comma: ", ", bar: " | ", parts: [...term.elements, term.tail] };
    }
    if (term instanceof ErlFloat) return elixirFloatText(term.value);
    if (term instanceof Pid) return `#PID<${nodeText(term.node.name, options)}.${term.id}.${term.serial}>`;
    if (term instanceof Reference) {
      return `#Reference<${[nodeText(term.node.name, options), ...[...term.numbers].reverse()].join(".")}>`;
    }
    if (term instanceof Port) return `#Port<${nodeText(term.node.name, options)}.${term.id}>`;
    if (term instanceof BitString) return bitString(term, room);
    if (term instanceof ExportFun) {
      return `&${elixirAtom(term.module.name)}.${elixirCall(term.function.name)}/${term.arity}`;
    }
    if (term instanceof Fun) {
      return `#Function<${term.index}.${term.oldUniq}/${term.arity} in ${elixirAtom(term.module.name)}>`;
    }
    if (term instanceof NativeRecord) {
      return {
        open: `#${elixirAtom(term.module.name)}.${term.name.name}{`,
        close: "}",
        comma: ", ",
        parts: term.values,
        labels: term.fields.map((field) => elixirKey(field.name)),
      };
    }
    if (term instanceof LocalExt) return `#LocalTerm<${term.bytes.length} bytes>`;
    return `#NotATerm<${typeof term}>`;
  },
};
