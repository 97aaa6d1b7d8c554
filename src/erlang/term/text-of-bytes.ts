/** Guessing whether bytes or numbers are text, as the shells of Erlang and Elixir do. */
import type { Term } from "./term";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The text of bytes that are UTF-8, otherwise undefined. Of more than `room` bytes only as many are looked at; a character
 * that this cuts in two is left out.
 */
export function utf8Text(bytes: Uint8Array, room: number): string | undefined {
  let end = bytes.length;
  if (end > room) {
    end = room;
    for (let i = 0; i < 3 && end > 0 && ((bytes[end] as number) & 0xc0) === 0x80; i++) end--;
  }
  try {
    // A copy, because a decoder refuses shared memory.
    return utf8.decode(bytes.slice(0, end));
  } catch {
    return undefined;
  }
}

/** The characters of a list of code points that all pass `printable`, otherwise undefined. */
export function listText(
  list: readonly Term[],
  printable: (code: number) => boolean,
  room: number,
): string | undefined {
  let text = "";
  for (let i = 0; i < list.length && i < room; i++) {
    const code = list[i];
    if (typeof code !== "number" || !printable(code)) return undefined;
    text += String.fromCodePoint(code);
  }
  return text;
}

/** Whether all characters pass. */
export function everyCharacter(text: string, printable: (code: number) => boolean): boolean {
  for (const character of text) if (!printable(character.codePointAt(0) as number)) return false;
  return true;
}

/** Characters that both languages hold to be printable, apart from escapes. */
export function isGraphic(code: number): boolean {
  return (
    (code >= 0x20 && code <= 0x7e) ||
    (code >= 0xa0 && code < 0xd800) ||
    (code > 0xdfff && code < 0xfffe) ||
    (code > 0xffff && code <= 0x10ffff)
  );
}
