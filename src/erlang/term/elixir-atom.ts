/** Atoms as Elixir writes them: aliases without `Elixir.`, quotes where its syntax needs them. */

const OPERATORS = new Set(
  "+ - * / < > = ! & | ^ @ ++ -- ** <- <> <= <~ >= == =~ != && |> || ~> \\\\ +++ --- <<< <<~ <~> >>> === !== &&& ||| ~>>".split(
    " ",
  ),
);
/** Written without quotes, but no names of a function after a dot. */
const NOT_CALLABLE = new Set("% %{} {} <<>> ... .. . ..// ->".split(" "));
const ALIAS = /^Elixir(\.[A-Z][A-Za-z0-9_]*)*$/;
const PLAIN = /^[\p{XID_Start}_][\p{XID_Continue}@]*[?!]?$/u;
const CALLABLE = /^[\p{Ll}\p{Lo}\p{Lm}_][\p{XID_Continue}]*[?!]?$/u;

const ESCAPES: Readonly<Record<number, string>> = {
  0: "\\0",
  7: "\\a",
  8: "\\b",
  9: "\\t",
  10: "\\n",
  11: "\\v",
  12: "\\f",
  13: "\\r",
  27: "\\e",
  92: "\\\\",
  127: "\\d",
};

/** Whether a name is an identifier, or one starting with a capital: what follows a colon without quotes. */
function isPlain(name: string): boolean {
  return PLAIN.test(name) && !/^\p{Lt}/u.test(name) && name.normalize("NFKC") === name;
}

/** An atom by itself: `:ok`, `nil`, `Enum`, `:"two words"`. */
export function elixirAtom(name: string): string {
  if (name === "nil" || name === "true" || name === "false") return name;
  if (ALIAS.test(name)) {
    // `Elixir` and what would read back as another alias keep the prefix.
    return name === "Elixir" || /^Elixir\.Elixir(\.|$)/.test(name) ? name : name.slice("Elixir.".length);
  }
  if (isPlain(name) || OPERATORS.has(name) || NOT_CALLABLE.has(name)) return `:${name}`;
  return `:"${elixirEscape(name, '"')}"`;
}

/** An atom as key of a keyword list, with colon and space: `ok: `. */
export function elixirKey(name: string): string {
  if (!ALIAS.test(name) && (isPlain(name) || OPERATORS.has(name) || NOT_CALLABLE.has(name)))
    return `${name}: `;
  return `"${elixirEscape(name, '"')}": `;
}

/** An atom as name of a function after a dot. */
export function elixirCall(name: string): string {
  if (OPERATORS.has(name) || (isPlain(name) && CALLABLE.test(name))) return name;
  return `"${elixirEscape(name, '"')}"`;
}

/** The inside of a quoted text. */
export function elixirEscape(text: string, quote: string): string {
  let result = "";
  for (let i = 0; i < text.length;) {
    const code = text.codePointAt(i) as number;
    const character = String.fromCodePoint(code);
    i += character.length;
    if (character === quote) result += `\\${quote}`;
    else if (character === "#" && text[i] === "{") result += "\\#";
    else if (code in ESCAPES) result += ESCAPES[code];
    else if (isWritten(code)) result += character;
    else if (code < 0x100) result += `\\x${hex(code, 2)}`;
    else result += code < 0x10000 ? `\\x{${hex(code, 4)}}` : `\\x{${hex(code, 6)}}`;
  }
  return result;
}

function isWritten(code: number): boolean {
  return (
    (code >= 0x20 && code <= 0x7e) ||
    (code >= 0xa0 && code <= 0xd7ff) ||
    (code >= 0xe000 && code <= 0xfffd) ||
    code >= 0x10000
  );
}

function hex(code: number, digits: number): string {
  return code.toString(16).toUpperCase().padStart(digits, "0");
}
