/** Literals of Elixir that its parser leaves as forms: binaries, sigils, concatenations, signs. */
import { type Atom, atom, binary, charlist, ErlFloat, float, type Term } from "../../erlang/term";
import { type Ast } from "./elixir-ast";
import { MatchSpecError, type TextPosition } from "./error";
import { charsToString } from "./evaluate";

type CallAst = Extract<Ast, { kind: "call" }>;

const INTERPOLATION =
  "text with an interpolation, or a binary with segments, can't be part of a match specification";

/** The literal that a form stands for, or undefined when it is none. */
export function literalForm(ast: CallAst): Term | undefined {
  const { name, args, at } = ast;
  if (name === "<<>>") return concatenated(args, at);
  if (name === "<>" && args.length === 2) {
    const parts = args.map((arg) => literalOf(arg));
    return parts.every((p) => p instanceof Uint8Array) ? join(parts) : undefined;
  }
  if (name.startsWith("sigil_")) return sigil(ast);
  const [first] = args;
  if ((name === "-" || name === "+") && args.length === 1 && first?.kind === "literal")
    return signed(name, first.term);
  return undefined;
}

function literalOf(ast: Ast): Term | undefined {
  return ast.kind === "literal" ? ast.term : ast.kind === "call" ? literalForm(ast) : undefined;
}

function signed(sign: "+" | "-", term: Term): Term | undefined {
  if (typeof term === "number") return sign === "-" ? (term === 0 ? 0 : -term) : term;
  if (typeof term === "bigint") return sign === "-" ? -term : term;
  if (term instanceof ErlFloat) return sign === "-" ? float(-term.value) : term;
  return undefined;
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

function concatenated(args: readonly Ast[], position: TextPosition | undefined): Uint8Array {
  const parts = args.map((arg) => {
    const term = arg.kind === "literal" ? arg.term : undefined;
    if (term instanceof Uint8Array) return term;
    if (typeof term === "number" && Number.isInteger(term)) return new Uint8Array([term & 0xff]);
    throw new MatchSpecError(INTERPOLATION, { position });
  });
  return join(parts);
}

/** `{:sigil_x, _, [{:<<>>, _, [content]}, modifiers]}` */
function sigil({ name, args, at }: CallAst): Term {
  const position = at;
  const letter = name.slice("sigil_".length);
  const [body, modifiers] = args;
  const content = body?.kind === "call" && body.name === "<<>>" ? concatenated(body.args, at) : undefined;
  const text = content === undefined ? undefined : charsToString(content);
  const options =
    modifiers?.kind === "list" ? modifiers.items.map((m) => (m.kind === "literal" ? m.term : undefined)) : [];
  if (text === undefined || !["c", "s", "w"].includes(letter.toLowerCase()))
    throw new MatchSpecError(`the sigil ~${letter} can't be part of a match specification`, { position });
  // Lower-case sigils unescape when they are expanded, which does not happen here.
  if (letter === letter.toLowerCase() && text.includes("\\"))
    throw new MatchSpecError(
      `escapes in ~${letter} are not supported; use quotes, or ~${letter.toUpperCase()}`,
      {
        position,
      },
    );
  if (letter.toLowerCase() === "c") return charlist(text);
  if (letter.toLowerCase() === "s") return binary(text);
  const make: (word: string) => Atom | Uint8Array | readonly number[] =
    options[0] === "a".charCodeAt(0) ? atom : options[0] === "c".charCodeAt(0) ? charlist : binary;
  return text.split(/\s+/).filter(Boolean).map(make);
}
