/** Terms as `io_lib:format("~0tp")` prints those that occur in match specifications; so that tests can say what they expect in Erlang. */
import { Atom, ErlFloat, ErlMap, ImproperList, Tuple, type Term } from "../../../src/erlang";

const atomText = (name: string): string =>
  /^[a-z][a-zA-Z0-9_@]*$/.test(name) &&
  ![
    "and",
    "or",
    "andalso",
    "orelse",
    "not",
    "xor",
    "div",
    "rem",
    "band",
    "bor",
    "bxor",
    "bnot",
    "bsl",
    "bsr",
  ].includes(name) &&
  !["receive", "case", "if", "fun", "end", "when", "of", "begin", "catch", "try", "after"].includes(name)
    ? name
    : `'${name}'`;

export function show(term: Term): string {
  if (typeof term === "number" || typeof term === "bigint") return String(term);
  if (term instanceof Atom) return atomText(term.name);
  if (term instanceof Uint8Array) return `<<"${Buffer.from(term).toString("utf8")}">>`;
  if (term instanceof ErlFloat)
    return Number.isInteger(term.value) ? term.value.toFixed(1) : String(term.value);
  if (term instanceof Tuple) return `{${term.elements.map(show).join(",")}}`;
  if (term instanceof ImproperList) return `[${term.elements.map(show).join(",")}|${show(term.tail)}]`;
  if (term instanceof ErlMap)
    return `#{${[...term].map(([k, value]) => `${show(k)} => ${show(value)}`).join(",")}}`;
  if (Array.isArray(term)) return `[${(term as readonly Term[]).map(show).join(",")}]`;
  return `#${(term as { kind: string }).kind}`;
}
