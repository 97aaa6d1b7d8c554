/** Short functions that make terms: `tuple(atom("ok"), binary("text"))`. */
import { Atom } from "./atom";
import { ErlFloat } from "./float";
import { ErlMap } from "./erl-map";
import { ImproperList } from "./improper-list";
import type { Term } from "./term";
import { Tuple } from "./tuple";

/** The atom of this name. An Elixir module `Foo` is `atom("Elixir.Foo")`. */
export function atom(name: string): Atom {
  return Atom.of(name);
}

/** `{a, b, …}`. */
export function tuple(...elements: readonly Term[]): Tuple {
  return new Tuple(elements);
}

/** A float; `float(1)` is `1.0`. */
export function float(value: number): ErlFloat {
  return new ErlFloat(value);
}

const utf8 = new TextEncoder();

/** A binary: text as UTF-8 (an Elixir string), bytes as they are (not copied). */
export function binary(content: string | Uint8Array): Uint8Array {
  return typeof content === "string" ? utf8.encode(content) : content;
}

/** A list of code points, which is what Erlang calls a string. */
export function charlist(text: string): readonly number[] {
  return Array.from(text, (character) => character.codePointAt(0) as number);
}

/** A map from pairs, from a `Map`, or from an object whose property names become atoms. */
export function map(entries: Iterable<readonly [Term, Term]> | Readonly<Record<string, Term>> = []): ErlMap {
  if (Symbol.iterator in entries) return ErlMap.of(entries as Iterable<readonly [Term, Term]>);
  return ErlMap.of(Object.entries(entries).map(([name, value]) => [Atom.of(name), value] as const));
}

/** `[a, b | tail]`; a list as tail gives a longer list. */
export function improper(elements: readonly Term[], tail: Term): ImproperList | readonly Term[] {
  if (Array.isArray(tail)) return [...elements, ...(tail as readonly Term[])];
  if (tail instanceof ImproperList) return new ImproperList([...elements, ...tail.elements], tail.tail);
  return new ImproperList(elements, tail);
}
